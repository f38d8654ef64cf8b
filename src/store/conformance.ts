import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KubeObject } from '../api/object.ts';
import { FakeClock } from '../base/clock.fake.ts';
import type { Clock } from '../base/clock.ts';
import {
  CompactedError,
  DELETE,
  FutureRevisionError,
  InvalidKeyError,
  ObjectTooLargeError,
  SlowWatcherError,
  StoreClosedError,
} from './store.ts';
import type { Entry, Key, Store, StoreEvent, StoreLimits, StoreWatch } from './store.ts';

export interface OpenOptions {
  clock: Clock;
  limits: Partial<StoreLimits>;
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
      const { store, release } = await open({ clock, limits });
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
}

interface TestContext {
  store: Store;
  clock: FakeClock;
  signal: AbortSignal;
}

type TestBody = (context: TestContext) => Promise<void>;
type Test = (title: string, body: TestBody, limits?: Partial<StoreLimits>) => void;

export const pod = (name: string, namespace = 'default'): Key => ({
  resource: 'pods',
  namespace,
  name,
});

export function object(key: Key, data: Record<string, unknown> = {}): KubeObject {
  const { name, namespace } = key;
  const metadata = namespace ? { name, namespace } : { name };
  return freeze({ apiVersion: 'v1', kind: 'Test', metadata, ...data });
}

/** Frozen, so that a store that changes what it was given fails. */
function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.freeze(value);
    for (const inner of Object.values(value)) freeze(inner);
  }
  return value;
}

/** Stores an object under `key` and returns its entry. */
export async function put(
  store: Store,
  key: Key,
  data: Record<string, unknown> = {},
): Promise<Entry> {
  const { entry } = await store.mutate(key, () => object(key, data));
  return entry as Entry;
}

const remove = (store: Store, key: Key) => store.mutate(key, () => DELETE);

const namesOf = (entries: Entry[]) =>
  entries.map(({ key }) => (key.namespace ? `${key.namespace}/${key.name}` : key.name));

/** The next `count` events. */
export async function take(watch: StoreWatch, count: number): Promise<StoreEvent[]> {
  const iterator = watch[Symbol.asyncIterator]();
  const events: StoreEvent[] = [];
  while (events.length < count) {
    const { value, done } = await iterator.next();
    if (done) break;
    events.push(value);
  }
  return events;
}

/** Everything up to the end of the stream. */
async function drain(watch: StoreWatch): Promise<StoreEvent[]> {
  const events: StoreEvent[] = [];
  for await (const event of watch) events.push(event);
  return events;
}

const brief = (event: StoreEvent) => `${event.type} ${event.entry.key.name}@${event.revision}`;

const parsed = (entry: Entry) => JSON.parse(new TextDecoder().decode(entry.bytes)) as KubeObject;

