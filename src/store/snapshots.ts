import { entryId } from './entry.ts';
import type { StoredEntry } from './entry.ts';
import type { EventLog } from './history.ts';
import type { OrderedMap } from './ordered.ts';
import type { Entry } from './store.ts';

/** So many clients can page through one resource without anything being worked out twice. */
const SNAPSHOT_COUNT_MAX = 8;

export interface Page {
  entries: Entry[];
  remainingCount: number;
}

/**
 * One resource, or one partition of it, as it was at older revisions. A snapshot is a copy of the
 * map that shares all that has not changed since; it is kept when a list is cut into pages, and
 * otherwise made from a newer one by undoing the events between.
 */
export class Snapshots {
  readonly #present: OrderedMap<StoredEntry>;
  readonly #log: EventLog;
  /**
   * By the revision of the last event in it; the least recently used one first. Made when it is
   * needed: most partitions are never asked for their past.
   */
  #kept: Map<number, OrderedMap<StoredEntry>> | undefined;

  constructor(present: OrderedMap<StoredEntry>, log: EventLog) {
    this.#present = present;
    this.#log = log;
  }

  /**
   * A page of the resource at a revision that the log covers.
   *
   * @param from inclusive
   * @param to exclusive; undefined is the end
   */
  page(revision: number, from: string, to: string | undefined, limit = Infinity): Page {
    const last = this.#log.lastUpTo(revision);
    const map = this.#at(last);
    const entries: Entry[] = [];
    for (const [, entry] of map.range(from, to)) {
      if (entries.length >= limit) break;
      entries.push(entry);
    }
    const end = to === undefined ? map.size : map.rank(to);
    const remainingCount = end - map.rank(from) - entries.length;
    // The client will come back for the rest, after more has been written.
    if (remainingCount > 0 && map === this.#present) this.#keep(last, map.copy());
    return { entries, remainingCount };
  }

  /** Drops snapshots that nobody may ask for any more, and those above the limit. */
  trim(): void {
    if (!this.#kept) return;
    for (const revision of this.#kept.keys()) {
      const gone = revision < this.#log.floor;
      if (gone || this.#kept.size > SNAPSHOT_COUNT_MAX) this.#kept.delete(revision);
    }
    if (this.#kept.size === 0) this.#kept = undefined;
  }

  #at(last: number): OrderedMap<StoredEntry> {
    if (last === this.#log.lastUpTo(Infinity)) return this.#present;
    const kept = this.#kept?.get(last);
    if (kept) {
      this.#keep(last, kept);
      return kept;
    }
    const newer = [...(this.#kept?.keys() ?? [])].filter((revision) => revision > last);
    const start = Math.min(...newer);
    const map = (this.#kept?.get(start) ?? this.#present).copy();
    for (const { revision, entry, previous } of this.#log.after(last).reverse()) {
      if (revision > start) continue;
      const id = entryId(entry.key.namespace, entry.key.name);
      if (previous) map.set(id, previous);
      else map.delete(id);
    }
    this.#keep(last, map);
    return map;
  }

  #keep(last: number, map: OrderedMap<StoredEntry>): void {
    this.#kept ??= new Map();
    this.#kept.delete(last);
    this.#kept.set(last, map);
    this.trim();
  }
}
