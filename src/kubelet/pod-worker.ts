import type { Container, Pod, Probe } from '../api/types.generated.ts';
import type { ImageStatus, ProcessSpec } from '../api/hyperd.ts';
import { isStatus } from '../api/status.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { PODS } from '../client/resources.ts';
import { backoffMs } from './backoff.ts';
import { containerSpec } from './container-spec.ts';
import type { NodeContext } from './context.ts';
import { decide, latest, sandboxRestart } from './decide.ts';
import type { Decision } from './decide.ts';
import { ContainerConfigError, UnsupportedError } from './errors.ts';
import { runCommand } from './exec.ts';
import type { DownwardContext } from './field-ref.ts';
import { isAlive, sandboxNumber, viewPod } from './history.ts';
import type { Attempt, ContainerView, PodView } from './history.ts';
import { createImagePuller } from './images.ts';
import type { ImagePuller } from './images.ts';
import { createJobs, RETRY_MAX_MS, RETRY_MIN_MS } from './jobs.ts';
import type { Jobs } from './jobs.ts';
import { createProbes } from './probes.ts';
import type { Probes, ProbeTarget } from './probes.ts';
import { sandboxSpec } from './sandbox-spec.ts';
import { computeStatus, isTerminal } from './status.ts';
import { createStatusWriter } from './status-writer.ts';
import type { StatusWriter } from './status-writer.ts';
import { timeline } from './timeline.ts';
import { runHook, stopContainer } from './stop.ts';
import type { RunningContainer } from './stop.ts';
import { isFileVolume, podVolumes, refuseUnsupported } from './volumes.ts';
import { createVolumeRefresher } from './volume-refresh.ts';
import type { VolumeRefresher } from './volume-refresh.ts';

/**
 * Brings one pod to what the API says, and tells the API how far it is. Level-triggered: each
 * turn looks at all there is to know and starts what is missing; what takes time runs beside the
 * turns, one job of each name, and wakes the worker when it is done.
 *
 *   syncing ──deletionTimestamp, deadline──► stopping ──containers dead──► stopped
 *      │                                                                     │
 *      └──────────all containers have ended──────────────────────────────────┤ VM ended
 *                                              deletionTimestamp: VM removed, object deleted
 *                                                                            ▼
 *   any ──object is gone from the API──────────────────────────────────────► gone
 */
const TRANSITIONS = {
  syncing: ['stopping', 'stopped', 'gone'],
  stopping: ['stopped', 'gone'],
  stopped: ['stopping', 'gone'],
  gone: [],
} as const satisfies Record<string, readonly string[]>;

export type PodWorkerState = keyof typeof TRANSITIONS;

export interface PodWorker {
  readonly uid: string;
  readonly pod: Pod;
  readonly state: PodWorkerState;
  /** A newer version of the object. */
  update(pod: Pod): void;
  /** The object is no longer in the API: what is left of the pod goes at once. */
  remove(): void;
  /** Something about the pod's VM may have changed. */
  wake(): void;
  /** The container as it is now, for streams; undefined where the pod has none of the name. */
  view(): PodView;
  processOf(container: Container, attempt: Attempt): Promise<ProcessSpec>;
  /** Lets go; the VM runs on. Resolves when nothing of the worker runs any more. */
  close(): Promise<void>;
  /** Settles when the pod is gone. */
  readonly done: Promise<void>;
}

const GRACE_DEFAULT_SECONDS = 30;

export function createPodWorker(context: NodeContext, pod: Pod): PodWorker {
  return new Worker(context, pod);
}

