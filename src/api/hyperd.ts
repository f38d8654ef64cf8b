import type { Status } from './status.ts';

/**
 * hyperd's API, spoken over HTTP/1.1 on a unix socket and, when asked, over TLS with client
 * certificates. hyperd knows VMs, containers, images and streams, and nothing of Kubernetes; the
 * kubelet is one client of it, `hyperctl` another.
 *
 * The routes are a table, `hyperd/api/routes.ts`, which drives the server and the OpenAPI document
 * at `/openapi.json`. What the types do not say:
 *
 * - `PUT` is idempotent and carried out at once; `POST /v1/pods` makes a new pod, and does not start
 *   it unless it is told to.
 * - `stop` gives back a pod's VM, its address and its disks; its states and logs stay until DELETE.
 *   What still runs is killed, after `graceMs` in which it may end by its stop signal. Idempotent; a
 *   pod that ended by itself has given them back already. `start` makes a new VM for it.
 * - A VM keeps the CPUs and the memory that it was started with: a limit of more CPUs has no effect
 *   beyond them, and `PUT …/resources` refuses more memory as Invalid, and less than a container
 *   uses as a Conflict.
 * - A paused pod does nothing and is told nothing: what needs its guest is refused as a Conflict.
 *
 * Errors are Kubernetes `Status` objects (`api/status.ts`); image failures carry the
 * `ImageErrorReason` in `details.causes[0].reason`.
 *
 * After `101 Upgrade: hyper-stream` both sides send frames: one byte channel, four bytes length
 * (big endian), payload of at most STREAM_FRAME_BYTES_MAX. A frame of length 0 on a data channel
 * is the end of that channel. Flow control is the socket's: an unread socket stops the guest.
 * The request of an upgrade is a JSON body with Content-Length; the 101 answers it. With
 * `hyper-raw` the bytes after the 101 are those of the TCP connection inside the guest.
 */
export const STREAM_FRAME_BYTES_MAX = 64 * 1024;

export const STREAM_CHANNEL = {
  /** client -> hyperd */
  stdin: 0,
  /** hyperd -> client */
  stdout: 1,
  stderr: 2,
  /** hyperd -> client, last frame of all: JSON `ProcessExit`. */
  exit: 3,
  /** client -> hyperd: JSON `TerminalSize`. */
  resize: 4,
} as const;

export interface HyperdInfo {
  version: string;
  /** Changes at every start of the daemon. */
  instance: string;
  hypervisor: string;
  accelerator: 'kvm' | 'tcg' | 'fake';
  acceleratorReason: string;
  /** Of the node's default kernel. */
  kernelVersion: string;
  /** What a VM costs beyond the memory that its containers may use. */
  overhead: { memoryMib: number; cpuMillis: number };
  machine: { cpuCount: number; memoryBytes: number; diskBytes: number };
  podCount: number;
  /** What a pod is given whose maker knows nothing of this machine: hyperctl's. */
  defaults: PodDefaults;
}

export interface PodDefaults {
  network: HyperPodSpec['network'];
  dns: HyperPodSpec['dns'];
}

/**
 * Sequence numbers grow by one over the daemon's life; `instance` tells lives apart. An event
 * says that something about the pod changed; what it is now is asked with a GET. A client that
 * connects first opens the stream (without `after`: from now on), then lists. 410 answers an
 * `after` that is no longer kept, and a stream whose reader is too slow is closed: list again.
 */
export interface HyperdEvent {
  sequence: number;
  pod: string;
  type: 'pod' | 'container' | 'image';
  /** The container's id, where the event is about one. */
  container?: string;
}

export interface PullImage {
  reference: string;
  credentials: { username: string; password: string }[];
  /**
   * `never` and `if-not-present` look at what the node has first. An image that its registry gave
   * to a credential alone counts as present only for who gives that credential again.
   */
  policy: 'always' | 'if-not-present' | 'never';
}

