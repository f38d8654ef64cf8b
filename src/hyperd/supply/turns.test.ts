import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTurns } from './turns.ts';

const forever = new AbortController().signal;
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('a free place goes to the owner who has the fewest, then to who has waited longest', async () => {
  const turns = createTurns(2);
  const order: string[] = [];
  const leaves: (() => void)[] = [];
  const ask = (owner: string, name: string) =>
    void turns.take(owner, forever).then((leave) => {
      order.push(name);
      leaves.push(leave);
    });
  ask('a', 'a1');
  ask('a', 'a2');
  ask('a', 'a3');
  ask('a', 'a4');
  ask('b', 'b1');
  await settled();
  assert.deepEqual(order, ['a1', 'a2']);
  leaves[0]?.();
  leaves[0]?.();
  await settled();
  assert.deepEqual(order, ['a1', 'a2', 'b1']);
  leaves[1]?.();
  leaves[2]?.();
  await settled();
  assert.deepEqual(order, ['a1', 'a2', 'b1', 'a3', 'a4']);
});

test('whoever gives up waiting takes no place', async () => {
  const turns = createTurns(1);
  const leave = await turns.take('a', forever);
  const impatient = new AbortController();
  const given = turns.take('a', impatient.signal);
  impatient.abort(new Error('enough'));
  await assert.rejects(given, /enough/);
  const next = turns.take('a', forever);
  leave();
  (await next)();
  await assert.rejects(turns.take('a', impatient.signal), /enough/);
});
