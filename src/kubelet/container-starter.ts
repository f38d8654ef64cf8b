import type { Container } from '../api/types.generated.ts';
import type { ContainerState, ImageStatus, PodState, ProcessSpec } from '../api/hyperd.ts';
import { isStatus } from '../api/status.ts';
import { describeError } from '../base/log.ts';
import { backoffMs } from './backoff.ts';
import { containerSpec } from './container-spec.ts';
import { latest } from './decide.ts';
import type { ContainerStart } from './decide.ts';
import { ContainerConfigError } from './errors.ts';
import { isAlive } from './history.ts';
import type { Attempt, ContainerView } from './history.ts';
import { createImagePuller } from './images.ts';
import { RETRY_MAX_MS } from './jobs.ts';
import { downwardContext } from './pod-scope.ts';
import type { PodScope, Problem } from './pod-scope.ts';
import { runHook, stopContainer } from './stop.ts';
import type { RunningContainer } from './stop.ts';
import { graceMs } from './termination.ts';

/** Starts the containers of one pod: image, configuration, start, postStart hook. */
export interface ContainerStarter {
  /**
   * One attempt. A failure becomes an event and one of the `problems`, and the container's job
   * (`startJob`) is due again later; rejects only where events or hyperd's list cannot be read.
   */
  start(wanted: ContainerStart, signal: AbortSignal): Promise<void>;
  /** Why a container waits, by its name. */
  readonly problems: ReadonlyMap<string, Problem>;
  /** When the last image was there; 0 while unknown. */
  readonly imagesReadyMs: number;
  /** Its postStart hook has not finished: not started yet, in Kubernetes' eyes. */
  isHooked(attempt: Attempt): boolean;
  /** The container as it runs now; undefined where it does not. */
  running(name: string): RunningContainer | undefined;
  /** As the container was started, whatever it would be started with now. */
  processOf(attempt: Attempt): Promise<ProcessSpec>;
}

/** The name of the job that starts a container. */
export function startJob(containerName: string): string {
  return `start/${containerName}`;
}

/** How long a failed pull is shown as `ErrImagePull` before it is shown as waiting. */
const PULL_ERROR_SHOWN_MS = 2_000;

export function createContainerStarter(scope: PodScope): ContainerStarter {
  return new Starter(scope);
}

class Starter implements ContainerStarter {
  readonly problems = new Map<string, Problem>();
  imagesReadyMs = 0;
  readonly #scope: PodScope;
  readonly #images;
  readonly #processes = new Map<string, ProcessSpec>();
  /** Ids of containers whose postStart hook runs. */
  readonly #hooked = new Set<string>();

  constructor(scope: PodScope) {
    this.#scope = scope;
    this.#images = createImagePuller(scope.context);
  }

  isHooked(attempt: Attempt): boolean {
    return this.#hooked.has(attempt.containerId);
  }

  async start(wanted: ContainerStart, signal: AbortSignal): Promise<void> {
    try {
      await this.#start(wanted, signal);
    } catch (error) {
      if (!signal.aborted) await this.#fail(wanted.view.container, error);
    }
  }

