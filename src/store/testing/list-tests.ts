import assert from 'node:assert/strict';
import { FutureRevisionError } from '../store.ts';
import { namesOf, pod, put, remove } from './kit.ts';
import type { Test } from './kit.ts';

export function listTests(test: Test): void {
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
