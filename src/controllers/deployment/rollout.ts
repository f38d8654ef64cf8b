import { isDeepStrictEqual } from 'node:util';
import type { Deployment, DeploymentStatus, ReplicaSet } from '../../api/types.generated.ts';
import { isStatus } from '../../api/status.ts';
import { DEPLOYMENTS, PODS, REPLICA_SETS } from '../../client/resources.ts';
import type { ControllerContext } from '../common/context.ts';
import { owned } from '../common/ownership.ts';
import { isTerminal } from '../common/pods.ts';
import { isSameStatus, withoutZeros } from '../common/status.ts';
import {
  byAge,
  DESIRED_REPLICAS,
  findNewSet,
  limitsOf,
  MAX_REPLICAS,
  newSetSize,
  revisionOf,
  size,
  sumOf,
  wanted,
} from './replicasets.ts';
import { annotationsFor, createNewSet, updateNewSet } from './revision.ts';
import { isScaled, planOldSets, planScaling } from './scaling.ts';
import type { ScalePlan } from './scaling.ts';
import {
  conditionOf,
  countReplicas,
  hasDeadline,
  isComplete,
  untilDeadlineMs,
  withCondition,
  withFailure,
  withProgress,
} from './status.ts';

/** One Deployment while it is reconciled. */
interface Rollout {
  context: ControllerContext;
  deployment: Deployment;
  newSet: ReplicaSet | undefined;
  oldSets: ReplicaSet[];
}

const DEFAULT_HISTORY_LIMIT = 10;

/**
 * Takes one step. Everything is decided anew from what is there; a step that changed a
 * ReplicaSet ends, and the set's own change brings the Deployment back.
 *
 * @returns after how long to look again, for the progress deadline
 */
export async function syncDeployment(
  context: ControllerContext,
  seen: Deployment,
  sets: ReplicaSet[],
): Promise<number | undefined> {
  const newSet = findNewSet(seen, sets);
  const oldSets = sets.filter((set) => set !== newSet).sort(byAge);
  const rollout: Rollout = { context, deployment: seen, newSet, oldSets };
  if (seen.metadata.deletionTimestamp) return writeStatus(rollout, countOnly(rollout));
  rollout.deployment = await writePauseCondition(context, seen);
  if (seen.spec?.paused || isScaled(seen, sets)) return syncScaling(rollout);
  if (seen.spec?.strategy?.type === 'Recreate') return syncRecreate(rollout);
  return syncRolling(rollout);
}

/** While it is paused, and when merely its size changed, no new set is made. */
async function syncScaling(rollout: Rollout): Promise<number | undefined> {
  const { deployment, oldSets } = rollout;
  if (rollout.newSet) rollout.newSet = await refreshNewSet(rollout, rollout.newSet);
  const plan = planScaling(deployment, rollout.newSet, oldSets);
  await applyPlan(rollout, plan);
  if (deployment.spec?.paused) await removeHistory(rollout);
  return writeStatus(rollout, countOnly(rollout));
}

async function syncRolling(rollout: Rollout): Promise<number | undefined> {
  const newSet = await ensureNewSet(rollout);
  if (!newSet) return undefined;
  const { deployment, oldSets } = rollout;
  const target = Math.min(newSetSize(deployment, [...oldSets, newSet], newSet), wanted(deployment));
  if (await applyPlan(rollout, [{ set: newSet, replicas: target }])) return writeProgress(rollout);
  if (await applyPlan(rollout, planOldSets(deployment, newSet, oldSets))) {
    return writeProgress(rollout);
  }
  await removeHistory(rollout);
  return writeProgress(rollout);
}

