import type { Lease, Node, NodeCondition, NodeStatus } from '../api/types.generated.ts';
import type { HyperdInfo } from '../api/hyperd.ts';
import { isStatus } from '../api/status.ts';
import type { Clock } from '../base/clock.ts';
import { rfc3339, rfc3339Micro } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import type { Client } from '../client/client.ts';
import { LEASES, NODES } from '../client/resources.ts';
import { covers } from './status-writer.ts';

/** The node as an object: registered, kept up to date, and alive by its Lease. */
export interface NodeOptions {
  client: Client;
  clock: Clock;
  log: Log;
  name: string;
  hostIp: string;
  kubeletPort: number;
  /** Pods that the scheduler may place on it. */
  maxPods: number;
  labels: Record<string, string>;
  /** Rejects while hyperd is away; the node is not ready then. */
  info: () => Promise<HyperdInfo>;
  machine: MachineFacts;
  /** Why pods have no network yet; empty when they have. The node is not ready until then. */
  networkProblem: () => string;
  /** Resolves when something has changed that the next report should not wait for. */
  nextChange: () => Promise<void>;
  /** The Node object is there, with its addresses. */
  onRegistered: () => void;
  /** The API has been told that the node is Ready. */
  onReady: () => void;
}

/** What the host says of itself, read once. */
export interface MachineFacts {
  architecture: string;
  operatingSystem: string;
  osImage: string;
  machineId: string;
  systemUuid: string;
  bootId: string;
  kubeletVersion: string;
}

const LEASE_DURATION_SECONDS = 40;
const HEARTBEAT_INTERVAL_MS = 10_000;
/** An unchanged status is written once in this time, as Kubernetes does. */
const STATUS_INTERVAL_MS = 300_000;
const NODE_LEASE_NAMESPACE = 'kube-node-lease';
const OVERHEAD_ANNOTATION = 'hypernetes.io/vm-overhead-memory';
/** Kept back for the system: a tenth of the memory, but no less than this. */
const MEMORY_RESERVE_MIN_BYTES = 256 << 20;
const MEMORY_RESERVE_FRACTION = 0.1;

/** Registers the node and keeps it alive until the signal aborts. Never rejects. */
export async function runNode(options: NodeOptions, signal: AbortSignal): Promise<void> {
  const { clock, log } = options;
  let writtenMs = Number.NEGATIVE_INFINITY;
  while (!signal.aborted) {
    const changed = options.nextChange();
    try {
      const info = await options.info().catch((error: unknown) => describeError(error));
      const isDue = clock.monotonicMs() - writtenMs >= STATUS_INTERVAL_MS;
      if (await writeNode(options, info, isDue, signal)) writtenMs = clock.monotonicMs();
      options.onRegistered();
      if (readiness(options, info).status === 'True') options.onReady();
      await renewLease(options, signal);
    } catch (error) {
      if (!signal.aborted) log.warn('node cannot be reported', { error: describeError(error) });
    }
    await untilNextReport(options, changed, signal);
  }
}

async function untilNextReport(
  { clock }: NodeOptions,
  changed: Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const over = new AbortController();
  const rest = clock.sleep(HEARTBEAT_INTERVAL_MS, AbortSignal.any([signal, over.signal]));
  await Promise.race([rest.catch(() => {}), changed]);
  over.abort();
}

/** True when the status was written. */
async function writeNode(
  options: NodeOptions,
  info: HyperdInfo | string,
  isDue: boolean,
  signal: AbortSignal,
): Promise<boolean> {
  const { client, name } = options;
  const node = await readOrCreate(options, info, signal);
  const metadata = nodeMetadata(options, info);
  if (!covers(node.metadata, metadata)) {
    await client.patch(NODES, { name }, 'merge', { metadata }, { signal });
  }
  const status = nodeStatus(options, info, node.status);
  if (!isDue && covers(withoutHeartbeat(node.status), withoutHeartbeat(status))) return false;
  const write = { subresource: 'status', signal };
  await client.patch(NODES, { name }, 'strategic-merge', { status }, write);
  return true;
}

