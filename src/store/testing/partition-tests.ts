import assert from 'node:assert/strict';
import { CompactedError, InvalidKeyError } from '../store.ts';
import type { Key, ListOptions, Store } from '../store.ts';
import { brief, drain, namespace, namesOf, pod, put, remove, take } from './kit.ts';
import type { Test } from './kit.ts';

/** Two namespaces of red, one of blue, one of the cluster, and a pod `a` in each. */
async function settle(store: Store): Promise<void> {
  const owners = { r1: 'red', r2: 'red', b1: 'blue', c1: '' };
  for (const [name, owner] of Object.entries(owners)) {
    await put(store, namespace(name), { owner });
    await put(store, pod('a', name));
  }
}

export function partitionTests(test: Test): void {
  partitionWriteTests(test);
  partitionListTests(test);
  partitionWatchTests(test);
  reuseTests(test);
}

function partitionWriteTests(test: Test): void {
  test('mutate() decides the partition with what is not durable yet', async ({ store }) => {
    const entries = await Promise.all([
      put(store, namespace('r'), { owner: 'red' }),
      put(store, pod('a', 'r')),
      put(store, pod('a', 'absent')),
    ]);
    assert.deepEqual(
      entries.map(({ partition }) => partition),
      ['red', 'red', ''],
    );
    assert.equal(store.get(pod('a', 'r'))?.partition, 'red');
  });

  test('mutate() asks once: later versions and the deletion inherit', async ({ store, signal }) => {
    const afterRevision = store.revision;
    await put(store, namespace('r'), { owner: 'red' });
    await put(store, pod('a', 'r'));
    const renamed = await put(store, namespace('r'), { owner: 'blue' });
    const updated = await put(store, pod('a', 'r'));
    const deleted = await remove(store, pod('a', 'r'));
    assert.equal(renamed.partition, 'red');
    assert.equal(updated.partition, 'red');
    assert.equal(deleted.entry?.partition, 'red');
    const watch = store.watch('pods', { partition: 'red', afterRevision, signal });
    const events = await take(watch, 3);
    assert.deepEqual(
      events.map(({ type, entry, previous }) => [type, entry.partition, previous?.partition]),
      [
        ['ADDED', 'red', undefined],
        ['MODIFIED', 'red', 'red'],
        ['DELETED', 'red', 'red'],
      ],
    );
  });

  test('mutate() refuses a partition that cannot be stored', async ({ store }) => {
    const { revision } = store;
    for (const owner of ['a\0b', 'half \ud83d', 'n'.repeat(600)]) {
      await assert.rejects(put(store, namespace('n'), { owner }), InvalidKeyError);
    }
    assert.equal(store.revision, revision);
    assert.equal(store.get(namespace('n')), undefined);
  });
}

