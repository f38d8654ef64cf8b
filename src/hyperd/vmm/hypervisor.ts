/**
 * The seam below which a virtual machine is an emulator process. Implementations: `qemu` and
 * `fake`; both pass `conformance.ts`. A VM outlives the daemon that started it: `adopt` finds it
 * again from its directory after a restart.
 */
export interface Hypervisor {
  readonly name: 'qemu' | 'fake';
  /** What this machine can do, found out by booting a probe VM; cached for the boot of the host. */
  probe(signal?: AbortSignal): Promise<HypervisorInfo>;
  /** Starts a VM and returns as soon as its monitor answers; the guest is still booting. */
  create(spec: VmSpec, signal?: AbortSignal): Promise<Vm>;
  /**
   * Takes over the VM of an earlier daemon. One that died meanwhile is returned too, its `exited`
   * settled with the truth. Undefined where none was ever started in that directory.
   */
  adopt(vmDirectory: string, signal?: AbortSignal): Promise<Vm | undefined>;
  /**
   * Ends whatever was started in that directory, also what does not answer; resolves when it is
   * gone, and where there is nothing. For VMs that nobody holds: the `Vm` of one does not learn it.
   */
  destroy(vmDirectory: string): Promise<void>;
  /** Takes back what no VM needs any more on the host. VMs that run are not touched. */
  close(): Promise<void>;
}

export interface HypervisorInfo {
  accelerator: 'kvm' | 'tcg' | 'fake';
  /** Why not a better one, for `doctor`: empty when it is the best there is. */
  acceleratorReason: string;
  version: string;
  /** Memory that a VM costs the host beyond what its guest was given. */
  overheadMemoryMib: number;
}

export interface VmSpec {
  /** The pod's uid. */
  id: string;
  /** Owned by this VM: sockets, console log, scratch disk, state. Made by the caller. */
  directory: string;
  cpuCount: number;
  memoryMib: number;
  kernelPath: string;
  initrdPath: string;
  /** Added to the kernel's command line. */
  kernelArguments: string[];
  /** Attached before the first instruction. More can follow by `attachDisk`. */
  disks: DiskSpec[];
  nic: NicSpec | undefined;
  /** User and group id of the VMM process: one per VM, never shared, never 0. */
  uid: number;
  limits: VmLimits;
}

export interface VmLimits {
  /** Host CPU time that the whole VM may use, in thousandths of a CPU; 0 is no limit. */
  cpuMillis: number;
  /** Relative weight under contention, of disks too: Kubernetes' cpu request in thousandths. */
  cpuWeightMillis: number;
  /** Host memory of guest and VMM together. */
  memoryMib: number;
  processCount: number;
  /**
   * Reading and as much writing, from and to each device of the host that its boot disks lie on;
   * 0 is no limit.
   * @default 0
   */
  diskBytesPerSecond?: number;
  /** The same in requests. @default 0 */
  diskOpsPerSecond?: number;
}

export interface DiskSpec {
  /** 1 to 20 of [A-Za-z0-9]; the guest finds the disk by it. */
  serial: string;
  path: string;
  readOnly: boolean;
  /**
   * Its content need not survive a crash of the host: flushes of the guest cost nothing.
   * @default false
   */
  ephemeral?: boolean;
}

export interface NicSpec {
  mac: string;
  netns: string;
  tapName: string;
}

export interface Vm {
  readonly id: string;
  readonly pid: number;
  /** Byte stream of the control channel. Rejects when the VM is gone. One caller at a time. */
  connectControl(signal?: AbortSignal): Promise<ControlConnection>;
  attachDisk(disk: DiskSpec, signal?: AbortSignal): Promise<void>;
  detachDisk(serial: string, signal?: AbortSignal): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Settles when the VMM process has ended, for whatever reason. Never rejects. */
  readonly exited: Promise<VmExit>;
  stats(): Promise<VmStats>;
  /** The last lines of the guest's console, for telling why it died. */
  consoleTail(bytesMax: number): Promise<string>;
  /**
   * Lets go of a VM that is to run on, for an orderly end of the daemon: another one can adopt it
   * at once. `exited` does not settle any more.
   */
  release(): void;
  /** Ends the VM at once. Resolves when the process and its jail are gone. */
  kill(): Promise<void>;
}

/** Node's Duplex has everything that is needed: back-pressure, close and errors. */
export type ControlConnection = import('node:stream').Duplex;

export interface VmExit {
  reason: 'powered-off' | 'panicked' | 'killed' | 'failed';
  exitCode: number | undefined;
  signal: string | undefined;
  message: string;
}

/** A VM that could not be started or told something. `message` says which and why. */
export class HypervisorError extends Error {
  override name = 'HypervisorError';
  /** `Invalid`: the request; `Failed`: the machine; `Gone`: the VM has ended. */
  readonly reason: 'Invalid' | 'Failed' | 'Gone';
  constructor(reason: 'Invalid' | 'Failed' | 'Gone', message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}

export interface VmStats {
  cpuNanos: number;
  rssBytes: number;
}
