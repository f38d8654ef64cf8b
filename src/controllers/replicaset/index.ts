import type { Pod, ReplicaSet, ReplicaSetStatus } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import { PODS, REPLICA_SETS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { createExpectations } from '../common/expectations.ts';
import type { Expectations } from '../common/expectations.ts';
import { claim, controllerOf, indexByController, owned } from '../common/ownership.ts';
import { createPods, deletePods } from '../common/pod-control.ts';
import { followOwners, followPods } from '../common/pod-events.ts';
import {
  isActive,
  isReady,
  isTerminal,
  podFromTemplate,
  rankForDeletion,
  untilAvailableMs,
} from '../common/pods.ts';
import { isSameStatus, withoutZeros } from '../common/status.ts';

/** Of one reconcile; the rest follows in the next. */
const BURST_REPLICAS = 500;
const CONCURRENCY = 5;

/** Keeps as many pods as each ReplicaSet wants. */
export function runReplicaSetController(context: ControllerContext): Promise<void> {
  const { informers, clock, signal, log } = context;
  const replicaSets = informers.informer(REPLICA_SETS);
  const pods = informers.informer(PODS);
  indexByController(replicaSets);
  const queue = createWorkQueue(clock);
  const expectations = createExpectations(clock);
  followOwners(replicaSets, queue, expectations);
  followPods({ pods, owners: replicaSets, queue, expectations });
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const set = replicaSets.get(namespace, name);
    if (!set) {
      expectations.forget(key);
      return;
    }
    const requeueMs = await sync(context, expectations, set);
    if (requeueMs !== undefined) queue.addAfter(key, requeueMs);
  };
  return runController({
    name: 'replicaset',
    queue,
    reconcile,
    informers: [replicaSets, pods],
    concurrency: CONCURRENCY,
    clock,
    log,
    signal,
  });
}

/** @returns after how long to look again, as a pod becomes available by mere time */
async function sync(
  context: ControllerContext,
  expectations: Expectations,
  set: ReplicaSet,
): Promise<number | undefined> {
  const { client, clock, informers } = context;
  const mayManage = expectations.isSatisfied(objectKey(set));
  const claimed = await claim({
    client,
    owner: set,
    ownerResource: REPLICA_SETS,
    selector: set.spec?.selector,
    informer: informers.informer(PODS),
    mayAdopt: isActive,
  });
  const active = claimed.filter(isActive);
  let failure: unknown;
  if (mayManage && !set.metadata.deletionTimestamp) {
    try {
      await manage(context, expectations, set, active);
    } catch (error) {
      failure = error;
    }
  }
  const minReadySeconds = set.spec?.minReadySeconds ?? 0;
  const nowMs = clock.nowMs();
  const waits = active.map((pod) => untilAvailableMs(pod, minReadySeconds, nowMs));
  const available = waits.filter((wait) => wait === 0).length;
  const terminating = claimed.filter((pod) => pod.metadata.deletionTimestamp && !isTerminal(pod));
  const status = {
    ...countPods(set, active),
    availableReplicas: available,
    terminatingReplicas: terminating.length,
  };
  await writeStatus(context, set, status, active.length, failure);
  if (failure !== undefined) throw failure as Error;
  const soonest = Math.min(...waits.filter((wait) => wait !== undefined).filter(Boolean));
  return Number.isFinite(soonest) ? soonest : undefined;
}

function countPods(set: ReplicaSet, active: Pod[]): Omit<ReplicaSetStatus, 'availableReplicas'> {
  const labels = Object.entries(set.spec?.template?.metadata?.labels ?? {});
  const isLabeled = ({ metadata }: Pod) =>
    labels.every(([name, value]) => metadata.labels?.[name] === value);
  return {
    replicas: active.length,
    fullyLabeledReplicas: active.filter(isLabeled).length,
    readyReplicas: active.filter(isReady).length,
    observedGeneration: set.metadata.generation,
  };
}

async function manage(
  context: ControllerContext,
  expectations: Expectations,
  set: ReplicaSet,
  active: Pod[],
): Promise<void> {
  const difference = active.length - (set.spec?.replicas ?? 1);
  if (difference < 0) {
    const count = Math.min(-difference, BURST_REPLICAS);
    const pod = podFromTemplate(set.spec?.template, set, REPLICA_SETS);
    const pods = Array.from({ length: count }, () => pod);
    await createPods(context, expectations, set, pods);
  } else if (difference > 0) {
    const count = Math.min(difference, BURST_REPLICAS);
    const victims = chooseVictims(context, set, active, count);
    await deletePods(context, expectations, set, victims);
  }
}

function chooseVictims(
  { informers, clock }: ControllerContext,
  set: ReplicaSet,
  active: Pod[],
  count: number,
): Pod[] {
  if (count >= active.length) return active;
  const pods = informers.informer(PODS);
  const deployment = controllerOf(set)?.uid;
  const relatives = deployment ? owned(informers.informer(REPLICA_SETS), deployment) : [set];
  const perNode = new Map<string, number>();
  for (const relative of relatives) {
    for (const pod of owned(pods, relative.metadata.uid)) {
      const node = pod.spec?.nodeName;
      if (node && isActive(pod)) perNode.set(node, (perNode.get(node) ?? 0) + 1);
    }
  }
  const crowd = (pod: Pod) => perNode.get(pod.spec?.nodeName ?? '') ?? 0;
  return rankForDeletion(active, crowd, clock.nowMs()).slice(0, count);
}

async function writeStatus(
  { client, clock }: ControllerContext,
  set: ReplicaSet,
  counts: ReplicaSetStatus,
  activeCount: number,
  failure: unknown,
): Promise<void> {
  const conditions = (set.status?.conditions ?? []).filter(({ type }) => type !== 'ReplicaFailure');
  if (failure !== undefined) {
    const isMissing = activeCount < (set.spec?.replicas ?? 1);
    const known = set.status?.conditions?.find(({ type }) => type === 'ReplicaFailure');
    conditions.push({
      type: 'ReplicaFailure',
      status: 'True',
      reason: isMissing ? 'FailedCreate' : 'FailedDelete',
      message: describeError(failure),
      lastTransitionTime: known?.lastTransitionTime ?? rfc3339(clock.nowMs()),
    });
  }
  const shown = withoutZeros(counts, ['replicas', 'terminatingReplicas']);
  const status: ReplicaSetStatus = { ...shown, ...(conditions.length ? { conditions } : {}) };
  if (isSameStatus(set.status, status)) return;
  await client.updateStatus(REPLICA_SETS, { ...set, status });
}
