import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { lossLine } from './event.ts';
import { openShelf } from './shelf.ts';
export type { AuditFile } from './shelf.ts';
import type { AuditFile, Shelf } from './shelf.ts';

export interface AuditLimits {
  /** Recorded and not yet written, of one log: one that is flooded costs the others nothing. */
  pendingBytesPerLog: number;
  pendingBytes: number;
  /** How long lines wait for others to be written with. */
  flushIntervalMs: number;
  /** A file of this size or age is followed by another. */
  fileBytes: number;
  fileAgeMs: number;
  /** Of all files of one log; beyond it the oldest goes. */
  bytesPerLog: number;
  keepMs: number;
  openFiles: number;
}

const DAY_MS = 86_400_000;

const AUDIT_LIMITS: AuditLimits = {
  pendingBytesPerLog: 8 << 20,
  pendingBytes: 64 << 20,
  flushIntervalMs: 200,
  fileBytes: 8 << 20,
  fileAgeMs: DAY_MS,
  bytesPerLog: 64 << 20,
  keepMs: 90 * DAY_MS,
  openFiles: 128,
};

/** Names of logs that are no tenant's; no tenant's name begins with an underscore. */
export const CLUSTER_LOG = '_cluster';
export const UNAUTHENTICATED_LOG = '_unauthenticated';

export interface AuditTarget {
  /** A tenant's name, or one of the names above. */
  log: string;
  /** The tenant's uid, since a name may be used again: `[0-9a-z-]`, at most 64 characters. */
  owner: string;
}

export interface AuditLog {
  /** Takes a line, which ends in a newline. Never waits, never throws: what does not fit is lost. */
  record(target: AuditTarget, line: string): void;
  /** Resolves when what was recorded before is written, or lost. */
  flush(): Promise<void>;
  /**
   * What of a log is written now. `written`, if given, is called with what is appended from this
   * moment on, until `stop`.
   */
  view(log: string, written?: (owner: string, text: string) => void): Promise<AuditView>;
  stats(): AuditStats;
  /** Writes what is pending and ends. What is recorded later is lost. */
  close(): Promise<void>;
}

export interface AuditView {
  files: AuditFile[];
  stop(): void;
}

export interface AuditStats {
  recordedCount: number;
  /** Lost because too much was waiting, or because the disk did not take it. */
  lostCount: number;
  pendingBytes: number;
}

export interface AuditLogOptions {
  /** Every log is a directory in it. */
  directory: string;
  clock: Clock;
  random: Random;
  log: Log;
  limits?: Partial<AuditLimits>;
}

interface OneLog {
  shelf: Promise<Shelf> | undefined;
  pending: { owner: string; text: string; count: number }[];
  pendingBytes: number;
  /** Since the last line that was taken. */
  lostCount: number;
  readers: Set<(owner: string, text: string) => void>;
}

/** A tenant's name, or one of ours. It becomes a directory's. */
export const LOG_NAME = /^_?[a-z0-9][a-z0-9-]{0,62}$/;

const SWEEP_INTERVAL_MS = 3_600_000;