/** With `progress` a pull or push is answered by these, one JSON object a line; the last one is an end. */
export type TransferProgress =
  | { type: 'layer'; digest: string; doneBytes: number; totalBytes: number }
  /** The layers are here and become a disk. */
  | { type: 'disk' }
  | { type: 'done'; image: ImageStatus }
  | { type: 'failed'; status: Status };

export interface PushImage {
  /** Where it goes, and which image: what the node has under this name, unless `image` says more. */
  reference: string;
  /** Another name or the id of the image. */
  image?: string;
  credentials: { username: string; password: string }[];
}

export interface ImageStatus {
  /** Digest of the image's configuration: `sha256:…`. */
  id: string;
  /** Digest of the manifest, as in `repo@sha256:…`. */
  digest: string;
  references: string[];
  /** Of the read-only disk. */
  diskBytes: number;
  /** Owners whose pods have run it; `*` for more than can be told apart. */
  usedBy: string[];
  config: ImageConfig;
}

/** The part of the OCI image configuration that running a container needs. */
export interface ImageConfig {
  architecture: string;
  user: string;
  env: string[];
  entrypoint: string[];
  command: string[];
  workingDir: string;
  exposedPorts: string[];
  volumes: string[];
  stopSignal: string;
  labels: Record<string, string>;
}

export interface HyperPodSpec {
  /** The Kubernetes uid. */
  id: string;
  namespace: string;
  name: string;
  /**
   * Whose pod it is. Pods of one owner may be started from one template, and so share memory until
   * they write to it; pods without an owner share nothing with anybody.
   * @default ''
   */
  owner?: string;
  hostname: string;
  domain: string;
  /** Name of one of the node's kernels. @default the node's default kernel */
  kernel?: string;
  cpuCount: number;
  /** What the guest sees, its own overhead included. */
  memoryMib: number;
  limits: {
    cpuMillis: number;
    cpuWeightMillis: number;
    memoryMib: number;
    /** Of each disk of the host that the pod's writable disk is on. @default 0, no limit */
    diskBytesPerSecond?: number;
    diskOpsPerSecond?: number;
  };
  /** Size of the pod's writable disk (container layers, emptyDir). It is sparse. */
  scratchMib: number;
  /** The segment of the pod, or null for none. */
  network: { id: string; cidr: string; gateway: string; mtu: number; nat: boolean } | null;
  dns: { nameservers: string[]; searches: string[]; options: string[] };
  hostAliases: { ip: string; hostnames: string[] }[];
  sysctls: Record<string, string>;
  shareProcessNamespace: boolean;
  volumes: HyperVolume[];
  /** Free for the client; returned in PodState. */
  labels: Record<string, string>;
  /** Ports of this machine that lead into the pod while it runs. @default [] */
  ports?: PortMapping[];
  /** What becomes of the pod once all of its containers have ended. @default 'keep' */
  whenDone?: 'keep' | 'stop' | 'remove';
}

/** A TCP port of this machine, and the one that it leads to at the pod's loopback address. */
export interface PortMapping {
  /** IP address of this machine; `0.0.0.0` are all of them. */
  hostAddress: string;
  /** 0 for any that is free. */
  hostPort: number;
  guestPort: number;
}

export interface PortState extends PortMapping {
  /** Why it does not lead into the pod; empty where it does. */
  problem: string;
}

/** Other amounts for a pod that runs, and for those of its containers that are named. */
export interface PodResources {
  limits: HyperPodSpec['limits'];
  containers: {
    id: string;
    resources: HyperContainerSpec['resources'];
    /** Replaces those of the container that have these names. @default {} */
    labels?: Record<string, string>;
  }[];
}

/** A new pod with its containers, which are started in this order each time that the pod is. */
export interface CreatePod {
  spec: HyperPodSpec;
  containers: HyperContainerSpec[];
  start: boolean;
}

