import type { StoredEntry } from './entry.ts';
import type { StoreEvent } from './store.ts';
import type { PastEvents } from './watch.ts';

/** What an event costs beside the bytes it keeps alive: the records and buffers round them. */
const EVENT_OVERHEAD_BYTES = 512;

/** Superseded states of so many latest events stay parsed; watches look at them right away. */
const PARSED_EVENT_COUNT = 256;

/** How many dropped slots are kept before the array is moved together. */
const SLACK_COUNT = 32;

export interface HistoryEvent extends StoreEvent {
  readonly entry: StoredEntry;
  readonly previous: StoredEntry | undefined;
  readonly timeMs: number;
}

/**
 * The latest events of one resource, or of one partition of it, in order of revision. Every event
 * knows the state before it, so the log is at once the source of resumed watches and the undo log
 * that turns the present into the state at an older revision.
 */
export class EventLog {
  #events: HistoryEvent[] = [];
  #head = 0;
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

  get oldest(): HistoryEvent | undefined {
    return this.#events[this.#head];
  }

  append(event: HistoryEvent): void {
    this.#events.push(event);
  }

  /** Drops and returns the oldest event; the floor rises to its revision. */
  drop(): HistoryEvent | undefined {
    const event = this.#events[this.#head];
    if (!event) return undefined;
    this.#events[this.#head] = undefined as unknown as HistoryEvent;
    this.#head += 1;
    this.#floor = event.revision;
    const empty = this.#head === this.#events.length;
    if (empty || (this.#head > SLACK_COUNT && this.#head * 2 > this.#events.length)) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    return event;
  }

  /** The event so many places before the newest one, which is at 0. */
  fromEnd(offset: number): HistoryEvent | undefined {
    return this.#events[this.#events.length - 1 - offset];
  }

  /** The events after `revision`, oldest first. */
  after(revision: number): HistoryEvent[] {
    return this.#events.slice(this.#indexAfter(revision));
  }

  /** At most `count` events after `revision` that match; undefined if some may be missing. */
  page(
    revision: number,
    count: number,
    matches: (event: HistoryEvent) => boolean,
  ): PastEvents | undefined {
    if (revision < this.#floor) return undefined;
    const events: HistoryEvent[] = [];
    for (let index = this.#indexAfter(revision); index < this.#events.length; index += 1) {
      const event = this.#events[index] as HistoryEvent;
      if (!matches(event)) continue;
      events.push(event);
      if (events.length === count) return { events, revision: event.revision, complete: false };
    }
    return { events, revision: this.lastUpTo(Infinity), complete: true };
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
}

/** The log of a whole resource, which keeps account of the memory that its events cost. */
export class History extends EventLog {
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  override append(event: HistoryEvent): void {
    super.append(event);
    this.#bytes += eventBytes(event);
    const old = this.fromEnd(PARSED_EVENT_COUNT);
    old?.previous?.loosen();
    if (old?.type === 'DELETED') old.entry.loosen();
  }

  override drop(): HistoryEvent | undefined {
    const event = super.drop();
    if (event) this.#bytes -= eventBytes(event);
    return event;
  }
}

/** What would be freed if the event were forgotten. */
function eventBytes(event: HistoryEvent): number {
  const last = event.type === 'DELETED' ? event.entry.bytes.length : 0;
  return EVENT_OVERHEAD_BYTES + last + (event.previous?.bytes.length ?? 0);
}
