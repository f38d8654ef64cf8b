import { isDeepStrictEqual } from 'node:util';
import type { Deployment, PodTemplateSpec, ReplicaSet } from '../../api/types.generated.ts';
import { resolveLimit } from '../common/limits.ts';
import { normalize } from '../common/template-hash.ts';

/** Facts about a Deployment and its ReplicaSets that every strategy needs. */
export const HASH_LABEL = 'pod-template-hash';
export const REVISION = 'deployment.kubernetes.io/revision';
export const REVISION_HISTORY = 'deployment.kubernetes.io/revision-history';
export const DESIRED_REPLICAS = 'deployment.kubernetes.io/desired-replicas';
export const MAX_REPLICAS = 'deployment.kubernetes.io/max-replicas';

const DEFAULT_LIMIT = '25%';

export const wanted = ({ spec }: Deployment): number => spec?.replicas ?? 1;
export const size = ({ spec }: ReplicaSet): number => spec?.replicas ?? 1;
export const availableOf = ({ status }: ReplicaSet): number => status?.availableReplicas ?? 0;

export function sumOf(sets: ReplicaSet[], of: (set: ReplicaSet) => number): number {
  return sets.reduce((sum, set) => sum + of(set), 0);
}

export function revisionOf(object: Deployment | ReplicaSet): number {
  return Number(object.metadata.annotations?.[REVISION] ?? 0) || 0;
}

export function byAge(a: ReplicaSet, b: ReplicaSet): number {
  const [first, second] = [a, b].map(({ metadata }) => metadata.creationTimestamp ?? '');
  if (first !== second) return (first ?? '') < (second ?? '') ? -1 : 1;
  return (a.metadata.name ?? '') < (b.metadata.name ?? '') ? -1 : 1;
}

const isRolling = ({ spec }: Deployment): boolean =>
  (spec?.strategy?.type ?? 'RollingUpdate') === 'RollingUpdate';

/**
 * How many pods above and below the wanted number an update may cause: surge is rounded up,
 * unavailability down, and where both come to nothing one pod may be missing, or no update
 * would ever proceed.
 */
export function limitsOf(deployment: Deployment): { surge: number; unavailable: number } {
  const total = wanted(deployment);
  if (!isRolling(deployment) || total === 0) return { surge: 0, unavailable: 0 };
  const update = deployment.spec?.strategy?.rollingUpdate;
  const surge = resolveLimit(update?.maxSurge ?? DEFAULT_LIMIT, total, Math.ceil);
  const unavailable = resolveLimit(update?.maxUnavailable ?? DEFAULT_LIMIT, total, Math.floor);
  if (surge === 0 && unavailable === 0) return { surge, unavailable: 1 };
  return { surge, unavailable: Math.min(unavailable, total) };
}

/** The size the new set may have now, given what its predecessors still hold. */
export function newSetSize(deployment: Deployment, all: ReplicaSet[], newSet: ReplicaSet): number {
  const total = wanted(deployment);
  if (!isRolling(deployment)) return total;
  const room = total + limitsOf(deployment).surge - sumOf(all, size);
  const own = size(newSet);
  return room <= 0 ? own : own + Math.min(room, total - own);
}

/** The oldest set whose template is the Deployment's. */
export function findNewSet(deployment: Deployment, sets: ReplicaSet[]): ReplicaSet | undefined {
  const template = withoutHash(deployment.spec?.template);
  return sets
    .toSorted(byAge)
    .find((set) => isDeepStrictEqual(withoutHash(set.spec?.template), template));
}

function withoutHash(template: PodTemplateSpec | undefined): unknown {
  const { [HASH_LABEL]: _hash, ...labels } = template?.metadata?.labels ?? {};
  const { labels: _labels, ...metadata } = template?.metadata ?? {};
  return normalize({ ...template, metadata: { ...metadata, labels } });
}
