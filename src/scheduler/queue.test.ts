import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../base/clock.fake.ts';
import { createSchedulingQueue } from './queue.ts';

const never = new AbortController().signal;

test('take() returns pods by priority, then by age', async () => {
  const queue = createSchedulingQueue(new FakeClock());
  queue.add('a', 0);
  queue.add('b', 10);
  queue.add('c', 10);
  queue.add('d', -5);
  const taken = [];
  for (let index = 0; index < 4; index += 1) taken.push(await queue.take(never));
  assert.deepEqual(taken, ['b', 'c', 'a', 'd']);
});

test('take() waits for a pod, and ends when it is aborted', async () => {
  const queue = createSchedulingQueue(new FakeClock());
  const waiting = queue.take(never);
  queue.add('late', 0);
  assert.equal(await waiting, 'late');
  const controller = new AbortController();
  const aborted = queue.take(controller.signal);
  controller.abort(new Error('over'));
  await assert.rejects(aborted, /over/);
});

test('an unschedulable pod comes back after a change, with a back-off that doubles', async () => {
  const clock = new FakeClock();
  const queue = createSchedulingQueue(clock);
  queue.add('pod', 0);
  for (const delayMs of [1000, 2000, 4000, 8000, 10_000, 10_000]) {
    await queue.take(never);
    queue.unschedulable('pod');
    await clock.advance(delayMs);
    assert.deepEqual(queue.sizes, { active: 0, backoff: 0, unschedulable: 1 });
    queue.moveAll();
    await clock.advance(delayMs - 1);
    assert.equal(queue.sizes.backoff, 1);
    await clock.advance(1);
    assert.equal(queue.sizes.active, 1);
  }
});

test('a change while the pod is being placed is not missed', async () => {
  const queue = createSchedulingQueue(new FakeClock());
  queue.add('pod', 0);
  await queue.take(never);
  queue.moveAll();
  queue.unschedulable('pod');
  assert.deepEqual(queue.sizes, { active: 0, backoff: 1, unschedulable: 0 });
});

test('remove() leaves no timer behind', async () => {
  const clock = new FakeClock();
  const queue = createSchedulingQueue(clock);
  queue.add('pod', 0);
  await queue.take(never);
  queue.retry('pod');
  assert.equal(clock.pendingCount, 1);
  queue.remove('pod');
  assert.equal(clock.pendingCount, 0);
});
