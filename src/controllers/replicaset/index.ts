import { isStatus, StatusError } from '../../api/status.ts';
import type { Pod, ReplicaSet, ReplicaSetStatus } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import { PODS, REPLICA_SETS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../shared/context.ts';
import { splitKey } from '../shared/context.ts';
import { createExpectations } from '../shared/expectations.ts';
import type { Expectations } from '../shared/expectations.ts';
import { isSameStatus } from '../shared/status.ts';
import { claim, controllerOf, indexByController, owned } from '../shared/ownership.ts';
import { matchesLabelSelector } from '../../api/selectors.ts';
import {
  isActive,
  isReady,
  isTerminal,
  podFromTemplate,
  rankForDeletion,
  untilAvailableMs,
} from '../shared/pods.ts';

/** Of one reconcile; the rest follows in the next. */
const BURST_REPLICAS = 500;
const SLOW_START_BATCH = 1;
const CONCURRENCY = 5;

/** Keeps as many pods as each ReplicaSet wants. */
export function runReplicaSetController(context: ControllerContext): Promise<void> {
  const { informers, clock, signal, log } = context;
  const replicaSets = informers.informer(REPLICA_SETS);
  const pods = informers.informer(PODS);
  indexByController(pods);
  indexByController(replicaSets);
  const queue = createWorkQueue(clock);
  const expectations = createExpectations(clock);
  const enqueueOrphan = (pod: Pod): void => {
    for (const set of replicaSets.list(pod.metadata.namespace ?? '')) {
      if (matchesLabelSelector(set.spec?.selector, pod.metadata.labels)) queue.add(objectKey(set));
    }
  };
  /** The key of the set that controls a pod, whether it exists or not. */
  const ownerKey = (pod: Pod): string | undefined => {
    const owner = controllerOf(pod);
    if (owner?.kind !== REPLICA_SETS.kind) return undefined;
    const set = replicaSets.get(pod.metadata.namespace, owner.name);
    return set?.metadata.uid === owner.uid ? objectKey(set) : undefined;
  };
  replicaSets.addHandler({
    add: (set) => queue.add(objectKey(set)),
    update: (set) => queue.add(objectKey(set)),
    delete: (set) => {
      expectations.forget(objectKey(set));
      queue.add(objectKey(set));
    },
  });
  pods.addHandler({
    add(pod) {
      const key = ownerKey(pod);
      if (key === undefined) {
        if (!controllerOf(pod)) enqueueOrphan(pod);
        return;
      }
      if (pod.metadata.deletionTimestamp) {
        expectations.deletionObserved(key, pod.metadata.uid ?? '');
      } else expectations.creationObserved(key);
      queue.add(key);
    },
    update(pod, previous) {
      const before = ownerKey(previous);
      const key = ownerKey(pod);
      if (before !== undefined && before !== key) queue.add(before);
      if (key !== undefined) {
        if (pod.metadata.deletionTimestamp) {
          expectations.deletionObserved(key, pod.metadata.uid ?? '');
        }
        queue.add(key);
      } else if (!controllerOf(pod)) enqueueOrphan(pod);
    },
    delete(pod) {
      const key = ownerKey(pod);
      if (key === undefined) return;
      expectations.deletionObserved(key, pod.metadata.uid ?? '');
      queue.add(key);
    },
  });
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const set = replicaSets.get(namespace, name);
    if (!set) {
      expectations.forget(key);
      return;
    }
    const requeueMs = await sync(context, expectations, key, set);
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
  key: string,
  set: ReplicaSet,
): Promise<number | undefined> {
  const { client, clock, informers } = context;
  const mayManage = expectations.isSatisfied(key);
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
      await manage(context, expectations, key, set, active);
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
  key: string,
  set: ReplicaSet,
  active: Pod[],
): Promise<void> {
  const difference = active.length - (set.spec?.replicas ?? 1);
  if (difference < 0) {
    const count = Math.min(-difference, BURST_REPLICAS);
    await createPods(context, expectations, key, set, count);
  } else if (difference > 0) {
    const count = Math.min(difference, BURST_REPLICAS);
    const victims = chooseVictims(context, set, active, count);
    await deletePods(context, expectations, key, set, victims);
  }
}

/**
 * Batches that double, so that a template which cannot be created fails once and not five
 * hundred times.
 */
async function createPods(
  { client, events }: ControllerContext,
  expectations: Expectations,
  key: string,
  set: ReplicaSet,
  count: number,
): Promise<void> {
  expectations.expectCreations(key, count);
  const createOne = async (): Promise<void> => {
    try {
      const pod = podFromTemplate(set.spec?.template, set, REPLICA_SETS);
      const { metadata } = await client.create(PODS, pod);
      events.event(set, 'Normal', 'SuccessfulCreate', `Created pod: ${metadata.name}`);
    } catch (error) {
      // This pod will never be observed.
      expectations.creationObserved(key);
      if (isNamespaceEnding(error)) return;
      events.event(set, 'Warning', 'FailedCreate', `Error creating: ${describeError(error)}`);
      throw error;
    }
  };
  let left = count;
  for (let batch = SLOW_START_BATCH; left > 0; batch *= 2) {
    const size = Math.min(batch, left);
    const results = await Promise.allSettled(Array.from({ length: size }, createOne));
    left -= size;
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) {
      for (; left > 0; left--) expectations.creationObserved(key);
      throw failed.reason as Error;
    }
  }
}

function isNamespaceEnding(error: unknown): boolean {
  const causes = error instanceof StatusError ? (error.details?.causes ?? []) : [];
  return causes.some(({ reason }) => reason === 'NamespaceTerminating');
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

async function deletePods(
  { client, events }: ControllerContext,
  expectations: Expectations,
  key: string,
  set: ReplicaSet,
  victims: Pod[],
): Promise<void> {
  expectations.expectDeletions(
    key,
    victims.map(({ metadata }) => metadata.uid ?? ''),
  );
  const results = await Promise.allSettled(
    victims.map(async ({ metadata }) => {
      const { namespace, name = '', uid } = metadata;
      try {
        await client.delete(PODS, { namespace, name }, { uid });
        events.event(set, 'Normal', 'SuccessfulDelete', `Deleted pod: ${name}`);
      } catch (error) {
        expectations.deletionObserved(key, uid ?? '');
        if (isStatus(error, 'NotFound')) return;
        events.event(set, 'Warning', 'FailedDelete', `Error deleting: ${describeError(error)}`);
        throw error;
      }
    }),
  );
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason as Error;
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
  const status: ReplicaSetStatus = { ...counts, ...(conditions.length ? { conditions } : {}) };
  if (isSameStatus(set.status, status)) return;
  await client.updateStatus(REPLICA_SETS, { ...set, status });
}
