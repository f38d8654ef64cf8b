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
import type { Agent, PodSetup } from '../agent/agent.ts';
import type { ImageStore } from '../image/store.ts';
import type { Hypervisor, Vm, VmExit } from '../vmm/hypervisor.ts';
import { newContainerRecord, openContainer } from './container.ts';
import type { Container } from './container.ts';
import { podPaths, savePodRecord, toPodState } from './record.ts';
import type { PodPaths, PodRecord } from './record.ts';
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
  agent<T>(operation: (agent: Agent) => Promise<T>): Promise<T>;
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
  guest: { kernelPath: string; initrdPath: string; kernelArguments: string[] };
  /** Something that clients can see has changed and is on disk. */
  onChange: (podId: string, containerId?: string) => void;
}

/** Under emulation on a busy machine a guest takes seconds; a minute says that it never will. */
const BOOT_TIMEOUT_MS = 60_000;
const SCRATCH_SERIAL = 'scratch';
const ENTROPY_BYTES = 64;
/** Of the VMM: its threads. Containers' processes are the guest's. */
const VMM_PROCESS_COUNT_MAX = 256;
const CONSOLE_TAIL_BYTES = 2048;
/** 128 + SIGKILL: what a container gets whose VM was taken away under it. */
const EXIT_VM_GONE = { exitCode: 137, signal: 9 };

const EXIT_REASONS: Record<VmExit['reason'], PodState['reason']> = {
  'powered-off': 'PoweredOff',
  panicked: 'GuestPanic',
  killed: 'VmmKilled',
  failed: 'VmmFailed',
};

/** The serial under which the guest finds an image's disk: 20 characters are allowed. */
export function imageSerial(imageId: string): string {
  return `i${imageId.replace(/^sha256:/, '').slice(0, 19)}`;
}

export function createPod(record: PodRecord, dependencies: PodDependencies): Pod {
  return new HyperPod(record, dependencies).begin('create');
}

/** Takes over a pod of an earlier daemon, whatever it was doing. */
export function adoptPod(record: PodRecord, dependencies: PodDependencies): Pod {
  return new HyperPod(record, dependencies).begin('adopt');
}

class HyperPod implements Pod {
  readonly #record: PodRecord;
  readonly #deps: PodDependencies;
  readonly #paths: PodPaths;
  readonly #log: Log;
  readonly #life = new AbortController();
  readonly #containers = new Map<string, Container>();
  readonly #attached = new Set<string>();
  #vm: Vm | undefined;
  #session: GuestSession | undefined;
  /** Settles when the pod runs, or is known not to. Never rejects. */
  #begun: Promise<void> = Promise.resolve();
  #saved: Promise<void> = Promise.resolve();
  #starting: Promise<unknown> = Promise.resolve();
  #stopRequested = false;
  /** Settles when the end of the VM has been dealt with. */
  #ended: Promise<void> = Promise.resolve();
  #removing: Promise<void> | undefined;
  #released = false;

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

  begin(how: 'create' | 'adopt'): this {
    const work = how === 'create' ? this.#boot() : this.#adopt();
    this.#begun = work.catch((error) => this.#stop('StartFailed', describeError(error)));
    return this;
  }

  // --- Beginning ---------------------------------------------------------------------------

