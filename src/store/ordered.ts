/** More keys than this and a chunk is split in two; an insertion moves at most so many. */
const CHUNK_KEY_COUNT_MAX = 512;

interface Chunk<V> {
  keys: string[];
  values: V[];
  /** The only map that may change this chunk; others copy it first. */
  owner: symbol;
}

/**
 * A map ordered by key (UTF-16 code units), kept as a list of short sorted arrays. Finding is two
 * binary searches, inserting moves a part of one short array, and the rank of a key is a sum over
 * the chunks: what lists need, at the cost of two arrays per few hundred entries. A copy shares
 * every chunk with its original until one of them changes it.
 */
export class OrderedMap<V> {
  #chunks: Chunk<V>[] = [];
  #size = 0;
  #owner = Symbol('owner');

  get size(): number {
    return this.#size;
  }

  /** The map as it is now, at the cost of one pointer per few hundred entries. */
  copy(): OrderedMap<V> {
    const copy = new OrderedMap<V>();
    copy.#chunks = [...this.#chunks];
    copy.#size = this.#size;
    this.#owner = Symbol('owner');
    return copy;
  }

  get(key: string): V | undefined {
    const chunk = this.#chunks[this.#chunkIndex(key)];
    if (!chunk) return undefined;
    const index = lowerBound(chunk.keys, key);
    return chunk.keys[index] === key ? chunk.values[index] : undefined;
  }

  /** @returns the value that was there before */
  set(key: string, value: V): V | undefined {
    // A key beyond the last one belongs at the end of the last chunk.
    const chunkIndex = Math.min(this.#chunkIndex(key), this.#chunks.length - 1);
    if (chunkIndex < 0) {
      this.#chunks.push({ keys: [key], values: [value], owner: this.#owner });
      this.#size += 1;
      return undefined;
    }
    const chunk = this.#own(chunkIndex);
    const index = lowerBound(chunk.keys, key);
    if (chunk.keys[index] === key) {
      const before = chunk.values[index];
      chunk.values[index] = value;
      return before;
    }
    chunk.keys.splice(index, 0, key);
    chunk.values.splice(index, 0, value);
    this.#size += 1;
    if (chunk.keys.length > CHUNK_KEY_COUNT_MAX) this.#split(chunkIndex, chunk);
    return undefined;
  }

  /** @returns the value that was there before */
  delete(key: string): V | undefined {
    const chunkIndex = this.#chunkIndex(key);
    if (chunkIndex === this.#chunks.length) return undefined;
    const index = lowerBound((this.#chunks[chunkIndex] as Chunk<V>).keys, key);
    if (this.#chunks[chunkIndex]?.keys[index] !== key) return undefined;
    const chunk = this.#own(chunkIndex);
    const [before] = chunk.values.splice(index, 1);
    chunk.keys.splice(index, 1);
    this.#size -= 1;
    if (chunk.keys.length === 0) this.#chunks.splice(chunkIndex, 1);
    return before;
  }

  /** How many keys are smaller than `key`. */
  rank(key: string): number {
    const chunkIndex = this.#chunkIndex(key);
    let count = 0;
    for (let index = 0; index < chunkIndex; index += 1) {
      count += (this.#chunks[index] as Chunk<V>).keys.length;
    }
    const chunk = this.#chunks[chunkIndex];
    return chunk ? count + lowerBound(chunk.keys, key) : count;
  }

  /** Entries with `from` <= key (< `to`), in order. The map must not change meanwhile. */
  *range(from: string, to?: string): Generator<[string, V]> {
    let chunkIndex = this.#chunkIndex(from);
    let index = lowerBound(this.#chunks[chunkIndex]?.keys ?? [], from);
    for (; chunkIndex < this.#chunks.length; chunkIndex += 1, index = 0) {
      const { keys, values } = this.#chunks[chunkIndex] as Chunk<V>;
      for (; index < keys.length; index += 1) {
        const key = keys[index] as string;
        if (to !== undefined && key >= to) return;
        yield [key, values[index] as V];
      }
    }
  }

  /** The first chunk whose last key is not below `key`; the number of chunks if there is none. */
  #chunkIndex(key: string): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { keys } = this.#chunks[middle] as Chunk<V>;
      if ((keys[keys.length - 1] as string) < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The chunk, as one that only this map refers to. */
  #own(chunkIndex: number): Chunk<V> {
    const chunk = this.#chunks[chunkIndex] as Chunk<V>;
    if (chunk.owner === this.#owner) return chunk;
    const own = { keys: [...chunk.keys], values: [...chunk.values], owner: this.#owner };
    this.#chunks[chunkIndex] = own;
    return own;
  }

  #split(chunkIndex: number, chunk: Chunk<V>): void {
    // Names often come in growing order: a full last chunk is left nearly full behind them.
    const last = chunkIndex === this.#chunks.length - 1;
    const at = last ? CHUNK_KEY_COUNT_MAX - 32 : chunk.keys.length >>> 1;
    const [keys, values] = [chunk.keys.splice(at), chunk.values.splice(at)];
    this.#chunks.splice(chunkIndex + 1, 0, { keys, values, owner: this.#owner });
  }
}

/** The index of the first key that is not below `key`. */
function lowerBound(keys: string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
