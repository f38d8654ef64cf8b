import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../../api/object.ts';
import type { StatusCause } from '../../../api/status.ts';
import { quantityMillis } from '../../../api/quantity.ts';
import type { Strategy } from '../strategy.ts';

interface Resources {
  requests?: Record<string, string>;
  limits?: Record<string, string>;
}

interface Container {
  name: string;
  image?: string;
  resources?: Resources;
}

export interface PodSpec {
  nodeName?: string;
  terminationGracePeriodSeconds?: number;
  activeDeadlineSeconds?: number;
  schedulingGates?: { name: string }[];
  containers?: Container[];
  initContainers?: Container[];
  tolerations?: unknown[];
  resources?: Resources;
}

const DEFAULT_GRACE_SECONDS = 30;
const FINISHED_PHASES = new Set(['Succeeded', 'Failed']);

export const podStrategy: Strategy = {
  hasGeneration: true,
  statusWritesMetadata: true,
  returnsDeletedObject: true,
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
  validateUpdate(pod, old, { subresource }) {
    return subresource === '' ? specCauses(podSpec(pod), podSpec(old)) : [];
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

const SPEC_MESSAGE =
  'Forbidden: pod updates may not change fields other than `spec.containers[*].image`,' +
  '`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` ' +
  '(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` ' +
  '(allow it to be set to 1 if it was previously negative)';

/** A pod that exists keeps its spec, but for the few things that can change under it. */
function specCauses(spec: PodSpec, old: PodSpec): StatusCause[] {
  const causes: StatusCause[] = [];
  const refuse = (message: string) =>
    void causes.push({ reason: 'FieldValueForbidden', field: 'spec', message });
  if (!isDeepStrictEqual(comparable(spec, old), comparable(old, old))) refuse(SPEC_MESSAGE);
  const kept = old.tolerations ?? [];
  const tolerations = spec.tolerations ?? [];
  const isKept = (one: unknown) => tolerations.some((other) => isDeepStrictEqual(one, other));
  if (!kept.every(isKept)) {
    const message = 'Forbidden: existing toleration can not be modified except its tolerationSeconds';
    causes.push({ reason: 'FieldValueForbidden', field: 'spec.tolerations', message });
  }
  return causes;
}

/** The spec with everything made equal to the old one that may differ from it. */
function comparable(spec: PodSpec, old: PodSpec): PodSpec {
  const images = (containers: Container[] | undefined, before: Container[] | undefined) =>
    containers?.map((container, index) => ({ ...container, image: before?.[index]?.image }));
  const gates = spec.schedulingGates ?? [];
  const removedOnly = gates.every((gate) =>
    old.schedulingGates?.some(({ name }) => name === gate.name),
  );
  const isGated = (old.schedulingGates ?? []).length > 0;
  const out = {
    ...spec,
    containers: images(spec.containers, old.containers),
    initContainers: images(spec.initContainers, old.initContainers),
    tolerations: old.tolerations,
    activeDeadlineSeconds: old.activeDeadlineSeconds,
    schedulingGates: removedOnly ? undefined : gates,
  } as PodSpec & Record<string, unknown>;
  if ((old.terminationGracePeriodSeconds ?? 0) < 0 && spec.terminationGracePeriodSeconds === 1) {
    out.terminationGracePeriodSeconds = old.terminationGracePeriodSeconds;
  }
  if (isGated) {
    // Until its gates are gone, where a pod may run can still be narrowed down.
    delete out.nodeSelector;
    delete out.affinity;
  }
  for (const key of Object.keys(out)) if (out[key] === undefined) delete out[key];
  return out;
}
