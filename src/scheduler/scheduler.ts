import { isDeepStrictEqual } from 'node:util';
import { podRequests } from '../api/pod-requests.ts';
import type { Pod } from '../api/types.generated.ts';
import { SUSPENDED_ANNOTATION } from '../api/tenancy.ts';
import { StatusError } from '../api/status.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { describeError } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Client } from '../client/client.ts';
import { createEventRecorder } from '../client/events.ts';
import type { EventRecorder } from '../client/events.ts';
import { createInformer } from '../client/informer.ts';
import type { Informer } from '../client/informer.ts';
import { NAMESPACES, NODES, PODS } from '../client/resources.ts';
import { createSchedulerCache, hasEnded, podKey } from './cache.ts';
import type { SchedulerCache } from './cache.ts';
import { describeFailure, placePod } from './framework.ts';
import type { NodeInfo } from './framework.ts';
import { DEFAULT_PLUGINS } from './plugins/index.ts';
import { createSchedulingQueue } from './queue.ts';
import type { SchedulingQueue } from './queue.ts';

/**
 * Gives each new pod a node: filters and scores as kube-scheduler does, binds through the API,
 * and says in events and in the pod's condition why there is no node when there is none.
 */
export interface SchedulerOptions {
  client: Client;
  clock: Clock;
  random: Random;
  log: Log;
  signal: AbortSignal;
}

const SCHEDULER_NAME = 'default-scheduler';
/** Stamped on the pod through its binding; part of the boot timeline. */
const SCHEDULED_ANNOTATION = 'timeline.hypernetes.io/scheduled';

/** Bindings under way at a time: more would only wait in the API server. */
const BINDINGS_MAX = 64;

/** Runs until the signal aborts. */
export async function runScheduler(options: SchedulerOptions): Promise<void> {
  const { client, clock, random, log, signal } = options;
  const cache = createSchedulerCache();
  const queue = createSchedulingQueue(clock);
  const common = { client, clock, random, log, signal };
  const pods = createInformer({ ...common, resource: PODS });
  const nodes = createInformer({ ...common, resource: NODES });
  const namespaces = createInformer({ ...common, resource: NAMESPACES });
  const events = createEventRecorder({ client, component: SCHEDULER_NAME, clock, random, log });

  followNodes(nodes, cache, queue);
  followPods(pods, cache, queue);
  namespaces.addHandler({
    add: (namespace) => cache.setNamespace(namespace),
    update: (namespace) => cache.setNamespace(namespace),
    delete: (namespace) => cache.removeNamespace(namespace.metadata.name ?? ''),
  });
  const aborted = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await Promise.race([Promise.all([nodes.synced, namespaces.synced, pods.synced]), aborted]);

  const running = new Set<Promise<void>>();
  /** When each node was chosen last: among equals the one that waited longest is next. */
  const chosen = new Map<string, number>();
  let turn = 0;
  while (!signal.aborted) {
    const key = await queue.take(signal).catch(() => undefined);
    if (key === undefined) break;
    const [namespace = '', name = ''] = key.split('/');
    const pod = pods.get(namespace, name);
    if (!pod || !isWaiting(pod)) {
      queue.remove(key);
      continue;
    }
    const placement = placePod(pod, cache, DEFAULT_PLUGINS, (node) => chosen.get(node.name) ?? 0);
    if (!placement.node) {
      const message = describeFailure(placement, cache.nodes.length);
      queue.unschedulable(key);
      track(running, reportFailure(client, events, pod, message, clock, log));
      continue;
    }
    chosen.set(placement.node.name, (turn += 1));
    cache.assume(pod, placement.node.name);
    track(running, bind({ client, events, clock, log, cache, queue }, pod, placement.node));
    if (running.size >= BINDINGS_MAX) await Promise.race(running);
  }
  await Promise.all(running);
}

function track(running: Set<Promise<void>>, work: Promise<void>): void {
  running.add(work);
  void work.finally(() => running.delete(work));
}

function isWaiting(pod: Pod): boolean {
  const mine = (pod.spec?.schedulerName ?? SCHEDULER_NAME) === SCHEDULER_NAME;
  const gated = (pod.spec?.schedulingGates?.length ?? 0) > 0;
  const ending = pod.metadata.deletionTimestamp !== undefined || hasEnded(pod);
  return mine && !gated && !ending && !isSuspended(pod) && !pod.spec?.nodeName;
}

/** The pods of a tenant that is suspended stay where they are, also in no place at all. */
function isSuspended({ metadata }: Pod): boolean {
  return metadata.annotations?.[SUSPENDED_ANNOTATION] !== undefined;
}

