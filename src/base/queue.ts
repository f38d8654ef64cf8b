/**
 * A bounded queue between one producer and one consumer, read as an async iterable. When it is
 * full, `push` returns false and the producer has to decide (drop the consumer, or wait for
 * `drained`): a queue that grows with a slow peer is memory given to that peer.
 */
export class BoundedQueue<T> implements AsyncIterable<T> {
  readonly #limit: number;
  #items: T[] = [];
  #head = 0;
  #waiting: ((result: IteratorResult<T>) => void) | undefined;
  #failWaiting: ((error: unknown) => void) | undefined;
  #drained: (() => void)[] = [];
  #closed = false;
  #error: unknown;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** False when the item did not fit or the queue is closed; the item is then not queued. */
  push(item: T): boolean {
    if (this.#closed) return false;
    if (this.#waiting) {
      const resolve = this.#waiting;
      this.#waiting = this.#failWaiting = undefined;
      resolve({ value: item, done: false });
      return true;
    }
    if (this.length >= this.#limit) return false;
    this.#items.push(item);
    return true;
  }

  /** Resolves when there is room again, or the queue is closed. */
  drained(): Promise<void> {
    if (this.#closed || this.length < this.#limit) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  /** Ends the stream after what is queued has been read; with `error`, by throwing it. */
  close(error?: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    if (this.#waiting) {
      if (error === undefined) this.#waiting({ value: undefined, done: true });
      else this.#failWaiting?.(error);
      this.#waiting = this.#failWaiting = undefined;
    }
    this.#wakeProducers();
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    return {
      next: () => this.#next(),
      return: () => {
        this.close();
        this.#items = [];
        this.#head = 0;
        return Promise.resolve({ value: undefined, done: true as const });
      },
    };
  }

  #next(): Promise<IteratorResult<T>> {
    if (this.#head < this.#items.length) {
      const value = this.#items[this.#head] as T;
      this.#items[this.#head] = undefined as T;
      this.#head += 1;
      if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
        this.#items = this.#items.slice(this.#head);
        this.#head = 0;
      }
      this.#wakeProducers();
      return Promise.resolve({ value, done: false });
    }
    if (this.#closed) {
      if (this.#error !== undefined) return Promise.reject(this.#error);
      return Promise.resolve({ value: undefined, done: true });
    }
    return new Promise((resolve, reject) => {
      this.#waiting = resolve;
      this.#failWaiting = reject;
    });
  }

  #wakeProducers(): void {
    const waiting = this.#drained;
    this.#drained = [];
    for (const resolve of waiting) resolve();
  }
}
