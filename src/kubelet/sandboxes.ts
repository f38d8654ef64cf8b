import { isStatus } from '../api/status.ts';
import type { PodState } from '../api/hyperd.ts';
import type { Clock } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { LABEL } from './history.ts';
import type { HyperdClient } from '../client/hyperd.ts';

/**
 * What hyperd has, followed by its events: an event says which pod changed, the pod is then read
 * again. After every (re)connection the whole list is read, so nothing is missed while either
 * side was away.
 */
export interface Sandboxes {
  of(podUid: string): PodState[];
  all(): PodState[];
  get(id: string): PodState | undefined;
  /** Takes a state that hyperd has just answered with. */
  put(state: PodState): void;
  refresh(id: string): Promise<void>;
  /** Resolves with true when it holds, with false after `timeoutMs` or when aborted. */
  waitFor(holds: () => boolean, timeoutMs: number, signal: AbortSignal): Promise<boolean>;
  readonly synced: Promise<void>;
  run(signal: AbortSignal): Promise<void>;
}

export interface SandboxesOptions {
  hyperd: HyperdClient;
  clock: Clock;
  log: Log;
  onChange: (podUid: string) => void;
}

const RETRY_DELAY_MS = 500;

export function createSandboxes(options: SandboxesOptions): Sandboxes {
  const { hyperd, clock, log } = options;
  const states = new Map<string, PodState>();
  const watchers = new Set<() => void>();
  let markSynced: () => void = () => {};
  const synced = new Promise<void>((resolve) => (markSynced = resolve));

  const changed = (uid: string | undefined) => {
    for (const watcher of [...watchers]) watcher();
    if (uid) options.onChange(uid);
  };
  const put = (state: PodState) => {
    states.set(state.id, state);
    changed(state.labels[LABEL.podUid]);
  };
  const remove = (id: string) => {
    const uid = states.get(id)?.labels[LABEL.podUid];
    if (states.delete(id)) changed(uid);
  };
  const reading = new Map<string, { again: boolean; done: Promise<void> }>();
  const readWhileAsked = async (id: string, turn: { again: boolean }): Promise<void> => {
    try {
      while (turn.again) {
        turn.again = false;
        try {
          put(await hyperd.pod(id));
        } catch (error) {
          if (!isStatus(error, 'NotFound')) throw error;
          remove(id);
        }
      }
    } finally {
      // At once, not when the promise is seen to settle: who asks after this reads again.
      reading.delete(id);
    }
  };
  /** One read at a time for each pod; who asks during it waits for one more. */
  const refresh = (id: string): Promise<void> => {
    const running = reading.get(id);
    if (running) {
      running.again = true;
      return running.done;
    }
    const turn = { again: true, done: Promise.resolve() };
    reading.set(id, turn);
    turn.done = readWhileAsked(id, turn);
    return turn.done;
  };
  const relist = async () => {
    const list = await hyperd.pods();
    const ids = new Set(list.map((state) => state.id));
    for (const id of [...states.keys()]) if (!ids.has(id)) remove(id);
    for (const state of list) put(state);
    markSynced();
  };
  return {
    of: (uid) => [...states.values()].filter((state) => state.labels[LABEL.podUid] === uid),
    all: () => [...states.values()],
    get: (id) => states.get(id),
    put,
    refresh,
    synced,
    waitFor(holds, timeoutMs, signal) {
      return new Promise((resolve) => {
        const check = () => {
          if (holds()) finish(true);
        };
        const abort = () => finish(false);
        const timer = clock.after(timeoutMs, abort);
        const finish = (result: boolean) => {
          watchers.delete(check);
          signal.removeEventListener('abort', abort);
          timer.cancel();
          resolve(result);
        };
        watchers.add(check);
        signal.addEventListener('abort', abort, { once: true });
        if (signal.aborted) abort();
        else check();
      });
    },
    async run(signal) {
      while (!signal.aborted) {
        try {
          let listed: Promise<void> | undefined;
          const events = hyperd.events(signal, () => {
            listed = relist();
            listed.catch(() => {});
          });
          for await (const event of events) {
            await listed;
            if (event.pod) void refresh(event.pod).catch(() => {});
          }
          await listed;
        } catch (error) {
          if (signal.aborted) return;
          log.warn('hyperd is away', { error: describeError(error) });
        }
        await clock.sleep(RETRY_DELAY_MS, signal).catch(() => {});
      }
    },
  };
}
