import { open, stat } from 'node:fs/promises';
import type { BigIntStats } from 'node:fs';
import type { Clock } from '../base/clock.ts';
import { UsageError } from './errors.ts';

/** Soon enough that whoever deletes a directory and looks what still runs finds nothing. */
const LOOK_MS = 2_000;

/** A directory as it was when it was held. */
export interface HeldDirectory extends AsyncDisposable {
  /** Whether it is still what its path leads to: neither removed, nor moved, nor replaced. */
  isThere(): Promise<boolean>;
}

/**
 * Its file descriptor keeps the directory's number from being given to the next one that is made,
 * which file systems do at once: without it a replacement could not be told from it.
 */
export async function holdDirectory(path: string): Promise<HeldDirectory> {
  const handle = await open(path, 'r');
  const held = await handle.stat({ bigint: true });
  return {
    async isThere() {
      const found = await stat(path, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error;
      });
      return found !== undefined && isSame(found, held);
    },
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

const isSame = (a: BigIntStats, b: BigIntStats) => a.dev === b.dev && a.ino === b.ino;

/**
 * Rejects when the data directory has been removed or replaced: what runs on it cannot be reached
 * any more, by its own sockets neither, and would run for ever.
 *
 * @throws UsageError, or the signal's reason
 */
export async function untilRemoved(
  root: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<never> {
  await using held = await holdDirectory(root);
  do await clock.sleep(LOOK_MS, signal);
  while (await held.isThere());
  throw new UsageError(`The data directory ${root} has been removed: what ran on it has ended.`);
}