  async #boot(): Promise<void> {
    const { spec, timings } = this.#record;
    const { clock, hypervisor } = this.#deps;
    const signal = this.#life.signal;
    await this.#save();
    await mkdir(this.#paths.vm, { recursive: true, mode: 0o700 });
    const disk = createScratchDisk(this.#paths.scratch, spec.scratchMib, this.#record.uid, signal);
    await Promise.all([
      this.#connectNetwork().then(() => (timings.network = clock.nowMs())),
      disk.then(() => (timings.disks = clock.nowMs())),
    ]);
    await this.#save();
    this.#vm = await hypervisor.create(this.#vmSpec(), signal);
    timings.vmm = clock.nowMs();
    await this.#save();
    this.#openSession();
    await this.#guestOrEnd(this.#vm);
  }

  async #adopt(): Promise<void> {
    const { hypervisor } = this.#deps;
    for (const container of this.#record.containers) await this.#open(container);
    if (this.#record.phase === 'stopped') return this.#stopAgain();
    if (this.#record.phase === 'deleting') {
      void this.remove().catch((error) =>
        this.#log.error('pod cannot be removed', { error: describeError(error) }),
      );
      return;
    }
    this.#vm = await hypervisor.adopt(this.#paths.vm, this.#life.signal);
    if (!this.#vm && this.#record.timings.vmm === undefined) return this.#boot();
    if (!this.#vm) {
      return this.#stop('VmmKilled', 'The VM ended while the daemon was away');
    }
    for (const { spec } of this.#record.containers) {
      const serial = imageSerial(spec.imageId);
      await this.#deps.images.acquire(spec.imageId, this.id).catch(() => {});
      this.#attached.add(serial);
    }
    this.#openSession();
    await this.#guestOrEnd(this.#vm);
  }

  /** Until the guest is set up. Why a VM ended before is told by `#vmExited`. */
  async #guestOrEnd(vm: Vm): Promise<void> {
    await Promise.race([this.#session?.call(() => Promise.resolve()), vm.exited]);
  }

  async #connectNetwork(): Promise<void> {
    const { spec, uid } = this.#record;
    if (!spec.network) return;
    await this.#deps.network.ensureNetwork(spec.network, this.#life.signal);
    const request = { id: spec.id, networkId: spec.network.id, ownerUid: uid };
    this.#record.port = await this.#deps.network.ensurePort(request, this.#life.signal);
  }

  #vmSpec() {
    const { spec, uid, port } = this.#record;
    const { guest } = this.#deps;
    return {
      id: spec.id,
      directory: this.#paths.vm,
      cpuCount: spec.cpuCount,
      memoryMib: spec.memoryMib,
      kernelPath: guest.kernelPath,
      initrdPath: guest.initrdPath,
      kernelArguments: guest.kernelArguments,
      disks: [
        { serial: SCRATCH_SERIAL, path: this.#paths.scratch, readOnly: false, ephemeral: true },
      ],
      nic: port ? { mac: port.mac, netns: port.netns, tapName: port.tapName } : undefined,
      uid,
      limits: { ...spec.limits, processCount: VMM_PROCESS_COUNT_MAX },
    };
  }

  #openSession(): void {
    const vm = this.#vm;
    if (!vm) return;
    const { clock, connectAgent } = this.#deps;
    this.#session = openGuestSession({
      vm,
      clock,
      connectAgent,
      log: this.#log,
      signal: this.#life.signal,
      bootTimeoutMs: BOOT_TIMEOUT_MS,
      onOpen: (agent) => this.#setUpGuest(agent),
      resumeOffsets: (id, stream) => this.#containers.get(id)?.log.offset(stream) ?? 0,
      onOutput: async (output) => {
        const container = this.#containers.get(output.containerId);
        const first = container?.record.state.firstByteAtMs === 0;
        await container?.output(output);
        if (first) await this.#changed(output.containerId);
      },
      onContainerExit: (id, exit) => this.#containerExited(id, exit),
    });
    void this.#session.ended.then((error) => error && this.#guestLost(error));
    this.#ended = vm.exited.then((exit) => this.#vmExited(exit));
  }

  async #setUpGuest(agent: Agent): Promise<void> {
    const { hello } = agent;
    const { timings } = this.#record;
    if (!hello.podReady) await agent.setupPod(this.#podSetup());
    if (this.#record.phase !== 'creating') return;
    const startMs = timings.vmm ?? this.#deps.clock.nowMs();
    timings.kernel = Math.round(startMs + hello.startedUptimeMs);
    timings.guest = this.#deps.clock.nowMs();
    this.#record.guest = { kernelVersion: hello.kernelVersion, bootId: hello.bootId };
    this.#record.phase = 'running';
    await this.#changed();
  }

  #podSetup(): PodSetup {
    const { spec, port } = this.#record;
    const { clock, random } = this.#deps;
    return {
      hostname: spec.hostname,
      domain: spec.domain,
      epochMs: clock.nowMs(),
      entropy: Buffer.from(random.bytes(ENTROPY_BYTES)).toString('base64'),
      network: port && { mac: port.mac, address: port.address, gateway: port.gateway, mtu: port.mtu },
      dns: spec.dns,
      hostAliases: spec.hostAliases,
      sysctls: spec.sysctls,
      shareProcessNamespace: spec.shareProcessNamespace,
      scratchSerial: SCRATCH_SERIAL,
      volumes: spec.volumes,
    };
  }

