import { rm } from 'node:fs/promises';
import type {
  ContainerState,
  HyperContainerSpec,
  PodResources,
  PodState,
  PodStats,
  VmStatus,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { StatusError, notFound } from '../../api/status.ts';
import { allOf } from '../../base/all-of.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import { AgentError } from '../agent/agent.ts';
import type { Agent } from '../agent/agent.ts';
import type { ImageStore } from '../image/store.ts';
import type { StartedImage } from '../supply/supply.ts';
import type { DiskSpec, Vm } from '../vmm/hypervisor.ts';
import type { Container } from './container.ts';
import { createContainers, isGone } from './containers.ts';
import type { Containers, ContainersOwner } from './containers.ts';
import { podSetup } from './guest-spec.ts';
import { END_MESSAGES, EXIT_REASONS, explainEnd, giveBack, vmStatusOf } from './holdings.ts';
import { createPauser } from './pause.ts';
import type { Pauser } from './pause.ts';
import type { Pod, PodDependencies } from './pod-interface.ts';
import { createPodVm } from './pod-vm.ts';
import type { PodVm } from './pod-vm.ts';
import { createPortForwarder } from './ports.ts';
import type { PortForwarder } from './ports.ts';
import { hasEnded, isLive, podPaths, startConflict, toPodState } from './record.ts';
import type { PodPaths, PodRecord } from './record.ts';
import { resizePod } from './resize.ts';
import { createRecordKeeper } from './record-keeper.ts';
import type { RecordKeeper } from './record-keeper.ts';
import { openGuestSession } from './session.ts';
import type { GuestSession } from './session.ts';

/**
 * An emulated guest takes seconds, and where a dozen of them share two busy cores more than a minute.
 * To give it up and boot another one would make such a machine busier still.
 */
const BOOT_TIMEOUT_MS = 240_000;

/** Begins at once, unless the record says that it is merely created. */
export function createPod(record: PodRecord, dependencies: PodDependencies): Pod {
  const pod = new HyperPod(record, dependencies);
  return record.phase === 'created' ? pod : pod.begin('create');
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
  readonly #ports: PortForwarder;
  readonly #pauser: Pauser;
  readonly #podVm: PodVm;
  readonly #resolveOver: () => void;
  readonly #booted = Promise.withResolvers<void>();
  #vm: Vm | undefined;
  #session: GuestSession | undefined;
  #loading: Promise<void> | undefined;
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
    this.#ports = createPortForwarder({
      mappings: record.spec.ports ?? [],
      states: () => record.ports,
      setStates: (states) => (record.ports = states),
      connect: (port) => this.agent((agent) => agent.connectPort(port), 'once'),
      log: this.log,
    });
    this.#podVm = createPodVm(
      {
        ...{ record, clock, signal, paths: this.paths, keeper: this.keeper },
        onVm: (vm) => (this.#vm = vm),
      },
      dependencies,
    );
    this.#pauser = createPauser({
      ...{ record, clock, keeper: this.keeper },
      assertRunning: () => this.#assertPhase(),
      vm: () => this.#vm,
      session: () => this.#session,
      onAwake: () => this.#containers.carryOut(),
    });
  }

  get id(): string {
    return this.record.spec.id;
  }

  state(): PodState {
    return toPodState(this.record);
  }

  async recorded(): Promise<void> {
    await this.keeper.save();
    await this.loadContainers();
  }

  /** @param problem with what an earlier daemon left, for which the pod cannot go on */
  begin(how: 'create' | 'adopt', problem?: unknown): this {
    const work = how === 'create' ? this.#boot() : this.#adopt(problem);
    this.#begun = work.catch((error) => this.#end('StartFailed', describeError(error)));
    return this;
  }

  // --- Beginning ---------------------------------------------------------------------------

  start(): PodState {
    const { record, clock } = this;
    if (record.phase !== 'created') throw startConflict(record);
    Object.assign(record, { phase: 'creating', timings: { requested: clock.nowMs() } });
    this.begin('create');
    return this.state();
  }

  async #boot(): Promise<void> {
    await this.loadContainers();
    // There may be a VM of an earlier life, or one that an earlier daemon did not live to record.
    await allOf(this.#podVm.discard(), this.#ports.open());
    // A VM that no record names ends with this daemon, so the two need not wait for each other.
    const booted = Promise.race([this.#booted.promise, this.over]);
    const [vm] = await allOf(this.#podVm.take(booted), this.keeper.changed());
    this.record.timings.vmm = this.clock.nowMs();
    const stored = this.keeper.untilStored(() => this.keeper.changed());
    await allOf(stored, this.#runGuest(vm));
    this.#containers.carryOut();
  }

  loadContainers(): Promise<void> {
    return (this.#loading ??= this.#containers.load());
  }

  async #adopt(problem: unknown): Promise<void> {
    const { hypervisor, images } = this.#deps;
    const { phase, timings, containers } = this.record;
    if (phase === 'deleting' || phase === 'created') return;
    if (phase === 'stopped') return this.#stopAgain();
    if (problem !== undefined) throw problem;
    if (timings.vmm === undefined) return this.#boot();
    const vm = await hypervisor.adopt(this.#podVm.paths().vm, this.#life.signal).catch((error) => {
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
    await this.#ports.reopen();
    await this.#pauser.restore(vm);
    if (this.record.paused) {
      this.#openSession(vm);
      return;
    }
    await this.#runGuest(vm);
    // What was accepted is carried out, though who asked for it may be waiting no more.
    this.#containers.carryOut();
    this.containerEnded();
  }

  /** Until the guest is set up. Why it is not, if so, is told by `#end`. */
  async #runGuest(vm: Vm): Promise<void> {
    const session = this.#openSession(vm);
    await Promise.race([session.call(() => Promise.resolve()).catch(() => {}), vm.exited]);
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
      awake: () => this.#pauser.awake(),
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
      if (this.#stopRequested) void this.#end('PoweredOff', END_MESSAGES.stopped);
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

  containerEnded(): void {
    const { spec } = this.record;
    if ((spec.whenDone ?? 'keep') === 'keep' || !hasEnded(this.record)) return;
    void this.#end('PoweredOff', END_MESSAGES.done);
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
    return Promise.race([this.#begun, this.#booted.promise]);
  }

  noteStart(image: StartedImage): void {
    this.#podVm.noteStart(image);
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

  async pause(): Promise<PodState> {
    await this.#pauser.pause();
    return this.state();
  }

  async unpause(): Promise<PodState> {
    await this.#pauser.unpause();
    return this.state();
  }

  async resize(resources: PodResources): Promise<PodState> {
    await this.#containers.inTurn(() => resizePod(this, this.#vm, resources));
    return this.state();
  }

  vmStatus(): Promise<VmStatus | undefined> {
    return vmStatusOf(this.record, this.#vm);
  }

  async stats(): Promise<PodStats> {
    const host = this.#vm?.stats().catch(() => undefined);
    const guest = await this.agent((agent) => agent.stats());
    return { ...guest, hostMemoryBytes: (await host)?.rssBytes ?? 0 };
  }

  assertRunning(): void {
    this.#assertPhase();
    this.assertAwake();
  }

  assertAwake(): void {
    this.#pauser.assertAwake();
  }

  #assertPhase(): void {
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
    const text = (await explainEnd(this.#vm, reason, message)) || reason;
    await this.#containers.settled();
    if (this.#released || !isLive(this.record)) return;
    // No await from here to the last exit: nobody may see a part of it.
    Object.assign(this.record, { phase: 'stopped', reason, message: text });
    this.#containers.endAll(text);
    this.#resolveOver();
    this.log.info('pod stopped', { reason, message: text });
    await this.#giveBackOrReport();
    await this.keeper.untilStored(() => this.keeper.changed());
    this.#removeIfDone();
  }

  /** One that could not be started stays, for its reason to be seen. */
  #removeIfDone(): void {
    const { spec, reason } = this.record;
    if (spec.whenDone === 'remove' && reason !== 'StartFailed') this.#deps.onDone(this.id);
  }

  #killVm(): Promise<void> {
    return this.#vm ? this.#vm.kill() : this.#deps.hypervisor.destroy(this.#podVm.paths().vm);
  }

  async stop(graceMs = 0): Promise<PodState> {
    const { phase, paused } = this.record;
    if (phase !== 'deleting' && phase !== 'created') {
      this.#stopRequested = true;
      await this.#begun;
      if (graceMs > 0 && !paused) await this.#containers.endWithin(graceMs);
      await this.#end('PoweredOff', END_MESSAGES.stopped);
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
    this.#removeIfDone();
  }

  /** What only a VM needs: its ports, its place on the network and its disks. May be repeated. */
  async #giveBack(): Promise<void> {
    await this.#ports.close();
    await giveBack(this.record, this.#deps);
    await rm(this.#podVm.paths().scratch, { force: true });
  }

  /** For an end that nobody waits for: what stays behind is taken back by `remove`. */
  async #giveBackOrReport(): Promise<void> {
    await this.#giveBack().catch((error) =>
      this.log.error('stopped pod keeps something', { error: describeError(error) }),
    );
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
    await rm(this.#podVm.paths().root, { recursive: true, force: true });
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
    await this.#ports.close();
    await this.#containers.close();
    await this.keeper.idle();
  }
}

/** Reasons of `AgentError` that tell of the session, not of what was asked for. */
const BROKEN = new Set(['Closed', 'Timeout', 'Interrupted']);
