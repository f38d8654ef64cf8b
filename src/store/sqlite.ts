import { link, open, realpath, rm } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { systemClock } from '../base/clock.ts';
import type { Clock } from '../base/clock.ts';
import { syncDirectory, writeFileAtomic } from '../base/files.ts';
import { describeError, silentLog } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { systemRandom } from '../base/random.ts';
import type { Random } from '../base/random.ts';
import { Engine } from './engine.ts';
import { ownBytes, StoredEntry } from './entry.ts';
import type { Journal, JournalBatch } from './journal.ts';
import {
  APPLICATION_ID,
  emptyDatabase,
  FORMAT_VERSION,
  OLDEST_FORMAT_VERSION,
} from './sqlite.database.ts';
import { clusterOwnsAll } from './partitions.ts';
import { packRows, unpackRows } from './sqlite.rows.ts';
import type { Row } from './sqlite.rows.ts';
import type { WorkerReply, WorkerRequest } from './sqlite.worker.ts';
import { STORE_LIMITS, StoreOpenError, StoreUnavailableError, VOLATILE_RULES } from './store.ts';
import type { Key, PartitionOf, Store, StoreLimits, VolatileRule } from './store.ts';

export interface SqliteStoreOptions {
  /** The file. Created, readable by its owner alone, if it is not there; its folder must be. */
  path: string;
  /** @default the system's clock */
  clock?: Clock;
  /** @default the system's */
  random?: Random;
  /** @default no log */
  log?: Log;
  /** @default STORE_LIMITS, for each limit that is not given */
  limits?: Partial<StoreLimits>;
  /** What is kept in memory only. @default VOLATILE_RULES */
  volatile?: readonly VolatileRule[];
  /** @default everything belongs to the cluster */
  partitionOf?: PartitionOf;
}

/** Rows read at a time at the start. */
const LOAD_ROW_COUNT = 2_000;

const DAMAGE_ADVICE = 'restore it from a backup, or use another data directory';

const HEADER_BYTES = 100;
const HEADER_MAGIC = 'SQLite format 3\0';

/** SQLite's result codes, without their extensions. */
const SQLITE_BUSY = 5;

/**
 * Files that this process holds open. POSIX drops a process's locks on a file when *any* of its
 * descriptors is closed, so that a second open must fail before it touches the file.
 */
const openPaths = new Set<string>();

/**
 * Opens the durable store, or makes a new one. Acknowledged writes survive SIGKILL and power
 * failure; volatile ones do not, but their revisions are never given out again.
 *
 * @throws StoreOpenError when the file has another format version, belongs to another program, is
 *   in use, or is damaged; it is left as it is
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  const path = await claim(options.path, options.random ?? systemRandom);
  try {
    return await openClaimed(path, options);
  } catch (error) {
    openPaths.delete(path);
    throw error;
  }
}

/** Makes sure that there is a file of this format, and that this process opens it only once. */
async function claim(path: string, random: Random): Promise<string> {
  const fail = (reason: string, cause?: unknown) => {
    throw new StoreOpenError(`Cannot open store "${path}": ${reason}`, { cause });
  };
  const folder = await realpath(dirname(path)).catch((error: Error) =>
    fail(`its folder cannot be used: ${error.message}`, error),
  );
  const resolved = join(folder as string, basename(path));
  if (openPaths.has(resolved)) fail('it is already open in this process');
  openPaths.add(resolved);
  try {
    const header = (await readHeader(resolved)) ?? (await create(resolved, random));
    const problem = judgeHeader(header);
    if (problem) fail(problem);
    return resolved;
  } catch (error) {
    openPaths.delete(resolved);
    if (error instanceof StoreOpenError) throw error;
    return fail((error as Error).message, error) as never;
  }
}

