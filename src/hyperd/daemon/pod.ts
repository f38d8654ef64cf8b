import { mkdir, rm } from 'node:fs/promises';
import type {
  ContainerState,
  HyperContainerSpec,
  PodState,
  PodStats,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { StatusError, notFound } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { NetworkDriver } from '../../network/driver.ts';
import { AgentError } from '../agent/agent.ts';
import type { Agent, ConnectAgent } from '../agent/agent.ts';
import type { Kernel, KernelStore } from '../guestkernel/store.ts';
import type { ImageStore } from '../image/store.ts';
import { scratchDisk } from '../supply/devices.ts';
import { vmPaths } from '../supply/paths.ts';
import type { VmPaths } from '../supply/paths.ts';
import { createScratchDisk } from '../supply/scratch.ts';
import type { VmShape } from '../supply/shape.ts';
import type { VmSupply } from '../supply/supply.ts';
import type { Uids } from '../supply/uids.ts';
import type { DiskSpec, Hypervisor, Vm, VmExit } from '../vmm/hypervisor.ts';
import type { Container } from './container.ts';
import { createContainers, isGone } from './containers.ts';
import type { Containers, ContainersOwner } from './containers.ts';
import { podSetup, vmLimits, vmShape, vmSpec } from './guest-spec.ts';
import { podPaths, toPodState } from './record.ts';
import type { PodPaths, PodRecord } from './record.ts';
import { createRecordKeeper } from './record-keeper.ts';
import type { RecordKeeper } from './record-keeper.ts';
import { openGuestSession } from './session.ts';
import type { GuestSession } from './session.ts';

/**
 * One pod: a VM, its network port, its disks, and the containers in it.
 *
 *            boot fails, VM ends, guest panics
 *   creating ───────────────┬──────────────────> stopped
 *      │ guest set up       │                       │
 *      └──────> running ────┘ stop()                │
 *   any of them ── remove() ──> deleting ──> gone <─┘
 *
 * A stopped pod is never started again: its client makes a new one. It holds neither a VM nor an
 * address nor disks, only its record and its logs. Everything of a pod that lies on the host is
 * taken back by `remove`, which may be repeated after a crash at any point.
 */
export interface Pod {
  readonly id: string;
  state(): PodState;
  /** Resolves when a restarted daemon would know of the pod. */
  recorded(): Promise<void>;
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
  /** Ends the VM and gives back what only a VM needs; waits for one that is still starting. */
  stop(): Promise<PodState>;
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
  kernels: Pick<KernelStore, 'get' | 'default' | 'acquire'>;
  /** Something that clients can see has changed and is on disk. */
  onChange: (podId: string, containerId?: string) => void;
}

/**
 * An emulated guest takes seconds, and where a dozen of them share two busy cores more than a minute.
 * To give it up and boot another one would make such a machine busier still.
 */
const BOOT_TIMEOUT_MS = 240_000;
const CONSOLE_TAIL_BYTES = 2048;
const EXIT_REASONS: Record<VmExit['reason'], PodState['reason']> = {
  'powered-off': 'PoweredOff',
  panicked: 'GuestPanic',
  killed: 'VmmKilled',
  failed: 'VmmFailed',
};

export function createPod(record: PodRecord, dependencies: PodDependencies): Pod {
  return new HyperPod(record, dependencies).begin('create');
}

/**
 * Takes over a pod of an earlier daemon, whatever it was doing. Its containers and their logs are
 * there when this resolves; the rest goes on by itself.
 */
export async function adoptPod(record: PodRecord, dependencies: PodDependencies): Promise<Pod> {
  const pod = new HyperPod(record, dependencies);
  const problem = await pod.loadContainers().catch((error: unknown) => error);
  return pod.begin('adopt', problem);
}

class HyperPod implements Pod, ContainersOwner {
  readonly record: PodRecord;
  readonly paths: PodPaths;
  readonly keeper: RecordKeeper;
  readonly images: ImageStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly over: Promise<void>;
  readonly #deps: PodDependencies;
  readonly #life = new AbortController();
  readonly #containers: Containers;
  readonly #resolveOver: () => void;
  readonly #booted = Promise.withResolvers<void>();
  #vm: Vm | undefined;
  #session: GuestSession | undefined;
  /** Settles when the pod runs, or is known not to. Never rejects. */
  #begun: Promise<void> = Promise.resolve();
  #stopRequested = false;
  #ending: Promise<void> | undefined;
  #removing: Promise<void> | undefined;
  #released = false;

  constructor(record: PodRecord, dependencies: PodDependencies) {
    const { clock, images, onChange } = dependencies;
    const { signal } = this.#life;
    this.#deps = dependencies;
    this.record = record;
    this.clock = clock;
    this.images = images;
    this.paths = podPaths(dependencies.podsDirectory, record.spec.id);
    this.log = dependencies.log.with({ pod: record.spec.id });
    this.keeper = createRecordKeeper(record, this.paths, {
      clock,
      log: this.log,
      signal,
      onChange,
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    this.#resolveOver = resolve;
    this.#containers = createContainers(this);
  }

  get id(): string {
    return this.record.spec.id;
  }

  state(): PodState {
    return toPodState(this.record);
  }

  recorded(): Promise<void> {
    return this.keeper.save();
  }

  /** @param problem with what an earlier daemon left, for which the pod cannot go on */
  begin(how: 'create' | 'adopt', problem?: unknown): this {
    const work = how === 'create' ? this.#boot() : this.#adopt(problem);
    this.#begun = work.catch((error) => this.#end('StartFailed', describeError(error)));
    return this;
  }

  // --- Beginning ---------------------------------------------------------------------------

  async #boot(): Promise<void> {
    await this.keeper.save();
    // An earlier daemon may have come as far as starting one that it did not live to record.
    await this.#discardVm();
    const shape = vmShape(this.record.spec, await this.#kernel());
    const vm = (await this.#takeWarm(shape)) ?? (await this.#startVm(shape));
    this.record.timings.vmm = this.clock.nowMs();
    await this.keeper.untilStored(() => this.keeper.save());
    await this.#runGuest(vm);
  }

  /** One that has waited for such a pod, with its network and disk. */
  async #takeWarm(shape: VmShape): Promise<Vm | undefined> {
    const { supply, kernels, uids } = this.#deps;
    const { record } = this;
    const { spec, timings } = record;
    const { network, scratchMib } = spec;
    const warm = await supply.takeWarm({ shape, network, scratchMib });
    if (warm === undefined) return undefined;
    this.#vm = warm.vm;
    uids.release(record.uid);
    const { id: vmId, uid, port } = warm;
    Object.assign(record, { vmId, uid, port, origin: 'warm' });
    timings.network = timings.disks = this.clock.nowMs();
    await warm.vm.setLimits(vmLimits(spec));
    // So that the store counts it among those that run the kernel.
    await kernels.acquire(spec.kernel, this.paths.root);
    return warm.vm;
  }

  #kernel(): Promise<Kernel> {
    const { kernels } = this.#deps;
    const { kernel } = this.record.spec;
    return kernel === undefined ? kernels.default() : kernels.get(kernel);
  }

  async #startVm(shape: VmShape): Promise<Vm> {
    const { supply, kernels } = this.#deps;
    const { record, clock } = this;
    const { timings, spec, uid } = record;
    const { signal } = this.#life;
    const paths = this.#vmPaths();
    await mkdir(paths.vm, { recursive: true, mode: 0o700 });
    await bothOf(
      this.#connectNetwork().then(() => (timings.network = clock.nowMs())),
      createScratchDisk(paths.scratch, spec.scratchMib, uid, signal).then(
        () => (timings.disks = clock.nowMs()),
      ),
    );
    await this.keeper.save();
    const guest = await kernels.acquire(spec.kernel, this.paths.root);
    const wanted = vmSpec(record, paths.vm, guest);
    const booted = Promise.race([this.#booted.promise, this.over]);
    const { vm, origin } = await supply.start(wanted, shape, booted, signal);
    this.#vm = vm;
    record.origin = origin;
    await vm.attachDisk(scratchDisk(paths.scratch), signal);
    return vm;
  }

  #vmPaths(): VmPaths {
    return vmPaths(this.#deps.vmsDirectory, this.record.vmId);
  }

  /** Ends what runs as this pod's VM, if anything does, and removes what lies there of it. */
  async #discardVm(): Promise<void> {
    const { root, vm } = this.#vmPaths();
    await this.#deps.hypervisor.destroy(vm);
    await rm(root, { recursive: true, force: true });
  }

  loadContainers(): Promise<void> {
    return this.#containers.load();
  }

  async #adopt(problem: unknown): Promise<void> {
    const { hypervisor, images } = this.#deps;
    const { phase, timings, containers } = this.record;
    if (phase === 'deleting') return;
    if (phase === 'stopped') return this.#stopAgain();
    if (problem !== undefined) throw problem;
    if (timings.vmm === undefined) return this.#boot();
    const vm = await hypervisor.adopt(this.#vmPaths().vm, this.#life.signal).catch((error) => {
      this.#life.signal.throwIfAborted();
      this.log.error('VM cannot be adopted', { error: describeError(error) });
      return this.#end('VmmFailed', describeError(error));
    });
    if (!vm) return this.#end('VmmKilled', 'The VM ended while the daemon was away');
    this.#vm = vm;
    for (const { spec } of containers) {
      await images.acquire(spec.imageId, this.id).catch((error) => {
        this.log.error('image of a container is gone', { error: describeError(error) });
      });
    }
    await this.#runGuest(vm);
    // What was accepted is carried out, though who asked for it may be waiting no more.
    for (const { spec, state } of containers) {
      if (state.phase === 'creating') this.startContainer(spec).catch(() => {});
    }
  }

  /** Until the guest is set up. Why it is not, if so, is told by `#end`. */
  async #runGuest(vm: Vm): Promise<void> {
    const session = this.#openSession(vm);
    await Promise.race([session.call(() => Promise.resolve()).catch(() => {}), vm.exited]);
  }

  async #connectNetwork(): Promise<void> {
    const { spec, vmId, uid } = this.record;
    if (!spec.network) return;
    await this.#deps.network.ensureNetwork(spec.network, this.#life.signal);
    const request = { id: vmId, networkId: spec.network.id, ownerUid: uid };
    this.record.port = await this.#deps.network.ensurePort(request, this.#life.signal);
  }

  #openSession(vm: Vm): GuestSession {
    const { clock, connectAgent } = this.#deps;
    const session = openGuestSession({
      vm,
      clock,
      connectAgent,
      log: this.log,
      signal: this.#life.signal,
      bootTimeoutMs: BOOT_TIMEOUT_MS,
      onOpen: (agent) => this.#setUpGuest(agent),
      resumeOffsets: (id, stream) => this.#containers.outputOffset(id, stream),
      onOutput: (output) => this.#containers.takeOutput(output),
      onContainerExit: (id, exit) => this.#containers.takeExit(id, exit),
    });
    this.#session = session;
    void session.ended.then((error) => {
      if (error) void this.#end('VmmFailed', `The guest does not answer: ${error.message}`);
    });
    void vm.exited.then((exit) => {
      if (this.#stopRequested) void this.#end('PoweredOff', STOP_MESSAGE);
      else void this.#end(EXIT_REASONS[exit.reason], exit.message);
    });
    return session;
  }

  async #setUpGuest(agent: Agent): Promise<void> {
    const { hello } = agent;
    const { timings } = this.record;
    const { clock, random } = this.#deps;
    let { bootId } = hello;
    if (!hello.podReady) {
      const setup = podSetup(this.record, clock.nowMs(), random);
      ({ bootId } = await agent.setupPod(setup).catch((error) => {
        // What the guest refuses once it will refuse again.
        const isFinal = error instanceof AgentError && !BROKEN.has(error.reason);
        if (isFinal) void this.#end('StartFailed', `Cannot set up the guest: ${error.message}`);
        throw error;
      }));
    }
    if (this.record.phase !== 'creating') return;
    const startMs = timings.vmm ?? clock.nowMs();
    // One that did not boot for this pod had its kernel before.
    const isBooted = this.record.origin === 'cold';
    timings.kernel = isBooted ? Math.round(startMs + hello.startedUptimeMs) : startMs;
    timings.guest = clock.nowMs();
    this.record.guest = { kernelVersion: hello.kernelVersion, bootId };
    this.record.phase = 'running';
    this.#booted.resolve();
    await this.keeper.untilStored(() => this.keeper.changed());
  }

  // --- Containers --------------------------------------------------------------------------

  startContainer(spec: HyperContainerSpec): Promise<ContainerState> {
    return this.#containers.start(spec);
  }

  container(containerId: string): Container {
    return this.#containers.get(containerId);
  }

  signalContainer(containerId: string, signal: number): Promise<void> {
    return this.#containers.signal(containerId, signal);
  }

  removeContainer(containerId: string): Promise<void> {
    return this.#containers.remove(containerId);
  }

  async writeVolume(name: string, content: VolumeFiles): Promise<void> {
    const volume = this.record.spec.volumes.find((candidate) => candidate.name === name);
    if (volume?.type !== 'files') throw notFound('', 'volumes', name);
    if (content.version <= volume.content.version) return;
    // The guest first: what the record says to be there is not written again.
    await this.agent((agent) => agent.writeVolume(name, content));
    if (content.version > volume.content.version) volume.content = content;
    await this.keeper.save();
  }

  // --- The guest ---------------------------------------------------------------------------

  begun(): Promise<void> {
    return this.#begun;
  }

  async attachDisk(disk: DiskSpec): Promise<void> {
    await this.#vm?.attachDisk(disk, this.#life.signal);
  }

  async agent<T>(
    operation: (agent: Agent) => Promise<T>,
    repeat: 'repeat' | 'once' = 'repeat',
  ): Promise<T> {
    await this.#begun;
    this.assertRunning();
    const session = this.#session;
    if (!session) throw this.notRunning();
    try {
      return await session.call(operation, repeat);
    } catch (error) {
      if (!isGone(error)) throw error;
      await this.over;
      throw this.notRunning();
    }
  }

  async stats(): Promise<PodStats> {
    const host = this.#vm?.stats().catch(() => undefined);
    const guest = await this.agent((agent) => agent.stats());
    return { ...guest, hostMemoryBytes: (await host)?.rssBytes ?? 0 };
  }

  assertRunning(): void {
    if (this.record.phase !== 'running' || this.#released) throw this.notRunning();
  }

  notRunning(): StatusError {
    if (this.#released) return new StatusError('ServiceUnavailable', 'hyperd is ending');
    const { phase, message } = this.record;
    const why = message ? `: ${message}` : '';
    return new StatusError('Conflict', `Pod "${this.id}" does not run, it is ${phase}${why}`);
  }

  // --- Ends --------------------------------------------------------------------------------

  /** The pod has ended; the first reason counts. Never rejects. */
  #end(reason: PodState['reason'], message: string): Promise<void> {
    this.#ending ??= this.#endNow(reason, message).catch((error) =>
      this.log.error('end of pod', { error: describeError(error) }),
    );
    return this.#ending;
  }

  async #endNow(reason: PodState['reason'], message: string): Promise<void> {
    if (this.#released || !isLive(this.record)) return;
    const killed = this.#killVm().catch((error) =>
      this.log.error('VM cannot be ended', { error: describeError(error) }),
    );
    // What the guest still said is true, its containers' exits above all.
    await killed;
    await this.#session?.end();
    const text = (await this.#explain(reason, message)) || reason;
    await this.#containers.settled();
    if (this.#released || !isLive(this.record)) return;
    // No await from here to the last exit: nobody may see a part of it.
    Object.assign(this.record, { phase: 'stopped', reason, message: text });
    this.#containers.endAll(text);
    this.#resolveOver();
    this.log.info('pod stopped', { reason, message: text });
    await this.#giveBackOrReport();
    await this.keeper.untilStored(() => this.keeper.changed());
  }

  #killVm(): Promise<void> {
    return this.#vm ? this.#vm.kill() : this.#deps.hypervisor.destroy(this.#vmPaths().vm);
  }

  async stop(): Promise<PodState> {
    if (this.record.phase !== 'deleting') {
      this.#stopRequested = true;
      await this.#begun;
      await this.#end('PoweredOff', STOP_MESSAGE);
      await this.#giveBack();
      await this.keeper.save();
    }
    return this.state();
  }

  /** An earlier daemon may have died between saying that the pod is stopped and the rest of it. */
  async #stopAgain(): Promise<void> {
    this.#resolveOver();
    await this.#killVm();
    await this.#giveBackOrReport();
  }

  /** What only a VM needs: its place on the network and its disks. May be repeated. */
  async #giveBack(): Promise<void> {
    const { network, images } = this.#deps;
    await network.deletePort(this.record.vmId);
    this.record.port = null;
    for (const { imageId, owner } of images.leases()) {
      if (owner === this.id) await images.release(imageId, owner);
    }
    await rm(this.#vmPaths().scratch, { force: true });
  }

  /** For an end that nobody waits for: what stays behind is taken back by `remove`. */
  async #giveBackOrReport(): Promise<void> {
    await this.#giveBack().catch((error) =>
      this.log.error('stopped pod keeps something', { error: describeError(error) }),
    );
  }

  /** A guest that died says why on its console. */
  async #explain(reason: PodState['reason'], message: string): Promise<string> {
    if (reason !== 'GuestPanic' && reason !== 'StartFailed') return message;
    const tail = await this.#vm?.consoleTail(CONSOLE_TAIL_BYTES).catch(() => '');
    const panic = tail?.split('\n').find((line) => line.includes('Kernel panic'));
    return panic ? `${message}: ${panic.replace(/^\[[^\]]*\]\s*/, '').trim()}` : message;
  }

  remove(): Promise<void> {
    this.#removing ??= this.#remove().catch((error) => {
      this.#removing = undefined;
      throw error;
    });
    return this.#removing;
  }

  async #remove(): Promise<void> {
    this.record.phase = 'deleting';
    this.#resolveOver();
    // A disk that is full does not keep a pod from being removed.
    await this.keeper
      .changed()
      .catch((error) => this.log.warn('removal is not recorded', { error: describeError(error) }));
    this.#life.abort(new AgentError('Closed', `Pod "${this.id}" is being removed`));
    await this.#begun;
    await this.#killVm();
    await this.#session?.ended;
    await this.#containers.idle();
    await this.#ending;
    await this.#giveBack();
    await this.#containers.close();
    await this.keeper.stop();
    await rm(this.#vmPaths().root, { recursive: true, force: true });
    await rm(this.paths.root, { recursive: true, force: true });
    this.#deps.uids.release(this.record.uid);
  }

  async release(): Promise<void> {
    this.#released = true;
    this.#resolveOver();
    this.#life.abort(new AgentError('Closed', 'The daemon is ending'));
    await this.#begun;
    await this.#session?.ended;
    await this.#containers.idle();
    await this.#ending;
    await this.#removing?.catch(() => {});
    this.#vm?.release();
    await this.#containers.close();
    await this.keeper.idle();
  }
}

const STOP_MESSAGE = 'The pod was stopped as requested';

/** Reasons of `AgentError` that tell of the session, not of what was asked for. */
const BROKEN = new Set(['Closed', 'Timeout', 'Interrupted']);

function isLive({ phase }: PodRecord): boolean {
  return phase === 'creating' || phase === 'running';
}

/** Resolves or rejects when neither is under way any more. */
async function bothOf(...work: Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(work);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
