import type { PodResources, PodState } from '../api/hyperd.ts';
import { describeError } from '../base/log.ts';
import { LABEL, resourcesLabel } from './history.ts';
import type { PodView } from './history.ts';
import type { PodScope } from './pod-scope.ts';
import { hasWork, planResize } from './resize.ts';
import type { ResizePlan } from './resize.ts';
import { containerResources } from './sizes.ts';
import { stopContainer } from './stop.ts';
import type { RunningContainer } from './stop.ts';
import { graceMs } from './termination.ts';

/** Brings the containers of one pod to the resources that they are to have, and tells how far it is. */
export interface Resizer {
  /** As of the last `look`. */
  readonly plan: ResizePlan;
  /** Why the last attempt to carry it out failed; undefined while none has. */
  readonly problem: string | undefined;
  /** Decides anew, and tells of it in events where it is news. */
  look(view: PodView): ResizePlan;
  /** One attempt. A failure becomes an event and the `problem`, and the job `resize` is due later. */
  carryOut(view: PodView, plan: ResizePlan, signal: AbortSignal): Promise<void>;
}

const NOTHING: ResizePlan = {
  allocated: new Map(),
  pending: undefined,
  changes: [],
  limits: undefined,
  isInProgress: false,
};

export function createResizer(
  scope: PodScope,
  running: (containerName: string) => RunningContainer | undefined,
): Resizer {
  const { context, jobs } = scope;
  const { hyperd, sandboxes, events, clock } = context;
  let plan = NOTHING;
  let problem: string | undefined;
  /** What events have said of a generation, each once. */
  const told = { generation: 0 as number | undefined, news: new Set<string>() };
  let failedGeneration: number | undefined;

  const tell = (type: 'Normal' | 'Warning', reason: string, message: string) => {
    const { generation } = scope.pod.metadata;
    if (told.generation !== generation) Object.assign(told, { generation, news: new Set() });
    const news = `${reason} ${message}`;
    if (told.news.has(news)) return;
    told.news.add(news);
    events.emit(scope.pod, type, reason, `${message} (generation ${generation})`);
  };

  /** A kubelet that was started later finds in the status what the one before has told. */
  const isKnown = ({ pod }: PodView, message: string) =>
    (pod.status?.conditions ?? []).some(
      (each) => each.message === message && each.observedGeneration === pod.metadata.generation,
    );

  /** A container that is to be restarted is marked first, so that its end is known for what it is. */
  const requestOf = (sandbox: PodState, wanted: ResizePlan): PodResources => {
    return {
      limits: wanted.limits ?? sandbox.spec.limits,
      containers: wanted.changes.map(({ container, attempt, isRestart }) => ({
        id: attempt.containerId,
        resources: containerResources(isRestart ? attempt.resources : container.resources),
        labels: {
          [isRestart ? LABEL.restartFor : LABEL.resources]: resourcesLabel(container.resources),
        },
      })),
    };
  };

  const attempt = async (view: PodView, wanted: ResizePlan, signal: AbortSignal) => {
    const { sandbox } = view;
    if (!sandbox) return;
    tell('Normal', 'ResizeStarted', 'Pod resize started');
    await hyperd.setResources(sandbox.id, requestOf(sandbox, wanted), signal);
    await sandboxes.refresh(sandbox.id);
    for (const { container, attempt: was, isRestart } of wanted.changes) {
      const target = isRestart ? running(container.name) : undefined;
      if (target?.attempt.containerId !== was.containerId) continue;
      const limitMs = graceMs(scope.pod, clock.nowMs());
      const message = `Container ${container.name} resize requires restart`;
      await stopContainer(context, target, limitMs, message, signal);
    }
    problem = undefined;
    jobs.forget('resize');
    if (!signal.aborted) tell('Normal', 'ResizeCompleted', 'Pod resize completed');
  };

  return {
    get plan() {
      return plan;
    },
    get problem() {
      return problem;
    },
    look(view) {
      plan = planResize(view, context);
      const { pending } = plan;
      if (!hasWork(plan)) problem = undefined;
      if (pending && !isKnown(view, pending.message)) {
        tell(
          'Warning',
          `Resize${pending.reason}`,
          `Pod resize ${pending.reason}: ${pending.message}`,
        );
      }
      // What is wanted now may work at once, however often what was wanted before did not.
      const { generation } = view.pod.metadata;
      if (failedGeneration !== undefined && failedGeneration !== generation) {
        failedGeneration = undefined;
        jobs.forget('resize');
      }
      return plan;
    },
    async carryOut(view, wanted, signal) {
      try {
        await attempt(view, wanted, signal);
      } catch (error) {
        if (signal.aborted) return;
        problem = describeError(error);
        failedGeneration = view.pod.metadata.generation;
        tell('Warning', 'ResizeError', `Pod resize error: ${problem}`);
        jobs.retryLater('resize');
      }
    },
  };
}
