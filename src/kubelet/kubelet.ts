import type { Node, Pod } from '../api/types.generated.ts';
import type { HyperPodSpec, HyperdInfo } from '../api/hyperd.ts';
import type { Clock } from '../base/clock.ts';
import { systemClock } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { systemRandom } from '../base/random.ts';
import type { Random } from '../base/random.ts';
import { createClient } from '../client/client.ts';
import { createEventRecorder } from '../client/events.ts';
import { createInformer } from '../client/informer.ts';
import { NODES, PODS } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import type { NodeContext } from './context.ts';
import { createHoldings } from './holdings.ts';
import { createPodEvents } from './events.ts';
import { LABEL } from './history.ts';
import { createHyperdClient } from '../client/hyperd.ts';
import type { HyperdClient } from '../client/hyperd.ts';
import { readMachineFacts } from './machine.ts';
import { createNodeRoom } from './node-room.ts';
import { runNode } from './node.ts';
import type { MachineFacts } from './node.ts';
import { createReferencedObjects } from './objects.ts';
import { createPodNetwork } from './pod-network.ts';
import type { NetworkSegment } from './pod-network.ts';
import { createPodWorker } from './pod-worker.ts';
import type { PodWorker } from './pod-worker.ts';
import type { SandboxDefaults } from './sandbox-spec.ts';
import { createSandboxes } from './sandboxes.ts';
import type { Sandboxes } from './sandboxes.ts';
import { createTokenSource } from './tokens.ts';

const MAX_PODS_DEFAULT = 110;

/**
 * The node agent: makes the pods that the API binds to this node run, each in a VM of hyperd's,
 * and tells the API how they are. It keeps nothing on disk: killed at any point, the next one
 * finds everything in the API and in hyperd.
 */
export interface KubeletOptions {
  nodeName: string;
  /** The node's address, for status.hostIP and the node's InternalIP. */
  hostIp: string;
  /** Of the kubelet's own server, as the API server reaches it. @default 10250 */
  kubeletPort?: number;
  /** Pods that the scheduler may place on this node. @default 110, as in Kubernetes */
  maxPods?: number;
  /** Authenticated as the node (system:node:<name>). */
  transport: Transport;
  /** Path of hyperd's socket, or a client of it. */
  hyperd: string | HyperdClient;
  /** What pods find in KUBERNETES_SERVICE_HOST and _PORT. */
  apiServer: { host: string; port: number };
  /** The segment that pods are put on, from the node's spec.podCIDR; null for none. */
  network: ((podCidr: string) => NetworkSegment) | null;
  clusterDns?: string[];
  clusterDomain?: string;
  /** The node's own way to names, for pods that do not use the cluster's DNS. @default none */
  nodeDns?: () => Promise<HyperPodSpec['dns']>;
  labels?: Record<string, string>;
  machine?: MachineFacts;
  clock?: Clock;
  random?: Random;
  log: Log;
}

export interface Kubelet {
  /**
   * Runs until the signal aborts, then lets go of everything; VMs run on. Rejects only when it
   * cannot begin at all (hyperd does not answer within a minute).
   */
  start(signal: AbortSignal): Promise<void>;
  /** Workers by pod uid, for the server and for tests. */
  readonly pods: ReadonlyMap<string, PodWorker>;
  /** Undefined where this node has no such pod. */
  findPod(namespace: string, name: string): PodWorker | undefined;
  /** Resolves when the Node object is there, with its addresses. */
  readonly registered: Promise<void>;
  /** Resolves when the API has been told that the node is Ready. */
  readonly ready: Promise<void>;
  /** Undefined until hyperd has answered once. */
  readonly context: NodeContext | undefined;
}

const HYPERD_TIMEOUT_MS = 60_000;
const HYPERD_RETRY_MS = 200;
const ORPHAN_RETRY_MS = 5_000;

