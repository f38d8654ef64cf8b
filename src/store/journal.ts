import type { StoredEntry } from './entry.ts';

/**
 * Where the engine makes writes durable. A journal keeps one row per write; the state of a key is
 * its newest row. Only rows named in `superseded` may go.
 */
export interface Journal {
  /** All of the batch becomes durable, or it rejects and none of it is. One call at a time. */
  commit(batch: JournalBatch): Promise<void>;
  /** Releases everything. `revision` is the last one handed out: nothing above it is reserved. */
  close(revision: number): Promise<void>;
}

export interface JournalBatch {
  /** In order of revision. */
  writes: JournalWrite[];
  /** No revision above this one is handed out before a later batch has raised it. */
  reservedRevision: number;
  /** Revisions of rows that are no longer needed. */
  superseded: number[];
  /** For each resource that lost history: from which revision on it is still complete. */
  floors: Map<string, number>;
}

export interface JournalWrite {
  entry: StoredEntry;
  deleted: boolean;
  timeMs: number;
}

/** The journal of a store that has none: everything in it is volatile. */
export const noJournal: Journal = {
  commit: () => Promise.resolve(),
  close: () => Promise.resolve(),
};
