import { IdentityUnavailableError } from '../../api/identity.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';

/**
 * Whether Keystone is away. One failed question does not say so, since it may be the question: a
 * tenant could make some up that fail, to have others refused or its own revoked token served. A
 * second question, of our own, decides. While Keystone is away it is asked by nobody but the
 * probe here, and so everybody else is answered at once.
 */
export interface Outage {
  /** Why Keystone is away, or undefined when it is there. */
  readonly cause: IdentityUnavailableError | undefined;
  /** A question failed, or takes long. Resolves when it is known whether Keystone is away. */
  suspect(): Promise<void>;
  /** A function that asks Keystone, made to fail at once while it is away. */
  gate<A extends unknown[], R>(ask: (...args: A) => Promise<R>): (...args: A) => Promise<R>;
  /** Calls back when it is found to be away. Returns how to unsubscribe. */
  onBegin(begin: () => void): () => void;
  close(): void;
}

const PROBE_PAUSE_MIN_MS = 250;
const PROBE_PAUSE_MAX_MS = 2_000;

export function createOutage(options: {
  /** Rejects when Keystone is away. */
  probe: () => Promise<void>;
  clock: Clock;
  log: Log;
}): Outage {
  const { probe, clock, log } = options;
  const ended = new AbortController();
  const listeners = new Set<() => void>();
  let cause: IdentityUnavailableError | undefined;
  let verdict: Promise<void> | undefined;

  const begin = (error: unknown, sinceMs: number): void => {
    const isFirst = cause === undefined;
    const since = new Date(sinceMs).toISOString();
    cause = new IdentityUnavailableError(`Keystone cannot be asked since ${since}`, {
      cause: error,
    });
    if (!isFirst) return;
    log.error('Keystone is away: who is known goes on, others are refused', {
      error: describeError(error),
    });
    for (const listener of [...listeners]) listener();
  };

  /** Whether it answers; the end of `ended` counts as an answer. */
  const isThere = async (sinceMs: number): Promise<boolean> => {
    try {
      await probe();
    } catch (error) {
      if (ended.signal.aborted) return true;
      begin(error, sinceMs);
      return false;
    }
    if (cause) log.info('Keystone is back', { awayMs: clock.nowMs() - sinceMs });
    cause = undefined;
    return true;
  };

  const untilBack = async (sinceMs: number): Promise<void> => {
    for (let pauseMs = PROBE_PAUSE_MIN_MS; ; pauseMs = Math.min(pauseMs * 2, PROBE_PAUSE_MAX_MS)) {
      // It rejects when the provider is closed.
      const isEnded = await clock.sleep(pauseMs, ended.signal).then(
        () => false,
        () => true,
      );
      if (isEnded || (await isThere(sinceMs))) return;
    }
  };

  const suspect = (): Promise<void> => {
    if (cause || ended.signal.aborted) return Promise.resolve();
    const sinceMs = clock.nowMs();
    verdict ??= isThere(sinceMs).then((isBack) => {
      verdict = undefined;
      if (!isBack) void untilBack(sinceMs);
    });
    return verdict;
  };

  return {
    get cause() {
      return cause;
    },
    suspect,
    gate:
      (ask) =>
      async (...args) => {
        if (cause) throw cause;
        try {
          return await ask(...args);
        } catch (error) {
          if (error instanceof IdentityUnavailableError) void suspect();
          throw error;
        }
      },
    onBegin(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: () => ended.abort(),
  };
}
