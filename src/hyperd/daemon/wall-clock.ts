import type { Clock } from '../../base/clock.ts';

/**
 * Notices that the host's wall clock has been set, which no event tells: it then differs from the
 * monotonic clock by another amount than before. What NTP does by slewing stays below the step.
 */
export interface WallClockWatch {
  close(): void;
}

const LOOK_MS = 5_000;
/** Less than this is left to the guests: their clocks are no more exact themselves. */
const STEP_MS = 1_000;

/** @param onSet called with how far the clock has jumped, backwards if negative */
export function watchWallClock(clock: Clock, onSet: (jumpMs: number) => void): WallClockWatch {
  const offset = () => clock.nowMs() - clock.monotonicMs();
  let knownMs = offset();
  const look = () => {
    timer = clock.after(LOOK_MS, look);
    const jumpMs = offset() - knownMs;
    if (Math.abs(jumpMs) < STEP_MS) return;
    knownMs += jumpMs;
    onSet(jumpMs);
  };
  let timer = clock.after(LOOK_MS, look);
  return { close: () => timer.cancel() };
}
