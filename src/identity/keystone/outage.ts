import { IdentityUnavailableError } from '../../api/identity.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';

/**
 * Whether Keystone is away. One failed question does not say so, since it may be the question:
 * a second one of our own decides. While it is away it is asked by nobody but the probe here, and
 * so everybody else is answered at once.
 */
export interface Outage {
  /** Why Keystone is away, or undefined when it is there. */
  readonly cause: IdentityUnavailableError | undefined;
  /** A question failed. */
  suspect(): void;
  /** Calls back when it is found to be away. Returns how to unsubscribe. */
  onBegin(begin: () => void): () => void;
  close(): void;
}

const PROBE_TIMEOUT_MS = 2_000;
const PROBE_PAUSE_MIN_MS = 250;
const PROBE_PAUSE_MAX_MS = 2_000;

export function createOutage(options: {
  probe: (timeoutMs: number) => Promise<void>;
  clock: Clock;
  log: Log;
}): Outage {
  const { probe, clock, log } = options;
  const ended = new AbortController();
  const listeners = new Set<() => void>();
  let cause: IdentityUnavailableError | undefined;
  let isProbing = false;

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

  const watch = async (): Promise<void> => {
    const sinceMs = clock.nowMs();
    let pauseMs = PROBE_PAUSE_MIN_MS;
    while (!ended.signal.aborted) {
      try {
        await probe(PROBE_TIMEOUT_MS);
        if (cause) log.info('Keystone is back', { awayMs: clock.nowMs() - sinceMs });
        cause = undefined;
        return;
      } catch (error) {
        begin(error, sinceMs);
      }
      await clock.sleep(pauseMs, ended.signal);
      pauseMs = Math.min(pauseMs * 2, PROBE_PAUSE_MAX_MS);
    }
  };

  return {
    get cause() {
      return cause;
    },
    suspect() {
      if (isProbing || ended.signal.aborted) return;
      isProbing = true;
      watch()
        .catch((error: unknown) => {
          // Its sleep ends so when the provider is closed; nothing else can fail.
          if (!ended.signal.aborted) throw error;
        })
        .finally(() => (isProbing = false));
    },
    onBegin(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: () => ended.abort(new Error('the identity provider is closed')),
  };
}
