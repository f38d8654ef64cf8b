import type { KubeObject } from '../api/object.ts';

/**
 * Where the cluster's state lives. One writer hands out one cluster-wide revision; every read is
 * answered from memory. Implementations: `sqlite`, `memory` (and `etcd`, later); all of them
 * pass `conformance.ts`.
 *
 * Promises:
 * - A write is acknowledged only after it is durable (unless the resource is volatile).
 * - Revisions grow by exactly one per write, in the order in which writes become visible, over
 *   all resources, and never go back, not even over a crash. (Opening a store jumps ahead of
 *   everything it may have handed out before.)
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
   * @throws ObjectTooLargeError, InvalidKeyError: nothing was written
   * @throws StoreBusyError when too much is waiting to become durable; try again later
   * @throws StoreUnavailableError when the write could not be made durable; it is not visible
   */
  mutate(key: Key, transform: Transform): Promise<MutateResult>;

  /**
   * All writes to `resource` (and, if given, one namespace) after `afterRevision`. What is written
   * from this call on is queued, whether or not the stream is being read.
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
  /** Whose it is, decided when the key was created and never changed; '' belongs to the cluster. */
  readonly partition: string;
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
  /** Entries of this partition alone, at a cost that does not grow with those of others. */
  partition?: string;
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
  /** Events of entries of this partition alone, also those of the past. */
  partition?: string;
  afterRevision: number;
  signal: AbortSignal;
}

/**
 * A stream of events. It ends when the signal aborts or the store closes. A consumer that falls
 * behind by more than the store's queue limit, or starts in the past and reads it so slowly that
 * it is compacted meanwhile, gets `SlowWatcherError`; it resumes by revision.
 */
export interface StoreWatch extends AsyncIterable<StoreEvent> {
  /**
   * Up to which revision everything that concerns this watch has been handed to its reader: what a
   * bookmark may say. It grows with writes to other resources too, and never goes back.
   */
  readonly progressRevision: number;
}

export interface StoreStats {
  revision: number;
  /** From this revision on, every resource can be listed and watched. */
  compactRevision: number;
  objectCount: number;
  /** Of the objects as JSON, without their history. */
  bytes: number;
  historyEventCount: number;
  historyBytes: number;
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

/** The watcher did not read fast enough. What it had not read is dropped. */
export class SlowWatcherError extends Error {
  override name = 'SlowWatcherError';
  constructor(queueLength: number) {
    const behind = `more than ${queueLength} events, or further than history is kept`;
    super(`Watch ended: the reader is ${behind}, behind; resume by revision`);
  }
}

/** The object does not fit, as JSON, into `StoreLimits.objectBytes`. */
export class ObjectTooLargeError extends Error {
  override name = 'ObjectTooLargeError';
  readonly sizeBytes: number;
  readonly limitBytes: number;
  constructor(key: Key, sizeBytes: number, limitBytes: number) {
    const subject = `${key.resource} "${key.namespace ? `${key.namespace}/` : ''}${key.name}"`;
    super(`Cannot store ${subject}: it is ${sizeBytes} bytes long, the limit is ${limitBytes}`);
    this.sizeBytes = sizeBytes;
    this.limitBytes = limitBytes;
  }
}

/** A part of the key is empty where it may not be, too long, or not a string that can be stored. */
export class InvalidKeyError extends Error {
  override name = 'InvalidKeyError';
}

/** More than `StoreLimits.pendingBytes` wait to become durable. */
export class StoreBusyError extends Error {
  override name = 'StoreBusyError';
}

/** A write could not be made durable (disk full, I/O error). Reads go on. `cause` says why. */
export class StoreUnavailableError extends Error {
  override name = 'StoreUnavailableError';
}

export class StoreClosedError extends Error {
  override name = 'StoreClosedError';
  constructor() {
    super('Cannot use the store: it is closed');
  }
}

/** The store cannot be opened as it lies there; `message` says why and what to do. */
export class StoreOpenError extends Error {
  override name = 'StoreOpenError';
}

export interface StoreLimits {
  /** Events kept per resource, for resuming watches and for lists at an old revision. */
  ringEventCount: number;
  /** How long events are kept, in memory and on disk, unless a count or size is reached before. */
  historyMs: number;
  /**
   * Memory given to the history of all resources together. Beyond it the resource with the largest
   * history loses its oldest events, so that one busy resource does not cost the others theirs.
   */
  historyBytes: number;
  /** Events a single watcher may be behind. */
  watcherQueueLength: number;
  /** Largest object, as JSON. etcd's limit, which clients know, is 1.5 MiB. */
  objectBytes: number;
  /** Bytes accepted and not yet durable: what a stalled disk may cost in memory. */
  pendingBytes: number;
}

export const STORE_LIMITS: StoreLimits = {
  ringEventCount: 100_000,
  historyMs: 5 * 60_000,
  historyBytes: 256 << 20,
  watcherQueueLength: 10_000,
  objectBytes: 1536 << 10,
  pendingBytes: 128 << 20,
};

/**
 * Whose an entry is, asked once, when its key is created. It may look at the newest state of other
 * keys, writes not yet durable included.
 */
export type PartitionOf = (
  key: Key,
  object: KubeObject,
  newest: (key: Key) => Entry | undefined,
) => string;

/** A resource, or one namespace of it, that is kept in memory only and lost with the process. */
export interface VolatileRule {
  resource: string;
  namespace?: string;
}

/**
 * Node heartbeats and Events need no disk. Leases of other namespaces stay durable: leader election
 * relies on a holder's lease outliving the server.
 */
export const VOLATILE_RULES: readonly VolatileRule[] = [
  { resource: 'coordination.k8s.io/leases', namespace: 'kube-node-lease' },
  { resource: 'events' },
];
