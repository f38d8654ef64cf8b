import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import { createMemoryStore } from '../../store/memory.ts';
import { StoreClosedError } from '../../store/store.ts';
import { openTable } from './table.ts';

function setUp(limits = {}) {
  const clock = new FakeClock();
  const store = createMemoryStore({ clock, limits });
  const closing = new AbortController();
  const warnings: string[] = [];
  const log = { ...silentLog, warn: (message: string) => void warnings.push(message) };
  const open = () => openTable('groups', { store, clock, log, signal: closing.signal });
  return { clock, store, closing, warnings, open, table: open() };
}

const group = (i: number, name = `g${i}`) => ({
  ...{ id: `${i}`, name, domainId: 'd', description: '' },
});

test('a table that falls behind reads everything anew', async () => {
  const { clock, store, table, warnings } = setUp({ watcherQueueLength: 1 });
  const pendingCount = clock.pendingCount;
  const byName = table.index(({ name }) => name);
  await table.put(group(0));
  const writes = Promise.all(Array.from({ length: 50 }, (_, i) => table.put(group(i, 'new'))));
  const removal = table.remove('49');
  await clock.advance(1_000);
  await Promise.all([writes, removal]);
  assert.equal(table.size, 49);
  assert.deepEqual(byName('g0'), []);
  assert.equal(byName('new').length, 49);
  assert.ok(warnings.length > 0);
  assert.equal(clock.pendingCount, pendingCount);
  await store.close();
});

test('tables of two servers show the same, and tell of each change', async () => {
  const { clock, store, open, table } = setUp();
  const other = open();
  const ended = new AbortController();
  let told = 0;
  other.onChange(() => (told += 1), ended.signal);
  await table.put(group(1));
  await table.update('1', (before) => ({ ...before, name: 'second' }));
  await clock.advance(1);
  assert.deepEqual([told, other.get('1')], [2, group(1, 'second')]);
  ended.abort();
  await table.remove('1');
  await clock.advance(1);
  assert.deepEqual([told, other.get('1')], [2, undefined]);
  await assert.rejects(
    table.update('1', (before) => before),
    { code: 404 },
  );
  assert.equal(await table.remove('1'), false);
  await store.close();
});

test('who waits for a write when the table closes is told', async () => {
  const { store, closing, table } = setUp();
  closing.abort();
  await assert.rejects(table.put(group(1)), StoreClosedError);
  await store.close();
});
