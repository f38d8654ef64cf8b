import { DatabaseSync } from 'node:sqlite';
import type { SQLOutputValue, StatementSync } from 'node:sqlite';
import { crc32 } from 'node:zlib';
import { packRows, unpackRows } from './sqlite.rows.ts';
import type { Row, RowBlock } from './sqlite.rows.ts';

/**
 * The file: one row per write, keyed by revision, so that writing is appending. The state of a key
 * is its newest row; the older ones are its history until compaction removes them. Format 1 had no
 * partitions: in a row that comes from there it is NULL until it is decided.
 */
const SCHEMA = `
  CREATE TABLE write (
    revision INTEGER PRIMARY KEY,
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    create_revision INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    value BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    partition TEXT
  ) STRICT;
  CREATE TABLE floor (
    resource TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    reserved_revision INTEGER NOT NULL,
    row_count INTEGER NOT NULL
  ) STRICT;
  INSERT INTO meta VALUES (1, 0, 0);
`;

/** In the file's header, at offsets 68 and 60. 'HNST'. */
export const APPLICATION_ID = 0x484e5354;
export const FORMAT_VERSION = 2;
/** Files of this format and later ones are brought to the present one. */
export const OLDEST_FORMAT_VERSION = 1;

/** Another process may be just ending: its lock goes with it. */
const LOCK_TIMEOUT_MS = 500;

/**
 * The write-ahead log is written back when it has grown to about this: small enough to take
 * milliseconds, large enough to be rare.
 */
const WAL_BYTES_MAX = 4 << 20;

/** A removed row may dirty a page of its own. */
const PAGE_BYTES = 8192;
/** A row without its value. */
const ROW_BYTES = 128;

/** Pages that a commit writes besides those of its rows: the ends of trees, and the meta row. */
const COMMIT_PAGE_COUNT = 3;

/** Free pages are given back to the file system so many at a time, when many are free. */
const VACUUM_PAGE_COUNT = 256;
const VACUUM_THRESHOLD_PAGE_COUNT = 4096;

export interface LoadedMeta {
  formatVersion: number;
  reservedRevision: number;
  floors: [resource: string, revision: number][];
}

/** The partition of the row that was written at `revision`. */
export interface RowPartition {
  revision: number;
  partition: string;
}

export interface CommitRows {
  rows: RowBlock;
  reservedRevision: number;
  superseded: Float64Array;
  floors: [resource: string, revision: number][];
}

/** The bytes of a store in which nothing was written yet. */
export function emptyDatabase(): Uint8Array {
  const database = new DatabaseSync(':memory:');
  try {
    database.exec(`
      PRAGMA page_size = ${PAGE_BYTES};
      PRAGMA auto_vacuum = INCREMENTAL;
      PRAGMA application_id = ${APPLICATION_ID};
      PRAGMA user_version = ${FORMAT_VERSION};
      ${SCHEMA}
    `);
    return database.serialize();
  } finally {
    database.close();
  }
}

/** The SQLite file of a store, open for this process alone. Every call blocks until it is done. */
export class StoreDatabase {
  readonly #database: DatabaseSync;
  /** Prepared at the first write: in a file of an older format it does not fit before. */
  #insert: StatementSync | undefined;
  readonly #remove: StatementSync;
  readonly #setFloor: StatementSync;
  readonly #setMeta: StatementSync;
  readonly #load: StatementSync;
  #rowCount = 0;
  #walBytes = 0;

