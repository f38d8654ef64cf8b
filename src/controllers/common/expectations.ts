import type { Clock } from '../../base/clock.ts';

/**
 * What a controller has done and its informer does not show yet. Without it a controller that
 * looks again too soon would create or delete twice.
 */
export interface Expectations {
  expectCreations(key: string, count: number): void;
  expectDeletions(key: string, uids: string[]): void;
  creationObserved(key: string): void;
  deletionObserved(key: string, uid: string): void;
  /** Nothing is outstanding, or it has been for so long that it will not come. */
  isSatisfied(key: string): boolean;
  forget(key: string): void;
}

/** Kubernetes' ExpectationsTimeout. */
const TIMEOUT_MS = 5 * 60_000;

export function createExpectations(clock: Clock): Expectations {
  const byKey = new Map<string, { creations: number; deletions: Set<string>; sinceMs: number }>();
  const renew = (key: string) => {
    const entry = byKey.get(key) ?? { creations: 0, deletions: new Set<string>(), sinceMs: 0 };
    entry.sinceMs = clock.monotonicMs();
    byKey.set(key, entry);
    return entry;
  };
  return {
    expectCreations(key, count) {
      renew(key).creations += count;
    },
    expectDeletions(key, uids) {
      const { deletions } = renew(key);
      for (const uid of uids) deletions.add(uid);
    },
    creationObserved(key) {
      const entry = byKey.get(key);
      if (entry && entry.creations > 0) entry.creations -= 1;
    },
    deletionObserved(key, uid) {
      byKey.get(key)?.deletions.delete(uid);
    },
    isSatisfied(key) {
      const entry = byKey.get(key);
      if (!entry || (entry.creations === 0 && entry.deletions.size === 0)) return true;
      if (clock.monotonicMs() - entry.sinceMs < TIMEOUT_MS) return false;
      byKey.delete(key);
      return true;
    },
    forget(key) {
      byKey.delete(key);
    },
  };
}
