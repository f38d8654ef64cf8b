import { goDuration, restartAfter, waitLeftMs } from './backoff.ts';
import { goesOn, isAlive, isSuspended, wasSuspended } from './history.ts';
import type { Attempt, ContainerView, PodView } from './history.ts';

/**
 * What a pod needs next: a pure function of what has happened so far. It says what to start and
 * what waits for how long; whoever acts on it may do so more than once.
 *
 *   no VM ──► create a VM ──► init containers, one after the other (sidecars stay)
 *                                   └──► containers, all at once
 *   a container ended ──► restartPolicy ──► start again after its back-off, in the same VM
 *   the VM ended      ──► the same for all that ran in it, in a new VM, from init on
 *   nothing runs and nothing will be started ──► finished
 *   the tenant is suspended ──► nothing is started; what was stopped with it goes on at once after
 */
export interface Decision {
  createSandbox: boolean;
  start: ContainerStart[];
  /** Containers that wait for their back-off, by name. */
  backoff: Map<string, { delayMs: number; message: string }>;
  /** When to decide again, if nothing happens before. */
  wakeInMs: number | undefined;
  /** All init containers are done and the sidecars are up. */
  initialized: boolean;
  /** Every container has ended for good. Sidecars are not counted. */
  finished: boolean;
}

/** A container that is due, the number of its new attempt, and its restarts in a row. */
export interface ContainerStart {
  view: ContainerView;
  attempt: number;
  streak: number;
}

export interface DecisionInput {
  view: PodView;
  nowMs: number;
  /** Whether a sidecar's startup probe has passed (true where it has none). */
  hasStarted: (attempt: Attempt) => boolean;
  /** When the newest VM was first seen dead; undefined while it is not. */
  sandboxStoppedMs: number | undefined;
}

export function latest(view: ContainerView): Attempt | undefined {
  return view.attempts.at(-1);
}

export function decide(input: DecisionInput): Decision {
  const { view } = input;
  const decision: Decision = {
    createSandbox: false,
    start: [],
    backoff: new Map(),
    wakeInMs: undefined,
    initialized: false,
    finished: false,
  };
  const main = view.containers.filter((each) => each.role === 'main');
  const init = view.containers.filter((each) => each.role !== 'main');
  if (initHasFailed(view, init) || main.every((each) => hasEndedForGood(view, each))) {
    decision.finished = true;
    decision.initialized = main.some((each) => each.attempts.length > 0);
    return decision;
  }
  if (isSuspended(view.pod)) {
    decision.initialized = main.some((each) => each.attempts.length > 0);
    return decision;
  }
  if (!isAlive(view.sandbox)) {
    decideSandbox(input, decision);
    return decision;
  }
  decision.initialized = decideInit(input, init, decision);
  if (decision.initialized) {
    for (const each of main) if (needsStart(view, each)) scheduleStart(input, each, decision);
  }
  return decision;
}

function policy(view: PodView): string {
  return view.pod.spec?.restartPolicy ?? 'Always';
}

/** It has run for the last time. */
export function hasEndedForGood(view: PodView, each: ContainerView): boolean {
  const last = latest(each);
  if (!last?.exit || goesOn(last)) return false;
  if (policy(view) === 'Always') return false;
  return policy(view) === 'Never' || last.exit.exitCode === 0;
}

function initHasFailed(view: PodView, init: ContainerView[]): boolean {
  if (policy(view) !== 'Never') return false;
  return init.some((each) => {
    const last = latest(each);
    return each.role === 'init' && (last?.exit?.exitCode ?? 0) !== 0 && !wasSuspended(last);
  });
}

/** A new VM, unless the last one died a moment ago: then after a back-off of its own. */
function decideSandbox(input: DecisionInput, decision: Decision): void {
  const { sandbox } = input.view;
  if (!sandbox) {
    decision.createSandbox = true;
    return;
  }
  const { delayMs } = sandboxRestart(input);
  const leftMs = waitLeftMs(input.sandboxStoppedMs ?? input.nowMs, delayMs, input.nowMs);
  if (leftMs === 0) decision.createSandbox = true;
  else wakeAfter(decision, leftMs);
  for (const each of input.view.containers) {
    if (!latest(each)?.exit || hasEndedForGood(input.view, each)) continue;
    if (leftMs > 0) holdBack(input.view, each, delayMs, decision);
  }
}

