import { stat } from 'node:fs/promises';
import type { Clock } from '../base/clock.ts';
import { UsageError } from './errors.ts';

/** Soon enough that whoever deletes a directory and looks what still runs finds nothing. */
const LOOK_MS = 2_000;

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
  const identity = async () => {
    const found = await stat(root).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
    return found && `${found.dev} ${found.ino}`;
  };
  const first = await identity();
  do await clock.sleep(LOOK_MS, signal);
  while ((await identity()) === first);
  throw new UsageError(`The data directory ${root} has been removed: what ran on it has ended.`);
}