export type HyperVolume =
  | { name: string; type: 'scratch'; sizeLimitMib: number }
  | { name: string; type: 'memory'; sizeLimitMib: number }
  /** Files given by content: ConfigMap, Secret, projected, downward API. Kept in guest memory. */
  | { name: string; type: 'files'; content: VolumeFiles };

export interface VolumeFiles {
  /** Grows with each change; an older content never replaces a newer one. */
  version: number;
  /** Relative paths without `..`; content is base64. */
  files: { path: string; mode: number; content: string; uid?: number; gid?: number }[];
}

export interface HyperContainerSpec {
  /** 1 to 64 of [a-z0-9-]; unique in the pod over all attempts. */
  id: string;
  name: string;
  attempt: number;
  imageId: string;
  process: ProcessSpec;
  /** What stops it: `TERM` where the image says nothing. */
  stopSignal: string;
  readOnlyRootfs: boolean;
  mounts: ContainerMount[];
  resources: { cpuMillis: number; cpuWeightMillis: number; memoryBytes: number };
  /** Absolute path in the container; what it holds at exit is in the exit's message. */
  terminationMessagePath: string;
  /** Whether the tail of the log stands in when that file is empty and the exit code is not 0. */
  terminationMessageFromLog: boolean;
  stdin: boolean;
  stdinOnce: boolean;
  labels: Record<string, string>;
}

export interface ProcessSpec {
  argv: string[];
  /** `NAME=value`. */
  env: string[];
  workingDir: string;
  /** `uid`, `name`, `uid:gid` or `name:group`, looked up in the image; empty is root. */
  user: string;
  /** Overrides the group that `user` gives. */
  gid?: number;
  supplementalGroups: number[];
  tty: boolean;
  security: {
    privileged: boolean;
    runAsNonRoot: boolean;
    noNewPrivileges: boolean;
    /** Names with CAP_; the effective set of the process. */
    capabilities: string[];
    seccompDefault: boolean;
  };
}

export interface ContainerMount {
  volume: string;
  path: string;
  subPath: string;
  readOnly: boolean;
}

/** `created` is one that was never started. */
export type PodPhase = 'created' | 'creating' | 'running' | 'stopped' | 'deleting';

export interface PodState {
  id: string;
  namespace: string;
  name: string;
  phase: PodPhase;
  /** Whether its VM is held; it may be so while it runs. */
  paused: boolean;
  labels: Record<string, string>;
  /** Of `HyperPodSpec` as it was accepted, so that a restarted client need not remember. */
  spec: HyperPodSpec;
  /** Without prefix length; empty before the port exists and when it has been given back. */
  address: string;
  /** How it came to its VM: one that waited, one from a template, one that booted; empty before. */
  origin: '' | 'warm' | 'template' | 'cold';
  ports: PortState[];
  /** Why a pod is stopped: `PoweredOff` at the client's request or by the guest itself. */
  reason: '' | 'PoweredOff' | 'GuestPanic' | 'VmmKilled' | 'VmmFailed' | 'StartFailed';
  message: string;
  guest: { kernelVersion: string; bootId: string } | null;
  /** Milliseconds since the epoch at which a stage was complete. */
  timings: PodTimings;
  containers: ContainerState[];
}

export interface PodTimings {
  requested?: number;
  network?: number;
  disks?: number;
  vmm?: number;
  kernel?: number;
  guest?: number;
}

export interface ContainerState {
  id: string;
  name: string;
  attempt: number;
  imageId: string;
  phase: 'creating' | 'running' | 'exited';
  createdAtMs: number;
  startedAtMs: number;
  /** First byte that it wrote, 0 before. */
  firstByteAtMs: number;
  exit: ProcessExit | null;
  /** The hash or whatever the client keeps with it. */
  labels: Record<string, string>;
}

export interface ProcessExit {
  /** 128 + signal when it was killed by one, as a shell would tell it. */
  exitCode: number;
  /** 0 when it ended by itself. */
  signal: number;
  oomKilled: boolean;
  /** `Error` in Kubernetes' sense: could not be started (`StartError`), `OOMKilled`, `Completed`… */
  reason: string;
  message: string;
  finishedAtMs: number;
}

