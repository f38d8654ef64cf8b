import type { Clock } from '../../base/clock.ts';

/** Spaces requests out, so that no more than a given number per second are made. */
export interface Pace {
  /** Resolves when it is this caller's turn; false when that would take too long. */
  turn(): Promise<boolean>;
}

/** Who would have to wait longer is refused: the queue is no longer than this allows. */
const WAIT_MAX_MS = 1_000;
/** How much of a second's requests may come at once. */
const BURST_MS = 500;

export function createPace(perSecond: number, clock: Clock): Pace {
  const intervalMs = 1_000 / perSecond;
  /** When the next request would be due if all were evenly spaced. */
  let dueMs = -Infinity;
  return {
    async turn() {
      const nowMs = clock.monotonicMs();
      const startMs = Math.max(dueMs, nowMs - BURST_MS);
      const waitMs = startMs - nowMs;
      if (waitMs > WAIT_MAX_MS) return false;
      dueMs = startMs + intervalMs;
      if (waitMs > 0) await clock.sleep(waitMs);
      return true;
    },
  };
}
