import { DatabaseSync } from 'node:sqlite';
import type { StatementSync } from 'node:sqlite';
import { crc32 } from 'node:zlib';
import type { RowBlock } from './sqlite.rows.ts';
import { packRows } from './sqlite.rows.ts';

/**
 * The file: one row per write, keyed by revision, so that writing is appending. The state of a key
 * is its newest row; the older ones are its history until compaction removes them.
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
    checksum INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE floor (
    resource TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    reserved_revision INTEGER NOT NULL
  ) STRICT;
  INSERT INTO meta VALUES (1, 0);
`;

/** In the file's header, at offsets 68 and 60. 'HNST'. */
export const APPLICATION_ID = 0x484e5354;
export const FORMAT_VERSION = 1;

/** Another process may be just ending: its lock goes with it. */
const LOCK_TIMEOUT_MS = 500;

/**
 * The write-ahead log is written back when it has grown to about this: small enough to take
 * milliseconds, large enough to be rare.
 */
const WAL_BYTES_MAX = 8 << 20;

/** What a removed row may dirty: a page of its own. */
const PAGE_BYTES = 4096;
const ROW_OVERHEAD_BYTES = 128;

/** Free pages are given back to the file system so many at a time, when many are free. */
const VACUUM_PAGE_COUNT = 256;
const VACUUM_THRESHOLD_PAGE_COUNT = 4096;

export interface LoadedMeta {
  reservedRevision: number;
  floors: [resource: string, revision: number][];
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
  readonly #insert: StatementSync;
  readonly #remove: StatementSync;
  readonly #setFloor: StatementSync;
  readonly #reserve: StatementSync;
  readonly #load: StatementSync;
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
      this.#insert = prepare('INSERT INTO write VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)');
      this.#remove = prepare('DELETE FROM write WHERE revision = ?');
      this.#setFloor = prepare('INSERT OR REPLACE INTO floor VALUES (?, ?)');
      this.#reserve = prepare('UPDATE meta SET reserved_revision = ?');
      this.#load = prepare('SELECT * FROM write WHERE revision > ? ORDER BY revision LIMIT ?');
      // What the last process left in the log is part of the file from here on.
      this.checkpoint();
    } catch (error) {
      this.#database.close();
      throw error;
    }
  }

  meta(): LoadedMeta {
    const meta = this.#database.prepare('SELECT reserved_revision FROM meta').get();
    if (!meta) throw new Error('the table "meta" is empty');
    const last = this.#database.prepare('SELECT max(revision) AS revision FROM write').get();
    const reservedRevision = meta.reserved_revision as number;
    if ((last?.revision as number | null ?? 0) > reservedRevision) {
      throw new Error(`revision ${last?.revision} was written but only ${reservedRevision} reserved`);
    }
    const floors = this.#database.prepare('SELECT resource, revision FROM floor').all();
    return {
      reservedRevision,
      floors: floors.map(({ resource, revision }) => [resource as string, revision as number]),
    };
  }

  /** The next rows after `revision`, in order; none at the end. */
  load(revision: number, count: number): RowBlock {
    const rows = this.#load.all(revision, count).map((row) => ({
      revision: row.revision as number,
      resource: row.resource as string,
      namespace: row.namespace as string,
      name: row.name as string,
      createRevision: row.create_revision as number,
      timeMs: row.time_ms as number,
      deleted: row.deleted === 1,
      value: row.value as Uint8Array,
      checksum: row.checksum as number,
    }));
    for (const row of rows) {
      const found = checksum(row.resource, row.namespace, row.name, row.value);
      if (found === row.checksum) continue;
      const expected = `checksum ${row.checksum} expected, ${found} found`;
      throw new Error(`the row of revision ${row.revision} is damaged: ${expected}`);
    }
    return packRows(rows);
  }

  /** All of it, durably, or, when it throws, nothing. */
  commit({ rows, reservedRevision, superseded, floors }: CommitRows): void {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      let offset = 0;
      for (let index = 0; index < rows.count; index += 1) {
        const [resource, namespace, name] = rows.keys.slice(index * 3, index * 3 + 3);
        const value = rows.values.subarray(offset, (offset += rows.lengths[index] as number));
        this.#insert.run(
          rows.revisions[index] as number,
          resource as string,
          namespace as string,
          name as string,
          rows.createRevisions[index] as number,
          rows.timesMs[index] as number,
          rows.deleted[index] as number,
          value,
          checksum(resource as string, namespace as string, name as string, value),
        );
      }
      for (const revision of superseded) this.#remove.run(revision);
      for (const [resource, revision] of floors) this.#setFloor.run(resource, revision);
      this.#reserve.run(reservedRevision);
      this.#database.exec('COMMIT');
      this.#walBytes += offset + ROW_OVERHEAD_BYTES * rows.count;
      this.#walBytes += PAGE_BYTES * (4 + superseded.length);
    } catch (error) {
      // SQLite has rolled back by itself after some errors.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    }
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
      this.#reserve.run(revision);
    } finally {
      this.#database.close();
    }
  }
}

function checksum(resource: string, namespace: string, name: string, value: Uint8Array): number {
  return crc32(value, crc32(`${resource}\0${namespace}\0${name}`));
}
