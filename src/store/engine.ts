import { assert } from '../base/assert.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { Compaction } from './compaction.ts';
import { checkKey, checkPartition, encodeEntry, entryId } from './entry.ts';
import type { StoredEntry } from './entry.ts';
import type { HistoryEvent } from './history.ts';
import type { Journal, JournalWrite } from './journal.ts';
import { decidePartitions } from './partitions.ts';
import { Resource } from './resource.ts';
import {
  CompactedError,
  DELETE,
  FutureRevisionError,
  ObjectTooLargeError,
  StoreBusyError,
  StoreClosedError,
} from './store.ts';
import type {
  Entry,
  Key,
  ListOptions,
  ListResult,
  MutateResult,
  PartitionOf,
  Store,
  StoreEventType,
  StoreLimits,
  StoreStats,
  StoreWatch,
  Transform,
  WatchOptions,
} from './store.ts';
import { WatchStream } from './watch.ts';

/** Revisions reserved on disk at a time: volatile writes use them up without touching it. */
const RESERVE_BLOCK = 100_000;

/** A commit takes at most so much, so that its latency and the write-ahead log stay bounded. */
const BATCH_WRITE_COUNT_MAX = 2048;
const BATCH_BYTES_MAX = 8 << 20;

const COMPACTION_INTERVAL_MS = 5_000;

export interface EngineOptions {
  clock: Clock;
  log: Log;
  limits: StoreLimits;
  journal: Journal;
  isVolatile: (key: Key) => boolean;
  /** Some objects of this resource may be volatile: its history begins with this process. */
  mayBeVolatile: (resource: string) => boolean;
  partitionOf: PartitionOf;
  /** The last revision that may have been handed out before. */
  revision: number;
  /** Up to here revisions may be handed out without asking the journal. */
  reservedRevision: number;
  floors: Map<string, number>;
}

/** A call of `mutate` that is not settled yet. */
interface Request {
  key: Key;
  transform: Transform;
  resolve: (result: MutateResult) => void;
  reject: (error: unknown) => void;
  /** What the transform decided; undefined while it has to wait for the write it looked at. */
  write: Write | undefined;
  /** Answers the caller, once everything before is durable and visible. */
  settle: () => void;
}

interface Write extends JournalWrite {
  id: string;
  previous: StoredEntry | undefined;
  volatile: boolean;
}

/**
 * The store in memory, whatever makes it durable.
 *
 *     mutate -> transform, revision, bytes -> queue -> journal.commit -> publish -> answer
 *                      ^                        |
 *                      +--- newest state -------+
 *
 * Transforms run at once, against what is visible plus what is queued. While the journal commits
 * one batch, the next one gathers. Volatile writes take their place in the same queue (revisions
 * become visible in order) but cause no commit. When a commit fails its writes are rejected, and
 * whatever was decided on top of them is decided anew.
 */
export class Engine implements Store {
  readonly #options: EngineOptions;
  readonly #resources = new Map<string, Resource>();
  readonly #compaction: Compaction;
  readonly #startRevision: number;
  /** The newest not yet visible write of a key. */
  readonly #unpublished = new Map<string, Write>();
  #revision: number;
  #nextRevision: number;
  #reservedRevision: number;
  #queue: Request[] = [];
  #queueBytes = 0;
  #committing: Promise<void> | undefined;
  #flushScheduled = false;
  #timer: Timer | undefined;
  #closed: Promise<void> | undefined;
  #objectCount = 0;
  #bytes = 0;
  #watcherCount = 0;
  #commitCount = 0;
  #writeCount = 0;

  constructor(options: EngineOptions) {
    this.#options = options;
    // One revision for the start itself: volatile state ended between the one before and this.
    this.#revision = options.revision + 1;
    this.#startRevision = this.#revision;
    this.#nextRevision = this.#revision + 1;
    this.#reservedRevision = options.reservedRevision;
    const isDurable = (event: HistoryEvent) => !options.isVolatile(event.entry.key);
    this.#compaction = new Compaction(options.limits, this.#resources, isDurable);
    for (const resource of options.floors.keys()) this.#resource(resource);
  }