  async #start({ view, attempt, streak }: ContainerStart, signal: AbortSignal): Promise<void> {
    const { context, jobs } = this.#scope;
    const { container } = view;
    const image = await this.#images.ensure(this.#scope.pod, container, signal);
    this.problems.delete(container.name);
    this.imagesReadyMs = Math.max(this.imagesReadyMs, context.clock.nowMs());
    const sandbox = await this.#addressedSandbox(signal);
    if (!sandbox) return;
    const spec = await this.#specOf(container, attempt, streak, image);
    if (container.lifecycle?.postStart) this.#hooked.add(spec.id);
    this.#tell('Normal', 'Created', `Created container: ${container.name}`, container);
    const state = await context.hyperd.startContainer(sandbox.id, spec, signal);
    jobs.forget(startJob(container.name));
    await this.#dropOldAttempts(view, sandbox.id, signal);
    await context.sandboxes.refresh(sandbox.id);
    if (state.exit && !state.startedAtMs) return this.#tellNotStarted(container, state);
    this.#tell('Normal', 'Started', `Started container ${container.name}`, container);
    await this.#postStart(container, spec.id, signal);
  }

  /**
   * Waits for the VM to have its address, which containers may be told; hyperd itself waits for the
   * guest. Undefined where the VM has ended, or this is not wanted any more.
   */
  async #addressedSandbox(signal: AbortSignal): Promise<PodState | undefined> {
    const isReady = (sandbox: PodState) => sandbox.phase === 'running' || sandbox.address !== '';
    const isDecided = () => {
      const { sandbox } = this.#scope.view();
      return !isAlive(sandbox) || isReady(sandbox);
    };
    await this.#scope.context.sandboxes.waitFor(isDecided, RETRY_MAX_MS, signal);
    const { sandbox } = this.#scope.view();
    return isAlive(sandbox) && isReady(sandbox) && !signal.aborted ? sandbox : undefined;
  }

  async #fail(container: Container, error: unknown): Promise<void> {
    const { context, jobs } = this.#scope;
    const job = startJob(container.name);
    if (isStatus(error, 'Conflict') || isStatus(error, 'NotFound')) {
      // The VM ended in between: what to do about that is the next turn's question.
      const { sandbox } = this.#scope.view();
      if (sandbox) await context.sandboxes.refresh(sandbox.id);
      if (isAlive(this.#scope.view().sandbox)) jobs.retryLater(job);
      return;
    }
    const known = error instanceof ContainerConfigError;
    const reason = known ? error.reason : 'CreateContainerError';
    const message = describeError(error);
    this.problems.set(container.name, { reason, message });
    const isImage = /Image/.test(reason);
    if (!isImage) this.#tell('Warning', 'Failed', `Error: ${message}`, container);
    const retryAtMs = isImage ? this.#nextPullMs(reason, container.name) : undefined;
    jobs.retryLater(job, retryAtMs ?? context.clock.monotonicMs() + backoffMs(0));
  }

  /** ErrImagePull is followed by ImagePullBackOff soon, that by the next pull when it is due. */
  #nextPullMs(reason: string, containerName: string): number | undefined {
    const dueMs = this.#images.retryAtMs(containerName);
    if (reason !== 'ErrImagePull') return dueMs;
    return Math.min(this.#scope.context.clock.monotonicMs() + PULL_ERROR_SHOWN_MS, dueMs ?? 0);
  }

  #tell(type: 'Normal' | 'Warning', reason: string, message: string, { name }: Container): void {
    this.#scope.context.events.emit(this.#scope.pod, type, reason, message, name);
  }

  #tellNotStarted(container: Container, { id, exit }: ContainerState): void {
    const why = `failed to start container "${id}": ${exit?.message}`;
    this.#tell('Warning', 'Failed', `Error: ${why}`, container);
  }

  /** Of the attempts that ended the last one is kept, for its log and exit code. */
  async #dropOldAttempts(view: ContainerView, id: string, signal: AbortSignal): Promise<void> {
    const { context, log } = this.#scope;
    const old = view.attempts.slice(0, -1).filter((each) => each.sandboxId === id && each.exit);
    for (const { containerId } of old) {
      if (signal.aborted) return;
      this.#processes.delete(containerId);
      await context.hyperd.deleteContainer(id, containerId).catch((error: unknown) => {
        log.debug('old container stays', { error: describeError(error) });
      });
    }
  }

  #specOf(container: Container, attempt: number, streak: number, image: ImageStatus) {
    const { context } = this.#scope;
    const { objects, apiServer } = context;
    const downward = downwardContext(context, this.#scope.view());
    const resources = this.#scope.allocated(container);
    const given = { objects, apiServer, downward, resources };
    return containerSpec({ container, attempt, streak, image, ...given });
  }

  async #postStart(container: Container, id: string, signal: AbortSignal): Promise<void> {
    const handler = container.lifecycle?.postStart;
    if (!handler) return;
    const { context } = this.#scope;
    try {
      const running = this.running(container.name);
      if (!running) return;
      const failure = await runHook(context, running, handler, Number.POSITIVE_INFINITY, signal);
      if (!failure || signal.aborted) return;
      const reason = 'FailedPostStartHook';
      this.#tell('Warning', reason, failure, container);
      const limitMs = graceMs(this.#scope.pod, context.clock.nowMs());
      await stopContainer(context, running, limitMs, reason, signal);
    } finally {
      this.#hooked.delete(id);
    }
  }

  running(name: string): RunningContainer | undefined {
    const view = this.#scope.view();
    const found = view.containers.find((each) => each.container.name === name);
    const attempt = found && latest(found);
    if (!found || attempt?.phase !== 'running') return undefined;
    const { container } = found;
    return {
      pod: this.#scope.pod,
      container,
      attempt,
      podIp: view.sandbox?.address ?? '',
      process: () => this.processOf(attempt),
    };
  }

  async processOf({ sandboxId = '', containerId }: Attempt): Promise<ProcessSpec> {
    const known = this.#processes.get(containerId);
    if (known) return known;
    const { process } = await this.#scope.context.hyperd.containerSpec(sandboxId, containerId);
    this.#processes.set(containerId, process);
    return process;
  }
}
