import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { DiskRequest, DiskResult } from './disk.ts';
import { ImageError } from './store.ts';
import type { ImageErrorReason } from './store.ts';

/** What the thread says at its end. */
export type DiskAnswer =
  | { ok: true; result: DiskResult }
  | { ok: false; message: string; reason?: ImageErrorReason; transient?: boolean };

/** JavaScript heap of one build: room for the metadata of an image with the most files. */
const HEAP_MIB_MAX = 1024;

/**
 * Builds a disk in a thread of its own, whose memory is bounded: an image that is made to
 * exhaust it ends the thread and nothing else. Aborting ends the thread at once; the unfinished
 * output is the caller's to remove.
 * @throws ImageError; the signal's reason
 */
export function buildDiskInThread(request: DiskRequest, signal?: AbortSignal): Promise<DiskResult> {
  if (signal?.aborted) return Promise.reject(signal.reason);
  // The same file is `.ts` in the source tree and `.js` in a published package.
  const file = new URL(`./disk-thread${extname(import.meta.filename)}`, import.meta.url);
  const worker = new Worker(file, {
    workerData: request,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB_MAX },
  });
  return new Promise((resolve, reject) => {
    let settle: () => void = () => reject(new Error('Cannot build a disk: its thread ended early'));
    const abort = (): void => {
      settle = () => reject(signal?.reason);
      void worker.terminate();
    };
    signal?.addEventListener('abort', abort, { once: true });
    worker.once('message', (answer: DiskAnswer) => {
      settle = answer.ok ? () => resolve(answer.result) : () => reject(toError(answer));
    });
    worker.once('error', (error: NodeJS.ErrnoException) => {
      const isMemory = error.code === 'ERR_WORKER_OUT_OF_MEMORY';
      settle = () =>
        reject(
          isMemory ? new ImageError('TooLarge', 'image needs too much memory to unpack') : error,
        );
    });
    // Only now nothing writes to the output any more.
    worker.once('exit', () => {
      signal?.removeEventListener('abort', abort);
      settle();
    });
  });
}

function toError(answer: DiskAnswer & { ok: false }): Error {
  if (answer.reason === undefined) return new Error(`Cannot build a disk: ${answer.message}`);
  return new ImageError(answer.reason, answer.message, { transient: answer.transient ?? false });
}
