import type { KubeObject } from '../../api/object.ts';
import { quantityValue } from '../../api/quantity.ts';
import { amountsOf } from '../../api/tenant-quota.ts';
import type { PersistentVolumeClaim, Pod } from '../../api/types.generated.ts';
import { nothing } from './amounts.ts';
import type { Amounts } from './amounts.ts';

/** A resource whose objects use something for as long as they are there. */
export interface Metered {
  resource: string;
  /** What an object uses at the moment. */
  ratesOf(object: KubeObject): Amounts;
  /** When it began to, as far as the object tells; for what was not seen as it happened. */
  startMs(object: KubeObject): number;
  /** What it used before it ended, and when that was. */
  ended(object: KubeObject): { rates: Amounts; endMs: number | undefined };
}

const timeMs = (text: string | undefined): number | undefined => {
  const ms = Date.parse(text ?? '');
  return Number.isNaN(ms) ? undefined : ms;
};

const latest = (...times: (number | undefined)[]): number | undefined => {
  const known = times.filter((time) => time !== undefined);
  return known.length > 0 ? Math.max(...known) : undefined;
};

const NAMES = ['requests.cpu', 'requests.memory'];
const NANOS_PER_MILLI = 1_000_000n;
const NANOS = 1_000_000_000n;

/** The same that the tenant's quota counts, the VM's overhead included. */
function boundRates(pod: Pod): Amounts {
  if (!pod.spec?.nodeName) return nothing();
  // Whether it is finished is asked elsewhere.
  const unfinished = { ...pod, status: undefined } as unknown as KubeObject;
  const requested = amountsOf('pods', unfinished, NAMES);
  return {
    ...nothing(),
    pods: 1n,
    cpu: roundUp(requested.get('requests.cpu') ?? 0n, NANOS_PER_MILLI),
    memory: roundUp(requested.get('requests.memory') ?? 0n, NANOS),
  };
}

const roundUp = (nanos: bigint, unit: bigint): bigint => (nanos + unit - 1n) / unit;

const isFinished = ({ status }: Pod) => status?.phase === 'Succeeded' || status?.phase === 'Failed';

/** From its binding on a node keeps its place for it, until it is finished or gone. */
const PODS: Metered = {
  resource: 'pods',
  ratesOf: (object) => (isFinished(object as Pod) ? nothing() : boundRates(object as Pod)),

  startMs(object) {
    const { metadata, status } = object as Pod;
    const bound = status?.conditions?.find(
      (each) => each.type === 'PodScheduled' && each.status === 'True',
    );
    return latest(timeMs(metadata.creationTimestamp), timeMs(bound?.lastTransitionTime)) ?? 0;
  },

  ended(object) {
    const { metadata, status } = object as Pod;
    const finished = (status?.containerStatuses ?? []).map(({ state }) =>
      timeMs(state?.terminated?.finishedAt),
    );
    const isWhole = finished.length > 0 && finished.every((time) => time !== undefined);
    // When it finished is not told: it may be long ago, and counted.
    if (isFinished(object as Pod) && !isWhole) return { rates: nothing(), endMs: undefined };
    const endMs = isWhole ? latest(...finished) : timeMs(metadata.deletionTimestamp);
    return { rates: boundRates(object as Pod), endMs };
  },
};

const claimRates = ({ spec, status }: PersistentVolumeClaim): Amounts => {
  if (status?.phase !== 'Bound') return nothing();
  const bytes = status.capacity?.storage ?? spec?.resources?.requests?.storage ?? 0;
  return { ...nothing(), storage: BigInt(quantityValue(bytes)) };
};

/** While a volume is bound to them: one that is waited for is not paid for. */
const CLAIMS: Metered = {
  resource: 'persistentvolumeclaims',
  ratesOf: (object) => claimRates(object as PersistentVolumeClaim),
  startMs: ({ metadata }) => timeMs(metadata.creationTimestamp) ?? 0,
  ended: (object) => ({
    rates: claimRates(object as PersistentVolumeClaim),
    endMs: timeMs(object.metadata.deletionTimestamp),
  }),
};

export const METERED: readonly Metered[] = [PODS, CLAIMS];