function followPods(pods: Informer<Pod>, cache: SchedulerCache, queue: SchedulingQueue): void {
  const set = (pod: Pod) => {
    cache.setPod(pod);
    if (isWaiting(pod)) queue.add(podKey(pod), pod.spec?.priority ?? 0);
    else queue.remove(podKey(pod));
    // Room becomes free, or another pod's affinity is satisfied.
    if (pod.spec?.nodeName) queue.moveAll();
  };
  pods.addHandler({
    add: set,
    update(pod, previous) {
      // Only what concerns scheduling: a changed status must not wake a pod out of its back-off.
      const same =
        pod.metadata.generation === previous.metadata.generation &&
        // A resize frees room when the node has carried it out, which its status tells.
        isDeepStrictEqual(podRequests(pod), podRequests(previous)) &&
        hasEnded(pod) === hasEnded(previous) &&
        isSuspended(pod) === isSuspended(previous) &&
        pod.metadata.deletionTimestamp === previous.metadata.deletionTimestamp &&
        pod.metadata.uid === previous.metadata.uid &&
        pod.spec?.nodeName === previous.spec?.nodeName &&
        JSON.stringify(pod.metadata.labels) === JSON.stringify(previous.metadata.labels);
      if (same) cache.setPod(pod);
      else set(pod);
    },
    delete(pod) {
      cache.removePod(podKey(pod));
      queue.remove(podKey(pod));
      queue.moveAll();
    },
  });
}

function followNodes(
  nodes: Informer<NodeInfo['node']>,
  cache: SchedulerCache,
  queue: SchedulingQueue,
): void {
  /** Heartbeats change conditions every few seconds and are no reason to try pods again. */
  const essence = ({ metadata, spec, status }: NodeInfo['node']) =>
    JSON.stringify([metadata.labels, metadata.annotations, spec, status?.allocatable]);
  nodes.addHandler({
    add(node) {
      cache.setNode(node);
      queue.moveAll();
    },
    update(node, previous) {
      if (essence(node) === essence(previous)) return;
      cache.setNode(node);
      queue.moveAll();
    },
    delete: (node) => cache.removeNode(node.metadata.name ?? ''),
  });
}

interface BindTools {
  client: Client;
  events: EventRecorder;
  clock: Clock;
  log: Log;
  cache: SchedulerCache;
  queue: SchedulingQueue;
}

async function bind(tools: BindTools, pod: Pod, node: NodeInfo): Promise<void> {
  const { client, events, clock, log, cache, queue } = tools;
  const key = podKey(pod);
  const { name = '', namespace = '', uid } = pod.metadata;
  const binding = {
    apiVersion: 'v1',
    kind: 'Binding',
    metadata: {
      name,
      namespace,
      uid,
      annotations: { [SCHEDULED_ANNOTATION]: new Date(clock.nowMs()).toISOString() },
    },
    target: { apiVersion: 'v1', kind: 'Node', name: node.name },
  };
  try {
    await client.post(PODS, { namespace, name }, 'binding', binding);
    const message = `Successfully assigned ${key} to ${node.name}`;
    events.event(pod, 'Normal', 'Scheduled', message);
  } catch (error) {
    cache.forget(key);
    // Bound by somebody else, or gone: the watch says which.
    if (error instanceof StatusError && (error.code === 404 || error.code === 409)) return;
    log.warn('Binding failed', { pod: key, node: node.name, error: describeError(error) });
    queue.retry(key);
  }
}

async function reportFailure(
  client: Client,
  events: EventRecorder,
  pod: Pod,
  message: string,
  clock: Clock,
  log: Log,
): Promise<void> {
  const { name = '', namespace = '' } = pod.metadata;
  events.event(pod, 'Warning', 'FailedScheduling', message);
  const known = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled');
  if (known?.status === 'False' && known.message === message) return;
  const condition = {
    type: 'PodScheduled',
    status: 'False',
    reason: 'Unschedulable',
    message,
    lastTransitionTime: `${new Date(clock.nowMs()).toISOString().slice(0, 19)}Z`,
  };
  const body = { status: { conditions: [condition] } };
  await client
    .patch(PODS, { namespace, name }, 'strategic-merge', body, { subresource: 'status' })
    .catch((error) => {
      const gone = error instanceof StatusError && error.code === 404;
      if (!gone)
        log.warn('Condition cannot be written', { pod: name, error: describeError(error) });
    });
}
