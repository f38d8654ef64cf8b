/**
 * A slot that keeps the newest value only, read as an async iterable by one consumer. For
 * signals of which only the last matters (terminal sizes), so that a slow reader costs nothing.
 */
export class LatestValue<T> implements AsyncIterable<T> {
  #value: { item: T } | undefined;
  #wake: (() => void) | undefined;
  #closed = false;

  set(item: T): void {
    if (this.#closed) return;
    this.#value = { item };
    this.#wake?.();
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const next = this.#value;
      this.#value = undefined;
      if (next) yield next.item;
      else if (this.#closed) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}
