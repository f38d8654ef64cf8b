import { isDeepStrictEqual } from 'node:util';
import type { DaemonSet, DaemonSetStatus, Node, Pod } from '../../api/types.generated.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import { CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { createExpectations } from '../common/expectations.ts';
import type { Expectations } from '../common/expectations.ts';
import { currentRevision, hashOf, listRevisions, trimRevisions } from '../common/history.ts';
import { claim, indexByController } from '../common/ownership.ts';
import { createPods, deletePods } from '../common/pod-control.ts';
import { followOwners, followPods } from '../common/pod-events.ts';
import { isActive, isReady, untilAvailableMs } from '../common/pods.ts';
import { isSameStatus } from '../common/status.ts';
import { judgeNode, podFor } from './nodes.ts';
import { groupByNode, isAvailable, planNodes, planUpdate } from './plan.ts';
import type { View } from './plan.ts';

const CONCURRENCY = 2;
/** Of one reconcile; the rest follows in the next. */
const BURST_COUNT = 250;
/** How long an ended pod is left before the next takes its place, doubling each time. */
const ENDED_DELAY_MIN_MS = 1000;
const ENDED_DELAY_MAX_MS = 15 * 60_000;

/** What is remembered of ended pods, per node of a set. */
interface Retry {
  count: number;
  dueMs: number;
}

interface DaemonMemory {
  expectations: Expectations;
  retries: Map<string, Retry>;
}

/** Keeps one pod on every node that each DaemonSet selects. */
export function runDaemonSetController(context: ControllerContext): Promise<void> {
  const { informers, clock, log, signal } = context;
  const sets = informers.informer(DAEMON_SETS);
  const pods = informers.informer(PODS);
  const nodes = informers.informer(NODES);
  const revisions = informers.informer(CONTROLLER_REVISIONS);
  indexByController(revisions);
  const queue = createWorkQueue(clock);
  const memory: DaemonMemory = { expectations: createExpectations(clock), retries: new Map() };
  followOwners(sets, queue, memory.expectations);
  followPods({ pods, owners: sets, queue, expectations: memory.expectations });
  const enqueueAll = (): void => {
    for (const set of sets.list()) queue.add(objectKey(set));
  };
  // Heartbeats change nodes all the time; only these fields decide.
  const placing = ({ metadata, spec }: Node) => [metadata.labels, spec?.taints];
  nodes.addHandler({
    add: enqueueAll,
    update(node, previous) {
      if (!isDeepStrictEqual(placing(node), placing(previous))) enqueueAll();
    },
    delete: enqueueAll,
  });
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const set = sets.get(namespace, name);
    if (!set || set.metadata.deletionTimestamp) return;
    const requeueMs = await sync(context, memory, set);
    if (requeueMs !== undefined) queue.addAfter(key, requeueMs);
  };
  return runController({
    ...{ name: 'daemonset', queue, reconcile, clock, log, signal, concurrency: CONCURRENCY },
    informers: [sets, pods, nodes, revisions],
  });
}

/** @returns after how long to look again */
async function sync(
  context: ControllerContext,
  memory: DaemonMemory,
  set: DaemonSet,
): Promise<number | undefined> {
  const { client, clock, informers, events } = context;
  const { matchLabels = {}, matchExpressions = [] } = set.spec?.selector ?? {};
  if (Object.keys(matchLabels).length === 0 && matchExpressions.length === 0) {
    const message = 'This daemon set is selecting all pods. A non-empty selector is required.';
    events.event(set, 'Warning', 'SelectingAll', message);
    return undefined;
  }
  const isSatisfied = memory.expectations.isSatisfied(objectKey(set));
  const pods = await claim({
    ...{ client, owner: set, ownerResource: DAEMON_SETS, selector: set.spec?.selector },
    informer: informers.informer(PODS),
    mayAdopt: isActive,
  });
  const revisions = await listRevisions(context, DAEMON_SETS, set);
  const revision = await currentRevision(context, DAEMON_SETS, set, revisions);
  if (!revision) return undefined;
  const hash = hashOf(revision) ?? '';
  const nodes = informers.informer(NODES).list();
  const view = { set, nodes, podsByNode: groupByNode(pods), hash, nowMs: clock.nowMs() };
  const waitMs = isSatisfied ? await manage(context, memory, view) : undefined;
  const live = new Set([hash, ...pods.map(hashOf)]);
  await trimRevisions(context, set, revisions, (one) => live.has(hashOf(one)));
  await writeStatus(context, view);
  const minReadySeconds = set.spec?.minReadySeconds ?? 0;
  const waits = pods.map((pod) => untilAvailableMs(pod, minReadySeconds, view.nowMs));
  const soonest = Math.min(waitMs ?? Infinity, ...waits.flatMap((wait) => wait || []));
  return Number.isFinite(soonest) ? soonest : undefined;
}

