import type { Clock, Timer } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';

/**
 * The steps of one worker that take time: named, at most one of each name at once, repeated with
 * growing delays while they fail. The worker is woken whenever one ends or one is due again.
 */
export interface Jobs {
  /** Does nothing where a job of this name runs. A failure after `signal` aborted is none. */
  start(name: string, work: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): void;
  /** Whether the step may be tried now; if not, the worker is woken when it may. */
  isDue(name: string): boolean;
  /** The step failed: it is due again after its delay, or at `atMs` of the monotonic clock. */
  retryLater(name: string, atMs?: number): void;
  /** The step succeeded: its next failure counts as the first. */
  forget(name: string): void;
  /** Wakes the worker after this time at the latest. */
  wakeAfter(delayMs: number): void;
  /** The worker is awake: what was to wake it later is decided anew. */
  sleepNoMore(): void;
  readonly running: ReadonlySet<string>;
  /** Resolves when no job runs; nothing wakes the worker afterwards. */
  end(): Promise<void>;
}

export const RETRY_MIN_MS = 500;
/** An API server that is away for long is asked this often. */
export const RETRY_MAX_MS = 120_000;
const DOUBLINGS_MAX = 10;

export function createJobs(clock: Clock, log: Log, wake: () => void): Jobs {
  const jobs = new Map<string, Promise<void>>();
  const retries = new Map<string, { count: number; atMs: number }>();
  let timer: Timer | undefined;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  const self: Jobs = {
    start(name, work, signal) {
      if (jobs.has(name)) return;
      const job = work(signal)
        .catch((error: unknown) => {
          if (signal.aborted) return;
          log.warn('step failed', { step: name, error: describeError(error) });
          self.retryLater(name);
        })
        .finally(() => {
          jobs.delete(name);
          wake();
        });
      jobs.set(name, job);
    },
    isDue(name) {
      const leftMs = (retries.get(name)?.atMs ?? 0) - clock.monotonicMs();
      if (leftMs <= 0) return true;
      self.wakeAfter(leftMs);
      return false;
    },
    retryLater(name, atMs) {
      const count = (retries.get(name)?.count ?? -1) + 1;
      const delayMs = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(count, DOUBLINGS_MAX));
      retries.set(name, { count, atMs: atMs ?? clock.monotonicMs() + delayMs });
    },
    forget: (name) => void retries.delete(name),
    wakeAfter(delayMs) {
      const atMs = clock.monotonicMs() + delayMs;
      if (wakeAtMs <= atMs && wakeAtMs > clock.monotonicMs()) return;
      timer?.cancel();
      wakeAtMs = atMs;
      timer = clock.after(delayMs, () => {
        wakeAtMs = Number.POSITIVE_INFINITY;
        wake();
      });
    },
    sleepNoMore() {
      timer?.cancel();
      wakeAtMs = Number.POSITIVE_INFINITY;
    },
    get running() {
      return new Set(jobs.keys());
    },
    async end() {
      timer?.cancel();
      await Promise.all(jobs.values());
      timer?.cancel();
    },
  };
  return self;
}
