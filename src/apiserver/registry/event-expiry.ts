import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import type { KubeObject } from '../../api/object.ts';
import { DELETE } from '../../store/store.ts';
import type { Entry, Store } from '../../store/store.ts';
import type { ApiServerLimits } from '../limits.ts';

const EVENTS = 'events';
const SWEEP_INTERVAL_MS = 30_000;
/** Removed at the same time; other writes get their turn between two of these. */
const BATCH_COUNT = 500;

type EventLimits = Pick<
  ApiServerLimits,
  'eventLifetimeMs' | 'eventsPerNamespace' | 'eventBytesPerNamespace'
>;

/**
 * Removes events some time after they were last seen, and the oldest ones of a namespace that has
 * too many, until the signal aborts. Nobody else does: events have no owner, they lie in memory,
 * and whoever may write them may write any number.
 */
export async function expireEvents(options: {
  store: Store;
  limits: EventLimits;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
}): Promise<void> {
  const { store, limits, clock, log, signal } = options;
  while (!signal.aborted) {
    try {
      await clock.sleep(SWEEP_INTERVAL_MS, signal);
      const doomed = findDoomed(store.list(EVENTS).entries, limits, clock.nowMs());
      while (doomed.length > 0 && !signal.aborted) {
        await Promise.all(doomed.splice(0, BATCH_COUNT).map((entry) => remove(store, entry)));
      }
    } catch (error) {
      if (signal.aborted) return;
      log.warn('Cannot remove old events', { error: describeError(error) });
    }
  }
}

function findDoomed(entries: readonly Entry[], limits: EventLimits, nowMs: number): Entry[] {
  const doomed: Entry[] = [];
  const kept = new Map<string, { count: number; bytes: number }>();
  const newestFirst = [...entries].sort((a, b) => b.revision - a.revision);
  for (const entry of newestFirst) {
    const { namespace } = entry.key;
    const { count, bytes } = kept.get(namespace) ?? { count: 0, bytes: 0 };
    const next = { count: count + 1, bytes: bytes + entry.bytes.length };
    const isTooMuch =
      next.count > limits.eventsPerNamespace || next.bytes > limits.eventBytesPerNamespace;
    const isOld = nowMs - lastSeenMs(entry.object, nowMs) > limits.eventLifetimeMs;
    if (isTooMuch || isOld) doomed.push(entry);
    else kept.set(namespace, next);
  }
  return doomed;
}

/** All but the creation is told by the event's maker, who might say that it is yet to come. */
function lastSeenMs(event: KubeObject, nowMs: number): number {
  const { lastTimestamp, eventTime, series } = event as {
    lastTimestamp?: string;
    eventTime?: string;
    series?: { lastObservedTime?: string };
  };
  const told = [lastTimestamp, eventTime, series?.lastObservedTime];
  const times = [event.metadata.creationTimestamp, ...told].map((text) => Date.parse(text ?? ''));
  return Math.max(0, ...times.filter((ms) => ms <= nowMs));
}

/** One that was seen again meanwhile stays. */
async function remove(store: Store, { key, revision }: Entry): Promise<void> {
  await store.mutate(key, (current) => (current?.revision === revision ? DELETE : undefined));
}
