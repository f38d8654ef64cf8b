import type { KubeObject } from '../../../api/object.ts';
import { quantityMillis } from '../../../api/quantity.ts';
import type { Strategy } from '../strategy.ts';
import { resizeCauses } from './pod-resize.ts';

interface Resources {
  requests?: Record<string, string>;
  limits?: Record<string, string>;
}

interface Container {
  resources?: Resources;
}

export interface PodSpec {
  nodeName?: string;
  terminationGracePeriodSeconds?: number;
  schedulingGates?: { name: string }[];
  containers?: Container[];
  initContainers?: Container[];
}

const DEFAULT_GRACE_SECONDS = 30;
const FINISHED_PHASES = new Set(['Succeeded', 'Failed']);

export const podStrategy: Strategy = {
  hasGeneration: true,
  statusWritesMetadata: true,
  returnsDeletedObject: true,
  subresourceRules: { binding: () => [], resize: resizeCauses },
  prepareCreate(pod) {
    const gates = podSpec(pod).schedulingGates ?? [];
    const status: Record<string, unknown> = { phase: 'Pending', qosClass: qosClass(podSpec(pod)) };
    if (gates.length > 0) {
      status.conditions = [
        {
          type: 'PodScheduled',
          status: 'False',
          reason: 'SchedulingGated',
          message: 'Scheduling is blocked due to non-empty scheduling gates',
        },
      ];
    }
    pod.status = status;
  },
  graceSeconds(pod, requested) {
    const spec = podSpec(pod);
    const { phase } = (pod.status ?? {}) as { phase?: string };
    // Nothing runs yet, or no more: nobody would ever end it.
    if (!spec.nodeName || FINISHED_PHASES.has(phase ?? '')) return 0;
    const seconds = requested ?? spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS;
    return seconds < 0 ? 1 : seconds;
  },
};

export function podSpec(pod: KubeObject): PodSpec {
  return (pod.spec ?? {}) as PodSpec;
}

const QOS_RESOURCES = ['cpu', 'memory'];

/** Guaranteed: everything limited to what it requests. BestEffort: nothing said at all. */
export function qosClass(spec: PodSpec): string {
  const containers = [...(spec.containers ?? []), ...(spec.initContainers ?? [])];
  const said = containers.map(({ resources }) => resources ?? {});
  const isZero = (text: string | undefined) => text === undefined || quantityMillis(text) === 0;
  const isSilent = ({ requests, limits }: Resources) =>
    QOS_RESOURCES.every((name) => isZero(requests?.[name]) && isZero(limits?.[name]));
  if (said.every(isSilent)) return 'BestEffort';
  const isExact = ({ requests, limits }: Resources) =>
    QOS_RESOURCES.every((name) => {
      const limit = limits?.[name];
      if (limit === undefined || isZero(limit)) return false;
      const request = requests?.[name] ?? limit;
      return quantityMillis(request) === quantityMillis(limit);
    });
  return said.every(isExact) ? 'Guaranteed' : 'Burstable';
}