function partitionListTests(test: Test): void {
  test('list() of a partition holds its entries alone, in order', async ({ store }) => {
    await settle(store);
    const list = (options: ListOptions) => namesOf(store.list('pods', options).entries);
    assert.deepEqual(list({ partition: 'red' }), ['r1/a', 'r2/a']);
    assert.deepEqual(list({ partition: 'blue' }), ['b1/a']);
    assert.deepEqual(list({ partition: '' }), ['c1/a']);
    assert.deepEqual(list({ partition: 'nobody' }), []);
    assert.deepEqual(list({}), ['b1/a', 'c1/a', 'r1/a', 'r2/a']);
    assert.deepEqual(list({ partition: 'red', namespace: 'r2' }), ['r2/a']);
    assert.deepEqual(list({ partition: 'red', namespace: 'b1' }), []);
    assert.deepEqual(list({ partition: '', namespace: 'b1' }), []);
    assert.equal(store.list('pods', { partition: 'nobody' }).revision, store.revision);
    const spaces = store.list('namespaces', { partition: 'red' });
    assert.deepEqual(namesOf(spaces.entries), ['r1', 'r2']);
  });

  test('list() of a partition in pages counts its own and stays at its revision', async ({
    store,
  }) => {
    await settle(store);
    const names = Array.from({ length: 9 }, (_, index) => `p${index}`);
    for (const name of names) {
      for (const space of ['r1', 'b1', 'c1']) await put(store, pod(name, space));
    }
    for (const [partition, space] of [
      ['red', 'r1'],
      ['', 'c1'],
    ] as const) {
      const options = { partition, namespace: space, limit: 4, atRevision: store.revision };
      const seen: string[] = [];
      let after: ListOptions['after'];
      for (let expected = 6; expected >= 0; expected -= 4) {
        const page = store.list('pods', { ...options, after });
        assert.equal(page.remainingCount, expected);
        seen.push(...page.entries.map(({ key }) => key.name));
        after = page.entries.at(-1)?.key;
        await remove(store, pod('p8', space));
        await put(store, pod(`q${expected}`, space));
        await put(store, pod('p1', 'b1'));
      }
      const last = store.list('pods', { ...options, after });
      seen.push(...last.entries.map(({ key }) => key.name));
      assert.deepEqual(seen, ['a', ...names]);
      assert.equal(last.remainingCount, 0);
    }
  });

  test('list() of a partition at old revisions is exact while all change', async ({ store }) => {
    await settle(store);
    const states = new Map<number, string[]>();
    const itemsOf = (options: ListOptions) =>
      store.list('pods', options).entries.map(({ key, revision }) => `${key.name}@${revision}`);
    for (let round = 0; round < 60; round += 1) {
      const key = pod(`p${(round * 7) % 11}`, round % 2 ? 'r1' : 'b1');
      if (round % 5 === 4) await remove(store, key);
      else await put(store, key, { round });
      states.set(store.revision, itemsOf({ namespace: 'r1' }));
    }
    for (const [atRevision, expected] of states) {
      const options = { partition: 'red', namespace: 'r1', atRevision };
      assert.deepEqual(itemsOf(options), expected);
      const page = store.list('pods', { ...options, limit: 2 });
      assert.equal(page.remainingCount, Math.max(0, expected.length - 2));
    }
  });
}

function partitionWatchTests(test: Test): void {
  test('watch() of a partition sees its events alone, past and present', async ({
    store,
    signal,
  }) => {
    const afterRevision = store.revision;
    await settle(store);
    const watch = (partition: string, space?: string) =>
      store.watch('pods', { partition, namespace: space, afterRevision, signal });
    const watches = [watch('red'), watch('blue'), watch(''), watch('red', 'r2')] as const;
    const strangers = [watch('red', 'b1'), watch('nobody'), watch('', 'r1')];
    for (const space of ['r1', 'r2', 'b1', 'c1']) await put(store, pod('b', space));
    const namesIn = async (index: 0 | 1 | 2 | 3, count: number) =>
      namesOf((await take(watches[index], count)).map(({ entry }) => entry));
    assert.deepEqual(await namesIn(0, 4), ['r1/a', 'r2/a', 'r1/b', 'r2/b']);
    assert.deepEqual(await namesIn(1, 2), ['b1/a', 'b1/b']);
    assert.deepEqual(await namesIn(2, 2), ['c1/a', 'c1/b']);
    assert.deepEqual(await namesIn(3, 2), ['r2/a', 'r2/b']);
    assert.equal(store.stats().watcherCount, 7);
    for (const stream of [...watches, ...strangers]) {
      assert.equal(stream.progressRevision, store.revision, 'grows with what others write');
    }
    await store.close();
    for (const stream of [...watches, ...strangers]) {
      assert.deepEqual(await drain(stream), [], 'nothing more, and nothing of others');
    }
  });

  test(
    'watch() of a partition reads a long past in stretches',
    async ({ store, signal }) => {
      const afterRevision = store.revision;
      await settle(store);
      for (let index = 0; index < 30; index += 1) {
        await put(store, pod(`p${index}`, 'r1'));
        await put(store, pod(`p${index}`, 'b1'));
      }
      const watch = store.watch('pods', { partition: 'red', afterRevision, signal });
      const events = await take(watch, 32);
      const names = namesOf(events.map(({ entry }) => entry));
      assert.deepEqual(names.slice(0, 3), ['r1/a', 'r2/a', 'r1/p0']);
      assert.equal(names.at(-1), 'r1/p29');
      await put(store, pod('last', 'r2'));
      assert.equal((await take(watch, 1))[0]?.entry.key.name, 'last');
    },
    { watcherQueueLength: 8 },
  );
}

