import { rfc3339 } from '../base/clock.ts';
import type {
  Container,
  ContainerState,
  ContainerStatus,
  PodCondition,
  PodStatus,
} from '../api/types.generated.ts';
import type { Decision } from './decide.ts';
import { hasEndedForGood, latest } from './decide.ts';
import { TENANT_SUSPENDED, isAlive, isSuspended, wasSuspended } from './history.ts';
import type { Attempt, ContainerView, PodView } from './history.ts';
import type { ResizePlan } from './resize.ts';
import { qosClass } from './sizes.ts';

/** Turns what has happened to a pod into the status that Kubernetes' clients expect. */
export interface StatusInput {
  view: PodView;
  decision: Decision;
  nowMs: number;
  hostIp: string;
  /** Why a container that does not run yet does not, by name. */
  problems: ReadonlyMap<string, { reason: string; message: string }>;
  /** What probes say of a running container. */
  probes: { isReady(attempt: Attempt): boolean; hasStarted(attempt: Attempt): boolean };
  /** How far the containers are from the resources that they are to have. */
  resize: { plan: ResizePlan; problem: string | undefined };
  /** Set when the kubelet itself ends the pod, e.g. DeadlineExceeded. */
  verdict: { reason: string; message: string } | undefined;
  /** Why no VM can be made, when that is so. */
  sandboxProblem: { reason: string; message: string } | undefined;
  /** The pod is being deleted: what ended is not going to be restarted. */
  terminating: boolean;
}

/** Kubernetes' limit of a termination message. */
const MESSAGE_BYTES_MAX = 4096;

export function computeStatus(input: StatusInput): PodStatus {
  const { view, nowMs } = input;
  const { pod, sandbox } = view;
  const old = pod.status ?? {};
  const ofRole = (roles: string[]) =>
    view.containers
      .filter((each) => roles.includes(each.role))
      .map((each) => containerStatus(each, input));
  const containerStatuses = ofRole(['main']);
  const initContainerStatuses = ofRole(['init', 'sidecar']);
  const phase = podPhase(input, containerStatuses);
  const verdict = input.verdict ?? (isTerminal(old.phase) ? old : undefined);
  // As long as there is no other VM the pod keeps the address of its last one.
  const podIp = sandbox?.address || old.podIP;
  return {
    phase,
    observedGeneration: pod.metadata.generation,
    conditions: conditions(input, phase, containerStatuses, initContainerStatuses),
    message: verdict?.message,
    reason: verdict?.reason,
    hostIP: input.hostIp,
    hostIPs: [{ ip: input.hostIp }],
    podIP: podIp,
    podIPs: podIp ? [{ ip: podIp }] : undefined,
    startTime: old.startTime ?? rfc3339(nowMs),
    ...(initContainerStatuses.length > 0 ? { initContainerStatuses } : {}),
    containerStatuses,
    qosClass: old.qosClass ?? qosClass(pod.spec ?? { containers: [] }),
  };
}

/** Conditions that are there only as long as they are true. */
export function isPassing(type: string): boolean {
  return type === 'PodResizePending' || type === 'PodResizeInProgress';
}

/** Whether a pod of this phase will never run again. */
export function isTerminal(phase: string | undefined): boolean {
  return phase === 'Succeeded' || phase === 'Failed';
}

function podPhase(input: StatusInput, statuses: ContainerStatus[]): string {
  const { view, decision } = input;
  const old = view.pod.status?.phase;
  // A phase that is final stays: what it says has been acted upon.
  if (isTerminal(old)) return old as string;
  if (input.verdict) return 'Failed';
  if (
    decision.finished ||
    (input.terminating && statuses.every((each) => each.state?.terminated))
  ) {
    const failed = view.containers.some(
      (each) => each.role !== 'sidecar' && (latest(each)?.exit?.exitCode ?? 0) !== 0,
    );
    const ran = statuses.every((each) => each.state?.terminated);
    return failed || !ran ? 'Failed' : 'Succeeded';
  }
  // One that is on its way for the first time has not: nobody could look into it yet.
  const hasRun = view.containers.filter(
    ({ role, attempts }) => role === 'main' && attempts.some(({ phase }) => phase !== 'creating'),
  );
  return hasRun.length === statuses.length && statuses.length > 0 ? 'Running' : 'Pending';
}