  // --- Containers --------------------------------------------------------------------------

  /** Idempotent by id. The returned state tells whether it runs, or why it does not. */
  startContainer(spec: HyperContainerSpec): Promise<ContainerState> {
    const work = this.#starting.then(() => this.#startContainer(spec));
    this.#starting = work.catch(() => {});
    return work;
  }

  async #startContainer(spec: HyperContainerSpec): Promise<ContainerState> {
    await this.#begun;
    this.#assertRunning();
    let container = this.#containers.get(spec.id);
    if (!container) {
      const disk = await this.#deps.images.acquire(spec.imageId, this.id);
      const record = newContainerRecord(spec, this.#deps.clock.nowMs());
      this.#record.containers.push(record);
      await this.#save();
      container = await this.#open(record);
      await this.#attachImage(spec.imageId, disk);
    }
    if (container.record.state.phase !== 'creating') return container.record.state;
    try {
      await this.#launch(container);
    } catch (error) {
      if (!(error instanceof AgentError) || error.reason === 'Closed') throw error;
      await container.exit(this.#startFailure(error));
    }
    await this.#changed(spec.id);
    return container.record.state;
  }

  async #launch(container: Container): Promise<void> {
    const { spec, state } = container.record;
    await this.agent((agent) =>
      agent.startContainer({
        id: spec.id,
        name: spec.name,
        imageSerial: imageSerial(spec.imageId),
        imageFsType: 'erofs',
        process: spec.process,
        readOnlyRootfs: spec.readOnlyRootfs,
        mounts: spec.mounts,
        resources: spec.resources,
        terminationMessagePath: spec.terminationMessagePath,
        stdin: spec.stdin,
      }),
    );
    // Its exit may have been reported before this answer.
    if (state.phase === 'creating') state.phase = 'running';
    state.startedAtMs = state.startedAtMs || this.#deps.clock.nowMs();
  }