class Worker implements PodWorker {
  readonly uid: string;
  readonly done: Promise<void>;
  readonly #context: NodeContext;
  readonly #log: Log;
  readonly #life = new AbortController();
  /** Ends what serves the running of containers, when they are to be stopped. */
  readonly #running = new AbortController();
  readonly #images: ImagePuller;
  readonly #probes: Probes;
  readonly #status: StatusWriter;
  readonly #refreshVolumes: VolumeRefresher;
  readonly #jobs: Jobs;
  readonly #problems = new Map<string, { reason: string; message: string }>();
  readonly #processes = new Map<string, ProcessSpec>();
  /** Containers whose postStart hook has not finished: not started yet, in Kubernetes' eyes. */
  readonly #hooked = new Set<string>();
  #pod: Pod;
  #state: PodWorkerState = 'syncing';
  #verdict: { reason: string; message: string } | undefined;
  #sandboxProblem: { reason: string; message: string } | undefined;
  #stoppedSeen: { id: string; atMs: number } | undefined;
  #removed = false;
  /** The object has been deleted by us; finalizers of others may keep it for a while. */
  #deleted = false;
  #imagesReadyMs = 0;
  #dirty = false;
  #turn: Promise<void> | undefined;
  #resolveDone: () => void = () => {};

  constructor(context: NodeContext, pod: Pod) {
    this.#context = context;
    this.#pod = pod;
    this.uid = pod.metadata.uid ?? '';
    this.#log = context.log.with({ pod: `${pod.metadata.namespace}/${pod.metadata.name}` });
    this.done = new Promise((resolve) => (this.#resolveDone = resolve));
    this.#jobs = createJobs(context.clock, this.#log, () => this.wake());
    this.#images = createImagePuller(context);
    this.#probes = this.#createProbes();
    this.#status = createStatusWriter(context, this.#log, (newer) => this.update(newer));
    this.#refreshVolumes = createVolumeRefresher(context, this.#log, this.#life.signal);
  }

  get pod(): Pod {
    return this.#pod;
  }

  get state(): PodWorkerState {
    return this.#state;
  }

  update(pod: Pod): void {
    const version = (object: Pod) => Number(object.metadata.resourceVersion ?? 0);
    if (version(pod) < version(this.#pod)) return;
    this.#pod = pod;
    this.wake();
  }

  remove(): void {
    this.#removed = true;
    this.wake();
  }

  wake(): void {
    if (this.#life.signal.aborted) return;
    this.#dirty = true;
    this.#turn ??= this.#runTurns();
  }

  async close(): Promise<void> {
    this.#life.abort(new Error('kubelet is stopping'));
    this.#running.abort(this.#life.signal.reason);
    this.#probes.stop();
    await this.#turn;
    await this.#jobs.end();
    await this.#status.close();
  }

  view(): PodView {
    return viewPod(this.#pod, this.#context.sandboxes.of(this.uid));
  }

  // --- Turns ---------------------------------------------------------------------------------

  async #runTurns(): Promise<void> {
    // Lets several wakes of one moment become one turn.
    await Promise.resolve();
    while (this.#dirty && !this.#life.signal.aborted) {
      this.#dirty = false;
      try {
        await this.#takeTurn();
      } catch (error) {
        this.#log.error('pod cannot be synced', { error: describeError(error) });
        this.#jobs.wakeAfter(RETRY_MIN_MS);
      }
    }
    // At once, not when the promise is seen to settle: a wake in between would be lost.
    this.#turn = undefined;
  }

  async #takeTurn(): Promise<void> {
    this.#jobs.sleepNoMore();
    if (this.#removed) return this.#removeAll();
    const view = this.view();
    this.#noteStopped(view);
    const decision = this.#decide(view);
    this.#enforceEnds(view, decision);
    if (this.#state === 'syncing') this.#act(view, decision);
    this.#probes.update(this.#state === 'syncing' ? this.#probeTargets(view) : []);
    if (this.#state === 'stopping') this.#stopAll(view);
    this.#writeStatus(view, decision);
    if (this.#state === 'stopped') {
      if (this.#pod.metadata.deletionTimestamp) this.#deleteAll();
      else if (isAlive(view.sandbox)) this.#stopSandbox(view.sandbox.id);
    }
    if (decision.wakeInMs !== undefined) this.#jobs.wakeAfter(decision.wakeInMs);
  }

  #decide(view: PodView): Decision {
    const { clock } = this.#context;
    return decide({
      view,
      nowMs: clock.nowMs(),
      hasStarted: (attempt) => this.#probes.hasStarted(attempt),
      sandboxStoppedMs: this.#stoppedSeen?.atMs,
    });
  }

  #noteStopped(view: PodView): void {
    const { sandbox } = view;
    if (!sandbox || sandbox.phase !== 'stopped') this.#stoppedSeen = undefined;
    else if (this.#stoppedSeen?.id !== sandbox.id) {
      this.#stoppedSeen = { id: sandbox.id, atMs: this.#context.clock.nowMs() };
      const { reason, message } = sandbox;
      // The kubelet's own doing, by this one or the one before it.
      if (this.#state !== 'syncing' || isTerminal(this.#pod.status?.phase)) return;
      const text = `Virtual machine of the pod ended: ${reason}: ${message}`;
      this.#context.events.emit(this.#pod, 'Warning', 'SandboxChanged', text);
    }
  }

  /** Deletion and deadlines, from wherever the pod is. */
  #enforceEnds(view: PodView, decision: Decision): void {
    const { metadata, spec, status } = this.#pod;
    if (metadata.deletionTimestamp) {
      if (this.#state === 'syncing' || (this.#state === 'stopped' && this.#hasRunning(view))) {
        this.#enter('stopping');
      }
      return;
    }
    if (this.#state !== 'syncing') return;
    if (isTerminal(status?.phase) || decision.finished) {
      this.#enter(this.#hasRunning(view) ? 'stopping' : 'stopped');
      return;
    }
    const limitSeconds = spec?.activeDeadlineSeconds;
    if (limitSeconds === undefined || !status?.startTime) return;
    const leftMs = Date.parse(status.startTime) + limitSeconds * 1000 - this.#context.clock.nowMs();
    if (leftMs > 0) {
      this.#jobs.wakeAfter(leftMs);
      return;
    }
    const message = 'Pod was active on the node longer than the specified deadline';
    this.#verdict = { reason: 'DeadlineExceeded', message };
    this.#context.events.emit(this.#pod, 'Normal', 'DeadlineExceeded', message);
    this.#enter('stopping');
  }

  #enter(next: PodWorkerState): void {
    if (this.#state === next) return;
    const allowed: readonly string[] = TRANSITIONS[this.#state];
    if (!allowed.includes(next)) {
      throw new Error(`Cannot move pod worker from ${this.#state} to ${next}`);
    }
    this.#state = next;
    if (next !== 'syncing') this.#running.abort(new Error('pod is being stopped'));
  }

  #act(view: PodView, decision: Decision): void {
    if (decision.createSandbox && this.#hasNetwork() && this.#jobs.isDue('sandbox')) {
      this.#job('sandbox', (signal) => this.#createSandbox(view, signal));
    }
    if (isAlive(view.sandbox) && view.sandbox.phase === 'running') {
      this.#sandboxProblem = undefined;
      if (this.#pod.spec?.volumes?.some(isFileVolume)) {
        this.#jobs.wakeAfter(this.#refreshVolumes(this.#pod, view.sandbox.id));
      }
    }
    // Images are pulled while the VM boots: containers are due as soon as there is a VM at all.
    for (const { view: container, attempt, streak } of decision.start) {
      const name = `start/${container.container.name}`;
      if (!this.#jobs.isDue(name)) continue;
      this.#job(name, (signal) => this.#startContainer(container, attempt, streak, signal));
    }
    for (const name of decision.backoff.keys()) this.#reportBackoff(name, decision);
  }

  #reported = new Set<string>();
  #reportBackoff(name: string, decision: Decision): void {
    const message = decision.backoff.get(name)?.message ?? '';
    const attempt = this.view().containers.find((each) => each.container.name === name);
    const key = `${name}/${attempt ? latest(attempt)?.number : ''}`;
    if (this.#reported.has(key)) return;
    this.#reported.clear();
    this.#reported.add(key);
    const { name: podName, namespace, uid } = this.#pod.metadata;
    const text = `Back-off restarting failed container ${name} in pod ${podName}_${namespace}(${uid})`;
    if (message) this.#context.events.emit(this.#pod, 'Warning', 'BackOff', text, name);
  }

  /** Runs beside the turns, as long as the pod is to run unless `signal` says otherwise. */
  #job(name: string, work: (signal: AbortSignal) => Promise<void>, signal?: AbortSignal): void {
    const whileRunning = AbortSignal.any([this.#life.signal, this.#running.signal]);
    this.#jobs.start(name, work, signal ?? whileRunning);
  }

  // --- The VM --------------------------------------------------------------------------------

  /** All pods are woken when the node's network becomes ready. */
  #hasNetwork(): boolean {
    const message = this.#context.network.problem();
    if (!message) return true;
    const reason = 'NetworkNotReady';
    if (this.#sandboxProblem?.reason !== reason) {
      const text = `network is not ready: ${message}`;
      this.#context.events.emit(this.#pod, 'Warning', reason, text);
    }
    this.#sandboxProblem = { reason, message };
    return false;
  }

  async #createSandbox(view: PodView, signal: AbortSignal): Promise<void> {
    const { hyperd, sandboxes, size, events, clock } = this.#context;
    const pod = this.#pod;
    try {
      refuseUnsupported(pod);
      const number = view.sandbox ? sandboxNumber(view.sandbox) + 1 : 0;
      const streak = view.sandbox
        ? sandboxRestart({
            view,
            nowMs: clock.nowMs(),
            sandboxStoppedMs: this.#stoppedSeen?.atMs,
          }).streak
        : 0;
      const downward = this.#downward(view);
      const volumes = await podVolumes({ ...this.#context, downward });
      const defaults = await this.#context.sandboxDefaults();
      const network = this.#context.network.segment() ?? null;
      const spec = sandboxSpec(pod, number, streak, volumes, network, size, defaults);
      // The dead VM before the last one has been looked at by everyone who could.
      if (view.previous) await hyperd.deletePod(view.previous.id, signal);
      const created = await hyperd.createPod(spec, signal);
      if (created.phase === 'deleting') throw new Error(`VM "${spec.id}" is still being removed`);
      sandboxes.put(created);
      this.#sandboxProblem = undefined;
      this.#jobs.forget('sandbox');
    } catch (error) {
      if (signal.aborted) return;
      const isUnsupported = error instanceof UnsupportedError;
      const reason =
        error instanceof ContainerConfigError ? error.reason : 'FailedCreatePodSandBox';
      const prefix = reason === 'FailedMount' ? '' : 'Failed to create pod sandbox: ';
      const message = describeError(error);
      this.#sandboxProblem = { reason: isUnsupported ? 'Unsupported' : reason, message };
      events.emit(pod, 'Warning', reason, `${prefix}${message}`);
      // What is not supported stays so until the pod is another one.
      this.#jobs.retryLater(
        'sandbox',
        isUnsupported ? clock.nowMs() + RETRY_MAX_MS * 5 : undefined,
      );
    }
  }

  #downward(view: PodView): DownwardContext {
    const { hostIp, size } = this.#context;
    return {
      pod: this.#pod,
      podIp: view.sandbox?.address ?? '',
      hostIp,
      node: { cpuMillis: size.cpuCount * 1000, memoryBytes: size.memoryBytes },
    };
  }

  // --- Containers ----------------------------------------------------------------------------

  async #startContainer(
    target: ContainerView,
    attempt: number,
    streak: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { events, sandboxes, hyperd, clock } = this.#context;
    const { container } = target;
    const step = `start/${container.name}`;
    try {
      const image = await this.#images.ensure(this.#pod, container, signal);
      this.#problems.delete(container.name);
      this.#imagesReadyMs = Math.max(this.#imagesReadyMs, clock.nowMs());
      const isReady = () =>
        !isAlive(this.view().sandbox) || this.view().sandbox?.phase === 'running';
      await sandboxes.waitFor(isReady, RETRY_MAX_MS, signal);
      const { sandbox } = this.view();
      if (!sandbox || sandbox.phase !== 'running' || signal.aborted) return;
      const spec = await this.#specOf(container, attempt, streak, image);
      this.#processes.set(spec.id, spec.process);
      if (container.lifecycle?.postStart) this.#hooked.add(spec.id);
      const about = (type: 'Normal' | 'Warning', reason: string, message: string) =>
        events.emit(this.#pod, type, reason, message, container.name);
      about('Normal', 'Created', `Created container: ${container.name}`);
      const state = await hyperd.startContainer(sandbox.id, spec, signal);
      this.#jobs.forget(step);
      await this.#dropOldAttempts(target, sandbox.id, signal);
      await sandboxes.refresh(sandbox.id);
      if (state.exit && !state.startedAtMs) {
        const why = `failed to start container "${spec.id}": ${state.exit.message}`;
        about('Warning', 'Failed', `Error: ${why}`);
        return;
      }
      about('Normal', 'Started', `Started container ${container.name}`);
      await this.#postStart(target, spec.id, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (isStatus(error, 'Conflict') || isStatus(error, 'NotFound')) {
        // The VM ended in between: what to do about that is the next turn's question.
        const { sandbox } = this.view();
        if (sandbox) await sandboxes.refresh(sandbox.id);
        if (isAlive(this.view().sandbox)) this.#jobs.retryLater(step);
        return;
      }
      const known = error instanceof ContainerConfigError;
      const reason = known ? error.reason : 'CreateContainerError';
      const message = describeError(error);
      this.#problems.set(container.name, { reason, message });
      const isImage = /Image/.test(reason);
      if (!isImage) {
        events.emit(this.#pod, 'Warning', 'Failed', `Error: ${message}`, container.name);
      }
      // A pull that failed is shown once as it is, and then as waiting for its back-off.
      const retryAtMs = isImage ? this.#nextPullMs(reason, container.name) : undefined;
      this.#jobs.retryLater(step, retryAtMs ?? clock.nowMs() + backoffMs(0));
    }
  }

  /** Of the attempts that ended the last one is kept, for its log and exit code. */
  async #dropOldAttempts(target: ContainerView, id: string, signal: AbortSignal): Promise<void> {
    const old = target.attempts.slice(0, -1).filter((each) => each.sandboxId === id && each.exit);
    for (const { containerId } of old) {
      if (signal.aborted) return;
      this.#processes.delete(containerId);
      await this.#context.hyperd.deleteContainer(id, containerId).catch((error: unknown) => {
        this.#log.debug('old container stays', { error: describeError(error) });
      });
    }
  }

  /** ErrImagePull is followed by ImagePullBackOff soon, that by the next pull when it is due. */
  #nextPullMs(reason: string, containerName: string): number | undefined {
    const { clock } = this.#context;
    const dueMs = this.#images.retryAtMs(containerName);
    return reason === 'ErrImagePull' ? Math.min(clock.nowMs() + 2000, dueMs ?? 0) : dueMs;
  }

  #specOf(container: Container, attempt: number, streak: number, image: ImageStatus) {
    const { objects, services, apiServer } = this.#context;
    const downward = this.#downward(this.view());
    const given = { objects, services: services(), apiServer, downward };
    return containerSpec({ container, attempt, streak, image, ...given });
  }

  async #postStart(target: ContainerView, id: string, signal: AbortSignal): Promise<void> {
    const { container } = target;
    const handler = container.lifecycle?.postStart;
    if (!handler) return;
    try {
      const running = this.#runningContainer(container.name);
      if (!running) return;
      const timeoutMs = Number.POSITIVE_INFINITY;
      const failure = await runHook(this.#context, running, handler, timeoutMs, signal);
      if (!failure || signal.aborted) return;
      this.#context.events.emit(
        this.#pod,
        'Warning',
        'FailedPostStartHook',
        failure,
        container.name,
      );
      await stopContainer(this.#context, running, this.#graceMs(), 'FailedPostStartHook', signal);
    } finally {
      this.#hooked.delete(id);
    }
  }

  #runningContainer(name: string): RunningContainer | undefined {
    const view = this.view();
    const found = view.containers.find((each) => each.container.name === name);
    const attempt = found && latest(found);
    if (!found || attempt?.phase !== 'running') return undefined;
    const { container } = found;
    return {
      pod: this.#pod,
      container,
      attempt,
      podIp: view.sandbox?.address ?? '',
      process: () => this.processOf(container, attempt),
    };
  }

  /** As the container was started; after a restart of the kubelet, as it would be now. */
  async processOf(container: Container, attempt: Attempt): Promise<ProcessSpec> {
    const known = this.#processes.get(attempt.containerId);
    if (known) return known;
    const images = await this.#context.hyperd.images();
    const image = images.find((each) => each.id === attempt.imageId);
    if (!image) throw new ContainerConfigError('CreateContainerConfigError', 'image is gone');
    const { process } = await this.#specOf(container, attempt.number, attempt.streak, image);
    this.#processes.set(attempt.containerId, process);
    return process;
  }

  // --- Probes --------------------------------------------------------------------------------

  #createProbes(): Probes {
    const { hyperd, clock, events } = this.#context;
    const sandboxOf = (target: ProbeTarget) => target.attempt.sandboxId ?? '';
    return createProbes(
      {
        exec: async (target, argv, timeoutMs) => {
          const own = await this.processOf(target.container, target.attempt);
          const where = {
            sandboxId: sandboxOf(target),
            containerId: target.attempt.containerId,
          };
          const process = { ...own, argv, tty: false };
          return runCommand(hyperd, clock, where, process, timeoutMs, this.#running.signal);
        },
        request: (target, request) =>
          hyperd.probe(sandboxOf(target), request, this.#running.signal),
        podIp: () => this.view().sandbox?.address ?? '',
        onFailure: (target, kind, message) => {
          const Kind = `${kind[0]?.toUpperCase()}${kind.slice(1)}`;
          const text = `${Kind} probe failed: ${message}`;
          events.emit(this.#pod, 'Warning', 'Unhealthy', text, target.container.name);
        },
        onUnhealthy: (target, kind, probe) => this.#killUnhealthy(target, kind, probe),
        onChange: () => this.wake(),
      },
      clock,
    );
  }

  #killUnhealthy(target: ProbeTarget, kind: string, probe: Probe): void {
    const { name } = target.container;
    const graceMs = (probe.terminationGracePeriodSeconds ?? this.#graceSeconds()) * 1000;
    this.#job(`kill/${name}`, async (signal) => {
      const running = this.#runningContainer(name);
      if (running?.attempt.containerId !== target.attempt.containerId) return;
      const message = `Container ${name} failed ${kind} probe, will be restarted`;
      await stopContainer(this.#context, running, graceMs, message, signal);
    });
  }

  #probeTargets(view: PodView): ProbeTarget[] {
    return view.containers.flatMap((each) => {
      const attempt = latest(each);
      const isUp = attempt?.phase === 'running' && attempt.sandboxId === view.sandbox?.id;
      if (!isUp || this.#hooked.has(attempt.containerId)) return [];
      return [{ attempt, container: each.container }];
    });
  }

  // --- The end -------------------------------------------------------------------------------

  #graceSeconds(): number {
    const { spec, metadata } = this.#pod;
    const wanted = spec?.terminationGracePeriodSeconds ?? GRACE_DEFAULT_SECONDS;
    return metadata.deletionGracePeriodSeconds ?? wanted;
  }

  /** What is left of the grace period, also for a kubelet that was restarted within it. */
  #graceMs(): number {
    const { deletionTimestamp } = this.#pod.metadata;
    const graceMs = this.#graceSeconds() * 1000;
    if (!deletionTimestamp) return graceMs;
    // Written in whole seconds, rounded down: nobody gets less than was asked for.
    const leftMs = Date.parse(deletionTimestamp) + 1000 - this.#context.clock.nowMs();
    return Math.max(0, Math.min(graceMs, leftMs));
  }

