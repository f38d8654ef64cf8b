import { mkdir, rm } from 'node:fs/promises';
import type {
  ContainerState,
  HyperContainerSpec,
  PodState,
  PodStats,
  ProcessExit,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { StatusError, notFound } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { NetworkDriver } from '../../network/driver.ts';
import { AgentError } from '../agent/agent.ts';
import type { Agent, GuestOutput } from '../agent/agent.ts';
import type { ImageStore } from '../image/store.ts';
import { HypervisorError } from '../vmm/hypervisor.ts';
import type { Hypervisor, Vm, VmExit } from '../vmm/hypervisor.ts';
import { newContainerRecord, openContainer } from './container.ts';
import type { Container } from './container.ts';
import { guestContainerSpec, imageSerial, podSetup, vmSpec } from './guest-spec.ts';
import type { GuestFiles } from './guest-spec.ts';
import { podPaths, savePodRecord, toPodState } from './record.ts';
import type { ContainerRecord, PodPaths, PodRecord } from './record.ts';
import { createScratchDisk } from './scratch.ts';
import { openGuestSession } from './session.ts';
import type { ConnectAgent, GuestSession } from './session.ts';

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
  guest: GuestFiles;
  /** Something that clients can see has changed and is on disk. */
  onChange: (podId: string, containerId?: string) => void;
}

/** Under emulation on a busy machine a guest takes seconds; a minute says that it never will. */
const BOOT_TIMEOUT_MS = 60_000;
/** Between attempts to write what a full disk did not take. */
const STORE_RETRY_MS = 1_000;
const CONSOLE_TAIL_BYTES = 2048;
/** 128 + SIGKILL: what a container gets whose VM was taken away under it. */
const EXIT_VM_GONE = { exitCode: 137, signal: 9 };
/** What a shell would give; runc's `StartError`. */
const EXIT_NOT_STARTED = 128;

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

class HyperPod implements Pod {
  readonly #record: PodRecord;
  readonly #deps: PodDependencies;
  readonly #paths: PodPaths;
  readonly #log: Log;
  readonly #life = new AbortController();
  readonly #containers = new Map<string, Container>();
  #vm: Vm | undefined;
  #session: GuestSession | undefined;
  /** Settles when the pod runs, or is known not to. Never rejects. */
  #begun: Promise<void> = Promise.resolve();
  #saved: Promise<void> = Promise.resolve();
  /** Starts of containers are one behind the other. Never rejects. */
  #starting: Promise<unknown> = Promise.resolve();
  #stopRequested = false;
  #ending: Promise<void> | undefined;
  /** Resolves when `phase` says that the pod does not run any more. */
  readonly #over = Promise.withResolvers<void>();
  #removing: Promise<void> | undefined;
  #released = false;
  /** Its directory is going: nothing may be written there any more. */
  #erased = false;

  constructor(record: PodRecord, dependencies: PodDependencies) {
    this.#record = record;
    this.#deps = dependencies;
    this.#paths = podPaths(dependencies.podsDirectory, record.spec.id);
    this.#log = dependencies.log.with({ pod: record.spec.id });
  }

  get id(): string {
    return this.#record.spec.id;
  }

