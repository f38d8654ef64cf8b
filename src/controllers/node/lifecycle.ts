import { isStatus } from '../../api/status.ts';
import type { Node, Pod } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { runController } from '../../client/controller.ts';
import { createInformer, objectKey } from '../../client/informer.ts';
import { LEASES, NODES, PODS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { isTerminal, podCondition } from '../common/pods.ts';
import { isLost, nodeCondition, unknownConditions, updateRecord } from './heartbeat.ts';
import type { HeartbeatRecord } from './heartbeat.ts';
import { evictionTaintKey, evictionTimeMs, wantedTaints } from './taints.ts';

/** How often every node is looked at, as Kubernetes' node monitor period. */
const MONITOR_INTERVAL_MS = 5000;
/** Nodes are given up one by one: our own trouble must not empty the cluster. */
const EVICTION_INTERVAL_MS = 10_000;
const BY_NODE = 'node';

function indexPodsByNode(context: ControllerContext): void {
  context.informers
    .informer(PODS)
    .addIndex(BY_NODE, ({ spec }) => (spec?.nodeName ? [spec.nodeName] : []));
}

function podsOnNode(context: ControllerContext, node: string): Pod[] {
  return context.informers.informer(PODS).byIndex(BY_NODE, node);
}

/** Tells lost nodes by their silence, taints them, and moves their pods away in time. */
export async function runNodeLifecycleController(context: ControllerContext): Promise<void> {
  const { informers, client, clock, random, log, signal } = context;
  const nodes = informers.informer(NODES);
  const pods = informers.informer(PODS);
  indexPodsByNode(context);
  const leases = createInformer({
    ...{ client, clock, random, log, signal },
    resource: LEASES,
    namespace: 'kube-node-lease',
  });
  const records = new Map<string, HeartbeatRecord>();
  const nodeQueue = createWorkQueue(clock);
  const podQueue = createWorkQueue(clock);
  const enqueueNode = ({ metadata }: Node) => nodeQueue.add(metadata.name ?? '');
  nodes.addHandler({
    add: enqueueNode,
    update: enqueueNode,
    delete: ({ metadata }) => void records.delete(metadata.name ?? ''),
  });
  leases.addHandler({
    add: ({ metadata }) => nodeQueue.add(metadata.name ?? ''),
    update: ({ metadata }) => nodeQueue.add(metadata.name ?? ''),
  });
  const enqueuePod = (pod: Pod) => {
    if (pod.spec?.nodeName) podQueue.add(objectKey(pod));
  };
  pods.addHandler({ add: enqueuePod, update: enqueuePod });

  let nextEvictionMs = 0;
  const isAlive = (node: Node): boolean => {
    const record = records.get(node.metadata.name ?? '');
    return !evictionTaintKey(node) && !!record && !isLost(record, node, clock.monotonicMs());
  };
  const decideEviction = (node: Node): 'add' | 'keep' | 'remove' => {
    const key = evictionTaintKey(node);
    // All lost at once means that the network or we ourselves are: moving pods helps nobody.
    if (!nodes.list().some(isAlive)) return 'remove';
    const isNew = !node.spec?.taints?.some((taint) => {
      return taint.effect === 'NoExecute' && taint.key === key;
    });
    if (!key || !isNew) return 'keep';
    if (clock.monotonicMs() < nextEvictionMs) return 'keep';
    nextEvictionMs = clock.monotonicMs() + EVICTION_INTERVAL_MS;
    return 'add';
  };

  const reconcileNode = async (name: string): Promise<void> => {
    const node = nodes.get(undefined, name);
    if (!node) return;
    const lease = leases.get('kube-node-lease', name);
    const record = updateRecord(records.get(name), node, lease, clock.monotonicMs());
    records.set(name, record);
    nodeQueue.addAfter(name, MONITOR_INTERVAL_MS);
    const current = await declareLost(context, node, record);
    const taints = wantedTaints(current, decideEviction(current), rfc3339(clock.nowMs()));
    if (taints) await writeTaints(context, current, taints);
    if (nodeCondition(current, 'Ready')?.status !== 'True') await markPodsNotReady(context, name);
    for (const pod of podsOnNode(context, name)) {
      if (taints?.some(({ effect }) => effect === 'NoExecute')) enqueuePod(pod);
    }
  };

  const reconcilePod = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const pod = pods.get(namespace, name);
    if (!pod || pod.metadata.deletionTimestamp || isTerminal(pod)) return;
    const taints = nodes.get(undefined, pod.spec?.nodeName ?? '')?.spec?.taints ?? [];
    const nowMs = clock.nowMs();
    const dueMs = evictionTimeMs(pod, taints, nowMs);
    if (dueMs === undefined) return;
    if (dueMs > nowMs) podQueue.addAfter(key, dueMs - nowMs);
    else await evict(context, pod);
  };

  const base = { informers: [nodes, pods, leases], clock, log, signal };
  const run = (name: string, queue: typeof nodeQueue, reconcile: (key: string) => Promise<void>) =>
    runController({ ...base, name, queue, reconcile });
  await Promise.all([
    run('node-lifecycle', nodeQueue, reconcileNode),
    run('taint-eviction', podQueue, reconcilePod),
  ]);
}

