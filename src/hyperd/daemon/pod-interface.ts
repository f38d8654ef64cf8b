import type {
  ContainerState,
  HyperContainerSpec,
  PodResources,
  PodState,
  PodStats,
  VmStatus,
  VolumeFiles,
} from '../../api/hyperd.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { NetworkDriver } from '../../network/driver.ts';
import type { Agent, ConnectAgent } from '../agent/agent.ts';
import type { KernelStore } from '../guestkernel/store.ts';
import type { ImageStore } from '../image/store.ts';
import type { VmSupply } from '../supply/supply.ts';
import type { Uids } from '../supply/uids.ts';
import type { Hypervisor } from '../vmm/hypervisor.ts';
import type { Container } from './container.ts';
import type { PodRecord } from './record.ts';

/**
 * One pod: a VM, its network port, its disks, and the containers in it.
 *
 *   created
 *      │ start()
 *      │     boot fails, VM ends, guest panics
 *   creating ───────────────┬──────────────────> stopped
 *      │ guest set up       │                       │
 *      └──────> running ────┘ stop()                │
 *   any of them ── remove() ──> deleting ──> gone <─┘
 *
 * A stopped pod holds neither a VM nor an address nor disks, only its record and its logs. The daemon
 * may begin a new life with its record: another object, another VM. A running one may be paused
 * (`pause.ts`). Everything of a pod that lies on the host is
 * taken back by `remove`, which may be repeated after a crash at any point.
 */
export interface Pod {
  readonly id: string;
  readonly record: PodRecord;
  state(): PodState;
  /** Resolves when a restarted daemon would know of the pod. */
  recorded(): Promise<void>;
  /** Of a pod that was created and not started. @throws StatusError Conflict for any other */
  start(): PodState;
  /** @throws StatusError Conflict where it does not run, here and below */
  pause(): Promise<PodState>;
  unpause(): Promise<PodState>;
  /** Other limits, within the size of its VM. @throws StatusError Invalid beyond it */
  resize(resources: PodResources): Promise<PodState>;
  /** @throws StatusError Conflict where it is paused */
  assertAwake(): void;
  startContainer(spec: HyperContainerSpec): Promise<ContainerState>;
  container(containerId: string): Container;
  signalContainer(containerId: string, signal: number): Promise<void>;
  removeContainer(containerId: string): Promise<void>;
  writeVolume(name: string, content: VolumeFiles): Promise<void>;
  /** The guest, for streams and probes. Rejects when the pod does not run. */
  agent<T>(
    operation: (agent: Agent) => Promise<T>,
    /** `once` for what must not be done twice when the line to the guest breaks. */
    repeat?: 'repeat' | 'once',
  ): Promise<T>;
  stats(): Promise<PodStats>;
  /** What the VM itself uses; undefined where there is none. */
  vmStatus(): Promise<VmStatus | undefined>;
  /**
   * Ends the VM and gives back what only a VM needs; waits for one that is still starting. Before
   * that the containers get their stop signals and at most `graceMs` to end. @default 0
   */
  stop(graceMs?: number): Promise<PodState>;
  remove(): Promise<void>;
  /** Lets go of the pod without touching it: its VM runs on. */
  release(): Promise<void>;
}

export interface PodDependencies {
  hypervisor: Hypervisor;
  images: ImageStore;
  network: NetworkDriver;
  connectAgent: ConnectAgent;
  clock: Clock;
  random: Random;
  log: Log;
  podsDirectory: string;
  vmsDirectory: string;
  supply: VmSupply;
  uids: Uids;
  kernels: Pick<KernelStore, 'list' | 'get' | 'default' | 'acquire'>;
  /** Something that clients can see has changed and is on disk. */
  onChange: (podId: string, containerId?: string) => void;
  /** The pod has ended and is one of those that are removed then. */
  onDone: (podId: string) => void;
}
