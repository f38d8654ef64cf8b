import type { Clock, Timer } from './clock.ts';

/**
 * A clock that stands still until it is told to move. `advance` fires due timers in order of
 * their due time and lets pending promise reactions run between them.
 */
export class FakeClock implements Clock {
  #nowMs: number;
  /** What somebody has set the wall clock by. */
  #offsetMs = 0;
  #pending: { dueMs: number; order: number; fire: () => void }[] = [];
  #order = 0;

  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs + this.#offsetMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, fire: () => void): Timer {
    const entry = { dueMs: this.#nowMs + delayMs, order: this.#order++, fire };
    this.#pending.push(entry);
    return {
      cancel: () => {
        this.#pending = this.#pending.filter((other) => other !== entry);
      },
    };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const timer = this.after(delayMs, () => {
        signal?.removeEventListener('abort', abort);
        resolve();
      });
      const abort = () => {
        timer.cancel();
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Sets the wall clock; the monotonic one and all timers go on as they did. */
  jump(deltaMs: number): void {
    this.#offsetMs += deltaMs;
  }

  /** How many timers are waiting. Tests use it to see that nothing is left behind. */
  get pendingCount(): number {
    return this.#pending.length;
  }

  async advance(deltaMs: number): Promise<void> {
    const endMs = this.#nowMs + deltaMs;
    for (;;) {
      await settle();
      const next = this.#pending
        .filter((entry) => entry.dueMs <= endMs)
        .sort((a, b) => a.dueMs - b.dueMs || a.order - b.order)[0];
      if (!next) break;
      this.#pending = this.#pending.filter((entry) => entry !== next);
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      next.fire();
    }
    this.#nowMs = endMs;
    await settle();
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
