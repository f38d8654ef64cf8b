import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { watchWallClock } from './wall-clock.ts';

test('a wall clock that is set is noticed once, with its jump; one that is slewed is not', async () => {
  const clock = new FakeClock();
  const jumps: number[] = [];
  const watch = watchWallClock(clock, (jumpMs) => jumps.push(jumpMs));
  await clock.advance(60_000);
  clock.jump(500);
  await clock.advance(60_000);
  assert.deepEqual(jumps, []);
  clock.jump(-3600_000);
  await clock.advance(60_000);
  clock.jump(86_400_000);
  await clock.advance(60_000);
  assert.deepEqual(jumps, [-3599_500, 86_400_000]);
  watch.close();
  assert.equal(clock.pendingCount, 0);
});
