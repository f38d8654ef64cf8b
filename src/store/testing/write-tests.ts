import assert from 'node:assert/strict';
import { InvalidKeyError, ObjectTooLargeError, StoreClosedError } from '../store.ts';
import type { Entry } from '../store.ts';
import { object, parsed, pod, put, remove } from './kit.ts';
import type { Test } from './kit.ts';

export function writeTests(test: Test): void {
  test('mutate() creates, updates and deletes, one revision each', async ({ store }) => {
    const start = store.revision;
    assert.ok(start >= 1, 'revision 0 means "any" to clients and is never given out');
    const created = await put(store, pod('a'), { value: 1 });
    assert.equal(created.revision, start + 1);
    assert.equal(created.createRevision, start + 1);
    assert.equal(created.object.metadata.resourceVersion, String(start + 1));
    assert.deepEqual(parsed(created), created.object);
    assert.equal(store.get(pod('a')), created);

    const updated = await put(store, pod('a'), { value: 2 });
    assert.equal(updated.revision, start + 2);
    assert.equal(updated.createRevision, start + 1);
    assert.equal(updated.object.value, 2);
    assert.equal(created.object.value, 1, 'an entry once read does not change');

    const deleted = await remove(store, pod('a'));
    assert.equal(deleted.deleted, true);
    assert.equal(deleted.changed, true);
    assert.equal(deleted.entry?.revision, start + 3);
    assert.equal(deleted.entry?.object.metadata.resourceVersion, String(start + 3));
    assert.equal(deleted.entry?.object.value, 2);
    assert.deepEqual(parsed(deleted.entry), deleted.entry.object);
    assert.equal(store.get(pod('a')), undefined);
    assert.equal(store.revision, start + 3);

    const again = await put(store, pod('a'));
    assert.equal(again.createRevision, start + 4, 'a new object under an old name');
  });

  test('mutate() leaves the key when the transform returns undefined', async ({ store }) => {
    const entry = await put(store, pod('a'));
    const same = await store.mutate(pod('a'), () => undefined);
    assert.deepEqual(same, { entry, changed: false, deleted: false });
    const absent = await store.mutate(pod('b'), () => undefined);
    assert.deepEqual(absent, { entry: undefined, changed: false, deleted: false });
    const gone = await remove(store, pod('b'));
    assert.deepEqual(gone, { entry: undefined, changed: false, deleted: false });
    assert.equal(store.revision, entry.revision);
  });

  test('mutate() hands an error of the transform to the caller unchanged', async ({ store }) => {
    const { revision } = store;
    const error = new Error('conflict');
    const fail = () => {
      throw error;
    };
    await assert.rejects(store.mutate(pod('a'), fail), (caught) => caught === error);
    assert.equal(store.revision, revision);
    const first = put(store, pod('a'));
    await assert.rejects(store.mutate(pod('a'), fail), (caught) => caught === error);
    await first;
    assert.equal(store.revision, revision + 1);
  });

  test('mutate() shows each transform the newest state, also under contention', async ({
    store,
  }) => {
    const { revision } = store;
    const increment = (current: Entry | undefined) =>
      object(pod('a'), { count: ((current?.object.count as number | undefined) ?? 0) + 1 });
    const results = await Promise.all(
      Array.from({ length: 200 }, () => store.mutate(pod('a'), increment)),
    );
    assert.equal(store.get(pod('a'))?.object.count, 200);
    const revisions = results.map(({ entry }) => entry?.revision);
    assert.deepEqual(
      revisions,
      Array.from({ length: 200 }, (_, index) => revision + 1 + index),
    );
  });

  test('mutate() in one go creates, deletes and creates the same key', async ({ store }) => {
    const { revision } = store;
    const [one, two, three, four] = await Promise.all([
      put(store, pod('a'), { value: 1 }),
      remove(store, pod('a')),
      store.mutate(pod('a'), () => undefined),
      put(store, pod('a'), { value: 2 }),
    ]);
    assert.equal(one?.revision, revision + 1);
    assert.equal(two?.entry?.revision, revision + 2);
    assert.equal(three?.entry, undefined);
    assert.equal(four?.createRevision, revision + 3);
    assert.equal(store.get(pod('a'))?.object.value, 2);
  });

  test('mutate() makes a write visible no later than it is acknowledged', async ({ store }) => {
    await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        const entry = await put(store, pod(`p${index}`));
        assert.equal(store.get(pod(`p${index}`)), entry);
        assert.ok(store.revision >= entry.revision);
        await store.barrier();
      }),
    );
  });

  test(
    'mutate() refuses an object above the limit, by name',
    async ({ store }) => {
      const { revision } = store;
      await put(store, pod('a'), { text: 'x'.repeat(800) });
      await assert.rejects(put(store, pod('a'), { text: 'x'.repeat(1000) }), (error) => {
        assert.ok(error instanceof ObjectTooLargeError);
        assert.equal(error.limitBytes, 1000);
        assert.match(error.message, /pods "default\/a": it is \d+ bytes long, the limit is 1000/);
        return true;
      });
      assert.equal((store.get(pod('a'))?.object.text as string).length, 800);
      assert.equal(store.revision, revision + 1);
    },
    { objectBytes: 1000 },
  );

  test('mutate() keeps a large object with every character', async ({ store }) => {
    const text = 'aé漢🙂\u2028"\\\n'.repeat(50_000);
    const entry = await put(store, pod('a'), { text });
    assert.equal(entry.object.text, text);
    assert.equal(parsed(entry).text, text);
  });

  test('mutate() refuses a key that no reader could name', async ({ store }) => {
    const names = ['', 'a\0b', 'half \ud83d', 'n'.repeat(600)];
    for (const key of [...names.map((name) => pod(name)), pod('a', 'x\0y')]) {
      await assert.rejects(put(store, key), InvalidKeyError);
    }
  });

  test('get() tells resources, namespaces and names apart', async ({ store }) => {
    const keys = [pod('a'), pod('a', 'other'), pod('a', ''), { ...pod('a'), resource: 'secrets' }];
    for (const [index, key] of keys.entries()) await put(store, key, { index });
    for (const [index, key] of keys.entries()) assert.equal(store.get(key)?.object.index, index);
    assert.equal(store.get({ ...pod('a'), resource: 'nodes' }), undefined);
  });

  test('close() makes what is pending durable and refuses everything after', async ({ store }) => {
    const pending = Promise.all([put(store, pod('a')), put(store, pod('b'))]);
    const closed = store.close();
    await assert.rejects(put(store, pod('c')), StoreClosedError);
    await pending;
    await closed;
    await store.close();
    assert.throws(() => store.get(pod('a')), StoreClosedError);
    assert.throws(() => store.list('pods'), StoreClosedError);
    const { signal } = new AbortController();
    assert.throws(() => store.watch('pods', { afterRevision: 0, signal }), StoreClosedError);
    await assert.rejects(store.barrier(), StoreClosedError);
  });

  test('stats() counts', async ({ store }) => {
    await put(store, pod('a'));
    await put(store, pod('a'));
    await put(store, pod('b'));
    await remove(store, pod('b'));
    const stats = store.stats();
    assert.equal(stats.objectCount, 1);
    assert.equal(stats.bytes, store.get(pod('a'))?.bytes.length);
    assert.equal(stats.revision, store.revision);
    assert.equal(stats.historyEventCount, 4);
    assert.ok(stats.writeCount >= 4);
    assert.equal(stats.watcherCount, 0);
  });
}