export interface ExecRequest {
  process: ProcessSpec;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** @default 0 (none) */
  timeoutMs: number;
}

export interface AttachRequest {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** Whether the end of channel stdin ends that of the process. @default its `stdinOnce` */
  endStdin?: boolean;
}

export interface TerminalSize {
  width: number;
  height: number;
}

export type ProbeRequest =
  | { type: 'tcp'; host: string; port: number; timeoutMs: number }
  | {
      type: 'http';
      scheme: 'http' | 'https';
      host: string;
      port: number;
      path: string;
      headers: { name: string; value: string }[];
      timeoutMs: number;
    };

export interface ProbeResult {
  success: boolean;
  message: string;
}

export interface KernelStatus {
  /** Digest of its content; empty for the one that set-up unpacked. */
  id: string;
  /** None where a newer one has taken its name and pods still run it. */
  names: string[];
  /** As `uname -r` tells it. */
  release: string;
  /** Where it is from, for people. */
  origin: string;
  /** On disk. */
  bytes: number;
  /** Whether pods get it that ask for none. */
  isDefault: boolean;
  isBuiltIn: boolean;
}

/** A VM at rest, of which others are made. */
export interface TemplateStatus {
  id: string;
  /** Who alone gets VMs of it. */
  owner: string;
  cpuCount: number;
  memoryMib: number;
  /** Release of the kernel that runs in it; empty for one that is here no more. */
  kernel: string;
  /** `resting`: it could not be made, and nobody tries for a while. */
  phase: 'building' | 'ready' | 'resting';
  diskBytes: number;
  /** 0 before it is made. */
  createdAtMs: number;
  /** VMs started from it by this daemon. */
  useCount: number;
  /** Of `resting`: why it could not be made. */
  message: string;
}

/** VMs that wait for pods of one kind. */
/** Of a machine's memory: what all VMs that wait for pods may take. */
export const POOL_MEMORY_FRACTION = 0.1;

/** What the VMs that wait for one owner's pods may take together. */
export interface PoolLimit {
  /** @default no limit of the owner's own */
  memoryMib?: number;
}

export interface PoolStatus {
  owner: string;
  cpuCount: number;
  memoryMib: number;
  /** Id of the network; empty for none. */
  network: string;
  /** VMs that wait, that are being made, and that should wait. */
  waiting: number;
  making: number;
  wanted: number;
  /** Pods that found one, and pods that did not. */
  hits: number;
  misses: number;
}

/** A VM on this machine, whether a pod has it or not. */
export interface VmStatus {
  id: string;
  /** The pod's id; empty for one that waits to be taken. */
  pod: string;
  state: 'running' | 'paused';
  /** Of the VMM. */
  pid: number;
  cpuCount: number;
  memoryMib: number;
  cpuNanos: number;
  /** Resident memory of the VMM, the guest's included. */
  hostMemoryBytes: number;
}

export interface PodStats {
  cpuNanos: number;
  memoryBytes: number;
  hostMemoryBytes: number;
  containers: { id: string; cpuNanos: number; memoryBytes: number }[];
}

/**
 * Log stream: `application/x-hyper-log`, records of the fixed header below followed by `length`
 * bytes. Text formatting (timestamps, limits in lines) is the client's, which asks with query
 * parameters: follow, tailLines, sinceMs, stdout, stderr.
 *
 *   u8 stream (1 stdout, 2 stderr) | u8 flags (1: the line goes on in the next record) |
 *   u16 0 | u32 length | u64 time in nanoseconds since the epoch
 *
 * A record holds at most one line, with its line feed: the records of one stream, joined, are
 * the bytes that the process wrote. Codec: `api/hyperlog.ts`.
 */
export const LOG_RECORD_HEADER_BYTES = 16;
