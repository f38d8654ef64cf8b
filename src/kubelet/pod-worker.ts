import type { Container, Pod, ResourceRequirements } from '../api/types.generated.ts';
import type { ProcessSpec } from '../api/hyperd.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { createContainerStarter, startJob } from './container-starter.ts';
import type { ContainerStarter } from './container-starter.ts';
import type { NodeContext } from './context.ts';
import { decide, latest } from './decide.ts';
import type { Decision } from './decide.ts';
import { isAlive, isSuspended, viewPod, wasSuspended } from './history.ts';
import type { Attempt, PodView } from './history.ts';
import { createJobs, RETRY_MIN_MS } from './jobs.ts';
import type { Jobs } from './jobs.ts';
import { createPodProbes, probeTargets } from './pod-probes.ts';
import type { PodScope, Problem } from './pod-scope.ts';
import type { ProbeDriver, Probes } from './probes.ts';
import { allocatedSpec, hasWork } from './resize.ts';
import type { ResizePlan } from './resize.ts';
import { createResizer } from './resizer.ts';
import type { Resizer } from './resizer.ts';
import { createSandboxStarter } from './sandbox-starter.ts';
import type { SandboxStarter } from './sandbox-starter.ts';
import { computeStatus, isTerminal } from './status.ts';
import { createStatusWriter } from './status-writer.ts';
import type { StatusWriter } from './status-writer.ts';
import { stopContainer } from './stop.ts';
import {
  deleteObject,
  deleteSandboxes,
  graceSeconds,
  hasRunning,
  stopContainers,
  stopSandbox,
} from './termination.ts';
import { timeline } from './timeline.ts';
import { isFileVolume } from './volumes.ts';
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
  /** Its resize waits for room on the node. */
  readonly isDeferred: boolean;
  /** The pod with what its containers are promised, which may not be what they want. */
  allocatedPod(): Pod;
  /** The container as it is now, for streams; undefined where the pod has none of the name. */
  view(): PodView;
  processOf(attempt: Attempt): Promise<ProcessSpec>;
  /** Lets go; the VM runs on. Resolves when nothing of the worker runs any more. */
  close(): Promise<void>;
  /** Settles when the pod is gone. */
  readonly done: Promise<void>;
}

export function createPodWorker(context: NodeContext, pod: Pod): PodWorker {
  return new Worker(context, pod);
}

class Worker implements PodWorker, PodScope {
  readonly uid: string;
  readonly done: Promise<void>;
  readonly context: NodeContext;
  readonly log: Log;
  readonly jobs: Jobs;
  readonly #life = new AbortController();
  /** Ends what serves the running of containers, when they are to be stopped. */
  readonly #running = new AbortController();
  readonly #sandbox: SandboxStarter;
  readonly #containers: ContainerStarter;
  readonly #resizer: Resizer;
  readonly #probes: Probes;
  readonly #status: StatusWriter;
  readonly #refreshVolumes: VolumeRefresher;
  #pod: Pod;
  #state: PodWorkerState = 'syncing';
  /** Why the pod has to end, where it is not its containers' doing. */
  #verdict: Problem | undefined;
  #stoppedSeen: { id: string; atMs: number } | undefined;
  /** The attempt of each container whose back-off has been told. */
  readonly #backoffTold = new Map<string, string | undefined>();
  /** Containers that were stopped because the tenant was suspended. */
  readonly #suspended = new Set<string>();
  /** Ends what is being started, when the tenant is suspended. */
  #starting = new AbortController();
  #removed = false;
  /** The object has been deleted by us; finalizers of others may keep it for a while. */
  #deleted = false;
  #dirty = false;
  #turn: Promise<void> | undefined;
  #resolveDone: () => void = () => {};

  constructor(context: NodeContext, pod: Pod) {
    this.context = context;
    this.#pod = pod;
    this.uid = pod.metadata.uid ?? '';
    this.log = context.log.with({ pod: `${pod.metadata.namespace}/${pod.metadata.name}` });
    this.done = new Promise((resolve) => (this.#resolveDone = resolve));
    this.jobs = createJobs(context.clock, this.log, () => this.wake());
    this.#sandbox = createSandboxStarter(this);
    this.#containers = createContainerStarter(this);
    this.#resizer = createResizer(this, (name) => this.#containers.running(name));
    this.#probes = createPodProbes(this, this.#containers, {
      signal: this.#running.signal,
      onUnhealthy: (...failure) => this.#killUnhealthy(...failure),
      onChange: () => this.wake(),
    });
    this.#status = createStatusWriter(context, this.log, (newer) => this.update(newer));
    this.#refreshVolumes = createVolumeRefresher(context, this.log, this.#life.signal);
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
    await this.jobs.end();
    await this.#status.close();
  }

