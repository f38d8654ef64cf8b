import type { Container, Probe } from '../api/types.generated.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import { waitLeftMs } from './backoff.ts';
import type { CommandResult } from './exec.ts';
import { httpRequest, resolvePort } from './handler.ts';
import type { Attempt } from './history.ts';
import type { ProbeRequest, ProbeResult } from '../api/hyperd.ts';

/**
 * Startup, readiness and liveness of running containers, with Kubernetes' thresholds:
 *
 *   startup passes ──► readiness and liveness begin
 *   failureThreshold failures in a row  ──► not started / not ready / not alive
 *   successThreshold successes in a row ──► ready (1 for the others)
 *
 * A container without a startup probe counts as started, without a readiness probe as ready.
 */
export type ProbeKind = 'startup' | 'readiness' | 'liveness';

export interface ProbeTarget {
  attempt: Attempt;
  container: Container;
}

export interface ProbeDriver {
  exec(target: ProbeTarget, argv: string[], timeoutMs: number): Promise<CommandResult>;
  request(target: ProbeTarget, request: ProbeRequest): Promise<ProbeResult>;
  podIp(): string;
  /** A result that changes something, and every failure. */
  onFailure(target: ProbeTarget, kind: ProbeKind, message: string): void;
  /** The container must be restarted (liveness or startup). */
  onUnhealthy(target: ProbeTarget, kind: ProbeKind, probe: Probe): void;
  onChange(): void;
}

export interface Probes {
  /** The containers that run now; workers of all others end. */
  update(targets: ProbeTarget[]): void;
  isReady(attempt: Attempt): boolean;
  hasStarted(attempt: Attempt): boolean;
  stop(): void;
}

interface Worker {
  target: ProbeTarget;
  results: Partial<Record<ProbeKind, boolean>>;
  counts: Partial<Record<ProbeKind, { successes: number; failures: number }>>;
  timers: Map<ProbeKind, Timer>;
  stopped: boolean;
}

const PROBE_FIELD = {
  startup: 'startupProbe',
  readiness: 'readinessProbe',
  liveness: 'livenessProbe',
} as const;

const DEFAULTS = {
  periodSeconds: 10,
  timeoutSeconds: 1,
  successThreshold: 1,
  failureThreshold: 3,
  initialDelaySeconds: 0,
};