export function openAuditLog(options: AuditLogOptions): AuditLog {
  const { directory, clock, random, log } = options;
  const limits = { ...AUDIT_LIMITS, ...options.limits };
  const logs = new Map<string, OneLog>();
  const dirty = new Set<string>();
  const openNames = new Set<string>();
  const stats: AuditStats = { recordedCount: 0, lostCount: 0, pendingBytes: 0 };
  let timer: Timer | undefined;
  let writing = Promise.resolve();
  let closed = false;

  const logOf = (name: string): OneLog => {
    let one = logs.get(name);
    if (!one) {
      one = { shelf: undefined, pending: [], pendingBytes: 0, lostCount: 0, readers: new Set() };
      logs.set(name, one);
    }
    return one;
  };
  const shelfOf = (name: string): Promise<Shelf> => {
    assert(LOG_NAME.test(name), `"${name}" is no name of a log`);
    const one = logOf(name);
    one.shelf ??= openShelf(join(directory, name), limits);
    one.shelf.catch(() => {
      one.shelf = undefined;
    });
    return one.shelf;
  };

  const lose = (one: OneLog, count: number) => {
    one.lostCount += count;
    stats.lostCount += count;
  };

  const add = (one: OneLog, owner: string, line: string) => {
    const last = one.pending.at(-1);
    if (last?.owner === owner) {
      last.text += line;
      last.count += 1;
    } else one.pending.push({ owner, text: line, count: 1 });
    one.pendingBytes += line.length;
    stats.pendingBytes += line.length;
  };

  const keepFewOpen = async (name: string, shelf: Shelf) => {
    openNames.delete(name);
    if (shelf.isOpen) openNames.add(name);
    for (const other of openNames) {
      if (openNames.size <= limits.openFiles) break;
      openNames.delete(other);
      await (await shelfOf(other)).release();
    }
  };

  const writeOne = async (name: string) => {
    const one = logOf(name);
    const batches = one.pending;
    one.pending = [];
    stats.pendingBytes -= one.pendingBytes;
    one.pendingBytes = 0;
    for (const { owner, text, count } of batches) {
      try {
        const shelf = await shelfOf(name);
        const before = shelf.files().length;
        await shelf.append(owner, text, clock.nowMs());
        for (const written of one.readers) written(owner, text);
        if (shelf.files().length > before) await shelf.trim(clock.nowMs());
        await keepFewOpen(name, shelf);
      } catch (error) {
        lose(one, count);
        log.warn('Cannot write the audit log', { log: name, error: describeError(error) });
      }
    }
  };

  const writeAll = async () => {
    const names = [...dirty];
    dirty.clear();
    for (const name of names) await writeOne(name);
  };

  const flush = () => {
    timer?.cancel();
    timer = undefined;
    writing = writing.then(writeAll);
    return writing;
  };

  const sweep = async () => {
    const names = await readdir(directory).catch(() => []);
    for (const name of names.filter((each) => LOG_NAME.test(each))) {
      const shelf = await shelfOf(name);
      await shelf.trim(clock.nowMs());
    }
  };
  let sweeping: Timer;
  const sweepLater = () => {
    sweeping = clock.after(SWEEP_INTERVAL_MS, () => {
      writing = writing.then(sweep).catch((error) => {
        log.warn('Cannot remove old audit logs', { error: describeError(error) });
      });
      sweepLater();
    });
  };
  sweepLater();

  return {
    record({ log: name, owner }, line) {
      const one = logOf(name);
      const isFull =
        one.pendingBytes + line.length > limits.pendingBytesPerLog ||
        stats.pendingBytes + line.length > limits.pendingBytes;
      if (closed || isFull) {
        if (one.lostCount === 0) log.warn('The audit log cannot keep up', { log: name });
        lose(one, 1);
        return;
      }
      if (one.lostCount > 0) add(one, owner, lossLine(one.lostCount, random.uuid(), clock.nowMs()));
      one.lostCount = 0;
      add(one, owner, line);
      stats.recordedCount += 1;
      dirty.add(name);
      timer ??= clock.after(limits.flushIntervalMs, () => void flush());
    },

    flush,

    view(name, written) {
      void flush();
      const viewing = writing.then(async () => {
        const shelf = await shelfOf(name);
        const { readers } = logOf(name);
        // No write is under way here: what is not in the files yet will be told.
        if (written) readers.add(written);
        const files = shelf.files().map((file) => ({ ...file }));
        return { files, stop: () => void (written && readers.delete(written)) };
      });
      writing = viewing.then(
        () => {},
        () => {},
      );
      return viewing;
    },

    stats: () => ({ ...stats }),

    async close() {
      closed = true;
      sweeping.cancel();
      await flush();
      for (const { shelf } of logs.values()) await (await shelf)?.release();
    },
  };
}
