import { assert } from '../../base/assert.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import { DELETE, StoreClosedError } from '../../store/store.ts';
import type { Entry, Key, Store } from '../../store/store.ts';
import { notFound } from './errors.ts';
import { RECORD_KINDS, resourceOf, toObject, toRecord } from './records.ts';
import type { Records } from './records.ts';

/** Pause before a watch that ended is begun anew. */
const RESUME_DELAY_MS = 200;

export interface Table<T extends { id: string }> {
  get(id: string): T | undefined;
  /** @throws KeystoneError 404 */
  require(id: string): T;
  all(): T[];
  readonly size: number;
  /**
   * A lookup by something else than the id, kept up to date. Records of one key are in the order
   * of their creation, so that all servers agree on which of two has a name.
   */
  index(keyOf: (record: T) => string | undefined): (key: string) => T[];
  /** Called after every change, whoever made it, until the signal aborts. */
  onChange(changed: () => void, signal?: AbortSignal): void;

  /** Writes a record whether or not there is one; resolves when reads here see it. */
  put(record: T): Promise<void>;
  /** Like `put`, but false, and nothing is written, where there is one. */
  create(record: T): Promise<boolean>;
  /** @throws KeystoneError 404, and what `change` throws; `change` may be called again */
  update(id: string, change: (record: T) => T): Promise<T>;
  /** Changes or makes; undefined leaves all as it is. */
  upsert(id: string, change: (record: T | undefined) => T | undefined): Promise<void>;
  /** Whether there was one. */
  remove(id: string): Promise<boolean>;
}

interface Row<T> {
  record: T;
  createRevision: number;
}

interface Index<T> {
  keyOf: (record: T) => string | undefined;
  rows: Map<string, Row<T>[]>;
}

export interface TableOptions {
  store: Store;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
}

/**
 * One resource of the store as a map in memory. It is read from the store at once and follows it
 * from then on, so that what another server writes is seen here too. A write resolves after it
 * has come back through the watch: who reads after it sees it.
 */
export function openTable<C extends keyof Records>(
  collection: C,
  options: TableOptions,
): Table<Records[C]> {
  type T = Records[C];
  const { store, clock, log, signal } = options;
  const resource = resourceOf(collection);
  const rows = new Map<string, Row<T>>();
  const indexes: Index<T>[] = [];
  const listeners = new Set<() => void>();
  let appliedRevision = 0;
  let waiting: { revision: number; resolve: () => void; reject: (error: unknown) => void }[] = [];

  const keyOf = (id: string): Key => ({ resource, namespace: '', name: id });

  const set = (id: string, after: Row<T> | undefined) => {
    const before = rows.get(id);
    if (after) rows.set(id, after);
    else rows.delete(id);
    for (const index of indexes) {
      if (before) removeFrom(index, before);
      if (after) addTo(index, after);
    }
    for (const changed of listeners) changed();
  };

  const apply = (entry: Entry, deleted: boolean) => {
    const record = toRecord<T>(entry.object);
    const row = deleted ? undefined : { record, createRevision: entry.createRevision };
    set(entry.key.name, row);
  };

  const advance = (revision: number) => {
    appliedRevision = revision;
    const due = waiting.filter((waiter) => waiter.revision <= revision);
    if (due.length === 0) return;
    waiting = waiting.filter((waiter) => waiter.revision > revision);
    for (const waiter of due) waiter.resolve();
  };

  const reload = () => {
    const { entries, revision } = store.list(resource);
    const present = new Set(entries.map((entry) => entry.key.name));
    for (const id of [...rows.keys()]) if (!present.has(id)) set(id, undefined);
    for (const entry of entries) apply(entry, false);
    advance(revision);
  };

  const follow = async () => {
    for (let again = false; ; again = true) {
      try {
        if (again) reload();
        const events = store.watch(resource, { afterRevision: appliedRevision, signal });
        for await (const event of events) {
          apply(event.entry, event.type === 'DELETED');
          advance(event.revision);
        }
        break;
      } catch (error) {
        if (signal.aborted || error instanceof StoreClosedError) break;
        log.warn('watch of identity records ended; reading them anew', {
          resource,
          error: describeError(error),
        });
        await clock.sleep(RESUME_DELAY_MS, signal).catch(() => {});
      }
    }
    for (const waiter of waiting) waiter.reject(new StoreClosedError());
    waiting = [];
  };

  const reached = (revision: number): Promise<void> => {
    if (revision <= appliedRevision) return Promise.resolve();
    if (signal.aborted) return Promise.reject(new StoreClosedError());
    return new Promise((resolve, reject) => waiting.push({ revision, resolve, reject }));
  };

  const mutate = async (id: string, change: (record: T | undefined) => T | undefined | null) => {
    const result = await store.mutate(keyOf(id), (current) => {
      const before = current && toRecord<T>(current.object);
      const after = change(before);
      if (after === undefined) return undefined;
      if (after === null) return current ? DELETE : undefined;
      assert(after.id === id, `the id of a ${RECORD_KINDS[collection]} does not change`);
      const object = toObject(collection, after, clock.nowMs());
      return current ? { ...object, metadata: { ...current.object.metadata } } : object;
    });
    if (result.changed && result.entry) await reached(result.entry.revision);
    return result;
  };

  reload();
  void follow();

  const table: Table<T> = {
    get: (id) => rows.get(id)?.record,
    require(id) {
      const row = rows.get(id);
      if (!row) throw notFound(RECORD_KINDS[collection], id);
      return row.record;
    },
    all: () => [...rows.values()].map((row) => row.record),
    get size() {
      return rows.size;
    },
    index(keyOfRecord) {
      const index: Index<T> = { keyOf: keyOfRecord, rows: new Map() };
      for (const row of rows.values()) addTo(index, row);
      indexes.push(index);
      return (key) => (index.rows.get(key) ?? []).map((row) => row.record);
    },
    onChange(changed, until) {
      if (until?.aborted) return;
      listeners.add(changed);
      until?.addEventListener('abort', () => listeners.delete(changed), { once: true });
    },
    put: async (record) => void (await mutate(record.id, () => record)),
    create: async (record) =>
      (await mutate(record.id, (current) => (current ? undefined : record))).changed,
    async update(id, change) {
      const result = await mutate(id, (current) => {
        if (!current) throw notFound(RECORD_KINDS[collection], id);
        return change(current);
      });
      assert(result.entry, 'an update leaves a record');
      return toRecord<T>(result.entry.object);
    },
    upsert: async (id, change) => void (await mutate(id, change)),
    remove: async (id) => (await mutate(id, () => null)).deleted,
  };
  return table;
}

function addTo<T>(index: Index<T>, row: Row<T>): void {
  const key = index.keyOf(row.record);
  if (key === undefined) return;
  const list = index.rows.get(key);
  if (!list) {
    index.rows.set(key, [row]);
    return;
  }
  const at = list.findLastIndex((other) => other.createRevision <= row.createRevision) + 1;
  list.splice(at, 0, row);
}

function removeFrom<T>(index: Index<T>, row: Row<T>): void {
  const key = index.keyOf(row.record);
  const list = key === undefined ? undefined : index.rows.get(key);
  if (key === undefined || !list) return;
  const at = list.indexOf(row);
  if (at !== -1) list.splice(at, 1);
  if (list.length === 0) index.rows.delete(key);
}