  #hasRunning(view: PodView): boolean {
    return view.containers.some((each) => {
      const attempt = latest(each);
      return attempt !== undefined && !attempt.exit && isAlive(view.sandbox);
    });
  }

  #stopAll(view: PodView): void {
    // A start under way is waited for: it may have reached hyperd already.
    const starting = [...this.#jobs.running].some((name) => /^(start|sandbox)/.test(name));
    if (starting || !this.#jobs.isDue('stop')) return;
    if (!this.#hasRunning(view)) {
      this.#enter('stopped');
      this.#dirty = true;
      return;
    }
    this.#job('stop', (signal) => this.#stopContainers(signal), this.#life.signal);
  }

  /** Containers first, all at once; then sidecars, the last one started first. */
  async #stopContainers(signal: AbortSignal): Promise<void> {
    const graceMs = this.#graceMs();
    const beganMs = this.#context.clock.monotonicMs();
    const view = this.view();
    const stop = async (each: ContainerView) => {
      const running = this.#runningContainer(each.container.name);
      if (!running) return;
      const leftMs = Math.max(0, graceMs - (this.#context.clock.monotonicMs() - beganMs));
      const message = `Stopping container ${each.container.name}`;
      await stopContainer(this.#context, running, leftMs, message, signal);
    };
    await Promise.all(view.containers.filter((each) => each.role !== 'sidecar').map(stop));
    for (const each of view.containers.filter((one) => one.role === 'sidecar').reverse()) {
      await stop(each);
    }
    // What did not die by a signal goes with its VM.
    if (this.#hasRunning(this.view()) && view.sandbox && !signal.aborted) {
      await this.#context.hyperd.deletePod(view.sandbox.id, signal);
      await this.#context.sandboxes.refresh(view.sandbox.id);
    }
  }

  /** A pod that has ended needs no VM; its logs and exit codes stay with hyperd. */
  #stopSandbox(id: string): void {
    if (!this.#jobs.isDue('power-off')) return;
    const { hyperd, sandboxes } = this.#context;
    this.#job(
      'power-off',
      async (signal) => {
        // The pod's address is told only as long as its VM has one.
        await this.#status.flush();
        await hyperd.stopPod(id, signal);
        await sandboxes.refresh(id);
      },
      this.#life.signal,
    );
  }

  /** The last acts for a pod that is being deleted: status, VM, object. */
  #deleteAll(): void {
    const { client, hyperd, sandboxes, tokens } = this.#context;
    const { namespace, name = '' } = this.#pod.metadata;
    if (this.#deleted || !this.#jobs.isDue('delete')) return;
    this.#job(
      'delete',
      async (signal) => {
        await this.#status.flush();
        for (const sandbox of sandboxes.of(this.uid)) {
          await hyperd.deletePod(sandbox.id, signal);
          await sandboxes.refresh(sandbox.id);
        }
        const options = { uid: this.uid, gracePeriodSeconds: 0, signal };
        await client.delete(PODS, { namespace, name }, options).catch((error: unknown) => {
          // Gone, or another pod of the same name: either way this one has been deleted.
          if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error;
        });
        tokens.forget(this.uid);
        this.#deleted = true;
      },
      this.#life.signal,
    );
  }

  async #removeAll(): Promise<void> {
    if (this.#state === 'gone') return;
    this.#running.abort(new Error('pod is gone from the API'));
    this.#probes.stop();
    if (this.#jobs.running.size > 0) return;
    const { hyperd, sandboxes, tokens } = this.#context;
    for (const sandbox of sandboxes.of(this.uid)) {
      await hyperd.deletePod(sandbox.id, this.#life.signal);
      await sandboxes.refresh(sandbox.id);
    }
    tokens.forget(this.uid);
    this.#enter('gone');
    this.#resolveDone();
  }

  // --- Status --------------------------------------------------------------------------------

  #writeStatus(view: PodView, decision: Decision): void {
    const { hostIp, clock } = this.#context;
    const status = computeStatus({
      view,
      decision,
      nowMs: clock.nowMs(),
      hostIp,
      problems: this.#problems,
      probes: {
        isReady: (attempt) =>
          !this.#hooked.has(attempt.containerId) && this.#probes.isReady(attempt),
        hasStarted: (attempt) => this.#probes.hasStarted(attempt),
      },
      verdict: this.#verdict,
      sandboxProblem: this.#sandboxProblem,
      terminating: this.#state !== 'syncing',
    });
    this.#status.write(this.#pod, status, timeline(view, this.#imagesReadyMs));
  }
}
