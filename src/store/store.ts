import type { KubeObject } from '../api/object.ts';

/**
 * Where the cluster's state lives. One writer hands out one cluster-wide revision; every read is
 * answered from memory. Implementations: `sqlite`, `memory` (and `etcd`, later); all of them
 * pass `conformance.ts`.
 *
 * Promises:
 * - A write is acknowledged only after it is durable (unless the resource is volatile).
 * - Revisions grow by exactly one per write, in the order in which writes become visible, over
 *   all resources, and never go back, not even over a crash.
 * - What `list` returns at revision R is exactly the effect of all writes up to R, and a watch
 *   from R sees every later one, once and in order.
 */
export interface Store {
  /** The revision of the last write that is visible to readers. */
  readonly revision: number;

  /** Resolves once every write acknowledged anywhere before the call is visible here. */
  barrier(): Promise<void>;

  get(key: Key): Entry | undefined;

  /**
   * Entries of one resource, ordered by key (namespace, then name). With `atRevision`, as they
   * were then; throws `CompactedError` when that is no longer known.
   */
  list(resource: string, options?: ListOptions): ListResult;

  /**
   * Applies `transform` to the newest state of the key, including writes not yet durable, and
   * stores what it returns. `transform` is synchronous and pure: it may be called again when
   * another writer was faster. It may throw, and the error reaches the caller unchanged.
   *
   * @returns what is stored after the write is durable and visible. `undefined` return of
   *   `transform` leaves the key as it is and uses no revision; `DELETE` removes it.
   */
  mutate(key: Key, transform: Transform): Promise<MutateResult>;

  /**
   * All writes to `resource` (and, if given, one namespace) after `afterRevision`.
   * @throws CompactedError when events right after that revision are no longer kept
   * @throws FutureRevisionError when the revision was not given out yet
   */
  watch(resource: string, options: WatchOptions): StoreWatch;

  /** Statistics for metrics and for `status`. */
  stats(): StoreStats;

  /** Makes what is pending durable and releases everything. Later calls throw. */
  close(): Promise<void>;
}

export interface Key {
  /** `group/resource` or, for the core group, `resource`: `pods`, `apps/deployments`. */
  resource: string;
  /** Empty for cluster-scoped resources. */
  namespace: string;
  name: string;
}

export interface Entry {
  readonly key: Key;
  /** Revision of the last write, also in `object.metadata.resourceVersion`. */
  readonly revision: number;
  readonly createRevision: number;
  /** Deeply immutable. */
  readonly object: KubeObject;
  /** UTF-8 JSON of `object`, encoded once. */
  readonly bytes: Uint8Array;
}

export const DELETE: unique symbol = Symbol('delete');

/** Returns the new object (its resourceVersion is set by the store), DELETE, or undefined. */
export type Transform = (current: Entry | undefined) => KubeObject | typeof DELETE | undefined;

export interface MutateResult {
  /** What is stored now; for a deletion, the last state with the revision of the deletion. */
  entry: Entry | undefined;
  changed: boolean;
  deleted: boolean;
}

export interface ListOptions {
  namespace?: string;
  limit?: number;
  /** Exclusive: the list goes on after this key. */
  after?: { namespace: string; name: string };
  atRevision?: number;
}

export interface ListResult {
  /** The revision at which this list is exact. */
  revision: number;
  entries: Entry[];
  /** How many more follow after the last entry of this page. */
  remainingCount: number;
}

export type StoreEventType = 'ADDED' | 'MODIFIED' | 'DELETED';

export interface StoreEvent {
  type: StoreEventType;
  revision: number;
  /** For DELETED: the last state, carrying the revision of the deletion. */
  entry: Entry;
  /** The state before; undefined for ADDED. */
  previous: Entry | undefined;
}

export interface WatchOptions {
  namespace?: string;
  afterRevision: number;
  signal: AbortSignal;
}

/**
 * A stream of events. It ends when the signal aborts or the store closes. A consumer that falls
 * behind by more than the store's queue limit gets `SlowWatcherError`; it resumes by revision.
 */
export interface StoreWatch extends AsyncIterable<StoreEvent> {
  /** Up to which revision everything that concerns this watch has been delivered to the queue. */
  readonly progressRevision: number;
}

export interface StoreStats {
  revision: number;
  compactRevision: number;
  objectCount: number;
  bytes: number;
  watcherCount: number;
  /** Since start. */
  commitCount: number;
  writeCount: number;
}

export class CompactedError extends Error {
  override name = 'CompactedError';
  readonly compactRevision: number;
  constructor(revision: number, compactRevision: number) {
    super(`Revision ${revision} is compacted: the oldest kept is ${compactRevision}`);
    this.compactRevision = compactRevision;
  }
}

export class FutureRevisionError extends Error {
  override name = 'FutureRevisionError';
  readonly currentRevision: number;
  constructor(revision: number, currentRevision: number) {
    super(`Revision ${revision} is in the future: the current one is ${currentRevision}`);
    this.currentRevision = currentRevision;
  }
}

export class SlowWatcherError extends Error {
  override name = 'SlowWatcherError';
}

export interface StoreLimits {
  /** Events kept in memory per resource for resuming watches. */
  ringEventCount: number;
  /** How long superseded revisions are kept on disk and in memory, at least. */
  historyMs: number;
  /** Events a single watcher may be behind. */
  watcherQueueLength: number;
  /** Largest object, as JSON. etcd's limit, which clients know, is 1.5 MiB. */
  objectBytes: number;
}
