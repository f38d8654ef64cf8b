import type { Clock } from '../../base/clock.ts';
import type { LockoutPolicy } from './settings.ts';
import type { IdentityState } from './state.ts';

/** Counts what concerns nobody, so that a wrong name costs the same write as a wrong password. */
const NOBODY = 'nobody';

export interface Lockout {
  locked(id: string): boolean;
  /** @param id of the user or credential; undefined where there is none */
  failed(id: string | undefined): Promise<void>;
  succeeded(id: string): Promise<void>;
  /** Forgets failures that count no more. */
  maintain(): Promise<void>;
}

export function createLockout(state: IdentityState, clock: Clock, policy: LockoutPolicy): Lockout {
  const table = state.tables.loginfailures;
  const recent = (lastAtMs: number) => lastAtMs + policy.durationMs > clock.nowMs();
  return {
    locked(id) {
      const failures = table.get(id);
      if (!failures || policy.failureCount === 0) return false;
      return failures.count >= policy.failureCount && recent(failures.lastAtMs);
    },
    failed: (id = NOBODY) =>
      table.upsert(id, (before) => {
        const count = before && recent(before.lastAtMs) ? before.count + 1 : 1;
        return { id, count, lastAtMs: clock.nowMs() };
      }),
    async succeeded(id) {
      if (table.get(id)) await table.remove(id);
    },
    async maintain() {
      for (const failures of table.all()) {
        if (!recent(failures.lastAtMs)) await table.remove(failures.id);
      }
    },
  };
}
