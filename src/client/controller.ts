import { StatusError } from '../api/status.ts';
import { AssertionError } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { describeError } from '../base/log.ts';
import type { WorkQueue } from './workqueue.ts';

export interface ControllerOptions {
  name: string;
  queue: WorkQueue;
  /** Brings what the key names closer to what it should be. Safe to repeat at any point. */
  reconcile(key: string): Promise<void>;
  /** Nothing is reconciled before these have their first list. */
  informers: { readonly synced: Promise<void> }[];
  /** Keys worked on at the same time. @default 4 */
  concurrency?: number;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
}

/** Reconciles slower than this are told in the log. */
const SLOW_MS = 10_000;

/**
 * Runs a reconcile loop until the signal aborts and every worker has finished its key. A failed
 * key is retried with growing delays; it never ends the loop.
 */
export async function runController(options: ControllerOptions): Promise<void> {
  const { queue, signal, informers, concurrency = 4 } = options;
  const log = options.log.with({ controller: options.name });
  const shutDown = () => queue.shutDown();
  signal.addEventListener('abort', shutDown, { once: true });
  if (signal.aborted) shutDown();
  const aborted = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await Promise.race([Promise.all(informers.map((informer) => informer.synced)), aborted]);
  await Promise.all(Array.from({ length: concurrency }, () => work(options, log)));
}

async function work(
  { queue, reconcile, clock, signal }: ControllerOptions,
  log: Log,
): Promise<void> {
  for (let key = await queue.next(); key !== undefined; key = await queue.next()) {
    const startMs = clock.monotonicMs();
    try {
      await reconcile(key);
      queue.forget(key);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      if (!signal.aborted) {
        // Somebody else was faster: the newer state is on its way here already.
        const isConflict = error instanceof StatusError && error.reason === 'Conflict';
        log[isConflict ? 'debug' : 'warn']('Reconcile failed', {
          key,
          error: describeError(error),
        });
        queue.addRateLimited(key);
      }
    } finally {
      queue.done(key);
    }
    const durationMs = clock.monotonicMs() - startMs;
    if (durationMs > SLOW_MS) log.warn('Reconcile was slow', { key, durationMs });
  }
}
