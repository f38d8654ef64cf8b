import type { Random } from '../../base/random.ts';

/**
 * User ids of VMs: one each, never shared, so that a VMM which is broken out of its jail meets
 * nobody of its own name. Drawn at random from a range that neither system users nor subordinate
 * ids (subuid(5) ends at 600,100,000) use, so that two daemons on one host do not meet either.
 */
export interface Uids {
  draw(): number;
  /** One that a VM of an earlier daemon has. */
  keep(uid: number): void;
  /** Its VM is gone. */
  release(uid: number): void;
}

const UID_MIN = 1_000_000_000;
const UID_COUNT = 1_000_000_000;

export function createUids(random: Random): Uids {
  const taken = new Set<number>();
  return {
    draw() {
      for (;;) {
        const uid = UID_MIN + Math.floor(random.next() * UID_COUNT);
        if (taken.has(uid)) continue;
        taken.add(uid);
        return uid;
      }
    },
    keep: (uid) => void taken.add(uid),
    release: (uid) => void taken.delete(uid),
  };
}
