import type { StoredEntry } from './entry.ts';
import type { StoreEvent } from './store.ts';

/** What an event costs beside the bytes it keeps alive: the records and buffers round them. */
const EVENT_OVERHEAD_BYTES = 512;

/** How many dropped slots are kept before the array is moved together. */
const SLACK_COUNT = 1024;

export interface HistoryEvent extends StoreEvent {
  readonly entry: StoredEntry;
  readonly previous: StoredEntry | undefined;
  readonly timeMs: number;
}

/**
 * The latest events of one resource, in order of revision. Every event knows the state before it,
 * so the history is at once the source of resumed watches and the undo log that turns the present
 * into the state at an older revision.
 */
export class History {
  #events: HistoryEvent[] = [];
  #head = 0;
  #parsedFrom = 0;
  #bytes = 0;
  #floor: number;

  /** @param floor the revision from which on events are complete */
  constructor(floor: number) {
    this.#floor = floor;
  }

  /** Events after this revision, and no others, are all here. */
  get floor(): number {
    return this.#floor;
  }

  get length(): number {
    return this.#events.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get oldest(): HistoryEvent | undefined {
    return this.#events[this.#head];
  }

  append(event: HistoryEvent): void {
    this.#events.push(event);
    this.#bytes += eventBytes(event);
  }

  /** Drops and returns the oldest event; the floor rises to its revision. */
  drop(): HistoryEvent | undefined {
    const event = this.#events[this.#head];
    if (!event) return undefined;
    this.#events[this.#head] = undefined as unknown as HistoryEvent;
    this.#head += 1;
    this.#bytes -= eventBytes(event);
    this.#floor = event.revision;
    if (this.#head > SLACK_COUNT && this.#head * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#parsedFrom = Math.max(0, this.#parsedFrom - this.#head);
      this.#head = 0;
    }
    return event;
  }

  /** The events after `revision`, oldest first. */
  after(revision: number): HistoryEvent[] {
    return this.#events.slice(this.#indexAfter(revision));
  }

  /** The revision of the last event up to `revision`, which gave the state at that revision. */
  lastUpTo(revision: number): number {
    const index = this.#indexAfter(revision) - 1;
    return index < this.#head ? this.#floor : (this.#events[index] as HistoryEvent).revision;
  }

  #indexAfter(revision: number): number {
    let low = this.#head;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#events[middle] as HistoryEvent).revision <= revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Frees the parsed form of states superseded before `timeMs`; it comes back if needed. */
  forgetObjectsBefore(timeMs: number): void {
    let index = Math.max(this.#parsedFrom, this.#head);
    for (; index < this.#events.length; index += 1) {
      const event = this.#events[index] as HistoryEvent;
      if (event.timeMs >= timeMs) break;
      event.previous?.forgetObject();
      if (event.type === 'DELETED') event.entry.forgetObject();
    }
    this.#parsedFrom = index;
  }
}

/** What would be freed if the event were forgotten. */
function eventBytes(event: HistoryEvent): number {
  const last = event.type === 'DELETED' ? event.entry.bytes.length : 0;
  return EVENT_OVERHEAD_BYTES + last + (event.previous?.bytes.length ?? 0);
}
