import { age, get, list, name, NONE, number, since, text } from './cells.ts';
import type { Fields, Printer } from './cells.ts';

/**
 * The STATUS of a pod is a story told from its parts; later parts overrule earlier ones:
 *
 *   phase → reason of the status → init containers not done (Init:…) → containers waiting or
 *   ended → still running after all → being deleted (Terminating)
 */
export const printPod: Printer = (pod, nowMs) => {
  const summary = summarize(pod, nowMs);
  return [
    name(pod),
    `${summary.ready}/${summary.total}`,
    summary.reason,
    summary.restarts,
    age(pod, nowMs),
    text(pod, 'status.podIP') || text(list(pod, 'status.podIPs')[0], 'ip', NONE),
    text(pod, 'spec.nodeName', NONE),
    text(pod, 'status.nominatedNodeName', NONE),
    readinessGates(pod),
  ];
};

interface Summary {
  reason: string;
  ready: number;
  total: number;
  restarts: string;
}

interface Counter {
  ready: number;
  restarts: number;
  /** Last end of a container that was started again, 0 for none. */
  lastRestartMs: number;
}

function summarize(pod: Fields, nowMs: number): Summary {
  const sidecars = new Set(
    list(pod, 'spec.initContainers')
      .filter(isSidecar)
      .map((container) => container['name']),
  );
  const counter: Counter = { ready: 0, restarts: 0, lastRestartMs: 0 };
  const sidecarCounter: Counter = { ready: 0, restarts: 0, lastRestartMs: 0 };
  let reason = initialReason(pod);
  const init = initReason(pod, sidecars, counter, sidecarCounter);
  const initialized =
    init === undefined || text(condition(pod, 'Initialized'), 'status') === 'True';
  if (init !== undefined) reason = init;
  if (initialized) {
    Object.assign(counter, { ...sidecarCounter, ready: counter.ready });
    const state = containersReason(pod, reason, counter);
    reason = state.reason;
    if (reason === 'Completed' && state.running) {
      reason = text(condition(pod, 'Ready'), 'status') === 'True' ? 'Running' : 'NotReady';
    }
  }
  return {
    reason: deletedReason(pod, reason),
    ready: counter.ready,
    total: list(pod, 'spec.containers').length + sidecars.size,
    restarts: restartsText(counter, nowMs),
  };
}

function initialReason(pod: Fields): string {
  const reason = text(pod, 'status.reason') || text(pod, 'status.phase');
  const scheduled = condition(pod, 'PodScheduled');
  return scheduled?.['reason'] === 'SchedulingGated' ? 'SchedulingGated' : reason;
}

function isSidecar(container: Fields): boolean {
  return container['restartPolicy'] === 'Always';
}

/** `Init:…` while an init container is not done, else undefined. Counts on the way. */
function initReason(
  pod: Fields,
  sidecars: Set<unknown>,
  counter: Counter,
  sidecarCounter: Counter,
): string | undefined {
  const statuses = list(pod, 'status.initContainerStatuses');
  const total = list(pod, 'spec.initContainers').length;
  for (const [index, status] of statuses.entries()) {
    countRestarts(status, counter);
    const sidecar = sidecars.has(status['name']);
    if (sidecar) countRestarts(status, sidecarCounter);
    const terminated = get(status, 'state.terminated') as Fields | undefined;
    if (terminated && number(terminated, 'exitCode') === 0) continue;
    if (sidecar && status['started'] === true) {
      if (status['ready'] === true) counter.ready += 1;
      continue;
    }
    if (terminated) return `Init:${endReason(terminated)}`;
    const waiting = text(status, 'state.waiting.reason');
    if (waiting !== '' && waiting !== 'PodInitializing') return `Init:${waiting}`;
    return `Init:${index}/${total}`;
  }
  return undefined;
}

function endReason(terminated: Fields): string {
  const reason = text(terminated, 'reason');
  if (reason !== '') return reason;
  const signal = number(terminated, 'signal');
  return signal === 0 ? `ExitCode:${number(terminated, 'exitCode')}` : `Signal:${signal}`;
}

function containersReason(pod: Fields, initial: string, counter: Counter) {
  let reason = initial;
  let running = false;
  for (const status of list(pod, 'status.containerStatuses').toReversed()) {
    countRestarts(status, counter);
    const waiting = text(status, 'state.waiting.reason');
    const terminated = get(status, 'state.terminated') as Fields | undefined;
    if (waiting !== '') reason = waiting;
    else if (terminated) reason = endReason(terminated);
    else if (status['ready'] === true && get(status, 'state.running') !== undefined) {
      running = true;
      counter.ready += 1;
    }
  }
  return { reason, running };
}

function countRestarts(status: Fields, counter: Counter): void {
  counter.restarts += number(status, 'restartCount');
  const finished = Date.parse(text(status, 'lastState.terminated.finishedAt'));
  if (finished > counter.lastRestartMs) counter.lastRestartMs = finished;
}

function restartsText({ restarts, lastRestartMs }: Counter, nowMs: number): string {
  if (restarts === 0 || lastRestartMs === 0) return String(restarts);
  return `${restarts} (${since(new Date(lastRestartMs).toISOString(), nowMs)} ago)`;
}

function deletedReason(pod: Fields, reason: string): string {
  if (get(pod, 'metadata.deletionTimestamp') === undefined) return reason;
  if (text(pod, 'status.reason') === 'NodeLost') return 'Unknown';
  const phase = text(pod, 'status.phase');
  return phase === 'Failed' || phase === 'Succeeded' ? reason : 'Terminating';
}

function condition(pod: Fields, type: string): Fields | undefined {
  return list(pod, 'status.conditions').find((entry) => entry['type'] === type);
}

function readinessGates(pod: Fields): string {
  const gates = list(pod, 'spec.readinessGates');
  if (gates.length === 0) return NONE;
  const fulfilled = gates.filter(
    (gate) => condition(pod, String(gate['conditionType']))?.['status'] === 'True',
  );
  return `${fulfilled.length}/${gates.length}`;
}
