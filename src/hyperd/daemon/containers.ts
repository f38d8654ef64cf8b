import { rm } from 'node:fs/promises';
import { constants } from 'node:os';
import type { ContainerState, HyperContainerSpec, ProcessExit } from '../../api/hyperd.ts';
import { StatusError, notFound } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import { AgentError } from '../agent/agent.ts';
import type { Agent, GuestOutput } from '../agent/agent.ts';
import type { ImageStore } from '../image/store.ts';
import { HypervisorError } from '../vmm/hypervisor.ts';
import type { StartedImage } from '../supply/supply.ts';
import type { DiskSpec } from '../vmm/hypervisor.ts';
import { openContainer } from './container.ts';
import type { Container } from './container.ts';
import { guestContainerSpec, imageSerial } from './guest-spec.ts';
import { isLive, newContainerRecord } from './record.ts';
import type { ContainerRecord, PodPaths, PodRecord } from './record.ts';
import type { RecordKeeper } from './record-keeper.ts';
import { signalNumber } from './signals.ts';

/** The containers of one pod, ended ones included, until they are removed. */
export interface Containers {
  /** Opens those that an earlier daemon recorded. */
  load(): Promise<void>;
  /**
   * Idempotent by id. The returned state tells whether it runs, or why it does not. Once it is
   * recorded it comes to one of the two, whatever happens to this daemon.
   */
  start(spec: HyperContainerSpec): Promise<ContainerState>;
  /** Does something while no container is being started. */
  inTurn<T>(work: () => Promise<T>): Promise<T>;
  /** Starts those that were accepted and that nobody has come to yet. Does not wait for them. */
  carryOut(): void;
  /** @throws StatusError NotFound */
  get(containerId: string): Container;
  /** Bytes of output that are safe, for a guest that sends again what was not acknowledged. */
  outputOffset(containerId: string, stream: 1 | 2): number;
  takeOutput(output: GuestOutput): Promise<void>;
  takeExit(containerId: string, exit: ProcessExit): Promise<void>;
  signal(containerId: string, signal: number): Promise<void>;
  /** Sends those that run their stop signals; resolves when they have ended, or the time is over. */
  endWithin(graceMs: number): Promise<void>;
  /** @throws StatusError Conflict where it runs */
  remove(containerId: string): Promise<void>;
  /** Resolves when no exit of any is on its way. */
  settled(): Promise<void>;
  /** The VM is gone and they with it: all that still ran get their exit before this returns. */
  endAll(message: string): void;
  /** Resolves when no start is under way. Never rejects. */
  idle(): Promise<unknown>;
  close(): Promise<void>;
}

/** What the containers need of their pod. */
export interface ContainersOwner {
  readonly record: PodRecord;
  readonly paths: PodPaths;
  readonly keeper: RecordKeeper;
  readonly images: ImageStore;
  readonly clock: Clock;
  readonly log: Log;
  /** Resolves when the pod runs, or is known not to. */
  begun(): Promise<void>;
  /** Resolves when the record says that the pod does not run any more. */
  readonly over: Promise<void>;
  attachDisk(disk: DiskSpec): Promise<void>;
  noteStart(image: StartedImage): void;
  /** @throws StatusError when the pod does not run */
  assertRunning(): void;
  /** What somebody is told who wants something of a pod that does not run. */
  notRunning(): StatusError;
  /** The record says that one more container has ended. */
  containerEnded(): void;
  agent<T>(operation: (agent: Agent) => Promise<T>): Promise<T>;
}

/** 128 + SIGKILL: what a container gets whose VM was taken away under it. */
const EXIT_VM_GONE = { exitCode: 137, signal: 9 };
/** What a shell would give; runc's `StartError`. */
const EXIT_NOT_STARTED = 128;

export function createContainers(owner: ContainersOwner): Containers {
  return new PodContainers(owner);
}

class PodContainers implements Containers {
  readonly #owner: ContainersOwner;
  readonly #containers = new Map<string, Container>();
  /** Starts are one behind the other. Never rejects. */
  #starting: Promise<unknown> = Promise.resolve();

  constructor(owner: ContainersOwner) {
    this.#owner = owner;
  }