  /** Takes a row of the journal, in order of revision, before `start`. */
  load(write: JournalWrite): void {
    const { entry, deleted, timeMs } = write;
    const { key, revision } = entry;
    if (this.#options.isVolatile(key)) {
      this.#compaction.addGarbage(key.resource, revision);
      return;
    }
    const resource = this.#resource(key.resource);
    const id = entryId(key.namespace, key.name);
    const previous = resource.get(id);
    // One version of an object was written since there are partitions, an older one before.
    if (!entry.hasPartition && previous?.hasPartition) entry.assign(previous.partition);
    resource.load(id, entry, deleted);
    this.#count(entry, deleted, previous);
    if (revision > resource.history.floor) {
      const event = { type: typeOf(deleted, previous), revision, entry, previous, timeMs };
      this.#compaction.append(resource, event);
      return;
    }
    if (previous) this.#compaction.addGarbage(key.resource, previous.revision);
    if (deleted) this.#compaction.addGarbage(key.resource, revision);
  }

  /**
   * To be called after the last `load`.
   *
   * @returns entries whose partition was not known and is now, to be made durable; in order of
   *   revision
   */
  finishLoading(): StoredEntry[] {
    const { partitionOf } = this.#options;
    const decided = decidePartitions(this.#resources, (key) => this.#newest(key), partitionOf);
    for (const resource of this.#resources.values()) resource.index();
    return decided;
  }

  /** Begins to compact. Called once, after loading. */
  start(): void {
    this.#timer = this.#options.clock.after(COMPACTION_INTERVAL_MS, () => {
      this.#compaction.expire(this.#options.clock.nowMs());
      for (const resource of this.#resources.values()) resource.trim();
      this.#flush(true);
      this.start();
    });
  }

  get revision(): number {
    return this.#revision;
  }

  barrier(): Promise<void> {
    // Everything acknowledged was published before: one process holds all of the store.
    return this.#closed ? Promise.reject(new StoreClosedError()) : Promise.resolve();
  }

  get(key: Key): Entry | undefined {
    this.#assertOpen();
    return this.#resources.get(key.resource)?.get(entryId(key.namespace, key.name));
  }

  list(resource: string, options: ListOptions = {}): ListResult {
    this.#assertOpen();
    const { atRevision = this.#revision } = options;
    const found = this.#resources.get(resource);
    this.#checkRevision(atRevision, found?.history.floor ?? this.#initialFloor(resource));
    if (!found) return { revision: atRevision, entries: [], remainingCount: 0 };
    return { revision: atRevision, ...found.list(atRevision, options) };
  }

  watch(resource: string, options: WatchOptions): StoreWatch {
    this.#assertOpen();
    const found = this.#resource(resource);
    const { watchers } = found;
    const { partition, namespace, afterRevision, signal } = options;
    const scope = { partition, namespace };
    this.#checkRevision(afterRevision, found.history.floor);
    const cancel = () => stream.cancel();
    const stream = new WatchStream({
      afterRevision,
      past: (revision, count) => found.past(scope, revision, count),
      queueLength: this.#options.limits.watcherQueueLength,
      currentRevision: () => this.#revision,
      onEnd: () => {
        watchers.remove(stream, scope);
        this.#watcherCount -= 1;
        signal.removeEventListener('abort', cancel);
      },
    });
    watchers.add(stream, scope);
    this.#watcherCount += 1;
    if (signal.aborted) cancel();
    else signal.addEventListener('abort', cancel, { once: true });
    return stream;
  }

  mutate(key: Key, transform: Transform): Promise<MutateResult> {
    return new Promise((resolve, reject) => {
      this.#assertOpen();
      checkKey(key);
      if (this.#queueBytes > this.#options.limits.pendingBytes) {
        const limit = `the limit is ${this.#options.limits.pendingBytes}`;
        const waiting = `${this.#queueBytes} bytes wait to become durable`;
        throw new StoreBusyError(`Cannot write to the store: ${waiting}, ${limit}`);
      }
      const settle = () => {};
      this.#decide({ key, transform, resolve, reject, write: undefined, settle });
    });
  }

  stats(): StoreStats {
    const histories = [...this.#resources.values()].map(({ history }) => history);
    return {
      revision: this.#revision,
      compactRevision: Math.max(0, ...histories.map((history) => history.floor)),
      objectCount: this.#objectCount,
      bytes: this.#bytes,
      historyEventCount: histories.reduce((sum, history) => sum + history.length, 0),
      historyBytes: this.#compaction.bytes,
      watcherCount: this.#watcherCount,
      commitCount: this.#commitCount,
      writeCount: this.#writeCount,
    };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#timer?.cancel();
    while (this.#queue.length > 0 || this.#committing) {
      this.#flush();
      await this.#committing;
    }
    for (const { watchers } of this.#resources.values()) {
      for (const stream of watchers.all()) stream.end();
    }
    await this.#options.journal.close(this.#revision);
  }

  /** Runs the transform and queues its outcome behind everything it may rest on. */
  #decide(request: Request): void {
    const { key, transform } = request;
    const id = entryId(key.namespace, key.name);
    const pending = this.#unpublished.get(pendingId(key.resource, id));
    const newest = pending ? stateAfter(pending) : this.#resources.get(key.resource)?.get(id);
    request.write = undefined;
    try {
      const outcome = transform(newest);
      if (outcome === undefined || (outcome === DELETE && !newest)) {
        request.settle = () => request.resolve(resultOf(newest, false, false));
      } else {
        request.write = this.#encode(key, id, outcome === DELETE ? undefined : outcome, newest);
        const { entry, deleted } = request.write;
        request.settle = () => request.resolve(resultOf(entry, true, deleted));
      }
    } catch (error) {
      request.settle = () => request.reject(error);
    }
    if (request.write || pending) this.#enqueue(request);
    else request.settle();
  }

  /** The newest state of the key, which may not be durable yet. */
  #newest(key: Key): StoredEntry | undefined {
    const id = entryId(key.namespace, key.name);
    const pending = this.#unpublished.get(pendingId(key.resource, id));
    return pending ? stateAfter(pending) : this.#resources.get(key.resource)?.get(id);
  }

  #encode(
    key: Key,
    id: string,
    object: Entry['object'] | undefined,
    previous: StoredEntry | undefined,
  ): Write {
    const { limits, isVolatile, clock } = this.#options;
    const deleted = object === undefined;
    const revision = this.#nextRevision;
    const content = object ?? (previous as StoredEntry).object;
    const entry = encodeEntry(content, {
      key: previous?.key ?? { ...key },
      revision,
      createRevision: previous?.createRevision ?? revision,
      partition: previous ? previous.partition : this.#partitionOf(key, content),
    });
    if (!deleted && entry.bytes.length > limits.objectBytes) {
      throw new ObjectTooLargeError(key, entry.bytes.length, limits.objectBytes);
    }
    this.#nextRevision += 1;
    const timeMs = Math.floor(clock.nowMs());
    return { id, entry, deleted, previous, timeMs, volatile: isVolatile(key) };
  }

