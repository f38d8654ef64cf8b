import type { Random } from '../../base/random.ts';

/**
 * User ids of VMs: one each, never shared, so that a VMM which is broken out of its jail meets
 * nobody of its own name. Drawn at random from a range that neither system users nor subordinate
 * ids (subuid(5) ends at 600,100,000) use, so that two daemons on one host do not meet either.
 */
const UID_MIN = 1_000_000_000;
const UID_COUNT = 1_000_000_000;

export function drawUid(random: Random, taken: ReadonlySet<number>): number {
  for (;;) {
    const uid = UID_MIN + Math.floor(random.next() * UID_COUNT);
    if (!taken.has(uid)) return uid;
  }
}