function writeTests(test: Test): void {
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

function listTests(test: Test): void {
  test('list() orders by namespace, then name', async ({ store }) => {
    const keys = [pod('b', 'x'), pod('a', 'x'), pod('c', 'x-y'), pod('a', 'w'), pod('z', '')];
    for (const key of keys) await put(store, key);
    await put(store, { ...pod('a', 'x'), resource: 'secrets' });
    const all = store.list('pods');
    assert.deepEqual(namesOf(all.entries), ['z', 'w/a', 'x/a', 'x/b', 'x-y/c']);
    assert.equal(all.revision, store.revision);
    assert.equal(all.remainingCount, 0);
    assert.deepEqual(namesOf(store.list('pods', { namespace: 'x' }).entries), ['x/a', 'x/b']);
    assert.deepEqual(namesOf(store.list('pods', { namespace: '' }).entries), ['z']);
    assert.deepEqual(store.list('pods', { namespace: 'nothing' }).entries, []);
    assert.deepEqual(store.list('unknown').entries, []);
  });

  test('list() of nothing carries the current revision', async ({ store }) => {
    await put(store, pod('a'));
    assert.equal(store.list('unknown').revision, store.revision);
  });

  test('list() in pages gives everything once, and counts the rest', async ({ store }) => {
    const names = Array.from({ length: 25 }, (_, index) => `p${String(index).padStart(2, '0')}`);
    await Promise.all([...names].reverse().map((name) => put(store, pod(name))));
    await put(store, pod('other', 'elsewhere'));
    const seen: string[] = [];
    let after: { namespace: string; name: string } | undefined;
    for (;;) {
      const page = store.list('pods', { namespace: 'default', limit: 10, after });
      seen.push(...page.entries.map(({ key }) => key.name));
      assert.equal(page.remainingCount, 25 - seen.length);
      if (page.remainingCount === 0) break;
      after = page.entries.at(-1)?.key;
    }
    assert.deepEqual(seen, names);
    assert.equal(store.list('pods', { limit: 3 }).remainingCount, 23);
  });

  test('list() at a revision is exact while everything changes', async ({ store }) => {
    const states = new Map<number, string[]>();
    const remember = () => {
      const { revision, entries } = store.list('pods');
      states.set(
        revision,
        entries.map(({ key, revision: at }) => `${key.name}@${at}`),
      );
    };
    remember();
    for (let round = 0; round < 60; round += 1) {
      const key = pod(`p${(round * 7) % 11}`);
      if (round % 5 === 4) await remove(store, key);
      else await put(store, key, { round });
      remember();
    }
    for (const [atRevision, expected] of states) {
      const list = store.list('pods', { atRevision });
      assert.equal(list.revision, atRevision);
      assert.deepEqual(
        list.entries.map(({ key, revision: at }) => `${key.name}@${at}`),
        expected,
      );
      assert.equal(list.remainingCount, 0);
      const page = store.list('pods', { atRevision, limit: 2 });
      assert.deepEqual(page.entries, list.entries.slice(0, 2));
      assert.equal(page.remainingCount, Math.max(0, expected.length - 2));
      const after = page.entries.at(-1)?.key;
      if (after) {
        const rest = store.list('pods', { atRevision, after });
        assert.deepEqual(rest.entries, list.entries.slice(2));
      }
    }
  });

  test('list() in pages at the first page’s revision ignores later writes', async ({ store }) => {
    for (const name of ['a', 'b', 'c', 'd']) await put(store, pod(name), { value: 1 });
    const first = store.list('pods', { limit: 2 });
    await remove(store, pod('c'));
    await put(store, pod('d'), { value: 2 });
    await put(store, pod('bb'));
    await put(store, pod('e'));
    const after = first.entries.at(-1)?.key;
    const second = store.list('pods', { limit: 2, after, atRevision: first.revision });
    assert.deepEqual(namesOf(second.entries), ['default/c', 'default/d']);
    assert.deepEqual(
      second.entries.map(({ object: { value } }) => value),
      [1, 1],
    );
    assert.equal(second.remainingCount, 0);
  });

  test('list() after a place outside the namespace', async ({ store }) => {
    for (const namespace of ['a', 'b', 'c']) await put(store, pod('x', namespace));
    const page = (namespace: string) =>
      store.list('pods', { namespace: 'b', after: { namespace, name: 'x' } });
    assert.deepEqual(namesOf(page('a').entries), ['b/x']);
    for (const namespace of ['b', 'c']) {
      assert.deepEqual(page(namespace).entries, []);
      assert.equal(page(namespace).remainingCount, 0);
    }
  });

  test('list() refuses a revision of the future', async ({ store }) => {
    const atRevision = store.revision + 1;
    assert.throws(() => store.list('pods', { atRevision }), FutureRevisionError);
    assert.throws(() => store.list('unknown', { atRevision }), FutureRevisionError);
  });
}

function watchTests(test: Test): void {
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

function historyTests(test: Test): void {
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