  async load(): Promise<void> {
    for (const record of this.#owner.record.containers) this.#hold(await this.#open(record));
  }

  start(spec: HyperContainerSpec): Promise<ContainerState> {
    return this.inTurn(() => this.#start(spec));
  }

  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#starting.then(work);
    this.#starting = result.catch(() => {});
    return result;
  }

  async #start(spec: HyperContainerSpec): Promise<ContainerState> {
    const { record, keeper, over, log } = this.#owner;
    if (record.phase !== 'creating') this.#owner.assertRunning();
    const known = this.#containers.get(spec.id);
    if (known && known.record.state.phase !== 'creating') {
      await this.#owner.begun();
      this.#owner.assertRunning();
      return known.record.state;
    }
    const { container, acquired } = await this.#prepare(spec, known);
    if (!known) await this.#add(container);
    try {
      await this.#launch(container, await acquired);
    } catch (error) {
      if (isGone(error)) await over;
      this.#owner.assertRunning();
      log.warn('container cannot be started', { container: spec.id, error: describeError(error) });
      await container.exit(this.#startFailure(error));
      // One that was late is not to run unseen.
      await this.#owner.agent((agent) => agent.removeContainer(spec.id)).catch(() => {});
    }
    await keeper.changed(spec.id);
    if (container.record.state.phase === 'exited') this.#owner.containerEnded();
    return container.record.state;
  }

  carryOut(): void {
    for (const { spec, state } of this.#owner.record.containers) {
      if (state.phase === 'creating') this.start(spec).catch(() => {});
    }
  }

  /** Waits for the pod to run. What only the host has to do for the container is done meanwhile. */
  async #prepare(spec: HyperContainerSpec, known: Container | undefined) {
    const { images, record: pod, clock } = this.#owner;
    const acquired = images.acquire(spec.imageId, pod.spec.id, pod.spec.owner);
    // The failure of one that is recorded is its end, that of another one its caller's.
    const opened = known ?? this.#open(newContainerRecord(spec, clock.nowMs()));
    const made = Promise.all([opened, known ? acquired.catch(() => {}) : acquired]);
    made.catch(() => {});
    try {
      await this.#owner.begun();
      this.#owner.assertRunning();
      const [container] = await made;
      return { container, acquired };
    } catch (error) {
      await this.#letGo(spec, known ? undefined : opened, acquired);
      throw error;
    }
  }