/** The back-off of the VM itself; `streak` is what the next one carries. */
export function sandboxRestart(input: Pick<DecisionInput, 'view' | 'nowMs' | 'sandboxStoppedMs'>): {
  delayMs: number;
  streak: number;
} {
  const { sandbox, containers } = input.view;
  const isSuspendedOne = containers.some(({ attempts }) =>
    attempts.some((each) => each.sandboxId === sandbox?.id && wasSuspended(each)),
  );
  if (sandbox && isSuspendedOne) return { delayMs: 0, streak: 0 };
  return restartAfter({
    streak: Number(sandbox?.labels['hypernetes.io/streak'] ?? 0),
    startedMs: sandbox?.timings.guest ?? 0,
    finishedMs: input.sandboxStoppedMs ?? input.nowMs,
  });
}

/** True when all of them are done. Starts at most the next one. */
function decideInit(input: DecisionInput, init: ContainerView[], decision: Decision): boolean {
  const { view } = input;
  let isInitialized = true;
  const mainBegan = view.containers.some(
    (each) => each.role === 'main' && each.attempts.some((a) => a.sandboxId === view.sandbox?.id),
  );
  for (const each of init) {
    const last = latest(each);
    const isHere = last?.sandboxId === view.sandbox?.id;
    if (each.role === 'sidecar') {
      const isUp = isHere && last?.phase === 'running' && input.hasStarted(last);
      if (needsStart(view, each)) scheduleStart(input, each, decision);
      // Once the containers run, a sidecar that restarts does not hold them back.
      if (isUp || mainBegan) continue;
    } else {
      if (mainBegan || (isHere && last?.exit?.exitCode === 0)) continue;
      if (needsStart(view, each)) scheduleStart(input, each, decision);
    }
    isInitialized = false;
    break;
  }
  return isInitialized;
}

function needsStart(view: PodView, each: ContainerView): boolean {
  const last = latest(each);
  if (!last) return true;
  const isHere = last.sandboxId === view.sandbox?.id;
  if (isHere && !last.exit) return false;
  if (each.role === 'main') return !hasEndedForGood(view, each);
  if (each.role === 'sidecar') return true;
  return !isHere || last.exit?.exitCode !== 0;
}

function scheduleStart(input: DecisionInput, each: ContainerView, decision: Decision): void {
  const last = latest(each);
  if (!last) {
    decision.start.push({ view: each, attempt: 0, streak: 0 });
    return;
  }
  if (goesOn(last)) {
    decision.start.push({ view: each, attempt: last.number + 1, streak: 0 });
    return;
  }
  const finishedMs = last.exit?.finishedAtMs ?? 0;
  const { startedMs } = last;
  const { delayMs, streak } = restartAfter({ streak: last.streak, startedMs, finishedMs });
  // An init container that succeeded in a VM that is gone has done nothing wrong.
  const waitMs = last.exit?.exitCode === 0 && each.role === 'init' ? 0 : delayMs;
  // It is shown as waiting until the next attempt is there, also when that is due now.
  if (waitMs > 0) holdBack(input.view, each, delayMs, decision);
  const leftMs = waitMs === 0 ? 0 : waitLeftMs(finishedMs, waitMs, input.nowMs);
  if (leftMs === 0) decision.start.push({ view: each, attempt: last.number + 1, streak });
  else wakeAfter(decision, leftMs);
}

/** In the words of Kubernetes' kubelet, which clients show as they are. */
function holdBack(
  { pod }: PodView,
  { container }: ContainerView,
  delayMs: number,
  decision: Decision,
): void {
  const { name, namespace, uid } = pod.metadata;
  const subject = `container=${container.name} pod=${name}_${namespace}(${uid})`;
  const message = `back-off ${goDuration(delayMs)} restarting failed ${subject}`;
  decision.backoff.set(container.name, { delayMs, message });
}

function wakeAfter(decision: Decision, leftMs: number): void {
  const inMs = Math.max(1, leftMs);
  decision.wakeInMs = Math.min(decision.wakeInMs ?? inMs, inMs);
}
