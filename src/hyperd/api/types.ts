import type {
  ContainerState,
  CreatePod,
  ExecRequest,
  HyperdEvent,
  HyperdInfo,
  ImageConfig,
  ImageStatus,
  KernelStatus,
  PodResources,
  PodState,
  PodStats,
  PoolStatus,
  PodTimings,
  PortState,
  ProbeResult,
  ProcessExit,
  TemplateStatus,
  VmStatus,
} from '../../api/hyperd.ts';
import type { Status } from '../../api/status.ts';
import {
  ATTACH,
  CONTAINER,
  CREATE,
  EXEC,
  FILES,
  HTTP_PROBE,
  POD,
  POOL_LIMIT,
  PORT,
  PROCESS,
  PULL,
  RESOURCES,
  PUSH,
  TCP_PROBE,
  volume,
} from '../daemon/validate.ts';
import {
  answered,
  boolean,
  described,
  listOf,
  nullable,
  oneOf,
  optional,
  shape,
  textMap,
} from '../schema/checks.ts';
import type { Check, Fields } from '../schema/checks.ts';

/**
 * The types of `api/hyperd.ts` as the API's description has them. What clients send is described
 * by the checks that it has to pass. What they are told nobody checks; the compiler sees to it
 * that no field is missing here.
 */

const string: Check = described({ type: 'string' }, () => undefined);
const number: Check = described({ type: 'number' }, () => undefined);
const count: Check = described({ type: 'integer', minimum: 0 }, () => undefined);
const strings = many(string);

function many(item: Check): Check {
  return listOf(item, Number.MAX_SAFE_INTEGER);
}

const INFO: Fields<HyperdInfo> = {
  version: string,
  instance: string,
  hypervisor: string,
  accelerator: oneOf('kvm', 'tcg', 'fake'),
  acceleratorReason: string,
  kernelVersion: string,
  overhead: shape({ memoryMib: count, cpuMillis: count }),
  machine: shape({ cpuCount: count, memoryBytes: count, diskBytes: count }),
  podCount: count,
  defaults: shape({ network: POD.network, dns: POD.dns }),
};

const EVENT: Fields<HyperdEvent> = {
  sequence: count,
  pod: string,
  type: oneOf('pod', 'container', 'image'),
  container: optional(string),
};

const IMAGE_CONFIG: Fields<ImageConfig> = {
  architecture: string,
  user: string,
  env: strings,
  entrypoint: strings,
  command: strings,
  workingDir: string,
  exposedPorts: strings,
  volumes: strings,
  stopSignal: string,
  labels: textMap,
};

const IMAGE: Fields<ImageStatus> = {
  id: string,
  digest: string,
  references: strings,
  diskBytes: count,
  usedBy: strings,
  config: shape(IMAGE_CONFIG),
};

const TIMINGS: Fields<PodTimings> = {
  requested: optional(number),
  network: optional(number),
  disks: optional(number),
  vmm: optional(number),
  kernel: optional(number),
  guest: optional(number),
};

const PORT_STATE: Fields<PortState> = { ...PORT, problem: string };

const POD_STATE: Fields<PodState> = {
  id: string,
  namespace: string,
  name: string,
  phase: oneOf('created', 'creating', 'running', 'stopped', 'deleting'),
  paused: boolean,
  labels: textMap,
  spec: answered('HyperPodSpec'),
  address: string,
  origin: oneOf('', 'warm', 'template', 'cold'),
  ports: many(answered('PortState')),
  reason: oneOf('', 'PoweredOff', 'GuestPanic', 'VmmKilled', 'VmmFailed', 'StartFailed'),
  message: string,
  guest: nullable(shape({ kernelVersion: string, bootId: string })),
  timings: shape(TIMINGS),
  containers: many(answered('ContainerState')),
};

const CONTAINER_STATE: Fields<ContainerState> = {
  id: string,
  name: string,
  attempt: count,
  imageId: string,
  phase: oneOf('creating', 'running', 'exited'),
  createdAtMs: number,
  startedAtMs: number,
  firstByteAtMs: number,
  exit: nullable(answered('ProcessExit')),
  labels: textMap,
};