function containerStatus(view: ContainerView, input: StatusInput): ContainerStatus {
  const { container } = view;
  const last = latest(view);
  const sandboxId = input.view.sandbox?.id;
  const isRunning = last?.phase === 'running' && last.sandboxId === sandboxId;
  const hasStarted = isRunning && input.probes.hasStarted(last);
  const state = containerState(view, last, input);
  const previous = state.waiting && last?.exit ? last : view.attempts.at(-2);
  const isDone = view.role === 'init' && last?.exit?.exitCode === 0 && !state.waiting;
  return {
    name: container.name,
    image: container.image ?? '',
    imageID: last?.imageId ?? '',
    ...(last ? { containerID: `hyper://${last.containerId}` } : {}),
    restartCount: last?.number ?? 0,
    ready: isDone || (hasStarted && view.role !== 'init' && input.probes.isReady(last)),
    started: view.role === 'init' ? isRunning : hasStarted,
    state,
    lastState: previous?.exit ? { terminated: terminated(previous) } : {},
    ...resourcesOf(container, isRunning ? last : undefined, input),
  };
}

/** What it has, or is started with next, and what of it the node has promised. */
function resourcesOf(
  container: Container,
  attempt: Attempt | undefined,
  { resize: { plan } }: StatusInput,
): Pick<ContainerStatus, 'resources' | 'allocatedResources'> {
  const allocated = plan.allocated.get(container.name) ?? container.resources ?? {};
  return {
    resources: attempt?.resources ?? allocated,
    ...(allocated.requests ? { allocatedResources: allocated.requests } : {}),
  };
}

const SUSPENDED = { reason: TENANT_SUSPENDED, message: 'the tenant of the pod is suspended' };

function containerState(
  view: ContainerView,
  last: Attempt | undefined,
  input: StatusInput,
): ContainerState {
  const { name } = view.container;
  const problem = input.problems.get(name);
  const backoff = input.decision.backoff.get(name);
  if (last && !last.exit) {
    if (last.phase === 'running') return { running: { startedAt: rfc3339(last.startedMs) } };
    return { waiting: problem ?? { reason: idleReason(view, input) } };
  }
  const isIdle = !input.terminating && !hasEndedForGood(input.view, view);
  if (isIdle && isSuspended(input.view.pod)) return { waiting: SUSPENDED };
  if (input.terminating || input.verdict || input.decision.finished) {
    if (last?.exit) return { terminated: terminated(last) };
  } else if (problem) {
    return { waiting: problem };
  } else if (backoff) {
    return { waiting: { reason: 'CrashLoopBackOff', message: backoff.message } };
  } else if (last?.exit && !wasSuspended(last)) {
    return { terminated: terminated(last) };
  }
  return { waiting: problem ?? { reason: idleReason(view, input) } };
}

function idleReason(view: ContainerView, input: StatusInput): string {
  const waitsForInit = view.role === 'main' && !input.decision.initialized;
  const hasInit = input.view.containers.some((each) => each.role !== 'main');
  return (waitsForInit && hasInit) || (view.role !== 'main' && hasInit)
    ? 'PodInitializing'
    : 'ContainerCreating';
}

function terminated(attempt: Attempt): NonNullable<ContainerState['terminated']> {
  const exit = attempt.exit;
  const message = Buffer.from(exit?.message ?? '')
    .subarray(-MESSAGE_BYTES_MAX)
    .toString('utf8');
  return {
    exitCode: exit?.exitCode ?? 137,
    reason: exitReason(exit),
    ...(message ? { message } : {}),
    startedAt: rfc3339(attempt.startedMs),
    finishedAt: rfc3339(exit?.finishedAtMs ?? 0),
    containerID: `hyper://${attempt.containerId}`,
  };
}

function exitReason(exit: Attempt['exit']): string {
  if (exit?.oomKilled) return 'OOMKilled';
  return exit?.reason || (exit?.exitCode ? 'Error' : 'Completed');
}

