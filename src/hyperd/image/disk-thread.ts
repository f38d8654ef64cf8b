import { parentPort, workerData } from 'node:worker_threads';
import { storageError } from './content.ts';
import { buildDisk } from './disk.ts';
import type { DiskRequest } from './disk.ts';
import { ImageError } from './store.ts';
import type { DiskAnswer } from './disk-builder.ts';

/** The body of the thread that `disk-builder.ts` starts for each disk. */
async function answer(): Promise<DiskAnswer> {
  try {
    return { ok: true, result: await buildDisk(workerData as DiskRequest) };
  } catch (thrown) {
    const error = storageError(thrown);
    const { message, stack } = error as Error;
    if (!(error instanceof ImageError)) return { ok: false, message: stack ?? message };
    return { ok: false, message, reason: error.reason, transient: error.transient };
  }
}

parentPort?.postMessage(await answer());