async function syncRecreate(rollout: Rollout): Promise<number | undefined> {
  const { deployment, oldSets } = rollout;
  if (rollout.newSet) rollout.newSet = await refreshNewSet(rollout, rollout.newSet);
  const down = oldSets.filter((set) => size(set) > 0).map((set) => ({ set, replicas: 0 }));
  if (await applyPlan(rollout, down)) return writeProgress(rollout);
  const pods = rollout.context.informers.informer(PODS);
  const isOldRunning = oldSets.some((set) =>
    owned(pods, set.metadata.uid).some((pod) => !isTerminal(pod)),
  );
  if (isOldRunning) return writeProgress(rollout);
  const newSet = rollout.newSet ?? (await ensureNewSet(rollout));
  if (!newSet) return undefined;
  await applyPlan(rollout, [{ set: newSet, replicas: wanted(deployment) }]);
  await removeHistory(rollout);
  return writeProgress(rollout);
}

function nextRevision({ oldSets }: Rollout): number {
  return Math.max(0, ...oldSets.map(revisionOf)) + 1;
}

/** @returns undefined when the step ends here: the status write brings the Deployment back */
async function ensureNewSet(rollout: Rollout): Promise<ReplicaSet | undefined> {
  const { context, deployment, oldSets } = rollout;
  if (rollout.newSet) {
    rollout.newSet = await refreshNewSet(rollout, rollout.newSet);
    return rollout.newSet;
  }
  const { surge } = limitsOf(deployment);
  const room = wanted(deployment) + surge - sumOf(oldSets, size);
  const isRecreate = deployment.spec?.strategy?.type === 'Recreate';
  const replicas = isRecreate
    ? wanted(deployment)
    : Math.max(0, Math.min(room, wanted(deployment)));
  const made = await createNewSet(context, deployment, nextRevision(rollout), replicas);
  if (!made) return undefined;
  rollout.newSet = made;
  await recordRevision(rollout, made, 'NewReplicaSetCreated', 'Created new replica set');
  return made;
}

async function refreshNewSet(rollout: Rollout, set: ReplicaSet): Promise<ReplicaSet> {
  const { context, deployment } = rollout;
  const updated = await updateNewSet(context, deployment, set, nextRevision(rollout));
  await recordRevision(rollout, updated, 'FoundNewReplicaSet', 'Found new replica set');
  return updated;
}

/** Writes the revision on the Deployment, and that a set for it was found or made. */
async function recordRevision(
  rollout: Rollout,
  set: ReplicaSet,
  reason: string,
  message: string,
): Promise<void> {
  const { context, deployment } = rollout;
  const { client, clock } = context;
  const { namespace, name = '' } = deployment.metadata;
  let current = deployment;
  if (revisionOf(current) !== revisionOf(set)) {
    const annotations = { 'deployment.kubernetes.io/revision': String(revisionOf(set)) };
    const patch = { metadata: { uid: current.metadata.uid, annotations } };
    current = await client.patch(DEPLOYMENTS, { namespace, name }, 'merge', patch);
  }
  const isCreated = reason === 'NewReplicaSetCreated';
  const hasCondition = conditionOf(current.status, 'Progressing') !== undefined;
  if (hasDeadline(current) && (isCreated || !hasCondition)) {
    const text = `${message} "${set.metadata.name}"`;
    const condition = { type: 'Progressing', status: 'True', reason, message: text };
    const conditions = withCondition(current.status?.conditions, condition, clock.nowMs());
    const status = { ...current.status, conditions };
    current = await client.updateStatus(DEPLOYMENTS, { ...current, status });
  }
  rollout.deployment = current;
}

/** @returns whether anything had to be changed */
async function applyPlan(rollout: Rollout, plan: ScalePlan): Promise<boolean> {
  const { context, deployment } = rollout;
  let hasChanged = false;
  for (const { set, replicas } of plan) {
    const annotations = annotationsFor(deployment);
    const known = set.metadata.annotations ?? {};
    const isAnnotated =
      known[DESIRED_REPLICAS] === annotations[DESIRED_REPLICAS] &&
      known[MAX_REPLICAS] === annotations[MAX_REPLICAS];
    if (size(set) === replicas && isAnnotated) continue;
    const scaled = await context.client.update(REPLICA_SETS, {
      ...set,
      metadata: { ...set.metadata, annotations: { ...known, ...annotations } },
      spec: { ...set.spec, replicas } as ReplicaSet['spec'],
    });
    replaceSet(rollout, set, scaled);
    if (size(set) === replicas) continue;
    hasChanged = true;
    const direction = replicas > size(set) ? 'up' : 'down';
    const change = `from ${size(set)} to ${replicas}`;
    const message = `Scaled ${direction} replica set ${set.metadata.name} ${change}`;
    context.events.event(deployment, 'Normal', 'ScalingReplicaSet', message);
  }
  return hasChanged;
}

