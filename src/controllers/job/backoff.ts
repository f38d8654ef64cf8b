/** How often a Job's pods have failed since one succeeded. */
export interface Backoff {
  failures: number;
  lastFailureMs: number;
}

/** Kubernetes' DefaultJobPodFailureBackOff and MaxJobPodFailureBackOff. */
const DELAY_MIN_MS = 10_000;
const DELAY_MAX_MS = 600_000;

export function nextBackoff(
  known: Backoff | undefined,
  news: { isFailure: boolean; atMs: number }[],
): Backoff | undefined {
  let backoff = known;
  for (const { isFailure, atMs } of news) {
    backoff = isFailure
      ? { failures: (backoff?.failures ?? 0) + 1, lastFailureMs: atMs }
      : undefined;
  }
  return backoff ?? (news.length > 0 ? { failures: 0, lastFailureMs: 0 } : undefined);
}

/** How long to wait before the next pod is made: 0 when it may be made now. */
export function untilRetryMs(backoff: Backoff | undefined, nowMs: number): number {
  if (!backoff || backoff.failures === 0) return 0;
  const doublings = Math.min(backoff.failures - 1, 10);
  const delayMs = Math.min(DELAY_MAX_MS, DELAY_MIN_MS * 2 ** doublings);
  // A node whose clock is ahead must not hold the Job up for longer than the delay.
  return Math.min(delayMs, Math.max(0, backoff.lastFailureMs + delayMs - nowMs));
}
