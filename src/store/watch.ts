import { SlowWatcherError } from './store.ts';
import type { StoreEvent, StoreWatch } from './store.ts';

const SLACK_COUNT = 1024;

/** Events fetched from the history at a time. */
const PAST_EVENT_COUNT = 500;

interface Reader {
  resolve(result: IteratorResult<StoreEvent>): void;
  reject(error: unknown): void;
}

/** A stretch of the past. */
export interface PastEvents {
  events: StoreEvent[];
  /** Everything up to here has been looked at. */
  revision: number;
  /** Nothing has happened since: from here on events are pushed. */
  complete: boolean;
}

export interface WatchStreamOptions {
  afterRevision: number;
  queueLength: number;
  currentRevision: () => number;
  /** At most `count` events after the revision; undefined when they are no longer kept. */
  past: (afterRevision: number, count: number) => PastEvents | undefined;
  /** Called once, when the stream takes no more events. */
  onEnd: () => void;
}

/**
 * The queue between the store and one reader. As long as the reader is in the past, events are
 * fetched from the history a few at a time, and nothing is queued for it: a watch from an old
 * revision costs no memory. Then they are pushed as they happen.
 */
export class WatchStream implements StoreWatch {
  readonly #options: WatchStreamOptions;
  #events: StoreEvent[] = [];
  #head = 0;
  /** How far a stream that is still in the past has come; undefined once it is in the present. */
  #pastRevision: number | undefined;
  #reader: Reader | undefined;
  #ended = false;
  #error: unknown;
  #finalRevision = 0;

  constructor(options: WatchStreamOptions) {
    this.#options = options;
    this.#pastRevision = options.afterRevision;
    this.#fetch();
  }

  get progressRevision(): number {
    const next = this.#events[this.#head];
    if (next) return next.revision - 1;
    if (this.#ended) return this.#finalRevision;
    return this.#pastRevision ?? this.#options.currentRevision();
  }

  push(event: StoreEvent): void {
    if (this.#ended || this.#pastRevision !== undefined) return;
    if (this.#reader) {
      const { resolve } = this.#reader;
      this.#reader = undefined;
      resolve({ value: event, done: false });
      return;
    }
    if (this.#events.length - this.#head >= this.#options.queueLength) this.#giveUp();
    else this.#events.push(event);
  }

  /** Ends the stream after what is queued has been read; with `error`, by throwing it. */
  end(error?: unknown): void {
    if (this.#ended) return;
    this.#finalRevision = this.#pastRevision ?? this.#options.currentRevision();
    this.#pastRevision = undefined;
    this.#ended = true;
    this.#error = error;
    this.#options.onEnd();
    const reader = this.#reader;
    this.#reader = undefined;
    if (!reader) return;
    if (error === undefined) reader.resolve({ value: undefined, done: true });
    else reader.reject(error);
  }

  /** Ends the stream at once; what is queued is not delivered. */
  cancel(): void {
    this.#discard(undefined);
  }

  [Symbol.asyncIterator](): AsyncIterator<StoreEvent> {
    return {
      next: () => this.#next(),
      return: () => {
        this.cancel();
        return Promise.resolve({ value: undefined, done: true as const });
      },
    };
  }

  #next(): Promise<IteratorResult<StoreEvent>> {
    if (this.#head === this.#events.length) this.#fetch();
    const event = this.#events[this.#head];
    if (event) {
      this.#events[this.#head] = undefined as unknown as StoreEvent;
      this.#head += 1;
      if (this.#head > SLACK_COUNT && this.#head * 2 > this.#events.length) {
        this.#events = this.#events.slice(this.#head);
        this.#head = 0;
      }
      return Promise.resolve({ value: event, done: false });
    }
    if (this.#ended) {
      if (this.#error !== undefined) return Promise.reject(this.#error);
      return Promise.resolve({ value: undefined, done: true });
    }
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
    });
  }

  /** Takes the next stretch of the past, if the stream is still there. */
  #fetch(): void {
    if (this.#pastRevision === undefined) return;
    const count = Math.min(PAST_EVENT_COUNT, this.#options.queueLength);
    const past = this.#options.past(this.#pastRevision, count);
    if (!past) {
      this.#giveUp();
      return;
    }
    this.#events = past.events;
    this.#head = 0;
    this.#pastRevision = past.complete ? undefined : past.revision;
  }

  #giveUp(): void {
    this.#discard(new SlowWatcherError(this.#options.queueLength));
  }

  /** Ends the stream without delivering what is queued. */
  #discard(error: unknown): void {
    const progress = this.progressRevision;
    this.#events = [];
    this.#head = 0;
    this.end(error);
    this.#finalRevision = progress;
  }
}

/** Which entries of a resource a reader is after; what is not given is not asked. */
export interface Scope {
  partition?: string | undefined;
  namespace?: string | undefined;
}

/** The watchers of one resource, found by the partition and the namespace of an event. */
export class WatcherIndex {
  /** By partition, then namespace; undefined stands for those who did not ask. */
  readonly #streams = new Map<string | undefined, Map<string | undefined, Set<WatchStream>>>();

  add(stream: WatchStream, { partition, namespace }: Scope): void {
    let byNamespace = this.#streams.get(partition);
    if (!byNamespace) this.#streams.set(partition, (byNamespace = new Map()));
    const streams = byNamespace.get(namespace);
    if (streams) streams.add(stream);
    else byNamespace.set(namespace, new Set([stream]));
  }

  remove(stream: WatchStream, { partition, namespace }: Scope): void {
    const byNamespace = this.#streams.get(partition);
    const streams = byNamespace?.get(namespace);
    streams?.delete(stream);
    if (streams?.size === 0) byNamespace?.delete(namespace);
    if (byNamespace?.size === 0) this.#streams.delete(partition);
  }

  publish(event: StoreEvent): void {
    const { partition, key } = event.entry;
    for (const byNamespace of [this.#streams.get(undefined), this.#streams.get(partition)]) {
      if (!byNamespace) continue;
      for (const stream of byNamespace.get(undefined) ?? []) stream.push(event);
      for (const stream of byNamespace.get(key.namespace) ?? []) stream.push(event);
    }
  }

  /** Every stream, as a list that stays valid while streams end. */
  all(): WatchStream[] {
    return [...this.#streams.values()].flatMap((byNamespace) =>
      [...byNamespace.values()].flatMap((streams) => [...streams]),
    );
  }
}
