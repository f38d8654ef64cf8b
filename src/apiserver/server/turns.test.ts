import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTurns } from './turns.ts';

const user = (name: string, tenant?: string) => ({
  ...{ name, uid: '', groups: [], extra: {} },
  ...(tenant === undefined ? {} : { tenant }),
});

/** Turns that pass when the test says so. */
function rig() {
  const soon: (() => void)[] = [];
  const order: string[] = [];
  const turns = createTurns((run) => void soon.push(run));
  return {
    turns,
    order,
    ask(name: string, tenant?: string) {
      const turn = turns.take(user(name, tenant));
      if (!turn) order.push(name);
      else void turn.then(() => order.push(name));
    },
    async pass() {
      while (soon.length > 0) {
        soon.shift()?.();
        await Promise.resolve();
      }
    },
  };
}

test('tenants take turns, and in a tenant its users', async () => {
  const { ask, order, pass } = rig();
  for (let count = 0; count < 3; count += 1) ask('flood', 'b');
  ask('other', 'b');
  ask('quiet', 'a');
  assert.deepEqual(order, ['flood']);
  await pass();
  assert.deepEqual(order, ['flood', 'flood', 'quiet', 'other', 'flood']);
});

test('nobody waits where nobody is at work, and who has no tenant never does', async () => {
  const { ask, order, pass } = rig();
  ask('one', 'a');
  ask('operator');
  assert.deepEqual(order, ['one', 'operator']);
  await pass();
  ask('two', 'a');
  assert.deepEqual(order, ['one', 'operator', 'two']);
});

test('a long answer goes on behind those who wait', async () => {
  const { turns, ask, order, pass } = rig();
  ask('flood', 'b');
  void turns.yield(user('flood', 'b')).then(() => order.push('more'));
  ask('quiet', 'a');
  void turns.yield(user('flood', 'b')).then(() => order.push('and more'));
  await pass();
  assert.deepEqual(order, ['flood', 'more', 'quiet', 'and more']);
});

test('a tenant with a thousand that wait is told to come later, others are not', async () => {
  const { turns, ask, pass } = rig();
  for (let count = 0; count <= 1_000; count += 1) ask('flood', 'b');
  assert.throws(() => turns.take(user('other', 'b')), { reason: 'TooManyRequests' });
  ask('quiet', 'a');
  await pass();
  ask('flood', 'b');
});
