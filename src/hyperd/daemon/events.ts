import { StatusError } from '../../api/status.ts';
import type { HyperdEvent } from '../../api/hyperd.ts';
import { BoundedQueue } from '../../base/queue.ts';

/** Tells clients that something changed. What it is now, they ask. */
export interface EventHub {
  emit(event: Omit<HyperdEvent, 'sequence'>): void;
  /** Events after `after`, or from now on. @throws StatusError Gone when they are not kept. */
  subscribe(after: number | undefined, signal: AbortSignal): AsyncIterable<HyperdEvent>;
}

/** Kept for a client that comes back. */
const KEPT_EVENTS_MAX = 4096;
/** A reader that is further behind is let go; it lists again. */
const SUBSCRIBER_QUEUE_MAX = 4096;

export function createEventHub(): EventHub {
  let sequence = 0;
  let kept: HyperdEvent[] = [];
  const subscribers = new Set<BoundedQueue<HyperdEvent>>();
  return {
    emit(partial) {
      sequence += 1;
      const event = { sequence, ...partial };
      kept.push(event);
      if (kept.length > 2 * KEPT_EVENTS_MAX) kept = kept.slice(-KEPT_EVENTS_MAX);
      for (const queue of subscribers) {
        if (!queue.push(event)) queue.close(new StatusError('Expired', 'Event reader is too slow'));
        if (queue.closed) subscribers.delete(queue);
      }
    },
    subscribe(after, signal) {
      const oldest = kept[0]?.sequence ?? sequence + 1;
      if (after !== undefined && (after < oldest - 1 || after > sequence)) {
        throw new StatusError('Expired', `Events after ${after} are not kept: list again`);
      }
      const queue = new BoundedQueue<HyperdEvent>(SUBSCRIBER_QUEUE_MAX + kept.length);
      if (after !== undefined) {
        for (const event of kept) if (event.sequence > after) queue.push(event);
      }
      subscribers.add(queue);
      const stop = () => {
        subscribers.delete(queue);
        queue.close();
      };
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop, { once: true });
      return queue;
    },
  };
}