function replaceSet(rollout: Rollout, before: ReplicaSet, after: ReplicaSet): void {
  if (rollout.newSet === before) rollout.newSet = after;
  rollout.oldSets = rollout.oldSets.map((set) => (set === before ? after : set));
}

/** Old sets beyond the history limit go, oldest revision first, once they are empty. */
async function removeHistory(rollout: Rollout): Promise<void> {
  const { context, deployment, oldSets } = rollout;
  if (!isComplete(deployment, countOnly(rollout))) return;
  const limit = deployment.spec?.revisionHistoryLimit ?? DEFAULT_HISTORY_LIMIT;
  const kept = oldSets.filter(({ metadata }) => !metadata.deletionTimestamp);
  const surplus = kept.sort((a, b) => revisionOf(a) - revisionOf(b)).slice(0, -limit || undefined);
  if (kept.length <= limit) return;
  for (const set of surplus) {
    const { observedGeneration = 0, replicas = 0 } = set.status ?? {};
    const isObserved = (set.metadata.generation ?? 0) <= observedGeneration;
    if (replicas !== 0 || size(set) !== 0 || !isObserved) continue;
    const { namespace, name = '', uid } = set.metadata;
    try {
      await context.client.delete(REPLICA_SETS, { namespace, name }, { uid });
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error;
    }
  }
}

function countOnly({ context, deployment, newSet, oldSets }: Rollout): DeploymentStatus {
  const all = [...oldSets, ...(newSet ? [newSet] : [])];
  return countReplicas(deployment, newSet, all, context.clock.nowMs());
}

function writeProgress(rollout: Rollout): Promise<number | undefined> {
  const { context, deployment, newSet, oldSets } = rollout;
  const counted = countOnly(rollout);
  const judged = withProgress(deployment, newSet, counted, context.clock.nowMs());
  return writeStatus(rollout, withFailure(newSet, oldSets, judged));
}

async function writeStatus(
  { context, deployment }: Rollout,
  status: DeploymentStatus,
): Promise<number | undefined> {
  if (!isSameStatus(deployment.status, status)) {
    const shown = withoutZeros(status, ['terminatingReplicas']);
    await context.client.updateStatus(DEPLOYMENTS, { ...deployment, status: shown });
  }
  if (isComplete(deployment, status)) return undefined;
  const leftMs = untilDeadlineMs(deployment, status, context.clock.nowMs());
  // A second more: times are written in whole seconds.
  return leftMs === undefined ? undefined : leftMs + 1000;
}

/** Says in `Progressing` that it is paused or goes on, so that the deadline does not run on. */
async function writePauseCondition(
  { client, clock }: ControllerContext,
  deployment: Deployment,
): Promise<Deployment> {
  const condition = conditionOf(deployment.status, 'Progressing');
  if (!hasDeadline(deployment) || condition?.reason === 'ProgressDeadlineExceeded') {
    return deployment;
  }
  const isPaused = deployment.spec?.paused ?? false;
  const saysPaused = condition?.reason === 'DeploymentPaused';
  if (isPaused === saysPaused) return deployment;
  const next = {
    type: 'Progressing',
    status: 'Unknown',
    reason: isPaused ? 'DeploymentPaused' : 'DeploymentResumed',
    message: isPaused ? 'Deployment is paused' : 'Deployment is resumed',
  };
  const conditions = withCondition(deployment.status?.conditions, next, clock.nowMs());
  if (isDeepStrictEqual(conditions, deployment.status?.conditions)) return deployment;
  const status = { ...deployment.status, conditions };
  return client.updateStatus(DEPLOYMENTS, { ...deployment, status });
}