/** @returns how long until an ended pod is replaced */
async function manage(
  context: ControllerContext,
  memory: DaemonMemory,
  view: View,
): Promise<number | undefined> {
  const { set, hash } = view;
  const plan = planNodes(view);
  const { due, waitMs } = dueOf(context, memory, set, plan.ended);
  let remove = [...plan.remove, ...due];
  let { create } = plan;
  const isRolling = set.spec?.updateStrategy?.type !== 'OnDelete';
  if (isRolling && remove.length === 0 && create.length === 0) {
    ({ create, remove } = planUpdate(view));
  }
  const fresh = create.slice(0, BURST_COUNT).map((node) => podFor(set, node, hash));
  const { expectations } = memory;
  await deletePods(context, expectations, set, remove.slice(0, BURST_COUNT));
  await createPods(context, expectations, set, fresh);
  return waitMs;
}

/** Ended pods are removed after a delay, so that a daemon that cannot run makes no storm. */
function dueOf(
  { clock, events }: ControllerContext,
  { retries }: DaemonMemory,
  set: DaemonSet,
  ended: Pod[],
): { due: Pod[]; waitMs: number | undefined } {
  const nowMs = clock.monotonicMs();
  const due: Pod[] = [];
  let waitMs: number | undefined;
  for (const pod of ended) {
    const node = pod.spec?.nodeName ?? '';
    const key = `${set.metadata.uid}/${node}`;
    const known = retries.get(key);
    if (known && known.dueMs > nowMs) {
      waitMs = Math.min(waitMs ?? Infinity, known.dueMs - nowMs);
      continue;
    }
    const count = known && nowMs - known.dueMs < ENDED_DELAY_MAX_MS ? known.count + 1 : 0;
    const delayMs = Math.min(ENDED_DELAY_MAX_MS, ENDED_DELAY_MIN_MS * 2 ** Math.min(count, 20));
    retries.set(key, { count, dueMs: nowMs + delayMs });
    due.push(pod);
    const isFailed = pod.status?.phase === 'Failed';
    const [type, reason, word] = isFailed
      ? (['Warning', 'FailedDaemonPod', 'failed'] as const)
      : (['Normal', 'SucceededDaemonPod', 'succeeded'] as const);
    const name = `${pod.metadata.namespace}/${pod.metadata.name}`;
    const message = `Found ${word} daemon pod ${name} on node ${node}, will try to delete it`;
    events.event(set, type, reason, message);
  }
  for (const [key, { dueMs }] of retries) {
    if (nowMs - dueMs >= ENDED_DELAY_MAX_MS) retries.delete(key);
  }
  return { due, waitMs };
}

async function writeStatus({ client }: ControllerContext, view: View): Promise<void> {
  const { set, nodes, podsByNode, hash } = view;
  const counts = {
    currentNumberScheduled: 0,
    desiredNumberScheduled: 0,
    numberAvailable: 0,
    numberMisscheduled: 0,
    numberReady: 0,
    updatedNumberScheduled: 0,
  };
  for (const node of nodes) {
    const pods = podsByNode.get(node.metadata.name ?? '') ?? [];
    if (!judgeNode(set, node).shouldRun) {
      if (pods.length > 0) counts.numberMisscheduled += 1;
      continue;
    }
    counts.desiredNumberScheduled += 1;
    if (pods.length > 0) counts.currentNumberScheduled += 1;
    if (pods.some(isReady)) counts.numberReady += 1;
    if (pods.some((pod) => isAvailable(view, pod))) counts.numberAvailable += 1;
    if (pods.some((pod) => hashOf(pod) === hash)) counts.updatedNumberScheduled += 1;
  }
  const { collisionCount, conditions } = set.status ?? {};
  const missing = counts.desiredNumberScheduled - counts.numberAvailable;
  const { numberAvailable, updatedNumberScheduled, ...required } = counts;
  const status: DaemonSetStatus = {
    ...required,
    ...(updatedNumberScheduled > 0 ? { updatedNumberScheduled } : {}),
    ...(numberAvailable > 0 ? { numberAvailable } : {}),
    ...(missing > 0 ? { numberUnavailable: missing } : {}),
    ...(collisionCount ? { collisionCount } : {}),
    ...(conditions ? { conditions } : {}),
    observedGeneration: set.metadata.generation,
  };
  if (isSameStatus(set.status, status)) return;
  await client.updateStatus(DAEMON_SETS, { ...set, status });
}
