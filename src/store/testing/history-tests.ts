import assert from 'node:assert/strict';
import { CompactedError, FutureRevisionError, SlowWatcherError } from '../store.ts';
import { pod, put, take } from './kit.ts';
import type { Test } from './kit.ts';

export function historyTests(test: Test): void {
  test(
    'watch() of a past that is dropped before it is read ends with an error',
    async ({ store, signal }) => {
      const afterRevision = store.revision;
      for (let index = 0; index < 20; index += 1) await put(store, pod('a'), { index });
      const watch = store.watch('pods', { afterRevision, signal });
      const other = store.watch('pods', { afterRevision, signal });
      assert.equal((await take(watch, 8)).length, 8);
      assert.equal(watch.progressRevision, afterRevision + 8);
      for (let index = 0; index < 15; index += 1) await put(store, pod('a'), { index });
      const events = await take(watch, 12 + 15);
      assert.equal(events.at(-1)?.revision, store.revision, 'all of it is still kept');
      assert.equal(watch.progressRevision, store.revision);
      for (let index = 0; index < 15; index += 1) await put(store, pod('a'), { index });
      await assert.rejects(take(other, 50), SlowWatcherError);
      assert.ok(other.progressRevision < store.stats().compactRevision);
    },
    { ringEventCount: 40, watcherQueueLength: 8 },
  );

  test('watch() refuses a revision of the future', async ({ store, signal }) => {
    const { revision } = store;
    assert.throws(
      () => store.watch('pods', { afterRevision: revision + 1, signal }),
      (error) => error instanceof FutureRevisionError && error.currentRevision === revision,
    );
  });

  test(
    'history is bounded by count, for each resource by itself',
    async ({ store, signal }) => {
      await put(store, { ...pod('a'), resource: 'secrets' });
      const afterRevision = store.revision;
      for (let index = 0; index < 15; index += 1) await put(store, pod('a'), { index });
      const compactRevision = store.revision - 10;
      assert.throws(
        () => store.watch('pods', { afterRevision, signal }),
        (error) => error instanceof CompactedError && error.compactRevision === compactRevision,
      );
      assert.throws(() => store.list('pods', { atRevision: afterRevision }), CompactedError);
      assert.equal(store.stats().compactRevision, compactRevision);
      const watch = store.watch('pods', { afterRevision: compactRevision, signal });
      assert.equal((await take(watch, 10)).at(-1)?.revision, store.revision);
      const list = store.list('pods', { atRevision: compactRevision });
      assert.equal(list.entries[0]?.object.index, 4);
      const quiet = store.list('secrets', { atRevision: afterRevision });
      assert.equal(quiet.entries.length, 1);
    },
    { ringEventCount: 10 },
  );

  test(
    'history is bounded by size: the largest one loses its oldest events',
    async ({ store }) => {
      const atRevision = store.revision;
      for (let index = 0; index < 20; index += 1) {
        await put(store, { ...pod('a'), resource: 'secrets' }, { index });
      }
      for (let index = 0; index < 200; index += 1) {
        await put(store, pod('a'), { text: 'x'.repeat(1000) });
        assert.ok(store.stats().historyBytes <= 100_000);
      }
      assert.throws(() => store.list('pods', { atRevision }), CompactedError);
      assert.equal(store.list('secrets', { atRevision }).entries.length, 0);
    },
    { historyBytes: 100_000 },
  );

  test(
    'history is bounded by time',
    async ({ store, clock, signal }) => {
      const afterRevision = store.revision;
      await put(store, pod('a'));
      await clock.advance(50_000);
      await put(store, pod('a'));
      await clock.advance(15_000);
      assert.throws(() => store.watch('pods', { afterRevision, signal }), CompactedError);
      const watch = store.watch('pods', { afterRevision: afterRevision + 1, signal });
      assert.equal((await take(watch, 1))[0]?.previous?.revision, afterRevision + 1);
      await clock.advance(3_600_000);
      assert.equal(store.stats().historyEventCount, 0);
      assert.equal(store.list('pods').entries.length, 1);
      store.watch('pods', { afterRevision: store.revision, signal });
    },
    { historyMs: 60_000 },
  );
}
