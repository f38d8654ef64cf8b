/**
 * The seam below which a virtual machine is an emulator process. Implementations: `qemu`, with two
 * device models, and `fake`; all pass `conformance.ts`, and docs/hypervisors.md tells how to add one.
 * A VM outlives the daemon that started it: `adopt` finds it again from its directory after a restart.
 */
export interface Hypervisor {
  /** Of the driver and the device model: what one has saved as a template another cannot start. */
  readonly name: string;
  /** What its VMs can do beyond the rest of this interface; callers do without what is not in it. */
  readonly capabilities: ReadonlySet<HypervisorCapability>;
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

/**
 * What is not declared rejects with `Unsupported` where it is asked for all the same.
 *
 * - `template`: a VM can be saved and others started from it, sharing its memory until they write
 * - `pause`: `pause` and `resume`
 * - `disk-hotplug`: `attachDisk` and `detachDisk`
 */
export type HypervisorCapability = 'template' | 'pause' | 'disk-hotplug';

export interface HypervisorInfo {
  accelerator: 'kvm' | 'tcg' | 'fake';
  /** Why not a better one, for `doctor`: empty when it is the best there is. */
  acceleratorReason: string;
  version: string;
  /** Names all else that a template and its clones have to have in common: programs, devices. */
  templateFormat: string;
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
  /** That the VM becomes a template, or starts from one; absent for one that does neither. */
  template?: TemplateUse;
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
  /** A clone has that of its template until its guest sets another. */
  mac: string;
  /** Absent for a NIC without a cable, as the source of a template has. */
  tap?: { netns: string; name: string };
}

/**
 * A `source` boots with its memory in a file and is saved by `saveTemplate`. An `heir` and a `clone`
 * do not boot: they go on where it was saved. The heir has the template's memory itself and is saved
 * in its place, with what it has done in between; clones have the memory as it was saved last, of
 * which they copy what they write. All are of one kernel and size, and have a NIC and disks of boot
 * as the source had. They share what lies in their memory: they must be of one owner.
 */
export interface TemplateUse {
  role: 'source' | 'heir' | 'clone';
  /** Made by the caller. The files in it are the driver's; a clone needs them only to start. */
  directory: string;
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
  /**
   * Saves a VM that was started as source or heir of a template, and ends it. Resolves when its
   * heir or clones can be started. What it does meanwhile is not part of the template.
   */
  saveTemplate(signal?: AbortSignal): Promise<void>;
  /** Replaces the limits on the host. `processCount` included; they hold when this resolves. */
  setLimits(limits: VmLimits): Promise<void>;
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

/**
 * - `Invalid`: the request
 * - `Failed`: the machine
 * - `Gone`: the VM has ended
 * - `Unsupported`: the driver cannot, and has not declared it
 */
export type HypervisorErrorReason = 'Invalid' | 'Failed' | 'Gone' | 'Unsupported';

/** A VM that could not be started or told something. `message` says which and why. */
export class HypervisorError extends Error {
  override name = 'HypervisorError';
  readonly reason: HypervisorErrorReason;
  constructor(reason: HypervisorErrorReason, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}

export interface VmStats {
  cpuNanos: number;
  rssBytes: number;
}
