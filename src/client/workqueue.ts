import type { Clock, Timer } from '../base/clock.ts';

/**
 * A queue of keys for reconciling. A key waits at most once, is worked on by at most one worker
 * at a time, and if it is added while being worked on it comes again afterwards.
 */
export interface WorkQueue {
  /** Keys that wait, without those whose delay is not over. */
  readonly length: number;
  add(key: string): void;
  /** Adds after a delay; of several delays of one key the soonest counts. */
  addAfter(key: string, delayMs: number): void;
  /** Adds after a delay that doubles with each call until `forget`. */
  addRateLimited(key: string): void;
  /** The key was reconciled: its next failure starts with the shortest delay. */
  forget(key: string): void;
  /** The next key, or undefined once the queue is shut down. `done` has to follow. */
  next(): Promise<string | undefined>;
  done(key: string): void;
  shutDown(): void;
}

/** client-go's 5 ms doubling, but capped sooner: nothing waits a quarter of an hour. */
const RETRY_MIN_MS = 5;
const RETRY_MAX_MS = 60_000;

export function createWorkQueue(clock: Clock): WorkQueue {
  const waiting = new Set<string>();
  const working = new Set<string>();
  /** Added while being worked on. */
  const again = new Set<string>();
  const delayed = new Map<string, { timer: Timer; dueMs: number }>();
  const failureCounts = new Map<string, number>();
  const idle: ((key: string | undefined) => void)[] = [];
  let isShutDown = false;

  const hand = (): void => {
    while (idle.length && waiting.size) {
      const [key] = waiting as Iterable<string> as [string];
      waiting.delete(key);
      working.add(key);
      idle.shift()?.(key);
    }
  };

  const queue: WorkQueue = {
    get length() {
      return waiting.size;
    },
    add(key) {
      if (isShutDown) return;
      if (working.has(key)) again.add(key);
      else waiting.add(key);
      hand();
    },
    addAfter(key, delayMs) {
      if (isShutDown) return;
      if (delayMs <= 0) {
        queue.add(key);
        return;
      }
      const dueMs = clock.monotonicMs() + delayMs;
      const known = delayed.get(key);
      if (known && known.dueMs <= dueMs) return;
      known?.timer.cancel();
      const timer = clock.after(delayMs, () => {
        delayed.delete(key);
        queue.add(key);
      });
      delayed.set(key, { timer, dueMs });
    },
    addRateLimited(key) {
      const count = failureCounts.get(key) ?? 0;
      failureCounts.set(key, count + 1);
      queue.addAfter(key, Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(count, 30)));
    },
    forget(key) {
      failureCounts.delete(key);
    },
    next() {
      if (isShutDown) return Promise.resolve(undefined);
      return new Promise((resolve) => {
        idle.push(resolve);
        hand();
      });
    },
    done(key) {
      working.delete(key);
      if (again.delete(key)) queue.add(key);
    },
    shutDown() {
      isShutDown = true;
      waiting.clear();
      for (const { timer } of delayed.values()) timer.cancel();
      delayed.clear();
      for (const resolve of idle.splice(0)) resolve(undefined);
    },
  };
  return queue;
}
