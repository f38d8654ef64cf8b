import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { HttpError } from './http.ts';
import { ImageError } from './store.ts';

/** In a row, without progress in between. */
export const ATTEMPTS_MAX = 5;
/** Over all, so that a registry that gives a little at a time is given up as well. */
const ATTEMPTS_TOTAL_MAX = 100;
/** What counts as progress. */
const PROGRESS_BYTES_MIN = 64 << 10;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 10_000;
const RETRY_AFTER_MAX_MS = 30_000;

/** An answer that says "later". */
export class BusyError extends HttpError {
  override name = 'BusyError';
  readonly retryAfterMs: number;
  constructor(message: string, retryAfterMs: number) {
    super(message);
    this.retryAfterMs = Math.min(retryAfterMs, RETRY_AFTER_MAX_MS);
  }
}

/**
 * Runs `attempt` until it succeeds, fails for good, or fails too often. Waits in between, longer
 * each time, by chance up to a third less, so that many nodes do not come back together.
 * @throws ImageError; the signal's reason
 */
export async function retrying<T>(
  options: { clock: Clock; random: Random },
  signal: AbortSignal | undefined,
  attempt: (progress: (bytes: number) => void) => Promise<T>,
): Promise<T> {
  let failures = 0;
  let progressBytes = 0;
  for (let attempts = 1; ; attempts++) {
    try {
      return await attempt((bytes) => {
        progressBytes += bytes;
        if (progressBytes < PROGRESS_BYTES_MIN) return;
        progressBytes = 0;
        failures = 0;
      });
    } catch (error) {
      signal?.throwIfAborted();
      failures += 1;
      const isOver = failures >= ATTEMPTS_MAX || attempts >= ATTEMPTS_TOTAL_MAX;
      if (isOver || !isTransient(error)) throw toImageError(error);
      const backoffMs = Math.min(BACKOFF_FIRST_MS * 2 ** (failures - 1), BACKOFF_MAX_MS);
      const waitMs = Math.max(
        backoffMs * (1 - options.random.next() / 3),
        error instanceof BusyError ? error.retryAfterMs : 0,
      );
      await options.clock.sleep(waitMs, signal);
    }
  }
}

function isTransient(error: unknown): boolean {
  return error instanceof HttpError && error.transient;
}

function toImageError(error: unknown): unknown {
  if (!(error instanceof HttpError)) return error;
  return new ImageError('Unreachable', error.message, { transient: error.transient });
}
