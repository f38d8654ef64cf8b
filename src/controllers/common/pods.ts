import type { Pod, PodCondition, PodTemplateSpec } from '../../api/types.generated.ts';
import { SUSPENDED_ANNOTATION } from '../../api/tenancy.ts';
import type { KubeObject } from '../../api/object.ts';
import type { Resource } from '../../client/resources.ts';
import { controllerReference } from './ownership.ts';

export const isTerminal = (pod: Pod): boolean =>
  pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';

/** It waits until its tenant may go on. */
export const isSuspended = ({ metadata }: Pod): boolean =>
  metadata.annotations?.[SUSPENDED_ANNOTATION] !== undefined;

/** Counts towards a controller's replicas: not ended and not being deleted. */
export const isActive = (pod: Pod): boolean => !isTerminal(pod) && !pod.metadata.deletionTimestamp;

export function podCondition(pod: Pod, type: string): PodCondition | undefined {
  return pod.status?.conditions?.find((condition) => condition.type === type);
}

export const isReady = (pod: Pod): boolean => podCondition(pod, 'Ready')?.status === 'True';

/** Ready for `minReadySeconds`; how long it still takes, 0 when it is, undefined when not ready. */
export function untilAvailableMs(
  pod: Pod,
  minReadySeconds: number,
  nowMs: number,
): number | undefined {
  const ready = podCondition(pod, 'Ready');
  if (ready?.status !== 'True') return undefined;
  if (minReadySeconds <= 0) return 0;
  const sinceMs = Date.parse(ready.lastTransitionTime ?? '');
  if (Number.isNaN(sinceMs)) return undefined;
  return Math.max(0, sinceMs + minReadySeconds * 1000 - nowMs);
}

/** A pod as a controller makes it from its template. The server gives it a name. */
export function podFromTemplate(
  template: PodTemplateSpec | undefined,
  owner: KubeObject,
  ownerResource: Resource,
): Pod {
  const { labels, annotations, finalizers } = template?.metadata ?? {};
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      generateName: `${owner.metadata.name}-`,
      namespace: owner.metadata.namespace,
      ...(labels ? { labels } : {}),
      ...(annotations ? { annotations } : {}),
      ...(finalizers ? { finalizers } : {}),
      ownerReferences: [controllerReference(ownerResource, owner)],
    },
    spec: template?.spec,
  };
}

const DELETION_COST = 'controller.kubernetes.io/pod-deletion-cost';
const PHASE_RANK: Record<string, number> = { Pending: 0, Unknown: 1, Running: 2 };

/**
 * Which pods of too many go first: those that are missed least (Kubernetes'
 * ActivePodsWithRanks): not placed, pending, not ready, cheap, crowded on their node, ready for a
 * short time, often restarted, young.
 *
 * @param crowd how many related pods run on the node of a pod
 */
export function rankForDeletion(pods: Pod[], crowd: (pod: Pod) => number, nowMs: number): Pod[] {
  const criteria: ((pod: Pod) => number)[] = [
    (pod) => (pod.spec?.nodeName ? 1 : 0),
    (pod) => PHASE_RANK[pod.status?.phase ?? 'Pending'] ?? 1,
    (pod) => (isReady(pod) ? 1 : 0),
    deletionCost,
    (pod) => -crowd(pod),
    (pod) => ageRank(podCondition(pod, 'Ready')?.lastTransitionTime, nowMs),
    (pod) => -restartCount(pod),
    (pod) => ageRank(pod.metadata.creationTimestamp, nowMs),
  ];
  const ranked = pods.map((pod) => ({ pod, ranks: criteria.map((criterion) => criterion(pod)) }));
  ranked.sort((a, b) => {
    for (let index = 0; index < criteria.length; index++) {
      const difference = (a.ranks[index] ?? 0) - (b.ranks[index] ?? 0);
      if (difference !== 0) return difference;
    }
    return (a.pod.metadata.uid ?? '') < (b.pod.metadata.uid ?? '') ? -1 : 1;
  });
  return ranked.map(({ pod }) => pod);
}

/** Kubernetes takes 32-bit integers and no others. */
function deletionCost({ metadata }: Pod): number {
  const text = metadata.annotations?.[DELETION_COST] ?? '';
  return /^-?(0|[1-9]\d{0,9})$/.test(text) ? Number(text) : 0;
}

/** Ages are compared by magnitude, so that victims are spread over pods of about the same age. */
function ageRank(time: string | undefined, nowMs: number): number {
  const ageMs = time ? nowMs - Date.parse(time) : 0;
  return ageMs > 0 ? Math.floor(Math.log10(ageMs)) : 0;
}

function restartCount(pod: Pod): number {
  const counts = (pod.status?.containerStatuses ?? []).map(({ restartCount }) => restartCount);
  return Math.max(0, ...counts);
}