export function createProbes(driver: ProbeDriver, clock: Clock): Probes {
  const workers = new Map<string, Worker>();

  const probeOf = (worker: Worker, kind: ProbeKind): Probe | undefined =>
    worker.target.container[PROBE_FIELD[kind]];
  const hasStarted = (worker: Worker) =>
    !probeOf(worker, 'startup') || worker.results.startup === true;

  const schedule = (worker: Worker, kind: ProbeKind, delayMs: number) => {
    if (worker.stopped) return;
    worker.timers.get(kind)?.cancel();
    worker.timers.set(
      kind,
      clock.after(delayMs, () => void turn(worker, kind)),
    );
  };

  const begin = (worker: Worker) => {
    const kinds: ProbeKind[] = hasStarted(worker) ? ['readiness', 'liveness'] : ['startup'];
    for (const kind of kinds) {
      const probe = probeOf(worker, kind);
      if (!probe || worker.timers.has(kind)) continue;
      const initialMs = (probe.initialDelaySeconds ?? DEFAULTS.initialDelaySeconds) * 1000;
      const { startedMs } = worker.target.attempt;
      schedule(worker, kind, waitLeftMs(startedMs, initialMs, clock.nowMs()));
    }
  };

  const turn = async (worker: Worker, kind: ProbeKind): Promise<void> => {
    const probe = probeOf(worker, kind);
    if (worker.stopped || !probe) return;
    const outcome = await tryProbe(driver, worker.target, probe);
    if (worker.stopped) return;
    settle(worker, kind, probe, outcome);
    const periodMs = (probe.periodSeconds ?? DEFAULTS.periodSeconds) * 1000;
    const isDone = kind === 'startup' && worker.results.startup === true;
    if (!isDone) schedule(worker, kind, periodMs);
  };

  const settle = (
    worker: Worker,
    kind: ProbeKind,
    probe: Probe,
    outcome: { success: boolean; message: string },
  ) => {
    const counts = (worker.counts[kind] ??= { successes: 0, failures: 0 });
    counts.successes = outcome.success ? counts.successes + 1 : 0;
    counts.failures = outcome.success ? 0 : counts.failures + 1;
    if (!outcome.success) driver.onFailure(worker.target, kind, outcome.message);
    const successes = kind === 'readiness' ? (probe.successThreshold ?? 1) : 1;
    const failures = probe.failureThreshold ?? DEFAULTS.failureThreshold;
    const before = worker.results[kind];
    if (counts.successes >= successes) worker.results[kind] = true;
    if (counts.failures >= failures) {
      worker.results[kind] = false;
      if (kind !== 'readiness') {
        counts.failures = 0;
        driver.onUnhealthy(worker.target, kind, probe);
      }
    }
    if (worker.results[kind] === before) return;
    begin(worker);
    driver.onChange();
  };

  const end = (worker: Worker) => {
    worker.stopped = true;
    for (const timer of worker.timers.values()) timer.cancel();
  };

  return {
    update(targets) {
      const ids = new Set(targets.map((target) => target.attempt.containerId));
      for (const [id, worker] of workers) {
        if (ids.has(id)) continue;
        end(worker);
        workers.delete(id);
      }
      for (const target of targets) {
        const id = target.attempt.containerId;
        if (workers.has(id)) continue;
        const worker: Worker = {
          target,
          results: {},
          counts: {},
          timers: new Map(),
          stopped: false,
        };
        workers.set(id, worker);
        begin(worker);
      }
    },
    isReady(attempt) {
      const worker = workers.get(attempt.containerId);
      if (!worker || !hasStarted(worker)) return false;
      return !probeOf(worker, 'readiness') || worker.results.readiness === true;
    },
    hasStarted(attempt) {
      const worker = workers.get(attempt.containerId);
      return worker !== undefined && hasStarted(worker);
    },
    stop() {
      for (const worker of workers.values()) end(worker);
      workers.clear();
    },
  };
}

/** One try. An error on the way is a failure of the probe, as in Kubernetes. */
async function tryProbe(
  driver: ProbeDriver,
  target: ProbeTarget,
  probe: Probe,
): Promise<{ success: boolean; message: string }> {
  const timeoutSeconds = probe.timeoutSeconds ?? DEFAULTS.timeoutSeconds;
  const timeoutMs = timeoutSeconds * 1000;
  try {
    if (probe.exec) {
      const result = await driver.exec(target, probe.exec.command ?? [], timeoutMs);
      if (result.timedOut) {
        return { success: false, message: `command timed out after ${timeoutSeconds}s` };
      }
      return { success: result.exitCode === 0, message: result.output };
    }
    const request = requestOf(probe, target, driver.podIp(), timeoutMs);
    if (typeof request === 'string') return { success: false, message: request };
    return await driver.request(target, request);
  } catch (error) {
    return { success: false, message: describeError(error) };
  }
}

function requestOf(
  probe: Probe,
  target: ProbeTarget,
  podIp: string,
  timeoutMs: number,
): ProbeRequest | string {
  const action = probe.httpGet ?? probe.tcpSocket;
  if (!action) return 'probe has no supported action: exec, httpGet and tcpSocket are supported';
  if (probe.httpGet) {
    const request = httpRequest(probe.httpGet, target.container, podIp, timeoutMs);
    return request ?? `port "${probe.httpGet.port}" is not one of the container's`;
  }
  const port = resolvePort(action.port, target.container);
  if (port === undefined) return `port "${action.port}" is not one of the container's`;
  return { type: 'tcp', host: action.host || podIp || '127.0.0.1', port, timeoutMs };
}
