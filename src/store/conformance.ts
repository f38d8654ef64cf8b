import { describe, it } from 'node:test';
import { FakeClock } from '../base/clock.fake.ts';
import type { Clock } from '../base/clock.ts';
import type { PartitionOf, Store, StoreLimits } from './store.ts';
import { historyTests } from './testing/history-tests.ts';
import { listTests } from './testing/list-tests.ts';
import { ownerOf } from './testing/kit.ts';
import { partitionTests } from './testing/partition-tests.ts';
import { watchTests } from './testing/watch-tests.ts';
import { writeTests } from './testing/write-tests.ts';
import type { TestBody } from './testing/kit.ts';

export interface OpenOptions {
  clock: Clock;
  limits: Partial<StoreLimits>;
  partitionOf: PartitionOf;
}

export interface OpenedStore {
  store: Store;
  /** Closes the store if it is open, and removes everything it used. */
  release: () => Promise<void>;
}

/** What every `Store` promises. Call it in the test file of each implementation. */
export function storeConformance(
  name: string,
  open: (options: OpenOptions) => Promise<OpenedStore>,
): void {
  const test = (title: string, body: TestBody, limits: Partial<StoreLimits> = {}) =>
    it(title, async () => {
      const clock = new FakeClock();
      const { store, release } = await open({ clock, limits, partitionOf: ownerOf });
      const ended = new AbortController();
      try {
        await body({ store, clock, signal: ended.signal });
      } finally {
        ended.abort();
        await release();
      }
    });
  describe(`${name}: writes`, () => writeTests(test));
  describe(`${name}: lists`, () => listTests(test));
  describe(`${name}: watches`, () => watchTests(test));
  describe(`${name}: history`, () => historyTests(test));
  describe(`${name}: partitions`, () => partitionTests(test));
}