interface Verdict {
  isTrue: boolean;
  reason?: string;
  message?: string;
}

function conditions(
  input: StatusInput,
  phase: string,
  statuses: ContainerStatus[],
  initStatuses: ContainerStatus[],
): PodCondition[] {
  const { pod } = input.view;
  const old = pod.status?.conditions ?? [];
  const ready = containersReady(phase, statuses, initStatuses, input);
  const verdicts: Record<string, Verdict> = {
    PodReadyToStartContainers: sandboxVerdict(input),
    Initialized: initialized(phase, input),
    Ready: ready.isTrue ? gates(input) : ready,
    ContainersReady: ready,
    PodScheduled: { isTrue: true },
    ...resizeVerdicts(input),
  };
  const own = Object.entries(verdicts).map(([type, verdict]) => {
    const status = verdict.isTrue ? 'True' : 'False';
    const before = old.find((each) => each.type === type);
    const changed = before?.status !== status;
    return {
      type,
      status,
      observedGeneration: pod.metadata.generation,
      lastProbeTime: undefined,
      lastTransitionTime: changed ? rfc3339(input.nowMs) : before?.lastTransitionTime,
      reason: verdict.reason,
      message: verdict.message,
    };
  });
  const others = old.filter(({ type }) => !(type in verdicts) && !isPassing(type));
  return [...own, ...others];
}

function resizeVerdicts({ resize: { plan, problem } }: StatusInput): Record<string, Verdict> {
  if (plan.pending) return { PodResizePending: { isTrue: true, ...plan.pending } };
  if (!plan.isInProgress) return {};
  const why = problem === undefined ? {} : { reason: 'Error', message: problem };
  return { PodResizeInProgress: { isTrue: true, ...why } };
}

function sandboxVerdict(input: StatusInput): Verdict {
  const { sandbox } = input.view;
  if (isAlive(sandbox) && sandbox.phase === 'running') return { isTrue: true };
  return { isTrue: false, ...input.sandboxProblem };
}

function initialized(phase: string, input: StatusInput): Verdict {
  if (phase === 'Succeeded') return { isTrue: true, reason: 'PodCompleted' };
  const pending = input.view.containers.filter((each) => {
    const last = latest(each);
    if (each.role === 'init') return last?.exit?.exitCode !== 0;
    return each.role === 'sidecar' && !(last && input.probes.hasStarted(last));
  });
  if (input.decision.initialized || pending.length === 0) return { isTrue: true };
  const names = pending.map((each) => each.container.name).join(' ');
  const message = `containers with incomplete status: [${names}]`;
  return { isTrue: false, reason: 'ContainersNotInitialized', message };
}

function containersReady(
  phase: string,
  statuses: ContainerStatus[],
  initStatuses: ContainerStatus[],
  input: StatusInput,
): Verdict {
  if (phase === 'Succeeded') return { isTrue: false, reason: 'PodCompleted' };
  if (phase === 'Failed') return { isTrue: false, reason: 'PodFailed' };
  const sidecars = new Set(
    input.view.containers
      .filter((each) => each.role === 'sidecar')
      .map((each) => each.container.name),
  );
  const all = [...initStatuses.filter((each) => sidecars.has(each.name)), ...statuses];
  const unready = all.filter((each) => !each.ready).map((each) => each.name);
  if (unready.length === 0) return { isTrue: true };
  const message = `containers with unready status: [${unready.join(' ')}]`;
  return { isTrue: false, reason: 'ContainersNotReady', message };
}

function gates(input: StatusInput): Verdict {
  const { pod } = input.view;
  const missing = (pod.spec?.readinessGates ?? []).filter(({ conditionType }) => {
    const found = pod.status?.conditions?.find((each) => each.type === conditionType);
    return found?.status !== 'True';
  });
  if (missing.length === 0) return { isTrue: true };
  const message = missing
    .map(({ conditionType: type }) => {
      return `corresponding condition of pod readiness gate "${type}" does not exist.`;
    })
    .join(', ');
  return { isTrue: false, reason: 'ReadinessGatesNotReady', message };
}
