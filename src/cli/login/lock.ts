import { open, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import type { Clock } from '../../base/clock.ts';
import { UsageError } from '../errors.ts';

const POLL_MS = 25;

export interface LockOptions {
  clock: Clock;
  /** How long to wait for another process. */
  waitMs: number;
  /**
   * A lock of this age was left by a process that is gone. Two that wait may both find so and go
   * on at once: what is locked has to stand that. Absent: locks do not age.
   */
  staleMs?: number;
}

/**
 * Does something while no other process does it: a lock file, made so that only one can make it.
 * @throws UsageError that names the file, when another process has it for too long
 */
export async function withLock<T>(
  path: string,
  options: LockOptions,
  action: () => Promise<T>,
): Promise<T> {
  const handle = await acquire(path, options);
  try {
    return await action();
  } finally {
    await handle.close();
    await rm(path, { force: true });
  }
}

async function acquire(path: string, options: LockOptions): Promise<FileHandle> {
  const { clock, waitMs, staleMs } = options;
  const deadlineMs = clock.monotonicMs() + waitMs;
  for (;;) {
    try {
      return await open(path, 'wx', 0o600);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const madeAtMs = (await stat(path).catch(() => undefined))?.mtimeMs;
    if (staleMs !== undefined && madeAtMs !== undefined && clock.nowMs() - madeAtMs > staleMs) {
      await rm(path, { force: true });
      continue;
    }
    if (clock.monotonicMs() >= deadlineMs) {
      throw new UsageError(
        `Another program has the lock "${path}": wait for it, or remove the file if none runs.`,
      );
    }
    await clock.sleep(POLL_MS);
  }
}
