import type { Container, LifecycleHandler, Pod } from '../api/types.generated.ts';
import type { ProcessSpec } from '../api/hyperd.ts';
import { isStatus } from '../api/status.ts';
import { describeError } from '../base/log.ts';
import type { NodeContext } from './context.ts';
import { runCommand } from './exec.ts';
import { httpRequest } from './handler.ts';
import type { Attempt } from './history.ts';

/**
 * Lifecycle hooks, and the way a container is stopped: preStop, its stop signal, the rest of the
 * grace period, SIGKILL.
 */
export interface RunningContainer {
  pod: Pod;
  container: Container;
  attempt: Attempt;
  podIp: string;
  /** The container's own process, for commands that run like it. */
  process: () => Promise<ProcessSpec>;
}

/** What a container has after preStop used the grace period up (Kubernetes: 2 s). */
const GRACE_MIN_MS = 2_000;
/** How long a killed container may take to be reported dead, in a guest that has taken the signal. */
const KILL_TIMEOUT_MS = 10_000;
const HTTP_HOOK_TIMEOUT_MS = 30_000;
/** A hook without a limit of its own: as long as a pod may live by its longest grace period. */
const HOOK_TIMEOUT_MAX_MS = 3600_000;

/** Resolves with undefined, or with why the hook failed. Never rejects. */
export async function runHook(
  context: NodeContext,
  target: RunningContainer,
  handler: LifecycleHandler,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { hyperd, clock } = context;
  const { attempt, container } = target;
  const sandboxId = attempt.sandboxId ?? '';
  const limitMs = Math.min(timeoutMs, HOOK_TIMEOUT_MAX_MS);
  try {
    if (handler.sleep) {
      await clock.sleep(Math.min(handler.sleep.seconds * 1000, limitMs), signal);
      return undefined;
    }
    if (handler.exec) {
      const process = { ...(await target.process()), argv: handler.exec.command ?? [], tty: false };
      const where = { sandboxId, containerId: attempt.containerId };
      const result = await runCommand(hyperd, clock, where, process, limitMs, signal);
      if (result.timedOut) return `command timed out after ${limitMs / 1000}s`;
      if (result.exitCode === 0) return undefined;
      const command = (handler.exec.command ?? []).join(' ');
      return `command '${command}' exited with ${result.exitCode}: ${result.output}`;
    }
    if (handler.httpGet) {
      const timeout = Math.min(limitMs, HTTP_HOOK_TIMEOUT_MS);
      const request = httpRequest(handler.httpGet, container, target.podIp, timeout);
      if (!request) return `port "${handler.httpGet.port}" is not one of the container's`;
      const result = await hyperd.probe(sandboxId, request, signal);
      return result.success ? undefined : result.message;
    }
    return 'hook has no supported action: exec, httpGet and sleep are supported';
  } catch (error) {
    return describeError(error);
  }
}

/**
 * Stops a container within `graceMs`. Resolves when it is dead or its VM is: one whose guest answers
 * no signal, not even after that, is ended.
 */
export async function stopContainer(
  context: NodeContext,
  target: RunningContainer,
  graceMs: number,
  message: string,
  signal: AbortSignal,
): Promise<void> {
  const { clock, events, hyperd, log } = context;
  const { pod, container, attempt } = target;
  const sandboxId = attempt.sandboxId ?? '';
  const deadlineMs = clock.monotonicMs() + graceMs;
  events.emit(pod, 'Normal', 'Killing', message, container.name);
  const preStop = container.lifecycle?.preStop;
  if (preStop && graceMs > 0) {
    const failure = await runHook(context, target, preStop, graceMs, signal);
    if (failure) events.emit(pod, 'Warning', 'FailedPreStopHook', failure, container.name);
  }
  const isDead = () => isContainerDead(context, sandboxId, attempt.containerId);
  let isAnswering = false;
  /** Whether it is dead in time. A guest that does not answer the signal is not waited for either. */
  const end = async (name: string, timeoutMs: number): Promise<boolean> => {
    if (isDead() || signal.aborted) return isDead();
    const over = new AbortController();
    const until = AbortSignal.any([signal, over.signal]);
    const sent = hyperd
      .signalContainer(sandboxId, attempt.containerId, name, until)
      .then(() => (isAnswering = true))
      .catch((error: unknown) => {
        // Its VM is gone or going: there is nothing left to be signalled.
        if (until.aborted || isStatus(error, 'NotFound') || isStatus(error, 'Conflict')) return;
        log.warn('container cannot be signalled', { error: describeError(error) });
      });
    const dead = await context.sandboxes.waitFor(isDead, timeoutMs, signal);
    over.abort();
    await sent;
    return dead;
  };
  const leftMs = Math.max(GRACE_MIN_MS, deadlineMs - clock.monotonicMs());
  if (graceMs > 0) {
    const name = target.container.lifecycle?.stopSignal ?? (await stopSignal(context, attempt));
    if (await end(name, leftMs)) return;
  }
  const patienceMs = pod.metadata.deletionTimestamp ? GRACE_MIN_MS : KILL_TIMEOUT_MS;
  if ((await end('KILL', patienceMs)) || signal.aborted) return;
  if (isAnswering) return void (await context.sandboxes.waitFor(isDead, KILL_TIMEOUT_MS, signal));
  const failure = 'The guest does not answer: its VM is ended';
  events.emit(pod, 'Warning', 'FailedKillPod', failure, container.name);
  await hyperd.stopPod(sandboxId, signal);
}

function isContainerDead(context: NodeContext, sandboxId: string, id: string): boolean {
  const sandbox = context.sandboxes.get(sandboxId);
  if (!sandbox || sandbox.phase === 'stopped' || sandbox.phase === 'deleting') return true;
  const state = sandbox.containers.find((each) => each.id === id);
  return !state || state.phase === 'exited';
}

/** The image's `STOPSIGNAL`; an image that is gone had none worth keeping the pod for. */
async function stopSignal(context: NodeContext, attempt: Attempt): Promise<string> {
  const images = await context.hyperd.images().catch(() => []);
  const image = images.find((each) => each.id === attempt.imageId);
  return image?.config.stopSignal || 'TERM';
}