async function readOrCreate(
  options: NodeOptions,
  info: HyperdInfo | string,
  signal: AbortSignal,
): Promise<Node> {
  const { client, name } = options;
  try {
    return await client.get(NODES, { name }, { signal });
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
  const metadata = { name, ...nodeMetadata(options, info) };
  const node: Node = { apiVersion: 'v1', kind: 'Node', metadata, spec: {} };
  node.status = nodeStatus(options, info, undefined);
  return client.create(NODES, node, { signal });
}

function nodeMetadata(options: NodeOptions, info: HyperdInfo | string) {
  const { machine, name } = options;
  const overhead = typeof info === 'string' ? undefined : info.overhead.memoryMib * (1 << 20);
  return {
    labels: {
      'kubernetes.io/hostname': name,
      'kubernetes.io/os': machine.operatingSystem,
      'kubernetes.io/arch': machine.architecture,
      'beta.kubernetes.io/os': machine.operatingSystem,
      'beta.kubernetes.io/arch': machine.architecture,
      ...options.labels,
    },
    ...(overhead === undefined ? {} : { annotations: { [OVERHEAD_ANNOTATION]: String(overhead) } }),
  };
}

function nodeStatus(
  options: NodeOptions,
  info: HyperdInfo | string,
  old: NodeStatus | undefined,
): NodeStatus {
  const { machine, hostIp, name, kubeletPort } = options;
  const status: NodeStatus = {
    addresses: [
      { type: 'InternalIP', address: hostIp },
      { type: 'Hostname', address: name },
    ],
    conditions: nodeConditions(options, info, old?.conditions ?? []),
    daemonEndpoints: { kubeletEndpoint: { Port: kubeletPort } },
    nodeInfo: {
      architecture: machine.architecture,
      operatingSystem: machine.operatingSystem,
      osImage: machine.osImage,
      machineID: machine.machineId,
      systemUUID: machine.systemUuid,
      bootID: machine.bootId,
      kubeletVersion: machine.kubeletVersion,
      kubeProxyVersion: '',
      kernelVersion:
        typeof info === 'string' ? (old?.nodeInfo?.kernelVersion ?? '') : info.kernelVersion,
      containerRuntimeVersion:
        typeof info === 'string'
          ? (old?.nodeInfo?.containerRuntimeVersion ?? 'hyper://unknown')
          : `hyper://${info.version}`,
    },
  };
  if (typeof info === 'string') return status;
  const capacity = nodeCapacity(info, options.maxPods);
  return { ...status, ...capacity };
}

/** What the machine has, and what of it pods may ask for. */
export function nodeCapacity(
  info: HyperdInfo,
  maxPods: number,
): Pick<NodeStatus, 'capacity' | 'allocatable'> {
  const { cpuCount, memoryBytes, diskBytes } = info.machine;
  const reserve = Math.max(MEMORY_RESERVE_MIN_BYTES, memoryBytes * MEMORY_RESERVE_FRACTION);
  const kib = (bytes: number) => `${Math.floor(bytes / 1024)}Ki`;
  const common = { cpu: String(cpuCount), pods: String(maxPods) };
  return {
    capacity: { ...common, memory: kib(memoryBytes), 'ephemeral-storage': kib(diskBytes) },
    allocatable: {
      ...common,
      memory: kib(Math.max(0, memoryBytes - reserve)),
      'ephemeral-storage': kib(diskBytes * (1 - MEMORY_RESERVE_FRACTION)),
    },
  };
}

/** What a node under no pressure says. */
const PRESSURES = [
  ['MemoryPressure', 'KubeletHasSufficientMemory', 'kubelet has sufficient memory available'],
  ['DiskPressure', 'KubeletHasNoDiskPressure', 'kubelet has no disk pressure'],
  ['PIDPressure', 'KubeletHasSufficientPID', 'kubelet has sufficient PID available'],
] as const;

interface ConditionRule {
  type: string;
  status: 'True' | 'False';
  reason: string;
  message: string;
}

function readiness(options: NodeOptions, info: HyperdInfo | string): ConditionRule {
  const problem = typeof info === 'string' ? info : options.networkProblem();
  return problem
    ? { type: 'Ready', status: 'False', reason: 'KubeletNotReady', message: problem }
    : {
        type: 'Ready',
        status: 'True',
        reason: 'KubeletReady',
        message: 'kubelet is posting ready status',
      };
}

function nodeConditions(
  options: NodeOptions,
  info: HyperdInfo | string,
  old: NodeCondition[],
): NodeCondition[] {
  const now = rfc3339(options.clock.nowMs());
  const rules = [
    ...PRESSURES.map(([type, reason, message]) => {
      return { type, reason, message, status: 'False' } as const;
    }),
    readiness(options, info),
  ];
  return rules.map((rule) => {
    const before = old.find((each) => each.type === rule.type);
    const lastTransitionTime = before?.status === rule.status ? before.lastTransitionTime : now;
    return { ...rule, lastHeartbeatTime: now, lastTransitionTime };
  });
}

function withoutHeartbeat(status: NodeStatus | undefined): NodeStatus | undefined {
  const conditions = status?.conditions?.map(({ type, status: value, reason, message }) => {
    return { type, status: value, reason, message };
  });
  return status && { ...status, ...(conditions ? { conditions } : {}) };
}

async function renewLease(options: NodeOptions, signal: AbortSignal): Promise<void> {
  const { client, name, clock } = options;
  const key = { namespace: NODE_LEASE_NAMESPACE, name };
  const renewTime = rfc3339Micro(clock.nowMs());
  const spec = { holderIdentity: name, leaseDurationSeconds: LEASE_DURATION_SECONDS, renewTime };
  try {
    await client.patch(LEASES, key, 'merge', { spec }, { signal });
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
    const metadata = { name, namespace: NODE_LEASE_NAMESPACE };
    const lease: Lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata, spec };
    await client.create(LEASES, lease, { signal });
  }
}
