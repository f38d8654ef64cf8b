/**
 * Kubernetes' back-off for restarts and pulls: ten seconds, doubling to five minutes. The first
 * restart comes at once; a container that ran for ten minutes starts over.
 */
export const BACKOFF_MIN_MS = 10_000;
export const BACKOFF_MAX_MS = 300_000;
const BACKOFF_RESET_MS = 600_000;
/** By how much the clocks of a node and its guests may differ without anybody having set one. */
const CLOCK_ERROR_MS = 60_000;

/** The wait after `failures` + 1 failures in a row. */
export function backoffMs(failures: number): number {
  // The exponent is bounded, as the product is anyway, to stay clear of infinity.
  return Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(failures, 10));
}

/**
 * How long a restart waits after a run, and the streak that the new run carries. `streak` counts
 * the restarts in a row before the run that ended; it is kept with the container, so that a
 * kubelet that was itself restarted goes on where the old one was.
 */
export function restartAfter(run: { streak: number; startedMs: number; finishedMs: number }): {
  delayMs: number;
  streak: number;
} {
  const ranMs = run.startedMs > 0 ? run.finishedMs - run.startedMs : 0;
  const streak = ranMs >= BACKOFF_RESET_MS ? 0 : run.streak;
  return { delayMs: streak === 0 ? 0 : backoffMs(streak - 1), streak: streak + 1 };
}

/**
 * What is left of a wait that began at `sinceMs`, by the wall clock. A beginning that lies in the
 * future was told by a clock that has been set back since: that wait is taken for over.
 */
export function waitLeftMs(sinceMs: number, delayMs: number, nowMs: number): number {
  const leftMs = sinceMs + delayMs - nowMs;
  return leftMs > delayMs + CLOCK_ERROR_MS ? 0 : Math.max(0, leftMs);
}

/** `825ms`, `1.5s`, `10s`, `1m20s`, `5m0s`: as Go prints a duration of whole milliseconds. */
export function goDuration(ms: number): string {
  const whole = Math.round(ms);
  if (whole > 0 && whole < 1000) return `${whole}ms`;
  const minutes = Math.floor(whole / 60_000);
  const rest = `${(whole - minutes * 60_000) / 1000}s`;
  if (minutes === 0) return rest;
  if (minutes < 60) return `${minutes}m${rest}`;
  return `${Math.floor(minutes / 60)}h${minutes % 60}m${rest}`;
}