async function declareLost(
  { client, clock, events }: ControllerContext,
  node: Node,
  record: HeartbeatRecord,
): Promise<Node> {
  if (!isLost(record, node, clock.monotonicMs())) return node;
  const conditions = unknownConditions(node, rfc3339(clock.nowMs()));
  if (!conditions) return node;
  const name = node.metadata.name ?? '';
  const written = await client.updateStatus(NODES, {
    ...node,
    status: { ...node.status, conditions },
  });
  events.event(node, 'Normal', 'NodeNotReady', `Node ${name} status is now: NodeNotReady`);
  return written;
}

async function writeTaints(
  { client }: ControllerContext,
  node: Node,
  taints: NonNullable<Node['spec']>['taints'],
): Promise<void> {
  const { name = '', uid, resourceVersion } = node.metadata;
  const patch = {
    metadata: { uid, resourceVersion },
    spec: { taints: taints?.length ? taints : null },
  };
  await client.patch(NODES, { name }, 'merge', patch);
}

/** Services must not send traffic to pods nobody hears of any more. */
async function markPodsNotReady(context: ControllerContext, node: string): Promise<void> {
  const { client, clock, log } = context;
  for (const pod of podsOnNode(context, node)) {
    const ready = podCondition(pod, 'Ready');
    if (ready?.status !== 'True') continue;
    const conditions = (pod.status?.conditions ?? []).map((condition) =>
      condition === ready
        ? { ...ready, status: 'False', lastTransitionTime: rfc3339(clock.nowMs()) }
        : condition,
    );
    try {
      await client.updateStatus(PODS, { ...pod, status: { ...pod.status, conditions } });
    } catch (error) {
      log.debug('Pod was not marked not ready', {
        pod: objectKey(pod),
        error: describeError(error),
      });
    }
  }
}

/** Deletes a pod for its node's taints and says so in its conditions. */
async function evict({ client, clock, events }: ControllerContext, pod: Pod): Promise<void> {
  const { namespace, name = '', uid } = pod.metadata;
  const message = `Marking for deletion Pod ${namespace}/${name}`;
  events.event(pod, 'Normal', 'TaintManagerEviction', message);
  const others = (pod.status?.conditions ?? []).filter(({ type }) => type !== 'DisruptionTarget');
  const condition = {
    type: 'DisruptionTarget',
    status: 'True',
    reason: 'DeletionByTaintManager',
    message: 'Taint manager: deleting due to NoExecute taint',
    lastTransitionTime: rfc3339(clock.nowMs()),
  };
  try {
    const status = { ...pod.status, conditions: [...others, condition] };
    await client.updateStatus(PODS, { ...pod, status });
    await client.delete(PODS, { namespace, name }, { uid });
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
}
