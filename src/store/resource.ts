import { assert } from '../base/assert.ts';
import { idRange } from './entry.ts';
import type { StoredEntry } from './entry.ts';
import { EventLog, History } from './history.ts';
import type { HistoryEvent } from './history.ts';
import { OrderedMap } from './ordered.ts';
import { Snapshots } from './snapshots.ts';
import type { Page } from './snapshots.ts';
import type { ListOptions } from './store.ts';
import { WatcherIndex } from './watch.ts';
import type { PastEvents, Scope } from './watch.ts';

/** The present and the latest past of a resource, or of what one partition has of it. */
interface Slice {
  entries: OrderedMap<StoredEntry>;
  log: EventLog;
  snapshots: Snapshots;
}

/**
 * Everything in memory about one resource. What belongs to a partition is found a second time
 * under that partition, so that its owner's lists and watches cost what it has and not what
 * everybody has. The partition '' has no such index: it is read by whoever reads everything.
 */
export class Resource {
  readonly history: History;
  readonly watchers = new WatcherIndex();
  readonly #all: Slice;
  readonly #partitions = new Map<string, Slice>();

  /** @param floor the revision from which on the history is complete */
  constructor(floor: number) {
    this.history = new History(floor);
    this.#all = sliceOf(this.history);
  }

  get(id: string): StoredEntry | undefined {
    return this.#all.entries.get(id);
  }

  /** Every entry, in order. */
  *entries(): Generator<StoredEntry> {
    for (const [, entry] of this.#all.entries.range('')) yield entry;
  }

  /** Takes a version whose partition may not be decided yet; `index` is called after the last. */
  load(id: string, entry: StoredEntry, deleted: boolean): void {
    put(this.#all, id, entry, deleted);
  }

  /** Finds partitions what was loaded for them. */
  index(): void {
    for (const [id, entry] of this.#all.entries.range('')) {
      if (entry.partition) put(this.#slice(entry.partition), id, entry, false);
    }
    for (const event of this.history.after(0)) {
      if (event.entry.partition) this.#slice(event.entry.partition).log.append(event);
    }
  }

  /** Brings the present up to the event; the caller then appends it to `history`. */
  apply(id: string, event: HistoryEvent): void {
    const { entry, type } = event;
    const { partition } = entry;
    put(this.#all, id, entry, type === 'DELETED');
    if (!partition) return;
    const slice = this.#slice(partition);
    put(slice, id, entry, type === 'DELETED');
    slice.log.append(event);
  }

  /** To be called with each event that `history` has dropped. */
  forget(event: HistoryEvent): void {
    // While loading, partitions are not decided yet, and nothing is indexed.
    const partition = event.entry.hasPartition ? event.entry.partition : '';
    const slice = this.#partitions.get(partition);
    if (!slice) return;
    assert(slice.log.drop() === event, 'a partition forgets in the order of its resource');
    slice.snapshots.trim();
    if (slice.log.length === 0 && slice.entries.size === 0) this.#partitions.delete(partition);
  }

  /** Drops what nobody may ask for any more. */
  trim(): void {
    this.#all.snapshots.trim();
  }

  /** A page of the state at a revision that the history covers. */
  list(revision: number, options: ListOptions): Page {
    const { partition, namespace, after, limit = Infinity } = options;
    const { from, to } = idRange(namespace, after);
    if (!partition) {
      const { snapshots } = this.#all;
      if (partition === undefined) return snapshots.page(revision, from, to, limit);
      const { entries: found } = snapshots.page(revision, from, to);
      const own = found.filter((entry) => entry.partition === partition);
      const entries = own.slice(0, limit);
      return { entries, remainingCount: own.length - entries.length };
    }
    // Without entries and events it was empty all along.
    const slice = this.#partitions.get(partition);
    return slice?.snapshots.page(revision, from, to, limit) ?? { entries: [], remainingCount: 0 };
  }

  /** At most `count` events of the scope after `revision`; undefined if some may be missing. */
  past(scope: Scope, revision: number, count: number): PastEvents | undefined {
    const { partition, namespace } = scope;
    const inNamespace = ({ entry }: HistoryEvent) =>
      namespace === undefined || entry.key.namespace === namespace;
    if (partition === undefined) return this.history.page(revision, count, inNamespace);
    const slice = this.#partitions.get(partition);
    if (slice) return slice.log.page(revision, count, inNamespace);
    const matches = (event: HistoryEvent) =>
      event.entry.partition === partition && inNamespace(event);
    if (partition === '') return this.history.page(revision, count, matches);
    if (revision < this.history.floor) return undefined;
    return { events: [], revision, complete: true };
  }

  #slice(partition: string): Slice {
    const found = this.#partitions.get(partition);
    if (found) return found;
    const made = sliceOf(new EventLog(this.history.floor));
    this.#partitions.set(partition, made);
    return made;
  }
}

function sliceOf(log: EventLog): Slice {
  const entries = new OrderedMap<StoredEntry>();
  return { entries, log, snapshots: new Snapshots(entries, log) };
}

function put(slice: Slice, id: string, entry: StoredEntry, deleted: boolean): void {
  if (deleted) slice.entries.delete(id);
  else slice.entries.set(id, entry);
}
