import { SlowWatcherError } from './store.ts';
import type { StoreEvent, StoreWatch } from './store.ts';

const SLACK_COUNT = 1024;

interface Reader {
  resolve(result: IteratorResult<StoreEvent>): void;
  reject(error: unknown): void;
}

export interface WatchStreamOptions {
  /** Events that happened before the watch began. They do not count against the limit. */
  replay: StoreEvent[];
  queueLength: number;
  currentRevision: () => number;
  /** Called once, when the stream takes no more events. */
  onEnd: () => void;
}

/** The queue between the store and one reader. */
export class WatchStream implements StoreWatch {
  readonly #currentRevision: () => number;
  readonly #onEnd: () => void;
  readonly #queueLength: number;
  #replayLeft: number;
  #events: StoreEvent[];
  #head = 0;
  #reader: Reader | undefined;
  #ended = false;
  #error: unknown;
  #finalRevision = 0;

  constructor(options: WatchStreamOptions) {
    this.#currentRevision = options.currentRevision;
    this.#onEnd = options.onEnd;
    this.#queueLength = options.queueLength;
    this.#events = options.replay;
    this.#replayLeft = options.replay.length;
  }

  get progressRevision(): number {
    const next = this.#events[this.#head];
    if (next) return next.revision - 1;
    return this.#ended ? this.#finalRevision : this.#currentRevision();
  }

  push(event: StoreEvent): void {
    if (this.#ended) return;
    if (this.#reader) {
      const { resolve } = this.#reader;
      this.#reader = undefined;
      resolve({ value: event, done: false });
      return;
    }
    if (this.#events.length - this.#head - this.#replayLeft >= this.#queueLength) {
      const progress = this.progressRevision;
      this.#discard();
      this.end(new SlowWatcherError(this.#queueLength));
      this.#finalRevision = progress;
      return;
    }
    this.#events.push(event);
  }

  /** Ends the stream after what is queued has been read; with `error`, by throwing it. */
  end(error?: unknown): void {
    if (this.#ended) return;
    this.#finalRevision = this.#currentRevision();
    this.#ended = true;
    this.#error = error;
    this.#onEnd();
    const reader = this.#reader;
    this.#reader = undefined;
    if (!reader) return;
    if (error === undefined) reader.resolve({ value: undefined, done: true });
    else reader.reject(error);
  }

  /** Ends the stream at once; what is queued is not delivered. */
  cancel(): void {
    const progress = this.progressRevision;
    this.#discard();
    this.end();
    this.#finalRevision = progress;
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
    const event = this.#events[this.#head];
    if (event) {
      this.#events[this.#head] = undefined as unknown as StoreEvent;
      this.#head += 1;
      if (this.#replayLeft > 0) this.#replayLeft -= 1;
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

  #discard(): void {
    this.#events = [];
    this.#head = 0;
    this.#replayLeft = 0;
  }
}

/** The watchers of one resource, found by the namespace of an event. */
export class WatcherIndex {
  readonly #everywhere = new Set<WatchStream>();
  readonly #byNamespace = new Map<string, Set<WatchStream>>();

  add(stream: WatchStream, namespace: string | undefined): void {
    if (namespace === undefined) {
      this.#everywhere.add(stream);
      return;
    }
    const streams = this.#byNamespace.get(namespace);
    if (streams) streams.add(stream);
    else this.#byNamespace.set(namespace, new Set([stream]));
  }

  remove(stream: WatchStream, namespace: string | undefined): void {
    if (namespace === undefined) {
      this.#everywhere.delete(stream);
      return;
    }
    const streams = this.#byNamespace.get(namespace);
    streams?.delete(stream);
    if (streams?.size === 0) this.#byNamespace.delete(namespace);
  }

  publish(event: StoreEvent): void {
    for (const stream of this.#everywhere) stream.push(event);
    const streams = this.#byNamespace.get(event.entry.key.namespace);
    if (streams) for (const stream of streams) stream.push(event);
  }

  /** Every stream, as a list that stays valid while streams end. */
  all(): WatchStream[] {
    return [...this.#everywhere, ...[...this.#byNamespace.values()].flatMap((set) => [...set])];
  }
}
