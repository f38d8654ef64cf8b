import type { HistoryEvent } from './history.ts';
import type { Resource } from './resource.ts';
import type { StoreLimits } from './store.ts';

/** How much of the largest history goes at once when all of them together are too large. */
const DROP_SHARE = 1 / 16;

/** Rows removed in one commit beyond twice those it writes: a step takes a few milliseconds. */
const STEP_ROW_COUNT = 512;

interface Garbage {
  resource: string;
  floor: number;
  /** The row to remove; undefined if only the floor rises. */
  row: number | undefined;
}

/** A part of the garbage, to be handed to the journal with the next commit. */
export interface CompactionStep {
  count: number;
  superseded: number[];
  floors: Map<string, number>;
}

/**
 * Decides what history to drop, and keeps account of rows that can therefore go from disk, which
 * they do in small steps along with the writes: no long transaction, no separate pass that could
 * fall behind for ever.
 */
export class Compaction {
  readonly #limits: StoreLimits;
  readonly #resources: ReadonlyMap<string, Resource>;
  readonly #isDurable: (event: HistoryEvent) => boolean;
  #garbage: Garbage[] = [];
  #bytes = 0;

  /** @param resources all there are, by their names; may grow */
  constructor(
    limits: StoreLimits,
    resources: ReadonlyMap<string, Resource>,
    isDurable: (event: HistoryEvent) => boolean,
  ) {
    this.#limits = limits;
    this.#resources = resources;
    this.#isDurable = isDurable;
  }

  /** Of all histories together. */
  get bytes(): number {
    return this.#bytes;
  }

  /** How many rows on disk are known to be garbage. */
  get pendingCount(): number {
    return this.#garbage.length;
  }

  append(resource: Resource, event: HistoryEvent): void {
    const { history } = resource;
    const before = history.bytes;
    history.append(event);
    this.#bytes += history.bytes - before;
    while (history.length > this.#limits.ringEventCount) this.#drop(resource);
    while (this.#bytes > this.#limits.historyBytes) {
      const largest = this.#largest();
      const count = Math.ceil(largest.history.length * DROP_SHARE);
      for (let index = 0; index < count; index += 1) this.#drop(largest);
    }
  }

  /** A row found on disk that nothing needs. */
  addGarbage(resource: string, row: number): void {
    this.#garbage.push({ resource, floor: 0, row });
  }

  /** Drops what is older than the limit. */
  expire(nowMs: number): void {
    for (const resource of this.#resources.values()) {
      const cutoffMs = nowMs - this.#limits.historyMs;
      while ((resource.history.oldest?.timeMs ?? Infinity) < cutoffMs) this.#drop(resource);
    }
  }

  /** What the next commit should remove. Asking again without `done` returns the same. */
  step(writeCount: number): CompactionStep {
    const garbage = this.#garbage.slice(0, STEP_ROW_COUNT + 2 * writeCount);
    const superseded: number[] = [];
    const floors = new Map<string, number>();
    for (const { resource, floor, row } of garbage) {
      if (row !== undefined) superseded.push(row);
      if (floor > 0) floors.set(resource, floor);
    }
    return { count: garbage.length, superseded, floors };
  }

  done(step: CompactionStep): void {
    this.#garbage = this.#garbage.slice(step.count);
  }

  #drop(resource: Resource): void {
    const { history } = resource;
    const before = history.bytes;
    const event = history.drop();
    if (!event) return;
    this.#bytes += history.bytes - before;
    resource.forget(event);
    if (!this.#isDurable(event)) return;
    const { resource: name } = event.entry.key;
    const floor = event.revision;
    this.#garbage.push({ resource: name, floor, row: event.previous?.revision });
    if (event.type === 'DELETED')
      this.#garbage.push({ resource: name, floor, row: event.revision });
  }

  #largest(): Resource {
    let largest: Resource | undefined;
    for (const resource of this.#resources.values()) {
      if (resource.history.bytes > (largest?.history.bytes ?? -1)) largest = resource;
    }
    return largest as Resource;
  }
}
