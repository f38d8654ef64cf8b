/**
 * Time as a dependency. Everything above `base` takes a `Clock`, so that tests move time by hand
 * and nothing in the system reads the wall clock or sets a timer behind a test's back.
 */
export interface Timer {
  /** Idempotent. A cancelled timer never fires. */
  cancel(): void;
}

export interface Clock {
  /** Wall-clock time in milliseconds since the Unix epoch. May jump when the host's clock is set. */
  nowMs(): number;
  /** Monotonic time in milliseconds from an arbitrary origin. For measuring and for deadlines. */
  monotonicMs(): number;
  /** Calls `fire` once after `delayMs`. The timer does not keep the process alive. */
  after(delayMs: number, fire: () => void): Timer;
  /** Resolves after `delayMs`; rejects with the signal's reason as soon as it aborts. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

/** Node refuses longer delays and fires at once instead. */
const TIMER_DELAY_MAX_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, fire) {
    const handle = setTimeout(fire, Math.min(delayMs, TIMER_DELAY_MAX_MS));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
  sleep(delayMs, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const abort = () => {
        clearTimeout(handle);
        reject(signal?.reason);
      };
      const handle = setTimeout(
        () => {
          signal?.removeEventListener('abort', abort);
          resolve();
        },
        Math.min(delayMs, TIMER_DELAY_MAX_MS),
      );
      signal?.addEventListener('abort', abort, { once: true });
    });
  },
};

/** RFC 3339 with second resolution, as `metav1.Time` is written. */
export function rfc3339(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** RFC 3339 with microsecond digits, as `metav1.MicroTime` is written. */
export function rfc3339Micro(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, -1)}000Z`;
}
