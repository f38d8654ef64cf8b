import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../api/object.ts';
import { matchesLabelSelector } from '../../api/selectors.ts';
import type {
  Condition,
  Pod,
  PodDisruptionBudget,
  PodDisruptionBudgetStatus,
} from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import {
  DEPLOYMENTS,
  DISRUPTION_BUDGETS,
  PODS,
  REPLICA_SETS,
  STATEFUL_SETS,
} from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { resolveLimit } from '../common/limits.ts';
import { controllerOf } from '../common/ownership.ts';
import { isReady } from '../common/pods.ts';
import { isSameStatus } from '../common/status.ts';

/** An evicted pod that has not begun to end after this long counts as there again. */
const EVICTED_MAX_MS = 120_000;

/** Says in each PodDisruptionBudget how many of its pods may be evicted now. */
export function runDisruptionController(context: ControllerContext): Promise<void> {
  const { client, informers, clock, log, signal } = context;
  const budgets = informers.informer(DISRUPTION_BUDGETS);
  const pods = informers.informer(PODS);
  const owners = [REPLICA_SETS, DEPLOYMENTS, STATEFUL_SETS].map((resource) =>
    informers.informer<KubeObject>(resource),
  );
  const queue = createWorkQueue(clock);
  const enqueue = (budget: PodDisruptionBudget) => queue.add(objectKey(budget));
  budgets.addHandler({ add: enqueue, update: enqueue });
  const enqueueFor = (pod: Pod): void => {
    for (const budget of budgets.list(pod.metadata.namespace ?? '')) {
      if (covers(budget, pod)) enqueue(budget);
    }
  };
  pods.addHandler({
    add: enqueueFor,
    update(pod, previous) {
      if (!isDeepStrictEqual(pod.metadata.labels, previous.metadata.labels)) enqueueFor(previous);
      enqueueFor(pod);
    },
    delete: enqueueFor,
  });
  for (const informer of owners) {
    informer.addHandler({
      update({ metadata, spec }, previous) {
        if ((spec as Scaled)?.replicas === (previous.spec as Scaled)?.replicas) return;
        for (const budget of budgets.list(metadata.namespace ?? '')) enqueue(budget);
      },
    });
  }
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const budget = budgets.get(namespace, name);
    if (!budget || budget.metadata.deletionTimestamp) return;
    const covered = pods.list(namespace).filter((pod) => covers(budget, pod));
    const { status, waitMs } = statusOf(context, budget, covered);
    if (waitMs !== undefined) queue.addAfter(key, waitMs);
    if (isSameStatus(budget.status, status)) return;
    await client.updateStatus(DISRUPTION_BUDGETS, { ...budget, status });
  };
  return runController({
    name: 'disruption',
    queue,
    reconcile,
    informers: [budgets, pods, ...owners],
    clock,
    log,
    signal,
  });
}

type Scaled = { replicas?: number } | undefined;

/** No selector covers nothing, an empty one every pod of the namespace. */
function covers({ spec }: PodDisruptionBudget, pod: Pod): boolean {
  return spec?.selector !== undefined && matchesLabelSelector(spec.selector, pod.metadata.labels);
}

function statusOf(
  context: ControllerContext,
  budget: PodDisruptionBudget,
  pods: Pod[],
): { status: PodDisruptionBudgetStatus; waitMs: number | undefined } {
  const nowMs = context.clock.nowMs();
  const { expectedPods, desiredHealthy } = expectationOf(context, budget, pods);
  const disruptedPods: Record<string, string> = {};
  let waitMs: number | undefined;
  for (const [name, since] of Object.entries(budget.status?.disruptedPods ?? {})) {
    const pod = pods.find(({ metadata }) => metadata.name === name);
    const leftMs = Date.parse(since) + EVICTED_MAX_MS - nowMs;
    if (!pod || pod.metadata.deletionTimestamp || !(leftMs > 0)) continue;
    disruptedPods[name] = since;
    waitMs = Math.min(waitMs ?? leftMs, leftMs);
  }
  const isHealthy = (pod: Pod): boolean =>
    isReady(pod) &&
    !pod.metadata.deletionTimestamp &&
    !Object.hasOwn(disruptedPods, pod.metadata.name ?? '');
  const currentHealthy = pods.filter(isHealthy).length;
  const disruptionsAllowed = expectedPods > 0 ? Math.max(0, currentHealthy - desiredHealthy) : 0;
  const generation = budget.metadata.generation;
  const status: PodDisruptionBudgetStatus = {
    conditions: [conditionOf(budget, disruptionsAllowed > 0, nowMs)],
    currentHealthy,
    desiredHealthy,
    ...(Object.keys(disruptedPods).length > 0 ? { disruptedPods } : {}),
    disruptionsAllowed,
    expectedPods,
    ...(generation === undefined ? {} : { observedGeneration: generation }),
  };
  return { status, waitMs };
}

/** How many pods there should be, and how many of them have to stay healthy. */
function expectationOf(
  context: ControllerContext,
  { spec }: PodDisruptionBudget,
  pods: Pod[],
): { expectedPods: number; desiredHealthy: number } {
  const { minAvailable = 1, maxUnavailable } = spec ?? {};
  if (maxUnavailable === undefined && typeof minAvailable === 'number') {
    return { expectedPods: pods.length, desiredHealthy: minAvailable };
  }
  const expectedPods = wantedByOwners(context, pods);
  const desiredHealthy =
    maxUnavailable === undefined
      ? resolveLimit(minAvailable, expectedPods, Math.ceil)
      : Math.max(0, expectedPods - resolveLimit(maxUnavailable, expectedPods, Math.ceil));
  return { expectedPods, desiredHealthy };
}

/** The sum of what the pods' owners are scaled to. A pod that no such owner has adds nothing. */
function wantedByOwners({ informers }: ControllerContext, pods: Pod[]): number {
  const scales = new Map<string, number>();
  for (const pod of pods) {
    const { namespace } = pod.metadata;
    const reference = controllerOf(pod);
    if (reference?.kind === STATEFUL_SETS.kind) {
      const set = informers.informer(STATEFUL_SETS).get(namespace, reference.name);
      if (set?.metadata.uid === reference.uid) scales.set(reference.uid, set.spec?.replicas ?? 1);
    }
    if (reference?.kind !== REPLICA_SETS.kind) continue;
    const set = informers.informer(REPLICA_SETS).get(namespace, reference.name);
    if (set?.metadata.uid !== reference.uid) continue;
    const upper = controllerOf(set);
    const deployment =
      upper?.kind === DEPLOYMENTS.kind
        ? informers.informer(DEPLOYMENTS).get(namespace, upper.name)
        : undefined;
    const owner = deployment ?? set;
    scales.set(owner.metadata.uid ?? '', owner.spec?.replicas ?? 1);
  }
  return [...scales.values()].reduce((sum, scale) => sum + scale, 0);
}

function conditionOf(budget: PodDisruptionBudget, isAllowed: boolean, nowMs: number): Condition {
  const status = isAllowed ? 'True' : 'False';
  const known = budget.status?.conditions?.find(({ type }) => type === 'DisruptionAllowed');
  const isKept = known?.status === status;
  return {
    type: 'DisruptionAllowed',
    status,
    reason: isAllowed ? 'SufficientPods' : 'InsufficientPods',
    message: '',
    lastTransitionTime: isKept ? known.lastTransitionTime : rfc3339(nowMs),
    ...(budget.metadata.generation === undefined
      ? {}
      : { observedGeneration: budget.metadata.generation }),
  };
}