  view(): PodView {
    return viewPod(this.#pod, this.context.sandboxes.of(this.uid), this.#suspended);
  }

  get isDeferred(): boolean {
    return this.#resizer.plan.pending?.reason === 'Deferred';
  }

  allocatedPod(): Pod {
    const { spec = { containers: [] } } = this.#pod;
    return { ...this.#pod, spec: allocatedSpec(spec, this.#resizer.plan.allocated) };
  }

  allocated(container: Container): ResourceRequirements | undefined {
    return this.#resizer.plan.allocated.get(container.name) ?? container.resources;
  }

  processOf(attempt: Attempt): Promise<ProcessSpec> {
    return this.#containers.processOf(attempt);
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
        this.log.error('pod cannot be synced', { error: describeError(error) });
        this.jobs.wakeAfter(RETRY_MIN_MS);
      }
    }
    // At once, not when the promise is seen to settle: a wake in between would be lost.
    this.#turn = undefined;
  }

  async #takeTurn(): Promise<void> {
    this.jobs.sleepNoMore();
    if (this.#removed) return this.#removeAll();
    const view = this.view();
    this.#noteStopped(view);
    const decision = this.#decide(view);
    const resize = this.#resizer.look(view);
    this.#enforceEnds(view, decision);
    const isPaused = isSuspended(this.#pod) || this.jobs.running.has('suspend');
    const isActive = this.#state === 'syncing' && !isPaused;
    if (isActive) this.#act(view, decision, resize);
    else if (this.#state === 'syncing') this.#suspend(view);
    this.#probes.update(isActive ? probeTargets(view, this.#containers) : []);
    if (this.#state === 'stopping') this.#stopAll(view);
    this.#writeStatus(view, decision);
    if (this.#state === 'stopped') {
      if (this.#pod.metadata.deletionTimestamp) this.#deleteAll();
      else if (isAlive(view.sandbox)) this.#stopSandbox(view.sandbox.id);
    }
    if (decision.wakeInMs !== undefined) this.jobs.wakeAfter(decision.wakeInMs);
  }

  #decide(view: PodView): Decision {
    const { clock } = this.context;
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
      this.#stoppedSeen = { id: sandbox.id, atMs: this.context.clock.nowMs() };
      const { reason, message } = sandbox;
      // The kubelet's own doing, by this one or the one before it.
      if (this.#state !== 'syncing' || isTerminal(this.#pod.status?.phase)) return;
      const stopped = view.containers.some(({ attempts }) => attempts.some(wasSuspended));
      if (stopped || isSuspended(this.#pod)) return;
      const text = `Virtual machine of the pod ended: ${reason}: ${message}`;
      this.context.events.emit(this.#pod, 'Warning', 'SandboxChanged', text);
    }
  }

  /** Deletion and deadlines, from wherever the pod is. */
  #enforceEnds(view: PodView, decision: Decision): void {
    const { metadata, spec, status } = this.#pod;
    if (metadata.deletionTimestamp) {
      if (this.#state === 'syncing' || (this.#state === 'stopped' && hasRunning(view))) {
        this.#enter('stopping');
      }
      return;
    }
    if (this.#state !== 'syncing') return;
    if (isTerminal(status?.phase) || decision.finished) {
      this.#enter(hasRunning(view) ? 'stopping' : 'stopped');
      return;
    }
    const limitSeconds = spec?.activeDeadlineSeconds;
    if (limitSeconds === undefined || !status?.startTime || isSuspended(this.#pod)) return;
    const leftMs = Date.parse(status.startTime) + limitSeconds * 1000 - this.context.clock.nowMs();
    if (leftMs > 0) {
      this.jobs.wakeAfter(leftMs);
      return;
    }
    const message = 'Pod was active on the node longer than the specified deadline';
    this.#verdict = { reason: 'DeadlineExceeded', message };
    this.context.events.emit(this.#pod, 'Normal', 'DeadlineExceeded', message);
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

  /**
   * The tenant is suspended: the VM ends as it does at a deletion, and the pod stays. It is done
   * to the end, also when the tenant is resumed meanwhile.
   */
  #suspend(view: PodView): void {
    if (!this.#starting.signal.aborted) {
      this.#starting.abort(new Error('the tenant is suspended'));
      this.#suspended.clear();
      if (isAlive(view.sandbox)) {
        const message = 'Stopping the virtual machine: the tenant is suspended';
        this.context.events.emit(this.#pod, 'Normal', 'TenantSuspended', message);
      }
    }
    const { sandbox } = view;
    const starting = [...this.jobs.running].some((name) => /^(start|sandbox)/.test(name));
    if (!isAlive(sandbox) || starting || !this.jobs.isDue('suspend')) return;
    for (const each of view.containers) {
      const attempt = latest(each);
      if (attempt && !attempt.exit) this.#suspended.add(attempt.containerId);
    }
    this.#job('suspend', async (signal) => {
      await stopContainers(this, (name) => this.#containers.running(name), signal);
      await this.#status.flush();
      if (!signal.aborted) await stopSandbox(this, sandbox.id, signal);
    });
  }

  #act(view: PodView, decision: Decision, resize: ResizePlan): void {
    if (this.#starting.signal.aborted) this.#starting = new AbortController();
    const starting = AbortSignal.any([
      this.#life.signal,
      this.#running.signal,
      this.#starting.signal,
    ]);
    if (decision.createSandbox && this.#sandbox.hasNetwork() && this.jobs.isDue('sandbox')) {
      const create = (signal: AbortSignal) =>
        this.#sandbox.create(view, this.#stoppedSeen?.atMs, signal);
      this.#job('sandbox', create, starting);
    }
    if (isAlive(view.sandbox) && view.sandbox.phase === 'running') {
      this.#sandbox.succeeded();
      if (this.#pod.spec?.volumes?.some(isFileVolume)) {
        this.jobs.wakeAfter(this.#refreshVolumes(this.#pod, view.sandbox.id));
      }
    }
    // Images are pulled while the VM boots: containers are due as soon as there is a VM at all.
    for (const wanted of decision.start) {
      const name = startJob(wanted.view.container.name);
      if (!this.jobs.isDue(name)) continue;
      this.#job(name, (signal) => this.#containers.start(wanted, signal), starting);
    }
    if (hasWork(resize) && this.jobs.isDue('resize')) {
      this.#job('resize', (signal) => this.#resizer.carryOut(view, resize, signal), starting);
    }
    for (const [name, { message }] of decision.backoff) this.#reportBackoff(view, name, message);
  }

  #reportBackoff(view: PodView, name: string, message: string): void {
    const container = view.containers.find((each) => each.container.name === name);
    const attempt = container && latest(container)?.containerId;
    if (this.#backoffTold.has(name) && this.#backoffTold.get(name) === attempt) return;
    this.#backoffTold.set(name, attempt);
    const { name: podName, namespace, uid } = this.#pod.metadata;
    const text = `Back-off restarting failed container ${name} in pod ${podName}_${namespace}(${uid})`;
    if (message) this.context.events.emit(this.#pod, 'Warning', 'BackOff', text, name);
  }

  /** Runs beside the turns, as long as the pod is to run unless `signal` says otherwise. */
  #job(name: string, work: (signal: AbortSignal) => Promise<void>, signal?: AbortSignal): void {
    const whileRunning = AbortSignal.any([this.#life.signal, this.#running.signal]);
    this.jobs.start(name, work, signal ?? whileRunning);
  }

  // --- The end -------------------------------------------------------------------------------

  #killUnhealthy(...[target, kind, probe]: Parameters<ProbeDriver['onUnhealthy']>): void {
    const { name } = target.container;
    const seconds = probe.terminationGracePeriodSeconds ?? graceSeconds(this.#pod);
    this.#job(`kill/${name}`, async (signal) => {
      const running = this.#containers.running(name);
      if (running?.attempt.containerId !== target.attempt.containerId) return;
      const message = `Container ${name} failed ${kind} probe, will be restarted`;
      await stopContainer(this.context, running, seconds * 1000, message, signal);
    });
  }

  #stopAll(view: PodView): void {
    // A start under way is waited for: it may have reached hyperd already.
    const starting = [...this.jobs.running].some((name) => /^(start|sandbox)/.test(name));
    if (starting || !this.jobs.isDue('stop')) return;
    if (!hasRunning(view)) {
      this.#enter('stopped');
      this.#dirty = true;
      return;
    }
    const { signal: life } = this.#life;
    const running = (name: string) => this.#containers.running(name);
    this.#job('stop', (signal) => stopContainers(this, running, signal), life);
  }

  #stopSandbox(id: string): void {
    if (!this.jobs.isDue('power-off')) return;
    const stop = async (signal: AbortSignal) => {
      // The pod's address is told only as long as its VM has one.
      await this.#status.flush();
      await stopSandbox(this, id, signal);
    };
    this.#job('power-off', stop, this.#life.signal);
  }

  /** The last acts for a pod that is being deleted: status, VM, object. */
  #deleteAll(): void {
    if (this.#deleted || !this.jobs.isDue('delete')) return;
    const deleteAll = async (signal: AbortSignal) => {
      await this.#status.flush();
      await deleteSandboxes(this, signal);
      await deleteObject(this, signal);
      this.#deleted = true;
    };
    this.#job('delete', deleteAll, this.#life.signal);
  }

  async #removeAll(): Promise<void> {
    if (this.#state === 'gone') return;
    this.#running.abort(new Error('pod is gone from the API'));
    this.#probes.stop();
    if (this.jobs.running.size > 0) return;
    await deleteSandboxes(this, this.#life.signal);
    this.#enter('gone');
    this.#resolveDone();
  }

  // --- Status --------------------------------------------------------------------------------

  #writeStatus(view: PodView, decision: Decision): void {
    const { hostIp, clock } = this.context;
    const status = computeStatus({
      view,
      decision,
      nowMs: clock.nowMs(),
      hostIp,
      problems: this.#containers.problems,
      probes: {
        isReady: (attempt) => !this.#containers.isHooked(attempt) && this.#probes.isReady(attempt),
        hasStarted: (attempt) => this.#probes.hasStarted(attempt),
      },
      resize: this.#resizer,
      verdict: this.#verdict,
      sandboxProblem: this.#sandbox.problem,
      terminating: this.#state !== 'syncing',
    });
    this.#status.write(this.#pod, status, timeline(view, this.#containers.imagesReadyMs));
  }
}