  #startFailure(error: AgentError): ProcessExit {
    const finishedAtMs = this.#deps.clock.nowMs();
    const { reason, message } = error;
    return { exitCode: 128, signal: 0, oomKilled: false, reason, message, finishedAtMs };
  }

  async #attachImage(imageId: string, path: string): Promise<void> {
    const serial = imageSerial(imageId);
    if (this.#attached.has(serial)) return;
    await this.#vm?.attachDisk({ serial, path, readOnly: true }, this.#life.signal);
    this.#attached.add(serial);
  }

  async #open(record: PodRecord['containers'][number]): Promise<Container> {
    const { id } = record.spec;
    const nowMs = () => this.#deps.clock.nowMs();
    const container = await openContainer(record, this.#paths.logs(id), nowMs);
    this.#containers.set(id, container);
    return container;
  }

  async #containerExited(id: string, exit: ProcessExit): Promise<void> {
    const container = this.#containers.get(id);
    if (container && (await container.exit(exit))) await this.#changed(id);
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
    this.#containers.delete(containerId);
    this.#record.containers = this.#record.containers.filter(({ spec }) => spec.id !== containerId);
    await container.close();
    await this.#changed(containerId);
    await rm(this.#paths.logs(containerId), { recursive: true, force: true });
  }

  async writeVolume(name: string, content: VolumeFiles): Promise<void> {
    const volume = this.#record.spec.volumes.find((candidate) => candidate.name === name);
    if (volume?.type !== 'files') throw notFound('', 'volumes', name);
    if (content.version <= volume.content.version) return;
    volume.content = content;
    await this.#save();
    await this.agent((agent) => agent.writeVolume(name, content));
  }

  // --- The guest ---------------------------------------------------------------------------

  async agent<T>(operation: (agent: Agent) => Promise<T>): Promise<T> {
    await this.#begun;
    this.#assertRunning();
    const session = this.#session;
    if (!session) throw this.#notRunning();
    return session.call(operation);
  }

  async stats(): Promise<PodStats> {
    const [guest, host] = await Promise.all([this.agent((agent) => agent.stats()), this.#vm?.stats()]);
    return { ...guest, hostMemoryBytes: host?.rssBytes ?? 0 };
  }

  #assertRunning(): void {
    if (this.#record.phase !== 'running') throw this.#notRunning();
  }

  #notRunning(): StatusError {
    const { phase, message } = this.#record;
    const why = message ? `: ${message}` : '';
    return new StatusError('Conflict', `Pod "${this.id}" does not run, it is ${phase}${why}`);
  }

  // --- Ends --------------------------------------------------------------------------------

  async #guestLost(error: Error): Promise<void> {
    this.#log.error('guest given up', { error: error.message });
    await this.#vm?.kill();
    await this.#stop('VmmFailed', `The guest does not answer: ${error.message}`);
  }

  async #vmExited(exit: VmExit): Promise<void> {
    if (this.#released) return;
    await this.#session?.end();
    if (this.#stopRequested) await this.#stop('PoweredOff', 'The pod was stopped as requested');
    else await this.#stop(EXIT_REASONS[exit.reason], exit.message);
  }

  async stop(): Promise<PodState> {
    if (this.#record.phase !== 'deleting') {
      this.#stopRequested = true;
      await this.#begun;
      await this.#vm?.kill();
      await this.#ended;
      await this.#giveBack();
      await this.#save();
    }
    return this.state();
  }

  /** An earlier daemon may have died between saying that the pod is stopped and the rest of it. */
  async #stopAgain(): Promise<void> {
    const vm = await this.#deps.hypervisor.adopt(this.#paths.vm, this.#life.signal);
    await vm?.kill();
    await this.#giveBackOrReport();
  }

  /** The VM is over. What tells of it is kept until `remove`, its logs above all. */
  async #stop(reason: PodState['reason'], message: string): Promise<void> {
    if (this.#released || this.#record.phase === 'stopped' || this.#record.phase === 'deleting') return;
    this.#record.phase = 'stopped';
    this.#record.reason = reason;
    this.#record.message = await this.#explain(reason, message);
    const finishedAtMs = this.#deps.clock.nowMs();
    for (const container of this.#containers.values()) {
      const detail = { oomKilled: false, reason: 'Error', message: this.#record.message };
      await container.exit({ ...EXIT_VM_GONE, ...detail, finishedAtMs });
    }
    this.#log.info('pod stopped', { reason, message });
    await this.#vm?.kill();
    await this.#giveBackOrReport();
    await this.#changed();
  }

  /** What only a VM needs: its place on the network and its disks. May be repeated. */
  async #giveBack(): Promise<void> {
    const { network, images } = this.#deps;
    await network.deletePort(this.id);
    this.#record.port = null;
    const imageIds = new Set(this.#record.containers.map(({ spec }) => spec.imageId));
    for (const imageId of imageIds) await images.release(imageId, this.id);
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
    const { hypervisor } = this.#deps;
    this.#record.phase = 'deleting';
    await this.#changed();
    this.#life.abort(new AgentError('Closed', `Pod "${this.id}" is being removed`));
    await this.#begun;
    const vm = this.#vm ?? (await hypervisor.adopt(this.#paths.vm));
    await vm?.kill();
    await this.#session?.ended;
    await this.#giveBack();
    for (const container of this.#containers.values()) await container.close();
    await this.#saved;
    await rm(this.#paths.root, { recursive: true, force: true });
  }

  async release(): Promise<void> {
    this.#released = true;
    this.#life.abort(new AgentError('Closed', 'The daemon is ending'));
    await this.#begun;
    await this.#session?.ended;
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
    const save = this.#saved.then(() => savePodRecord(this.#paths, this.#record));
    this.#saved = save.catch(() => {});
    return save;
  }
}