  #partitionOf(key: Key, object: Entry['object']): string {
    const partition = this.#options.partitionOf(key, object, (other) => this.#newest(other));
    checkPartition(partition);
    return partition;
  }

  #enqueue(request: Request): void {
    this.#queue.push(request);
    const { write } = request;
    if (write) {
      this.#unpublished.set(pendingId(request.key.resource, write.id), write);
      this.#queueBytes += write.entry.bytes.length;
    }
    if (this.#committing || this.#flushScheduled) return;
    if (this.#queue.length === 1 && !this.#needsJournal(this.#queue)) {
      this.#flush();
      return;
    }
    // Requests that arrive in the same turn of the event loop share one commit.
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      this.#flush();
    });
  }

  #needsJournal(batch: Request[]): boolean {
    return batch.some(
      ({ write }) => write && (!write.volatile || write.entry.revision > this.#reservedRevision),
    );
  }

  /** Publishes or commits what is queued; with `compact`, commits garbage even without writes. */
  #flush(compact = false): void {
    while (!this.#committing && this.#queue.length > 0) {
      const batch = this.#takeBatch();
      if (this.#needsJournal(batch)) this.#committing = this.#commit(batch);
      else this.#publish(batch);
    }
    if (compact && !this.#committing && this.#compaction.pendingCount > 0) {
      this.#committing = this.#commit([]);
    }
  }

  #takeBatch(): Request[] {
    let bytes = 0;
    let count = 0;
    for (const { write } of this.#queue) {
      bytes += write?.entry.bytes.length ?? 0;
      if (count === BATCH_WRITE_COUNT_MAX || (bytes > BATCH_BYTES_MAX && count > 0)) break;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  async #commit(batch: Request[]): Promise<void> {
    const writes = batch.flatMap(({ write }) => (write && !write.volatile ? [write] : []));
    const step = this.#compaction.step(writes.length);
    const { superseded, floors } = step;
    let failure: unknown;
    const last = this.#nextRevision - 1;
    const low = last + RESERVE_BLOCK / 2 > this.#reservedRevision;
    const reservedRevision = low ? last + RESERVE_BLOCK : this.#reservedRevision;
    try {
      await this.#options.journal.commit({ writes, reservedRevision, superseded, floors });
    } catch (error) {
      failure = error;
    }
    this.#committing = undefined;
    if (failure === undefined) {
      this.#commitCount += 1;
      this.#reservedRevision = reservedRevision;
      this.#compaction.done(step);
      this.#publish(batch);
    } else {
      this.#rollBack(batch, failure);
    }
    const idle = batch.length === 0 && failure === undefined && !this.#closed;
    this.#flush(idle);
  }

  #publish(batch: Request[]): void {
    for (const request of batch) {
      const { write } = request;
      if (write) this.#makeVisible(request.key.resource, write);
      request.settle();
    }
  }

  #makeVisible(resourceName: string, write: Write): void {
    const { id, entry, previous, deleted, timeMs } = write;
    const { revision } = entry;
    assert(revision === this.#revision + 1, `revision ${revision} follows ${this.#revision}`);
    const pending = pendingId(resourceName, id);
    if (this.#unpublished.get(pending) === write) this.#unpublished.delete(pending);
    this.#queueBytes -= entry.bytes.length;
    const resource = this.#resource(resourceName);
    const event = { type: typeOf(deleted, previous), revision, entry, previous, timeMs };
    resource.apply(id, event);
    this.#count(entry, deleted, previous);
    this.#revision = revision;
    this.#writeCount += 1;
    this.#compaction.append(resource, event);
    resource.watchers.publish(event);
  }

  #count(entry: StoredEntry, deleted: boolean, previous: StoredEntry | undefined): void {
    this.#objectCount += (deleted ? 0 : 1) - (previous ? 1 : 0);
    this.#bytes += (deleted ? 0 : entry.bytes.length) - (previous?.bytes.length ?? 0);
  }

  /** Rejects the writes that failed; whatever else is queued may rest on them: decides it anew. */
  #rollBack(batch: Request[], failure: unknown): void {
    this.#options.log.error('Cannot commit writes', {
      count: batch.length,
      reason: describeError(failure),
    });
    const queue = this.#queue;
    this.#queue = [];
    this.#queueBytes = 0;
    this.#unpublished.clear();
    this.#nextRevision = this.#revision + 1;
    const failed = (request: Request) => request.write && this.#needsJournal([request]);
    for (const request of batch) {
      if (failed(request)) request.reject(failure);
      else this.#decide(request);
    }
    for (const request of queue) this.#decide(request);
  }

  #resource(name: string): Resource {
    const found = this.#resources.get(name);
    if (found) return found;
    const made = new Resource(this.#initialFloor(name));
    this.#resources.set(name, made);
    return made;
  }

  #initialFloor(resource: string): number {
    const { floors, mayBeVolatile } = this.#options;
    return mayBeVolatile(resource) ? this.#startRevision : (floors.get(resource) ?? 0);
  }

  #checkRevision(revision: number, floor: number): void {
    if (revision > this.#revision) throw new FutureRevisionError(revision, this.#revision);
    if (revision < floor) throw new CompactedError(revision, floor);
  }

  #assertOpen(): void {
    if (this.#closed) throw new StoreClosedError();
  }
}

function pendingId(resource: string, id: string): string {
  return `${resource}\0${id}`;
}

function typeOf(deleted: boolean, previous: StoredEntry | undefined): StoreEventType {
  if (deleted) return 'DELETED';
  return previous ? 'MODIFIED' : 'ADDED';
}

function stateAfter({ entry, deleted }: Write): StoredEntry | undefined {
  return deleted ? undefined : entry;
}

function resultOf(entry: Entry | undefined, changed: boolean, deleted: boolean): MutateResult {
  return { entry, changed, deleted };
}
