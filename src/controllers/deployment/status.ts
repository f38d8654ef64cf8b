import type {
  Deployment,
  DeploymentCondition,
  DeploymentStatus,
  ReplicaSet,
} from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { availableOf, limitsOf, size, sumOf, wanted } from './replicasets.ts';

/** The value by which the API says that there is no deadline. */
const NO_DEADLINE_SECONDS = 2 ** 31 - 1;

export function conditionOf(
  status: DeploymentStatus | undefined,
  type: string,
): DeploymentCondition | undefined {
  return status?.conditions?.find((condition) => condition.type === type);
}

/** Adds or replaces; the transition time moves only when the status does. */
export function withCondition(
  conditions: DeploymentCondition[] | undefined,
  condition: { type: string; status: string; reason: string; message: string },
  nowMs: number,
): DeploymentCondition[] {
  const known = conditions?.find(({ type }) => type === condition.type);
  if (known?.status === condition.status && known.reason === condition.reason) {
    return conditions ?? [];
  }
  const now = rfc3339(nowMs);
  const lastTransitionTime = known?.status === condition.status ? known.lastTransitionTime : now;
  const others = (conditions ?? []).filter(({ type }) => type !== condition.type);
  return [...others, { ...condition, lastUpdateTime: now, lastTransitionTime }];
}

export function without(
  conditions: DeploymentCondition[] | undefined,
  type: string,
): DeploymentCondition[] {
  return (conditions ?? []).filter((condition) => condition.type !== type);
}

export function countReplicas(
  deployment: Deployment,
  newSet: ReplicaSet | undefined,
  all: ReplicaSet[],
  nowMs: number,
): DeploymentStatus {
  const available = sumOf(all, availableOf);
  const terminating = sumOf(all, ({ status }) => status?.terminatingReplicas ?? 0);
  const isAvailable = available >= wanted(deployment) - limitsOf(deployment).unavailable;
  const conditions = withCondition(
    deployment.status?.conditions,
    {
      type: 'Available',
      status: isAvailable ? 'True' : 'False',
      reason: isAvailable ? 'MinimumReplicasAvailable' : 'MinimumReplicasUnavailable',
      message: isAvailable
        ? 'Deployment has minimum availability.'
        : 'Deployment does not have minimum availability.',
    },
    nowMs,
  );
  const { collisionCount } = deployment.status ?? {};
  return {
    observedGeneration: deployment.metadata.generation,
    replicas: sumOf(all, ({ status }) => status?.replicas ?? 0),
    updatedReplicas: newSet?.status?.replicas ?? 0,
    readyReplicas: sumOf(all, ({ status }) => status?.readyReplicas ?? 0),
    availableReplicas: available,
    unavailableReplicas: Math.max(0, sumOf(all, size) - available),
    terminatingReplicas: terminating,
    ...(collisionCount ? { collisionCount } : {}),
    conditions,
  };
}

export function isComplete(deployment: Deployment, status: DeploymentStatus): boolean {
  const total = wanted(deployment);
  return (
    status.updatedReplicas === total &&
    status.replicas === total &&
    status.availableReplicas === total &&
    (status.observedGeneration ?? 0) >= (deployment.metadata.generation ?? 0)
  );
}

export function hasDeadline({ spec }: Deployment): boolean {
  const seconds = spec?.progressDeadlineSeconds;
  return seconds !== undefined && seconds < NO_DEADLINE_SECONDS;
}

function isProgressing(before: DeploymentStatus, after: DeploymentStatus): boolean {
  const old = (status: DeploymentStatus) => (status.replicas ?? 0) - (status.updatedReplicas ?? 0);
  const grew = (field: 'updatedReplicas' | 'readyReplicas' | 'availableReplicas') =>
    (after[field] ?? 0) > (before[field] ?? 0);
  return (
    grew('updatedReplicas') ||
    old(after) < old(before) ||
    grew('readyReplicas') ||
    grew('availableReplicas')
  );
}

/** Milliseconds until the progress deadline, 0 when it has passed, undefined without one. */
export function untilDeadlineMs(
  deployment: Deployment,
  status: DeploymentStatus,
  nowMs: number,
): number | undefined {
  const condition = conditionOf(status, 'Progressing');
  if (!condition || !hasDeadline(deployment)) return undefined;
  if (condition.reason === 'NewReplicaSetAvailable') return undefined;
  if (condition.reason === 'ProgressDeadlineExceeded') return undefined;
  const sinceMs = Date.parse(condition.lastUpdateTime ?? '');
  const deadlineMs = (deployment.spec?.progressDeadlineSeconds ?? 0) * 1000;
  return Math.max(0, sinceMs + deadlineMs - nowMs);
}

/** Judges how the update goes and writes it into the condition `Progressing`. */
export function withProgress(
  deployment: Deployment,
  newSet: ReplicaSet | undefined,
  status: DeploymentStatus,
  nowMs: number,
): DeploymentStatus {
  if (!hasDeadline(deployment)) {
    return { ...status, conditions: without(status.conditions, 'Progressing') };
  }
  const current = conditionOf(deployment.status, 'Progressing');
  const isSettled =
    status.replicas === status.updatedReplicas && current?.reason === 'NewReplicaSetAvailable';
  if (isSettled) return status;
  const subject = newSet
    ? `ReplicaSet "${newSet.metadata.name}"`
    : `Deployment "${deployment.metadata.name}"`;
  const set = (value: string, reason: string, message: string): DeploymentStatus => {
    const condition = { type: 'Progressing', status: value, reason, message };
    return { ...status, conditions: withCondition(status.conditions, condition, nowMs) };
  };
  if (isComplete(deployment, status)) {
    return set('True', 'NewReplicaSetAvailable', `${subject} has successfully progressed.`);
  }
  if (isProgressing(deployment.status ?? {}, status)) {
    // Each step of progress starts the deadline anew, so the condition is written again.
    const fresh = { ...status, conditions: without(status.conditions, 'Progressing') };
    const condition = {
      type: 'Progressing',
      status: 'True',
      reason: 'ReplicaSetUpdated',
      message: `${subject} is progressing.`,
    };
    const conditions = withCondition(fresh.conditions, condition, nowMs);
    const written = conditions.at(-1);
    if (written && current?.status === 'True') {
      written.lastTransitionTime = current.lastTransitionTime;
    }
    return { ...fresh, conditions };
  }
  if (untilDeadlineMs(deployment, status, nowMs) === 0) {
    return set('False', 'ProgressDeadlineExceeded', `${subject} has timed out progressing.`);
  }
  return status;
}

/** Carries a ReplicaSet's failure to create pods up to its Deployment. */
export function withFailure(
  newSet: ReplicaSet | undefined,
  oldSets: ReplicaSet[],
  status: DeploymentStatus,
): DeploymentStatus {
  const failureOf = (set: ReplicaSet | undefined) =>
    set?.status?.conditions?.find(({ type }) => type === 'ReplicaFailure');
  const failure = failureOf(newSet) ?? oldSets.map(failureOf).find((found) => found);
  const others = without(status.conditions, 'ReplicaFailure');
  if (!failure) return { ...status, conditions: others };
  const known = conditionOf(status, 'ReplicaFailure');
  const isKnown = known?.status === failure.status && known.reason === failure.reason;
  const condition = {
    ...failure,
    lastUpdateTime: failure.lastTransitionTime,
  };
  return { ...status, conditions: [...others, isKnown ? known : condition] };
}
