import { describeError } from '../base/log.ts';
import { sandboxRestart } from './decide.ts';
import { ContainerConfigError, UnsupportedError } from './errors.ts';
import { sandboxNumber } from './history.ts';
import type { PodView } from './history.ts';
import { RETRY_MAX_MS } from './jobs.ts';
import { downwardContext } from './pod-scope.ts';
import type { PodScope, Problem } from './pod-scope.ts';
import { sandboxSpec } from './sandbox-spec.ts';
import { podVolumes, refuseUnsupported } from './volumes.ts';

/** Makes the VM of one pod, and the next one where a VM has died. */
export interface SandboxStarter {
  /** Why there is no VM yet; undefined while nothing is wrong. */
  readonly problem: Problem | undefined;
  /** False while the node has no network; all pods are woken when it becomes ready. */
  hasNetwork(): boolean;
  /**
   * Asks hyperd for the pod's next VM. A failure becomes an event and the `problem`, and the job
   * `sandbox` is due again later. Never rejects.
   *
   * @param stoppedMs when the VM before it was seen to have stopped
   */
  create(view: PodView, stoppedMs: number | undefined, signal: AbortSignal): Promise<void>;
  /** The VM runs: what was wrong is over. */
  succeeded(): void;
}

/** What is not supported stays so until the pod is another one. */
const UNSUPPORTED_RETRY_MS = RETRY_MAX_MS * 5;

export function createSandboxStarter(scope: PodScope): SandboxStarter {
  const { context, jobs } = scope;
  const { hyperd, sandboxes, events, clock } = context;
  let problem: Problem | undefined;

  const specOf = async (view: PodView, sandboxStoppedMs: number | undefined) => {
    const number = view.sandbox ? sandboxNumber(view.sandbox) + 1 : 0;
    const nowMs = clock.nowMs();
    const streak = view.sandbox ? sandboxRestart({ view, nowMs, sandboxStoppedMs }).streak : 0;
    const [volumes, defaults] = await Promise.all([
      podVolumes({ ...context, downward: downwardContext(context, view) }),
      context.sandboxDefaults(),
    ]);
    const network = context.network.segment() ?? null;
    return sandboxSpec(view.pod, number, streak, volumes, network, context.size, defaults);
  };

  const fail = (view: PodView, error: unknown) => {
    const isUnsupported = error instanceof UnsupportedError;
    const reason = error instanceof ContainerConfigError ? error.reason : 'FailedCreatePodSandBox';
    const prefix = reason === 'FailedMount' ? '' : 'Failed to create pod sandbox: ';
    const message = describeError(error);
    problem = { reason: isUnsupported ? 'Unsupported' : reason, message };
    events.emit(view.pod, 'Warning', reason, `${prefix}${message}`);
    const retryAtMs = isUnsupported ? clock.monotonicMs() + UNSUPPORTED_RETRY_MS : undefined;
    jobs.retryLater('sandbox', retryAtMs);
  };

  return {
    get problem() {
      return problem;
    },
    hasNetwork() {
      const message = context.network.problem();
      if (!message) return true;
      const reason = 'NetworkNotReady';
      if (problem?.reason !== reason) {
        events.emit(scope.pod, 'Warning', reason, `network is not ready: ${message}`);
      }
      problem = { reason, message };
      return false;
    },
    async create(view, stoppedMs, signal) {
      try {
        refuseUnsupported(view.pod);
        const spec = await specOf(view, stoppedMs);
        // The dead VM before the last one has been looked at by everyone who could.
        if (view.previous) await hyperd.deletePod(view.previous.id, signal);
        await context.holdings.claim(spec.owner ?? '', signal);
        signal.throwIfAborted();
        // Once asked for, the answer is waited for: a VM that nobody knows of would never be removed.
        const created = await hyperd.createPod(spec);
        if (created.phase === 'deleting') throw new Error(`VM "${spec.id}" is still being removed`);
        sandboxes.put(created);
        problem = undefined;
        jobs.forget('sandbox');
      } catch (error) {
        if (!signal.aborted) fail(view, error);
      }
    },
    succeeded: () => (problem = undefined),
  };
}