const EXIT: Fields<ProcessExit> = {
  exitCode: count,
  signal: count,
  oomKilled: boolean,
  reason: string,
  message: string,
  finishedAtMs: number,
};

const STATS: Fields<PodStats> = {
  cpuNanos: count,
  memoryBytes: count,
  hostMemoryBytes: count,
  containers: many(shape({ id: string, cpuNanos: count, memoryBytes: count })),
};

const KERNEL: Fields<KernelStatus> = {
  id: string,
  names: many(string),
  release: string,
  origin: string,
  bytes: count,
  isDefault: boolean,
  isBuiltIn: boolean,
};

const TEMPLATE: Fields<TemplateStatus> = {
  id: string,
  owner: string,
  cpuCount: count,
  memoryMib: count,
  kernel: string,
  phase: oneOf('building', 'ready', 'resting'),
  diskBytes: count,
  createdAtMs: number,
  useCount: count,
  message: string,
};

const POOL: Fields<PoolStatus> = {
  owner: string,
  cpuCount: count,
  memoryMib: count,
  network: string,
  waiting: count,
  making: count,
  wanted: count,
  hits: count,
  misses: count,
};

const VM: Fields<VmStatus> = {
  id: string,
  pod: string,
  state: oneOf('running', 'paused'),
  pid: count,
  cpuCount: count,
  memoryMib: count,
  cpuNanos: count,
  hostMemoryBytes: count,
};

const STATUS: Fields<Status> = {
  apiVersion: oneOf('v1'),
  kind: oneOf('Status'),
  metadata: shape({}),
  status: oneOf('Success', 'Failure'),
  message: optional(string),
  reason: optional(string),
  details: optional(shape({})),
  code: count,
};

const PROGRESS: Check = described(
  {
    oneOf: [
      shape({ type: oneOf('layer'), digest: string, doneBytes: count, totalBytes: count }),
      shape({ type: oneOf('disk') }),
      shape({ type: oneOf('done'), image: answered('ImageStatus') }),
      shape({ type: oneOf('failed'), status: answered('Status') }),
    ].map(({ schema }) => schema),
  },
  () => undefined,
);

const PROBE: Check = described(
  { oneOf: [shape(TCP_PROBE).schema, shape(HTTP_PROBE).schema] },
  () => undefined,
);

const PROBE_RESULT: Fields<ProbeResult> = { success: boolean, message: string };

/** By the name that they have in `api/hyperd.ts`. */
export const TYPES = {
  HyperdInfo: shape(INFO),
  HyperdEvent: shape(EVENT),
  PullImage: shape(PULL),
  PushImage: shape(PUSH),
  TransferProgress: PROGRESS,
  ImageStatus: shape(IMAGE),
  CreatePod: shape(CREATE satisfies Fields<CreatePod>),
  HyperPodSpec: shape(POD),
  PodResources: shape(RESOURCES satisfies Fields<PodResources>),
  HyperVolume: volume,
  VolumeFiles: shape(FILES),
  PortMapping: shape(PORT),
  PortState: shape(PORT_STATE),
  PodState: shape(POD_STATE),
  HyperContainerSpec: shape(CONTAINER),
  ProcessSpec: PROCESS,
  ContainerState: shape(CONTAINER_STATE),
  ProcessExit: shape(EXIT),
  ExecRequest: shape(EXEC satisfies Fields<ExecRequest>),
  AttachRequest: shape(ATTACH),
  ProbeRequest: PROBE,
  ProbeResult: shape(PROBE_RESULT),
  PodStats: shape(STATS),
  KernelStatus: shape(KERNEL),
  TemplateStatus: shape(TEMPLATE),
  PoolLimit: shape(POOL_LIMIT),
  PoolStatus: shape(POOL),
  VmStatus: shape(VM),
  Status: shape(STATUS),
} satisfies Record<string, Check>;

export type TypeName = keyof typeof TYPES;
