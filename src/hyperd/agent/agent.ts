import type {
  ContainerMount,
  ProbeRequest,
  ProbeResult,
  ProcessExit,
  ProcessSpec,
  TerminalSize,
  VolumeFiles,
} from '../../api/hyperd.ts';
import type { Duplex, Readable, Writable } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';

/**
 * hyperd's view of hyperstart, the guest's PID 1, over the control channel. The wire format is
 * `guest/PROTOCOL.md`. The guest is not trusted: whatever it sends is bounded, parsed strictly,
 * and answered by closing the session when it makes no sense.
 *
 * A session can be lost (daemon killed, socket closed) and taken up again: every output stream
 * has byte offsets, the guest keeps what was not acknowledged and stops the writer when its
 * window is full, and exits are repeated until acknowledged. So nothing is lost and nothing is
 * delivered twice.
 */
export interface Agent {
  /** What the guest said of itself at the last hello. */
  readonly hello: GuestHello;
  /**
   * Once per pod, before any container; idempotent. Sets hostname, clock, entropy, network, dns.
   * After a rehearsal it is called again. Returns the guest's boot id, which its kernel draws now.
   */
  setupPod(setup: PodSetup): Promise<{ bootId: string }>;
  /**
   * After a rehearsal's containers are removed: the disks of images, and the writable one if it is
   * not kept, are not used any more.
   */
  endRehearsal(options: { keepsScratch: boolean }): Promise<void>;
  /**
   * Before the pod is set up: mounts an image that it may use, whose disk is attached, has the guest
   * read what `program` begins with, and makes a container of the image ready.
   */
  prefetch(image: ImagePrefetch): Promise<void>;
  /** Idempotent by id. Resolves when the process runs; rejects with `AgentError` `StartError`. */
  startContainer(spec: GuestContainerSpec): Promise<void>;
  /** To the main process of the container. */
  signalContainer(containerId: string, signal: number): Promise<void>;
  /**
   * Other limits for a container that has started. Idempotent. Rejects with `AgentError` `Refused`
   * where it uses more memory than it is to have; then nothing is changed.
   */
  setResources(containerId: string, resources: GuestContainerSpec['resources']): Promise<void>;
  /** Kills what is left of it and unmounts its root. */
  removeContainer(containerId: string): Promise<void>;
  writeVolume(volume: string, content: VolumeFiles): Promise<void>;
  /** A further process in a running container. */
  exec(containerId: string, process: ProcessSpec): Promise<GuestProcess>;
  resizeContainer(containerId: string, size: TerminalSize): Promise<void>;
  /** Standard input of a container started with `stdin`. Ending it closes the process's stdin. */
  containerStdin(containerId: string): Writable;
  /** A TCP connection to `127.0.0.1:port` inside the guest. */
  connectPort(port: number): Promise<Duplex>;
  probe(request: ProbeRequest): Promise<ProbeResult>;
  stats(): Promise<GuestStats>;
  /** Sets the guest's clock; after a resume, and from time to time. */
  setClock(epochMs: number): Promise<void>;
  /** Asks for an orderly end: terminates what runs, syncs, powers off. */
  shutdown(): Promise<void>;
  /** Whether the VM is held: then the guest is not expected to answer in any time. */
  hold(isHeld: boolean): void;
  /** Settles when the session is over. Never rejects. */
  readonly closed: Promise<Error | undefined>;
  close(): void;
}

/** Opens a session on a control connection, which it then owns. @throws AgentError */
export type ConnectAgent = (
  connection: Duplex,
  options: AgentOptions & { clock: Clock; log: Log; signal: AbortSignal },
) => Promise<Agent>;

export interface AgentOptions {
  /** Bytes that are already safe, per container and stream, so that the guest resends the rest. */
  resumeOffsets: (containerId: string, stream: 1 | 2) => number;
  /**
   * Output of containers. `offset` is that of the first byte. The promise is the acknowledgement:
   * the guest may forget the bytes once it resolves.
   */
  onOutput: (output: GuestOutput) => Promise<void>;
  /** Acknowledged by resolving. May be called again for an exit that is already known. */
  onContainerExit: (containerId: string, exit: ProcessExit) => Promise<void>;
}

export interface GuestOutput {
  containerId: string;
  stream: 1 | 2;
  offset: number;
  bytes: Uint8Array;
  /** When the guest read it, in ms since the epoch by the guest's clock. */
  timeMs: number;
}

export interface GuestHello {
  protocolVersion: number;
  kernelVersion: string;
  /** Empty before the pod is set up. */
  bootId: string;
  /** Milliseconds since the kernel started, at which hyperstart began and was ready. */
  startedUptimeMs: number;
  readyUptimeMs: number;
  /** Containers that it has, for a daemon that was restarted. */
  containers: { id: string; phase: 'running' | 'exited' }[];
  podReady: boolean;
}

export interface PodSetup {
  /** The guest is tried out before it is a pod's: what follows is set again. @default false */
  rehearsal?: boolean;
  hostname: string;
  domain: string;
  epochMs: number;
  /** 32 to 256 bytes, base64. */
  entropy: string;
  network: { mac: string; address: string; gateway: string; mtu: number } | null;
  dns: { nameservers: string[]; searches: string[]; options: string[] };
  hostAliases: { ip: string; hostnames: string[] }[];
  sysctls: Record<string, string>;
  shareProcessNamespace: boolean;
  /** Serial of the pod's writable disk; an ext4 file system is on it. */
  scratchSerial: string;
  volumes: (
    | { name: string; type: 'scratch' }
    | { name: string; type: 'memory'; sizeLimitMib: number }
    | { name: string; type: 'files'; content: VolumeFiles }
  )[];
}

export interface ImagePrefetch {
  imageSerial: string;
  imageFsType: 'erofs' | 'ext4';
  /** A path, or a name that is looked for where programs are. */
  program: string;
  /** Where that container mounts volumes as a whole. One that mounts less is made anew. */
  mountPaths: string[];
}

export interface GuestContainerSpec {
  id: string;
  name: string;
  /** Serial of the image's read-only disk, and how it is formatted. */
  imageSerial: string;
  imageFsType: 'erofs' | 'ext4';
  process: ProcessSpec;
  readOnlyRootfs: boolean;
  mounts: ContainerMount[];
  resources: { cpuMillis: number; cpuWeightMillis: number; memoryBytes: number };
  terminationMessagePath: string;
  stdin: boolean;
}

/** A process started by `exec`. Its streams are lossless and under flow control. */
export interface GuestProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly exited: Promise<ProcessExit>;
  resize(size: TerminalSize): Promise<void>;
  signal(signal: number): Promise<void>;
  /** Lets go of the process; it is killed. */
  close(): void;
}

export interface GuestStats {
  cpuNanos: number;
  memoryBytes: number;
  containers: { id: string; cpuNanos: number; memoryBytes: number }[];
}

/** What the guest refused, in its words. */
export class AgentError extends Error {
  override name = 'AgentError';
  /** `StartError`, `NotFound`, `Invalid`, `Unsupported`, `Refused`, `Timeout`, `Closed`. */
  readonly reason: string;
  /**
   * With `StartError`, the code a shell would give: 127 not found, 126 not executable, 128 for
   * all else. 0 otherwise.
   */
  readonly exitCode: number;
  constructor(reason: string, message: string, exitCode = 0) {
    super(message);
    this.reason = reason;
    this.exitCode = exitCode;
  }
}