/** Gives a namespace and the pod in it to another owner, by deleting and creating them. */
async function handOver(store: Store, key: Key, owner: string): Promise<void> {
  await remove(store, key);
  await remove(store, namespace(key.namespace));
  await put(store, namespace(key.namespace), { owner });
  await put(store, key, { owner });
}

function reuseTests(test: Test): void {
  test('a key that changes hands shows no owner what was the other’s', async ({
    store,
    signal,
  }) => {
    const key = pod('a', 'n');
    const start = store.revision;
    await put(store, namespace('n'), { owner: 'red' });
    const before = (await put(store, key, { secret: 'of red' })).revision;
    await handOver(store, key, 'blue');
    const after = store.revision;
    await handOver(store, key, '');
    const list = (partition: string, atRevision: number) =>
      namesOf(store.list('pods', { partition, namespace: 'n', atRevision }).entries);
    const expected = [
      ['red', before],
      ['blue', after],
      ['', store.revision],
    ] as const;
    for (const [owner, atRevision] of expected) {
      for (const [partition] of expected) {
        const names = partition === owner ? ['n/a'] : [];
        assert.deepEqual(list(partition, atRevision), names, `${partition} at ${atRevision}`);
      }
    }
    const eventsOf = async (partition: string, count: number) => {
      const options = { partition, namespace: 'n', afterRevision: start, signal };
      const watch = store.watch('pods', options);
      const events = await take(watch, count);
      assert.equal(watch.progressRevision, store.revision, 'there are no more');
      for (const { previous } of events) assert.equal(previous?.partition ?? partition, partition);
      return events.map(brief).map((text) => text.slice(0, text.indexOf('@')));
    };
    assert.deepEqual(await eventsOf('red', 2), ['ADDED a', 'DELETED a']);
    assert.deepEqual(await eventsOf('blue', 2), ['ADDED a', 'DELETED a']);
    assert.deepEqual(await eventsOf('', 1), ['ADDED a']);
  });

  test(
    'a partition is forgotten with its history, and may come back',
    async ({ store, signal }) => {
      const start = store.revision;
      await put(store, namespace('r'), { owner: 'red' });
      await put(store, pod('a', 'r'));
      const { revision } = store;
      const slow = store.watch('pods', { partition: 'red', afterRevision: start, signal });
      await remove(store, pod('a', 'r'));
      for (let index = 0; index < 15; index += 1) await put(store, pod('other'), { index });
      const at = { partition: 'red', atRevision: revision };
      assert.throws(() => store.list('pods', at), CompactedError);
      assert.throws(
        () => store.watch('pods', { partition: 'red', afterRevision: revision, signal }),
        CompactedError,
      );
      const floor = store.stats().compactRevision;
      const empty = store.list('pods', { partition: 'red', atRevision: floor, limit: 1 });
      assert.deepEqual(empty.entries, []);
      const watch = store.watch('pods', { partition: 'red', afterRevision: floor, signal });
      await put(store, pod('b', 'r'));
      assert.deepEqual(namesOf((await take(watch, 1)).map(({ entry }) => entry)), ['r/b']);
      assert.deepEqual(namesOf(store.list('pods', { partition: 'red' }).entries), ['r/b']);
      const names = namesOf((await take(slow, 3)).map(({ entry }) => entry));
      assert.deepEqual(names, ['r/a', 'r/a', 'r/b'], 'what was queued is still delivered');
    },
    { ringEventCount: 10 },
  );
}