async function readHeader(path: string): Promise<Buffer | undefined> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!file) return undefined;
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** A new file appears whole or not at all, and never in the place of another one. */
async function create(path: string, random: Random): Promise<Buffer> {
  const content = emptyDatabase();
  const draft = `${path}.${random.uuid()}.new`;
  try {
    await writeFileAtomic(draft, content, { mode: 0o600, sync: true });
    await link(draft, path).catch((error: NodeJS.ErrnoException) => {
      // Another process was faster: its lock decides.
      if (error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(draft, { force: true });
  }
  await syncDirectory(dirname(path));
  return (await readHeader(path)) ?? Buffer.alloc(0);
}

/** Why a file with this header cannot be opened. */
function judgeHeader(header: Buffer): string | undefined {
  if (header.length < HEADER_BYTES) {
    return `it is cut off after ${header.length} bytes; ${DAMAGE_ADVICE}`;
  }
  if (header.toString('latin1', 0, HEADER_MAGIC.length) !== HEADER_MAGIC) {
    return `it is not an SQLite file; ${DAMAGE_ADVICE}`;
  }
  if (header.readUInt32BE(68) !== APPLICATION_ID) {
    return 'it is an SQLite file of another program; use another data directory';
  }
  const version = header.readUInt32BE(60);
  if (version >= OLDEST_FORMAT_VERSION && version <= FORMAT_VERSION) return undefined;
  const own = `this Hypernetes reads and writes format ${FORMAT_VERSION}`;
  const advice = 'start the Hypernetes that wrote it, or use another data directory';
  return `it has format ${version}, ${own}; ${advice}`;
}

async function openClaimed(path: string, options: SqliteStoreOptions): Promise<Store> {
  const log = options.log ?? silentLog;
  const thread = new StoreThread(path, log);
  try {
    const { meta } = await thread.call({ op: 'open' });
    assert(meta, 'the store’s thread answers an open with what it found');
    const rules = options.volatile ?? VOLATILE_RULES;
    const engine = new Engine({
      clock: options.clock ?? systemClock,
      log,
      limits: { ...STORE_LIMITS, ...options.limits },
      journal: threadJournal(thread, path),
      isVolatile: (key) => rules.some((rule) => covers(rule, key)),
      mayBeVolatile: (resource) => rules.some((rule) => rule.resource === resource),
      partitionOf: options.partitionOf ?? clusterOwnsAll,
      revision: meta.reservedRevision,
      reservedRevision: meta.reservedRevision,
      floors: new Map(meta.floors),
    });
    await load(engine, thread);
    await upgrade(meta.formatVersion, engine.finishLoading(), thread, path);
    engine.start();
    return engine;
  } catch (error) {
    await thread.end();
    if (!(error instanceof DatabaseError)) throw error;
    const busy = ((error.resultCode ?? 0) & 0xff) === SQLITE_BUSY;
    const reason = busy
      ? 'it is in use by another process; stop that one first'
      : `it cannot be read: ${error.message}; ${DAMAGE_ADVICE}`;
    throw new StoreOpenError(`Cannot open store "${path}": ${reason}`, { cause: error });
  }
}

function covers(rule: VolatileRule, key: Key): boolean {
  return (
    rule.resource === key.resource &&
    (rule.namespace === undefined || rule.namespace === key.namespace)
  );
}

/** Reads every row; the next block is fetched while one is taken in. */
async function load(engine: Engine, thread: StoreThread): Promise<void> {
  const shared = new Map<string, string>();
  const intern = (text: string) => {
    const known = shared.get(text);
    if (known === undefined) shared.set(text, text);
    return known ?? text;
  };
  const fetch = (after: number) => thread.call({ op: 'load', after, count: LOAD_ROW_COUNT });
  let pending = fetch(0);
  for (;;) {
    const { rows } = await pending;
    assert(rows, 'the store’s thread answers a load with rows');
    if (rows.count === 0) return;
    pending = fetch(rows.revisions[rows.count - 1] as number);
    // An error of the block fetched ahead is reported when it is its turn.
    pending.catch(() => {});
    for (const row of unpackRows(rows)) {
      const { revision, createRevision, deleted, timeMs } = row;
      const resource = intern(row.resource);
      const key = { resource, namespace: intern(row.namespace), name: row.name };
      const partition = row.partition === undefined ? undefined : intern(row.partition);
      const bytes = ownBytes(row.value);
      const entry = new StoredEntry({ key, revision, createRevision, partition, bytes });
      engine.load({ entry, deleted, timeMs });
    }
  }
}

/**
 * Brings a file of an older format to the present one. Cut short, it goes on at the next start.
 *
 * @param decided the entries whose partition the file does not know; oldest first
 */
async function upgrade(
  formatVersion: number,
  decided: StoredEntry[],
  thread: StoreThread,
  path: string,
): Promise<void> {
  try {
    if (formatVersion < FORMAT_VERSION) await thread.call({ op: 'upgrade' });
    for (let start = 0; start < decided.length; start += LOAD_ROW_COUNT) {
      const entries = decided.slice(start, start + LOAD_ROW_COUNT);
      const partitions = entries.map(({ revision, partition }) => ({ revision, partition }));
      await thread.call({ op: 'partition', partitions });
    }
  } catch (error) {
    const reason = `${(error as Error).message}; nothing in it is lost, make room and start again`;
    throw new StoreOpenError(
      `Cannot upgrade store "${path}" to format ${FORMAT_VERSION}: ${reason}`,
      {
        cause: error,
      },
    );
  }
}

function threadJournal(thread: StoreThread, path: string): Journal {
  return {
    async commit(batch) {
      const { reservedRevision, floors } = batch;
      const rows = packRows(batch.writes.map(rowOf));
      const superseded = Float64Array.from(batch.superseded);
      const request = { rows, reservedRevision, superseded, floors: [...floors] };
      try {
        await thread.call({ op: 'commit', rows: request }, [rows.values.buffer]);
      } catch (error) {
        const reason = (error as Error).message;
        throw new StoreUnavailableError(`Cannot write to store "${path}": ${reason}`, {
          cause: error,
        });
      }
    },
    async close(revision) {
      try {
        await thread.call({ op: 'close', revision });
      } catch (error) {
        // Nothing is lost: the next start jumps over the revisions that stay reserved.
        thread.log.warn('Cannot close the store in good order', { reason: error });
      } finally {
        await thread.end();
        openPaths.delete(path);
      }
    },
  };
}

function rowOf({ entry, deleted, timeMs }: JournalBatch['writes'][number]): Row {
  const { revision, createRevision, partition, bytes } = entry;
  return { ...entry.key, revision, createRevision, timeMs, deleted, partition, value: bytes };
}

/** The database could not do what it was asked. */
class DatabaseError extends Error {
  override name = 'DatabaseError';
  readonly resultCode: number | undefined;
  constructor(message: string, resultCode?: number) {
    super(message);
    this.resultCode = resultCode;
  }
}

/** Calls into `sqlite.worker`, answered in order. */
class StoreThread {
  readonly log: Log;
  readonly #worker: Worker;
  readonly #exited: Promise<void>;
  #waiting: { resolve: (reply: WorkerReply) => void; reject: (error: Error) => void }[] = [];
  #failure: Error | undefined;

  constructor(path: string, log: Log) {
    this.log = log;
    const url = new URL(`./sqlite.worker${extname(import.meta.filename)}`, import.meta.url);
    this.#worker = new Worker(url, { workerData: { path }, execArgv: [] });
    this.#worker.on('message', (reply: WorkerReply) => this.#receive(reply));
    this.#worker.on('error', (error) => this.#fail(describeError(error)));
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#fail('it was stopped');
        resolve();
      });
    });
  }

  call(request: WorkerRequest, transfer: ArrayBuffer[] = []): Promise<WorkerReply> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#worker.postMessage(request, transfer);
    });
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
    await this.#exited;
  }

  #receive(reply: WorkerReply): void {
    if (reply.warning !== undefined) {
      this.log.warn('Cannot tidy up the store', { reason: reply.warning });
      return;
    }
    const caller = this.#waiting.shift();
    const { failure } = reply;
    if (failure) caller?.reject(new DatabaseError(failure.message, failure.resultCode));
    else caller?.resolve(reply);
  }

  #fail(reason: string): void {
    this.#failure ??= new Error(`the store’s thread has ended: ${reason}`);
    const callers = this.#waiting;
    this.#waiting = [];
    for (const caller of callers) caller.reject(this.#failure);
  }
}