  state(): PodState {
    return toPodState(this.#record);
  }

  recorded(): Promise<void> {
    return this.#save();
  }

  /** @param problem with what an earlier daemon left, for which the pod cannot go on */
  begin(how: 'create' | 'adopt', problem?: unknown): this {
    const work = how === 'create' ? this.#boot() : this.#adopt(problem);
    this.#begun = work.catch((error) => this.#end('StartFailed', describeError(error)));
    return this;
  }

  // --- Beginning ---------------------------------------------------------------------------

  async #boot(): Promise<void> {
    const { timings, spec, uid } = this.#record;
    const { clock, hypervisor, guest } = this.#deps;
    const signal = this.#life.signal;
    await this.#save();
    // An earlier daemon may have come as far as starting one that it did not live to record.
    await hypervisor.destroy(this.#paths.vm);
    await rm(this.#paths.vm, { recursive: true, force: true });
    await mkdir(this.#paths.vm, { recursive: true, mode: 0o700 });
    await bothOf(
      this.#connectNetwork().then(() => (timings.network = clock.nowMs())),
      createScratchDisk(this.#paths.scratch, spec.scratchMib, uid, signal).then(
        () => (timings.disks = clock.nowMs()),
      ),
    );
    await this.#save();
    this.#vm = await hypervisor.create(vmSpec(this.#record, this.#paths, guest), signal);
    timings.vmm = clock.nowMs();
    await this.#untilStored(() => this.#save());
    await this.#runGuest(this.#vm);
  }

  async loadContainers(): Promise<void> {
    for (const record of this.#record.containers) this.#hold(await this.#openContainer(record));
  }

  async #adopt(problem: unknown): Promise<void> {
    const { hypervisor, images } = this.#deps;
    const { phase, timings, containers } = this.#record;
    if (phase === 'deleting') return;
    if (phase === 'stopped') return this.#stopAgain();
    if (problem !== undefined) throw problem;
    if (timings.vmm === undefined) return this.#boot();
    const vm = await hypervisor.adopt(this.#paths.vm, this.#life.signal).catch((error) => {
      this.#life.signal.throwIfAborted();
      this.#log.error('VM cannot be adopted', { error: describeError(error) });
      return this.#end('VmmFailed', describeError(error));
    });
    if (!vm) return this.#end('VmmKilled', 'The VM ended while the daemon was away');
    this.#vm = vm;
    for (const { spec } of containers) {
      await images.acquire(spec.imageId, this.id).catch((error) => {
        this.#log.error('image of a container is gone', { error: describeError(error) });
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
    const { spec, uid } = this.#record;
    if (!spec.network) return;
    await this.#deps.network.ensureNetwork(spec.network, this.#life.signal);
    const request = { id: spec.id, networkId: spec.network.id, ownerUid: uid };
    this.#record.port = await this.#deps.network.ensurePort(request, this.#life.signal);
  }

  #openSession(vm: Vm): GuestSession {
    const { clock, connectAgent } = this.#deps;
    const session = openGuestSession({
      vm,
      clock,
      connectAgent,
      log: this.#log,
      signal: this.#life.signal,
      bootTimeoutMs: BOOT_TIMEOUT_MS,
      onOpen: (agent) => this.#setUpGuest(agent),
      resumeOffsets: (id, stream) => this.#containers.get(id)?.log.offset(stream) ?? 0,
      onOutput: (output) => this.#takeOutput(output),
      onContainerExit: (id, exit) => this.#takeExit(id, exit),
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
    const { timings } = this.#record;
    const { clock, random } = this.#deps;
    if (!hello.podReady) {
      await agent.setupPod(podSetup(this.#record, clock.nowMs(), random)).catch((error) => {
        // What the guest refuses once it will refuse again.
        const isFinal = error instanceof AgentError && !BROKEN.has(error.reason);
        if (isFinal) void this.#end('StartFailed', `Cannot set up the guest: ${error.message}`);
        throw error;
      });
    }
    if (this.#record.phase !== 'creating') return;
    const startMs = timings.vmm ?? clock.nowMs();
    timings.kernel = Math.round(startMs + hello.startedUptimeMs);
    timings.guest = clock.nowMs();
    this.#record.guest = { kernelVersion: hello.kernelVersion, bootId: hello.bootId };
    this.#record.phase = 'running';
    await this.#untilStored(() => this.#changed());
  }

  // --- Containers --------------------------------------------------------------------------

  /**
   * Idempotent by id. The returned state tells whether it runs, or why it does not. Once it is
   * recorded it comes to one of the two, whatever happens to this daemon.
   */
  startContainer(spec: HyperContainerSpec): Promise<ContainerState> {
    const work = this.#starting.then(() => this.#startContainer(spec));
    this.#starting = work.catch(() => {});
    return work;
  }

  async #startContainer(spec: HyperContainerSpec): Promise<ContainerState> {
    await this.#begun;
    this.#assertRunning();
    const known = this.#containers.get(spec.id);
    if (known && known.record.state.phase !== 'creating') return known.record.state;
    const disk = await this.#deps.images.acquire(spec.imageId, this.id);
    const container = known ?? (await this.#addContainer(spec));
    try {
      await this.#launch(container, disk);
    } catch (error) {
      if (isGone(error)) await this.#over.promise;
      this.#assertRunning();
      this.#log.warn('container cannot be started', {
        container: spec.id,
        error: describeError(error),
      });
      await container.exit(this.#startFailure(error));
      // One that was late is not to run unseen.
      await this.agent((agent) => agent.removeContainer(spec.id)).catch(() => {});
    }
    await this.#changed(spec.id);
    return container.record.state;
  }

  async #addContainer(spec: HyperContainerSpec): Promise<Container> {
    const record = newContainerRecord(spec, this.#deps.clock.nowMs());
    const container = await this.#openContainer(record);
    // No await from here on: `#end` must find the container, or this find the end.
    if (this.#record.phase !== 'running') {
      await container.close();
      throw this.#notRunning();
    }
    this.#record.containers.push(record);
    this.#hold(container);
    await this.#save();
    return container;
  }

  async #launch(container: Container, diskPath: string): Promise<void> {
    const { spec, state } = container.record;
    const disk = { serial: imageSerial(spec.imageId), path: diskPath, readOnly: true };
    await this.#vm?.attachDisk(disk, this.#life.signal);
    await this.agent((agent) => agent.startContainer(guestContainerSpec(spec)));
    // Its exit may have been reported before this answer.
    if (state.phase === 'creating') state.phase = 'running';
    state.startedAtMs ||= this.#deps.clock.nowMs();
  }

  #startFailure(error: unknown): ProcessExit {
    const reason = error instanceof AgentError ? error.reason : 'StartError';
    const message = describeError(error);
    const finishedAtMs = this.#deps.clock.nowMs();
    return {
      exitCode: EXIT_NOT_STARTED,
      signal: 0,
      oomKilled: false,
      reason,
      message,
      finishedAtMs,
    };
  }

  #openContainer(record: ContainerRecord): Promise<Container> {
    const nowMs = () => this.#deps.clock.nowMs();
    return openContainer(record, this.#paths.logs(record.spec.id), nowMs);
  }

  #hold(container: Container): void {
    this.#containers.set(container.record.spec.id, container);
  }

  async #takeOutput(output: GuestOutput): Promise<void> {
    const { containerId } = output;
    const isFirst = this.#containers.get(containerId)?.record.state.firstByteAtMs === 0;
    await this.#untilStored(async () => this.#containers.get(containerId)?.output(output));
    if (isFirst) await this.#untilStored(() => this.#changed(containerId));
  }

  async #takeExit(containerId: string, exit: ProcessExit): Promise<void> {
    const container = this.#containers.get(containerId);
    if (!container) return;
    container.record.state.startedAtMs ||= this.#deps.clock.nowMs();
    await container.exit(exit);
    await this.#untilStored(() => this.#changed(containerId));
  }

  container(containerId: string): Container {
    const container = this.#containers.get(containerId);
    if (!container) throw notFound('', 'containers', containerId);
    return container;
  }

  async signalContainer(containerId: string, signal: number): Promise<void> {
    if (this.container(containerId).record.state.phase === 'exited') return;
    await this.agent((agent) => agent.signalContainer(containerId, signal));
  }

  async removeContainer(containerId: string): Promise<void> {
    const container = this.container(containerId);
    if (container.record.state.phase !== 'exited') {
      throw new StatusError('Conflict', `Cannot remove container "${containerId}": it runs`);
    }
    if (this.#record.phase === 'running') {
      await this.agent((agent) => agent.removeContainer(containerId));
    }
    if (!this.#containers.delete(containerId)) return;
    const rest = this.#record.containers.filter(({ spec }) => spec.id !== containerId);
    this.#record.containers = rest;
    await container.close();
    await this.#changed(containerId);
    await rm(this.#paths.logs(containerId), { recursive: true, force: true });
  }

  async writeVolume(name: string, content: VolumeFiles): Promise<void> {
    const volume = this.#record.spec.volumes.find((candidate) => candidate.name === name);
    if (volume?.type !== 'files') throw notFound('', 'volumes', name);
    if (content.version <= volume.content.version) return;
    // The guest first: what the record says to be there is not written again.
    await this.agent((agent) => agent.writeVolume(name, content));
    if (content.version > volume.content.version) volume.content = content;
    await this.#save();
  }

  // --- The guest ---------------------------------------------------------------------------

  async agent<T>(
    operation: (agent: Agent) => Promise<T>,
    repeat: 'repeat' | 'once' = 'repeat',
  ): Promise<T> {
    await this.#begun;
    this.#assertRunning();
    const session = this.#session;
    if (!session) throw this.#notRunning();
    try {
      return await session.call(operation, repeat);
    } catch (error) {
      if (!isGone(error)) throw error;
      await this.#over.promise;
      throw this.#notRunning();
    }
  }

  async stats(): Promise<PodStats> {
    const host = this.#vm?.stats().catch(() => undefined);
    const guest = await this.agent((agent) => agent.stats());
    return { ...guest, hostMemoryBytes: (await host)?.rssBytes ?? 0 };
  }

  #assertRunning(): void {
    if (this.#record.phase !== 'running' || this.#released) throw this.#notRunning();
  }

  #notRunning(): StatusError {
    if (this.#released) return new StatusError('ServiceUnavailable', 'hyperd is ending');
    const { phase, message } = this.#record;
    const why = message ? `: ${message}` : '';
    return new StatusError('Conflict', `Pod "${this.id}" does not run, it is ${phase}${why}`);
  }

  // --- Ends --------------------------------------------------------------------------------

  /** The pod has ended; the first reason counts. Never rejects. */
  #end(reason: PodState['reason'], message: string): Promise<void> {
    this.#ending ??= this.#endNow(reason, message).catch((error) =>
      this.#log.error('end of pod', { error: describeError(error) }),
    );
    return this.#ending;
  }

  async #endNow(reason: PodState['reason'], message: string): Promise<void> {
    if (this.#released || !isLive(this.#record)) return;
    const killed = this.#killVm().catch((error) =>
      this.#log.error('VM cannot be ended', { error: describeError(error) }),
    );
    // What the guest still said is true, its containers' exits above all.
    await killed;
    await this.#session?.end();
    const text = (await this.#explain(reason, message)) || reason;
    await Promise.all([...this.#containers.values()].map((container) => container.settled()));
    if (this.#released || !isLive(this.#record)) return;
    // No await from here to the last exit: nobody may see a part of it.
    Object.assign(this.#record, { phase: 'stopped', reason, message: text });
    const finishedAtMs = this.#deps.clock.nowMs();
    for (const container of this.#containers.values()) {
      const detail = { oomKilled: false, reason: 'Error', message: text, finishedAtMs };
      void container.exit({ ...EXIT_VM_GONE, ...detail });
    }
    this.#over.resolve();
    this.#log.info('pod stopped', { reason, message: text });
    await this.#giveBackOrReport();
    await this.#untilStored(() => this.#changed());
  }

  #killVm(): Promise<void> {
    return this.#vm ? this.#vm.kill() : this.#deps.hypervisor.destroy(this.#paths.vm);
  }

  async stop(): Promise<PodState> {
    if (this.#record.phase !== 'deleting') {
      this.#stopRequested = true;
      await this.#begun;
      await this.#end('PoweredOff', STOP_MESSAGE);
      await this.#giveBack();
      await this.#save();
    }
    return this.state();
  }

  /** An earlier daemon may have died between saying that the pod is stopped and the rest of it. */
  async #stopAgain(): Promise<void> {
    this.#over.resolve();
    await this.#killVm();
    await this.#giveBackOrReport();
  }

  /** What only a VM needs: its place on the network and its disks. May be repeated. */
  async #giveBack(): Promise<void> {
    const { network, images } = this.#deps;
    await network.deletePort(this.id);
    this.#record.port = null;
    for (const { imageId, owner } of images.leases()) {
      if (owner === this.id) await images.release(imageId, owner);
    }
    await rm(this.#paths.scratch, { force: true });
  }

  /** For an end that nobody waits for: what stays behind is taken back by `remove`. */
  async #giveBackOrReport(): Promise<void> {
    await this.#giveBack().catch((error) =>
      this.#log.error('stopped pod keeps something', { error: describeError(error) }),
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
    this.#record.phase = 'deleting';
    this.#over.resolve();
    // A disk that is full does not keep a pod from being removed.
    await this.#changed().catch((error) =>
      this.#log.warn('removal is not recorded', { error: describeError(error) }),
    );
    this.#life.abort(new AgentError('Closed', `Pod "${this.id}" is being removed`));
    await this.#begun;
    await this.#killVm();
    await this.#session?.ended;
    await this.#starting;
    await this.#ending;
    await this.#giveBack();
    for (const container of this.#containers.values()) await container.close();
    this.#erased = true;
    await this.#saved;
    await rm(this.#paths.root, { recursive: true, force: true });
  }

  async release(): Promise<void> {
    this.#released = true;
    this.#over.resolve();
    this.#life.abort(new AgentError('Closed', 'The daemon is ending'));
    await this.#begun;
    await this.#session?.ended;
    await this.#starting;
    await this.#ending;
    await this.#removing?.catch(() => {});
    this.#vm?.release();
    for (const container of this.#containers.values()) await container.close();
    await this.#saved;
  }

  // --- Record ------------------------------------------------------------------------------

  async #changed(containerId?: string): Promise<void> {
    await this.#save();
    this.#deps.onChange(this.id, containerId);
  }

  /** Saves are one behind the other, and each writes what is newest when its turn comes. */
  #save(): Promise<void> {
    const save = this.#saved.then(async () => {
      if (!this.#erased) await savePodRecord(this.#paths, this.#record);
    });
    this.#saved = save.catch(() => {});
    return save;
  }

  /** The host's disk may be full for a while: the guest waits meanwhile, and nothing is lost. */
  async #untilStored(work: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        this.#life.signal.throwIfAborted();
        if (!isSystemError(error)) throw error;
        this.#log.error('cannot be stored yet', { error: describeError(error) });
      }
      await this.#deps.clock.sleep(STORE_RETRY_MS, this.#life.signal);
    }
  }
}

const STOP_MESSAGE = 'The pod was stopped as requested';

/** Reasons of `AgentError` that tell of the session, not of what was asked for. */
const BROKEN = new Set(['Closed', 'Timeout', 'Interrupted']);

function isLive({ phase }: PodRecord): boolean {
  return phase === 'creating' || phase === 'running';
}

/** The guest or its VM has ended, or this daemon is about to. */
function isGone(error: unknown): boolean {
  if (error instanceof AgentError) return error.reason === 'Closed';
  return error instanceof HypervisorError && error.reason === 'Gone';
}

function isSystemError(error: unknown): boolean {
  return typeof (error as NodeJS.ErrnoException).errno === 'number';
}

/** Resolves or rejects when neither is under way any more. */
async function bothOf(...work: Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(work);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