  /** @throws SQLite's error when the file is in use by another process, or damaged */
  constructor(path: string) {
    this.#database = new DatabaseSync(path, { timeout: LOCK_TIMEOUT_MS });
    try {
      // FULL: a commit is on the disk before it is acknowledged, also when power fails. The
      // exclusive lock goes with the process, however it ends.
      this.#database.exec(`
        PRAGMA locking_mode = EXCLUSIVE;
        PRAGMA journal_mode = WAL;
        PRAGMA synchronous = FULL;
        PRAGMA wal_autocheckpoint = 0;
        PRAGMA journal_size_limit = ${WAL_BYTES_MAX};
        PRAGMA cache_size = -8192;
        PRAGMA cell_size_check = ON;
        PRAGMA trusted_schema = OFF;
        BEGIN IMMEDIATE;
        COMMIT;
      `);
      const prepare = (sql: string) => this.#database.prepare(sql);
      this.#remove = prepare('DELETE FROM write WHERE revision = ?');
      this.#setFloor = prepare('INSERT OR REPLACE INTO floor VALUES (?, ?)');
      this.#setMeta = prepare('UPDATE meta SET reserved_revision = ?, row_count = ?');
      this.#load = prepare('SELECT * FROM write WHERE revision > ? ORDER BY revision LIMIT ?');
      // What the last process left in the log is part of the file from here on.
      this.checkpoint();
    } catch (error) {
      this.#database.close();
      throw error;
    }
  }

  /** @throws Error when the tables contradict each other */
  meta(): LoadedMeta {
    const get = (sql: string) => this.#database.prepare(sql).get() ?? {};
    const meta = get('SELECT reserved_revision, row_count FROM meta');
    const found = get('SELECT count(*) AS count, max(revision) AS last FROM write');
    const reservedRevision = meta.reserved_revision as number;
    if (found.count !== meta.row_count) {
      throw new Error(`${found.count} rows found where ${meta.row_count} were written`);
    }
    if ((found.last as number) > reservedRevision) {
      throw new Error(`revision ${found.last} was written, only ${reservedRevision} reserved`);
    }
    this.#rowCount = meta.row_count as number;
    const floors = this.#database.prepare('SELECT resource, revision FROM floor').all();
    return {
      formatVersion: get('PRAGMA user_version').user_version as number,
      reservedRevision,
      floors: floors.map(({ resource, revision }) => [resource as string, revision as number]),
    };
  }

  /**
   * The next rows after `revision`, in order; none at the end.
   *
   * @throws Error when a row is not what was written
   */
  load(revision: number, count: number): RowBlock {
    const rows = this.#load.all(revision, count).map(checkedRow);
    return packRows(rows);
  }

  /** Brings a file of an older format to the present one. Older programs then refuse it. */
  upgrade(): void {
    this.#transact(() => {
      this.#database.exec('ALTER TABLE write ADD COLUMN partition TEXT');
      this.#database.exec(`PRAGMA user_version = ${FORMAT_VERSION}`);
    });
    // The header that others look at is in the file itself.
    this.checkpoint();
  }

  /** Decides the partitions of rows that have none. */
  setPartitions(partitions: RowPartition[]): void {
    const find = this.#database.prepare('SELECT * FROM write WHERE revision = ?');
    const set = this.#database.prepare(
      'UPDATE write SET partition = ?, checksum = ? WHERE revision = ?',
    );
    this.#transact(() => {
      for (const { revision, partition } of partitions) {
        const found = find.get(revision);
        if (!found) throw new Error(`the row of revision ${revision} is gone`);
        const row = { ...checkedRow(found), partition };
        set.run(partition, checksum(row), revision);
      }
    });
    this.checkpoint();
  }

  /** All of it, durably, or, when it throws, nothing. */
  commit({ rows, reservedRevision, superseded, floors }: CommitRows): void {
    this.#rowCount = this.#transact(() => {
      for (const row of unpackRows(rows)) this.#write(row);
      let removedCount = 0;
      for (const revision of superseded) {
        removedCount += Number(this.#remove.run(revision).changes);
      }
      for (const [resource, revision] of floors) this.#setFloor.run(resource, revision);
      const rowCount = this.#rowCount + rows.count - removedCount;
      this.#setMeta.run(reservedRevision, rowCount);
      return rowCount;
    });
    const pageCount = COMMIT_PAGE_COUNT + superseded.length;
    this.#walBytes += PAGE_BYTES * pageCount + rows.values.length + ROW_BYTES * rows.count;
  }

  #transact<T>(work: () => T): T {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      this.#database.exec('COMMIT');
      return result;
    } catch (error) {
      // SQLite has rolled back by itself after some errors.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    }
  }

  #write(row: Row): void {
    this.#insert ??= this.#database.prepare(
      'INSERT INTO write VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
    );
    this.#insert.run(
      row.revision,
      row.resource,
      row.namespace,
      row.name,
      row.createRevision,
      row.timeMs,
      row.deleted ? 1 : 0,
      row.value,
      checksum(row),
      row.partition ?? null,
    );
  }

  /** Housekeeping that nobody waits for, to be called between commits. */
  maintain(): void {
    if (this.#walBytes >= WAL_BYTES_MAX) this.checkpoint();
    const free = this.#database.prepare('PRAGMA freelist_count').get()?.freelist_count as number;
    if (free < VACUUM_THRESHOLD_PAGE_COUNT) return;
    this.#database.exec(`PRAGMA incremental_vacuum(${VACUUM_PAGE_COUNT})`);
    this.#walBytes += PAGE_BYTES * VACUUM_PAGE_COUNT;
  }

  /** Writes the log back into the file. Nobody else reads it, so the log then starts anew. */
  checkpoint(): void {
    this.#database.exec('PRAGMA wal_checkpoint(PASSIVE)');
    this.#walBytes = 0;
  }

  /** @param revision the last one handed out: the reservation ends there */
  close(revision: number): void {
    try {
      this.#setMeta.run(revision, this.#rowCount);
    } finally {
      this.#database.close();
    }
  }
}

/** @throws Error when the row is not what was written */
function checkedRow(found: Record<string, SQLOutputValue>): Row {
  const row: Row = {
    revision: found.revision as number,
    resource: found.resource as string,
    namespace: found.namespace as string,
    name: found.name as string,
    createRevision: found.create_revision as number,
    timeMs: found.time_ms as number,
    deleted: found.deleted === 1,
    partition: (found.partition as string | null | undefined) ?? undefined,
    value: found.value as Uint8Array,
  };
  if (checksum(row) === found.checksum) return row;
  throw new Error(`the row of revision ${row.revision} does not match its checksum`);
}

/** Over everything in the row: SQLite itself does not notice a flipped bit in a value. */
function checksum(row: Row): number {
  const { revision, createRevision, timeMs, deleted, partition } = row;
  const numbers = `${revision} ${createRevision} ${timeMs} ${deleted}`;
  const key = `${row.resource}\0${row.namespace}\0${row.name}`;
  // Rows of format 1 were summed without a partition.
  const owner = partition === undefined ? '' : `\0${partition}`;
  return crc32(row.value, crc32(`${numbers}\0${key}${owner}`));
}
