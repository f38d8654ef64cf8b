import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import { makePodDirectory, savePodRecord } from './record.ts';
import type { PodPaths, PodRecord } from './record.ts';

/** Writes the record of one pod, whenever it has changed and before anybody is told. */
export interface RecordKeeper {
  /** Resolves when what the record said at the call is on disk. */
  save(): Promise<void>;
  /** Saves, and then tells clients that they can see something new. */
  changed(containerId?: string): Promise<void>;
  /**
   * Repeats `work` while the host's disk takes nothing: the guest waits meanwhile, and nothing is
   * lost. Rejects when `signal` aborts, or with an error that is not the disk's.
   */
  untilStored(work: () => Promise<void>): Promise<void>;
  /** The pod's directory is going: nothing is written any more. Waits for what is under way. */
  stop(): Promise<void>;
  /** Resolves when nothing is being written. Never rejects. */
  idle(): Promise<void>;
}

/** Between attempts to write what a full disk did not take. */
const STORE_RETRY_MS = 1_000;

export function createRecordKeeper(
  record: PodRecord,
  paths: PodPaths,
  options: {
    clock: Clock;
    log: Log;
    signal: AbortSignal;
    onChange: (podId: string, containerId?: string) => void;
  },
): RecordKeeper {
  const { clock, log, signal, onChange } = options;
  let saved: Promise<void> = Promise.resolve();
  let next: Promise<void> | undefined;
  let isStopped = false;

  /**
   * Saves are one behind the other, and each writes what is newest when its turn comes: who asks
   * before that shares it.
   */
  const save = (): Promise<void> => {
    if (next) return next;
    const work = saved.then(async () => {
      if (!isStopped) await makePodDirectory(paths);
      next = undefined;
      if (!isStopped) await savePodRecord(paths, record);
    });
    next = work;
    saved = work.catch(() => (next = undefined)).then(() => {});
    return work;
  };

  return {
    save,
    async changed(containerId) {
      await save();
      onChange(record.spec.id, containerId);
    },
    async untilStored(work) {
      for (;;) {
        try {
          return await work();
        } catch (error) {
          signal.throwIfAborted();
          if (!isSystemError(error)) throw error;
          log.error('cannot be stored yet', { error: describeError(error) });
        }
        await clock.sleep(STORE_RETRY_MS, signal);
      }
    },
    async stop() {
      isStopped = true;
      await saved;
    },
    idle: () => saved,
  };
}

function isSystemError(error: unknown): boolean {
  return typeof (error as NodeJS.ErrnoException).errno === 'number';
}
