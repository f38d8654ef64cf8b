import assert from 'node:assert/strict';
import { SlowWatcherError } from '../store.ts';
import type { Entry } from '../store.ts';
import { brief, drain, namesOf, pod, put, remove, take } from './kit.ts';
import type { Test } from './kit.ts';

export function watchTests(test: Test): void {
  test('watch() sees every later write once, in order, with the state before', async ({
    store,
    signal,
  }) => {
    await put(store, pod('before'));
    const afterRevision = store.revision;
    const watch = store.watch('pods', { afterRevision, signal });
    const one = await put(store, pod('a'), { value: 1 });
    await put(store, { ...pod('a'), resource: 'secrets' });
    const two = await put(store, pod('a'), { value: 2 });
    const { entry: three } = await remove(store, pod('a'));
    const events = await take(watch, 3);
    assert.deepEqual(
      events.map(({ type }) => type),
      ['ADDED', 'MODIFIED', 'DELETED'],
    );
    assert.deepEqual(
      events.map(({ entry }) => entry),
      [one, two, three],
    );
    assert.deepEqual(
      events.map(({ previous }) => previous),
      [undefined, one, two],
    );
    for (const event of events) assert.equal(event.revision, event.entry.revision);
  });

  test('watch() from the past replays, then goes on live', async ({ store, signal }) => {
    const afterRevision = store.revision;
    for (const name of ['a', 'b', 'c']) await put(store, pod(name));
    const watch = store.watch('pods', { afterRevision: afterRevision + 1, signal });
    await put(store, pod('d'));
    const events = await take(watch, 3);
    assert.deepEqual(
      events.map(brief),
      ['b', 'c', 'd'].map((name, index) => `ADDED ${name}@${afterRevision + 2 + index}`),
    );
  });

  test('watch() of one namespace sees no other', async ({ store, signal }) => {
    const afterRevision = store.revision;
    await put(store, pod('a', 'mine'));
    await put(store, pod('a', 'yours'));
    const watch = store.watch('pods', { namespace: 'mine', afterRevision, signal });
    await put(store, pod('b', 'yours'));
    await put(store, pod('b', 'mine'));
    const events = await take(watch, 2);
    assert.deepEqual(namesOf(events.map(({ entry }) => entry)), ['mine/a', 'mine/b']);
  });

  test('watches under concurrent writes all see the same history', async ({ store, signal }) => {
    const afterRevision = store.revision;
    const live = Array.from({ length: 5 }, () => store.watch('pods', { afterRevision, signal }));
    const writers = Array.from({ length: 8 }, async (_, writer) => {
      for (let round = 0; round < 20; round += 1) {
        const key = pod(`p${(writer + round) % 5}`);
        if ((writer * round) % 7 === 6) await remove(store, key);
        else await put(store, key, { writer, round });
      }
    });
    await Promise.all(writers);
    const count = store.revision - afterRevision;
    const late = store.watch('pods', { afterRevision, signal });
    const histories = await Promise.all([...live, late].map((watch) => take(watch, count)));
    const [first] = histories;
    const state = new Map<string, Entry>();
    for (const [index, event] of (first ?? []).entries()) {
      assert.equal(event.revision, afterRevision + 1 + index, 'no gap, nothing twice');
      assert.equal(event.previous, state.get(event.entry.key.name));
      assert.equal(event.type === 'ADDED', event.previous === undefined);
      if (event.type === 'DELETED') state.delete(event.entry.key.name);
      else state.set(event.entry.key.name, event.entry);
    }
    assert.deepEqual(
      [...state.values()].map(({ key }) => key.name).sort(),
      store.list('pods').entries.map(({ key }) => key.name),
    );
    for (const history of histories) assert.deepEqual(history.map(brief), first?.map(brief));
  });

  test('progressRevision says what the reader has been given', async ({ store, signal }) => {
    const afterRevision = store.revision;
    const watch = store.watch('pods', { afterRevision, signal });
    assert.equal(watch.progressRevision, afterRevision);
    await put(store, { ...pod('a'), resource: 'secrets' });
    assert.equal(watch.progressRevision, store.revision, 'grows with other resources');
    const { revision } = await put(store, pod('a'));
    await put(store, pod('b'));
    assert.equal(watch.progressRevision, revision - 1, 'not beyond an event still queued');
    await take(watch, 1);
    assert.equal(watch.progressRevision, revision);
    await take(watch, 1);
    assert.equal(watch.progressRevision, store.revision);
  });

  test('watch() ends with its signal, its reader and its store', async ({ store }) => {
    const afterRevision = store.revision;
    const abort = new AbortController();
    const aborted = store.watch('pods', { afterRevision, signal: abort.signal });
    const read = store.watch('pods', { afterRevision, signal: abort.signal });
    const other = new AbortController();
    const open = store.watch('pods', { afterRevision, signal: other.signal });
    assert.equal(store.stats().watcherCount, 3);
    await put(store, pod('a'));
    for await (const event of read) {
      assert.equal(event.entry.key.name, 'a');
      break;
    }
    assert.equal(store.stats().watcherCount, 2);
    abort.abort();
    assert.deepEqual(await drain(aborted), [], 'an aborted stream delivers nothing more');
    assert.equal(store.stats().watcherCount, 1);
    assert.deepEqual(await drain(store.watch('pods', { afterRevision, signal: abort.signal })), []);
    await store.close();
    assert.equal((await drain(open)).length, 1, 'a closed store delivers what was queued');
  });

  test(
    'watch() drops a reader that is too slow, and nobody else',
    async ({ store, signal }) => {
      const afterRevision = store.revision;
      const slow = store.watch('pods', { afterRevision, signal });
      const quick = store.watch('pods', { afterRevision, signal });
      const reading = take(quick, 40);
      for (let index = 0; index < 40; index += 1) {
        await put(store, pod(`p${index}`));
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.equal((await reading).length, 40);
      await assert.rejects(take(slow, 1), SlowWatcherError);
      assert.equal(store.stats().watcherCount, 1);
      const resumed = store.watch('pods', { afterRevision, signal });
      assert.equal((await take(resumed, 40)).length, 40, 'a replay is not limited by the queue');
    },
    { watcherQueueLength: 10 },
  );
}