export function createKubelet(options: KubeletOptions): Kubelet {
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  const { log, nodeName, maxPods = MAX_PODS_DEFAULT } = options;
  const hyperd =
    typeof options.hyperd === 'string' ? createHyperdClient(options.hyperd) : options.hyperd;
  const client = createClient(options.transport, { userAgent: 'kubelet' });
  const workers = new Map<string, PodWorker>();
  let context: NodeContext | undefined;
  const { promise: registered, resolve: onRegistered } = Promise.withResolvers<void>();
  const { promise: ready, resolve: onReady } = Promise.withResolvers<void>();
  const network = createPodNetwork(options.network);
  let networkChanged = Promise.withResolvers<void>();

  const wake = (uid: string) => workers.get(uid)?.wake();
  const holdings = createHoldings({ client, hyperd, clock, log, nodeName });
  const onNode = (node: Node) => {
    holdings.observe(node);
    if (!network.observe(node)) return;
    networkChanged.resolve();
    networkChanged = Promise.withResolvers<void>();
    for (const worker of workers.values()) worker.wake();
  };
  /** Another pod has changed, and may have made room. */
  const wakeDeferred = () => {
    for (const worker of workers.values()) if (worker.isDeferred) worker.wake();
  };
  const onPod = (context: NodeContext) => (pod: Pod) => {
    const uid = pod.metadata.uid ?? '';
    wakeDeferred();
    const known = workers.get(uid);
    if (known) {
      known.update(pod);
      return;
    }
    const worker = createPodWorker(context, pod);
    workers.set(uid, worker);
    void worker.done.then(() => {
      workers.delete(uid);
      wakeDeferred();
    });
    worker.wake();
  };

  const begin = async (signal: AbortSignal) => {
    const info = await waitForHyperd(hyperd, clock, signal);
    const shared = { client, clock, random, log, signal };
    const component = { component: 'kubelet', host: nodeName };
    const recorder = createEventRecorder({ ...shared, ...component });
    const sandboxes = createSandboxes({ hyperd, clock, log, onChange: wake });
    context = {
      client,
      hyperd,
      sandboxes,
      clock,
      log,
      events: createPodEvents(recorder),
      holdings,
      objects: createReferencedObjects(client, clock),
      tokens: createTokenSource(client, clock),
      apiServer: options.apiServer,
      hostIp: options.hostIp,
      size: {
        cpuCount: info.machine.cpuCount,
        memoryBytes: info.machine.memoryBytes,
        vmmOverheadMib: info.overhead.memoryMib,
      },
      room: createNodeRoom(info, maxPods, () => workers.values()),
      network,
      sandboxDefaults: () => sandboxDefaults(options),
    };
    return { context, sandboxes, shared };
  };

  return {
    pods: workers,
    registered,
    ready,
    get context() {
      return context;
    },
    findPod(namespace, name) {
      return [...workers.values()].find(
        ({ pod }) => pod.metadata.namespace === namespace && pod.metadata.name === name,
      );
    },
    async start(signal) {
      const begun = await begin(signal).catch((error: unknown) => {
        if (signal.aborted) return undefined;
        throw error;
      });
      if (!begun) return;
      const { sandboxes, shared } = begun;
      const following = sandboxes.run(signal);
      await Promise.race([sandboxes.synced, following]);
      const fieldSelector = `spec.nodeName=${nodeName}`;
      const pods = createInformer({ ...shared, resource: PODS, fieldSelector });
      const add = onPod(begun.context);
      pods.addHandler({
        add,
        update: add,
        delete: (pod) => workers.get(pod.metadata.uid ?? '')?.remove(),
      });
      const own = createInformer({
        ...shared,
        resource: NODES,
        fieldSelector: `metadata.name=${nodeName}`,
      });
      own.addHandler({ add: onNode, update: onNode });
      const reported = {
        ...(await nodeOptions(options, client, clock, hyperd)),
        networkProblem: () => network.problem(),
        nextChange: () => networkChanged.promise,
        onRegistered,
        onReady,
      };
      const node = runNode(reported, signal);
      const holding = Promise.all([own.synced, registered]).then(() => holdings.run(signal));
      const orphans = pods.synced.then(() =>
        removeOrphans(hyperd, sandboxes, workers, clock, log, signal),
      );
      await Promise.all([
        ...[following, node],
        ...[orphans, holding].map((work) => Promise.race([work, aborted(signal)])),
      ]);
      await Promise.all([...workers.values()].map((worker) => worker.close()));
      hyperd.close();
    },
  };
}

async function sandboxDefaults(options: KubeletOptions): Promise<SandboxDefaults> {
  const none = { nameservers: [], searches: [], options: [] };
  return {
    clusterDomain: options.clusterDomain ?? 'cluster.local',
    clusterDns: options.clusterDns ?? [],
    nodeDns: (await options.nodeDns?.()) ?? none,
  };
}

async function nodeOptions(
  options: KubeletOptions,
  client: ReturnType<typeof createClient>,
  clock: Clock,
  hyperd: HyperdClient,
) {
  return {
    client,
    clock,
    log: options.log,
    name: options.nodeName,
    hostIp: options.hostIp,
    kubeletPort: options.kubeletPort ?? 10_250,
    maxPods: options.maxPods ?? MAX_PODS_DEFAULT,
    labels: options.labels ?? {},
    info: () => hyperd.info(),
    machine: options.machine ?? (await readMachineFacts()),
  };
}

async function waitForHyperd(
  hyperd: HyperdClient,
  clock: Clock,
  signal: AbortSignal,
): Promise<HyperdInfo> {
  const deadlineMs = clock.monotonicMs() + HYPERD_TIMEOUT_MS;
  for (;;) {
    try {
      return await hyperd.info(signal);
    } catch (error) {
      if (signal.aborted || clock.monotonicMs() >= deadlineMs) throw error;
    }
    await clock.sleep(HYPERD_RETRY_MS, signal);
  }
}

/** VMs of pods that the API no longer knows. Asked only after the whole list has been seen. */
async function removeOrphans(
  hyperd: HyperdClient,
  sandboxes: Sandboxes,
  workers: ReadonlyMap<string, PodWorker>,
  clock: Clock,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  for (const sandbox of sandboxes.all()) {
    const uid = sandbox.labels[LABEL.podUid];
    // A pod without our label belongs to another client of hyperd.
    if (!uid || workers.has(uid)) continue;
    log.info('pod is unknown to the API, its VM is removed', { pod: sandbox.id });
    while (!signal.aborted) {
      try {
        await hyperd.deletePod(sandbox.id, signal);
        await sandboxes.refresh(sandbox.id);
        break;
      } catch (error) {
        log.warn('VM cannot be removed', { pod: sandbox.id, error: describeError(error) });
        await clock.sleep(ORPHAN_RETRY_MS, signal).catch(() => {});
      }
    }
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