  /** Of a container that will not be: the pod's end did not know of what was being prepared for it. */
  async #letGo(
    spec: HyperContainerSpec,
    opened: Container | Promise<Container> | undefined,
    acquired: Promise<unknown>,
  ): Promise<void> {
    const { images, record: pod } = this.#owner;
    await acquired.catch(() => {});
    if (!isLive(pod)) await images.release(spec.imageId, pod.spec.id);
    await Promise.resolve(opened).then(
      (container) => container?.close(),
      () => {},
    );
  }

  async #add(container: Container): Promise<void> {
    const { record: pod, keeper } = this.#owner;
    // No await from here on: the pod's end must find the container, or this find the end.
    if (pod.phase !== 'running') {
      await container.close();
      throw this.#owner.notRunning();
    }
    pod.containers.push(container.record);
    this.#hold(container);
    await keeper.save();
  }

  async #launch(container: Container, diskPath: string): Promise<void> {
    const { spec, state } = container.record;
    const disk = { serial: imageSerial(spec.imageId), path: diskPath, readOnly: true };
    await this.#owner.attachDisk(disk);
    await this.#owner.agent((agent) => agent.startContainer(guestContainerSpec(spec)));
    // Its exit may have been reported before this answer.
    if (state.phase === 'creating') state.phase = 'running';
    state.startedAtMs ||= this.#owner.clock.nowMs();
    container.markStarted();
    this.#noteStart(disk, spec);
  }

  #noteStart({ serial, path }: DiskSpec, spec: HyperContainerSpec): void {
    const { imageId, process, mounts } = spec;
    const { images } = this.#owner;
    const [reference = ''] = images.get(imageId)?.references ?? [];
    // What a registry gave to a credential alone is shown to no VM that has not asked for it.
    if (!reference || !images.mayUse({ reference, credentials: [] })) return;
    // A whole volume is a directory; a part of one may be a file.
    const mountPaths = mounts.filter(({ subPath }) => subPath === '').map((mount) => mount.path);
    this.#owner.noteStart({ serial, path, program: process.argv[0] ?? '', mountPaths });
  }

  #startFailure(error: unknown): ProcessExit {
    const reason = error instanceof AgentError ? error.reason : 'StartError';
    const message = describeError(error);
    const finishedAtMs = this.#owner.clock.nowMs();
    const exit = { exitCode: EXIT_NOT_STARTED, signal: 0, oomKilled: false };
    return { ...exit, reason, message, finishedAtMs };
  }

  #open(record: ContainerRecord): Promise<Container> {
    const nowMs = () => this.#owner.clock.nowMs();
    return openContainer(record, this.#owner.paths.logs(record.spec.id), nowMs);
  }

  #hold(container: Container): void {
    this.#containers.set(container.record.spec.id, container);
  }

  outputOffset(containerId: string, stream: 1 | 2): number {
    return this.#containers.get(containerId)?.log.offset(stream) ?? 0;
  }

  async takeOutput(output: GuestOutput): Promise<void> {
    const { keeper } = this.#owner;
    const { containerId } = output;
    const isFirst = this.#containers.get(containerId)?.record.state.firstByteAtMs === 0;
    await keeper.untilStored(async () => this.#containers.get(containerId)?.output(output));
    if (isFirst) await keeper.untilStored(() => keeper.changed(containerId));
  }

  async takeExit(containerId: string, exit: ProcessExit): Promise<void> {
    const { keeper, clock } = this.#owner;
    const container = this.#containers.get(containerId);
    if (!container) return;
    container.record.state.startedAtMs ||= clock.nowMs();
    await container.exit(exit);
    await keeper.untilStored(() => keeper.changed(containerId));
    this.#owner.containerEnded();
  }

  get(containerId: string): Container {
    const container = this.#containers.get(containerId);
    if (!container) throw notFound('', 'containers', containerId);
    return container;
  }

  async signal(containerId: string, signal: number): Promise<void> {
    if (this.get(containerId).record.state.phase === 'exited') return;
    await this.#owner.agent((agent) => agent.signalContainer(containerId, signal));
  }

  async endWithin(graceMs: number): Promise<void> {
    const running = [...this.#containers.values()].filter(
      ({ record }) => record.state.phase === 'running',
    );
    const limit = new AbortController();
    const late = this.#owner.clock.sleep(graceMs, limit.signal).catch(() => {});
    const ended = running.map(async ({ record: { spec }, exited }) => {
      const number = stopSignalNumber(spec.stopSignal);
      await this.#owner.agent((agent) => agent.signalContainer(spec.id, number)).catch(() => {});
      await exited;
    });
    await Promise.race([Promise.all(ended), late]);
    limit.abort();
  }

  async remove(containerId: string): Promise<void> {
    const { record, keeper, paths } = this.#owner;
    const container = this.get(containerId);
    if (container.record.state.phase !== 'exited') {
      throw new StatusError('Conflict', `Cannot remove container "${containerId}": it runs`);
    }
    if (record.phase === 'running') {
      await this.#owner.agent((agent) => agent.removeContainer(containerId));
    }
    if (!this.#containers.delete(containerId)) return;
    record.containers = record.containers.filter(({ spec }) => spec.id !== containerId);
    await container.close();
    await keeper.changed(containerId);
    await rm(paths.logs(containerId), { recursive: true, force: true });
  }

  async settled(): Promise<void> {
    await Promise.all([...this.#containers.values()].map((container) => container.settled()));
  }

  endAll(message: string): void {
    const finishedAtMs = this.#owner.clock.nowMs();
    for (const container of this.#containers.values()) {
      const detail = { oomKilled: false, reason: 'Error', message, finishedAtMs };
      void container.exit({ ...EXIT_VM_GONE, ...detail });
    }
  }

  idle(): Promise<unknown> {
    return this.#starting;
  }

  async close(): Promise<void> {
    for (const container of this.#containers.values()) await container.close();
  }
}

/** An image may name one that there is not. */
function stopSignalNumber(name: string): number {
  try {
    return signalNumber(name);
  } catch {
    return constants.signals.SIGTERM;
  }
}

/** The guest or its VM has ended, or this daemon is about to. */
export function isGone(error: unknown): boolean {
  if (error instanceof AgentError) return error.reason === 'Closed';
  return error instanceof HypervisorError && error.reason === 'Gone';
}
