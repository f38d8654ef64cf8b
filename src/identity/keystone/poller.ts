import type { IdentityProject } from '../../api/identity.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';

/** Looks at all projects again and again and tells when they are not as they were. */
export interface Poller {
  /** Also calls back once when the first look is done: nobody saw what happened before. */
  subscribe(changed: () => void, signal: AbortSignal): void;
  /** Looks now: something was written. */
  lookNow(): void;
  close(): void;
}

export function createPoller(options: {
  listProjects: () => Promise<IdentityProject[]>;
  intervalMs: number;
  clock: Clock;
  log: Log;
}): Poller {
  const { clock, log } = options;
  const subscribers = new Set<() => void>();
  const ended = new AbortController();
  let last: string | undefined;
  let isRunning = false;
  let wake = new AbortController();

  const look = async (): Promise<void> => {
    const now = digest(await options.listProjects());
    if (now === last || ended.signal.aborted) return;
    last = now;
    for (const changed of [...subscribers]) changed();
  };

  const pollWhileWanted = async (): Promise<void> => {
    let hasFailed = false;
    while (subscribers.size > 0 && !ended.signal.aborted) {
      wake = new AbortController();
      try {
        await look();
        hasFailed = false;
      } catch (error) {
        if (!hasFailed) log.warn("cannot look at Keystone's projects", { error });
        hasFailed = true;
      }
      const signal = AbortSignal.any([wake.signal, ended.signal]);
      // Being woken is as good as having slept.
      await clock.sleep(options.intervalMs, signal).catch(() => {});
    }
    last = undefined;
    isRunning = false;
  };

  return {
    subscribe(changed, signal) {
      if (signal.aborted) return;
      // A subscriber of its own, though the same function may subscribe twice.
      const subscriber = () => changed();
      subscribers.add(subscriber);
      const end = () => {
        subscribers.delete(subscriber);
        if (subscribers.size === 0) wake.abort();
      };
      signal.addEventListener('abort', end, { once: true });
      last = undefined;
      wake.abort();
      if (isRunning) return;
      isRunning = true;
      void pollWhileWanted();
    },
    lookNow: () => wake.abort(),
    close() {
      subscribers.clear();
      ended.abort();
    },
  };
}

function digest(projects: IdentityProject[]): string {
  const rows = projects.map(({ id, name, domain, parentId, description, enabled }) =>
    JSON.stringify([id, name, domain.id, domain.name, parentId, description, enabled]),
  );
  return rows.sort().join('\n');
}
