import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NS, configMap, pod, startHarness } from '../testing/harness.ts';

const MERGE = { type: 'application/merge-patch+json' };
const CONFIG_MAPS = `${NS}/configmaps`;

test('a watch tells every change after its revision, once and in order', async () => {
  await using api = await startHarness();
  const first = await api.want('POST', CONFIG_MAPS, configMap('a'));
  const since = first.metadata.resourceVersion;
  await api.want('PATCH', `${CONFIG_MAPS}/a`, { data: { k: '1' } }, MERGE);
  const watcher = await api.watch(`${CONFIG_MAPS}?watch=true&resourceVersion=${since}`);
  await api.want('DELETE', `${CONFIG_MAPS}/a`);
  await api.want('POST', CONFIG_MAPS, configMap('b'));
  const modified = await watcher.next();
  assert.equal(modified.type, 'MODIFIED');
  assert.deepEqual(modified.object.data, { k: '1' });
  const deleted = await watcher.next();
  assert.equal(deleted.type, 'DELETED');
  assert.equal(deleted.object.metadata.name, 'a');
  assert.ok(
    Number(deleted.object.metadata.resourceVersion) >
      Number(modified.object.metadata.resourceVersion),
  );
  const added = await watcher.next();
  assert.deepEqual([added.type, added.object.metadata.name], ['ADDED', 'b']);
  await watcher.stop();
});

test('without a revision a watch begins with what there is', async () => {
  await using api = await startHarness();
  await api.want('POST', CONFIG_MAPS, configMap('a'));
  for (const query of ['', '&resourceVersion=0']) {
    const watcher = await api.watch(`${CONFIG_MAPS}?watch=1${query}`);
    const event = await watcher.next();
    assert.deepEqual([event.type, event.object.metadata.name], ['ADDED', 'a']);
    await watcher.stop();
  }
});

test('objects come and go as they begin and cease to match a selector', async () => {
  await using api = await startHarness();
  const set = (value: string) =>
    api.want('PATCH', `${CONFIG_MAPS}/a`, { metadata: { labels: { on: value } } }, MERGE);
  await api.want('POST', CONFIG_MAPS, configMap('a', { metadata: { labels: { on: 'no' } } }));
  const start = api.store.revision;
  const query = `watch=true&resourceVersion=${start}&labelSelector=on%3Dyes`;
  const watcher = await api.watch(`${CONFIG_MAPS}?${query}`);
  await set('yes');
  await api.want('PATCH', `${CONFIG_MAPS}/a`, { data: { k: '1' } }, MERGE);
  const left = await set('no');
  await api.want('PATCH', `${CONFIG_MAPS}/a`, { data: { k: '2' } }, MERGE);
  await set('yes');
  await api.want('DELETE', `${CONFIG_MAPS}/a`);
  const seen = [];
  for (let i = 0; i < 5; i += 1) seen.push(await watcher.next());
  assert.deepEqual(
    seen.map(({ type }) => type),
    ['ADDED', 'MODIFIED', 'DELETED', 'ADDED', 'DELETED'],
  );
  // The departure shows the last state that matched, at the revision of the change.
  assert.deepEqual(seen[2]?.object.metadata.labels, { on: 'yes' });
  assert.equal(seen[2]?.object.metadata.resourceVersion, left.metadata.resourceVersion);
  await watcher.stop();
});

test('field selectors follow a pod from node to node', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/pods`, pod('a'));
  const query = `watch=true&resourceVersion=${api.store.revision}`;
  const unassigned = await api.watch(`/api/v1/pods?${query}&fieldSelector=spec.nodeName%3D`);
  const onNode = await api.watch(`/api/v1/pods?${query}&fieldSelector=spec.nodeName%3Dnode-1`);
  const target = { kind: 'Node', name: 'node-1' };
  await api.want('POST', `${NS}/pods/a/binding`, { metadata: { name: 'a' }, target });
  assert.equal((await unassigned.next()).type, 'DELETED');
  assert.equal((await onNode.next()).type, 'ADDED');
  await unassigned.stop();
  await onNode.stop();
});

test('bookmarks come about each minute and before the end, to those who asked', async () => {
  await using api = await startHarness();
  await api.want('POST', CONFIG_MAPS, configMap('a'));
  const query = `watch=true&resourceVersion=${api.store.revision}&timeoutSeconds=100`;
  const watcher = await api.watch(`${CONFIG_MAPS}?${query}&allowWatchBookmarks=true`);
  const silent = await api.watch(`${CONFIG_MAPS}?${query}`);
  const silentEnd = silent.next();
  const first = watcher.next();
  await api.want('POST', `${NS}/secrets`, { metadata: { name: 's' } });
  const { revision } = api.store;
  await api.clock.advance(70_000);
  const bookmark = await first;
  assert.equal(bookmark.type, 'BOOKMARK');
  assert.equal(bookmark.object.kind, 'ConfigMap');
  assert.equal(bookmark.object.metadata.resourceVersion, String(revision));
  const last = watcher.next();
  await api.clock.advance(40_000);
  assert.equal((await last).type, 'BOOKMARK');
  assert.equal((await watcher.next()).done, true);
  assert.equal((await silentEnd).done, true);
});

test('an ended watch leaves no timer and no watcher behind', async () => {
  await using api = await startHarness();
  const before = { timers: api.clock.pendingCount, watchers: api.store.stats().watcherCount };
  const watcher = await api.watch(`${CONFIG_MAPS}?watch=true`);
  await api.want('POST', CONFIG_MAPS, configMap('a'));
  await watcher.next();
  assert.equal(api.store.stats().watcherCount, before.watchers + 1);
  await watcher.stop();
  assert.equal(api.store.stats().watcherCount, before.watchers);
  assert.equal(api.clock.pendingCount, before.timers);
});

test('a revision that is forgotten is told by an ERROR event, one to come is refused', async () => {
  await using api = await startHarness({ storeLimits: { ringEventCount: 4, historyMs: 1 } });
  for (let i = 0; i < 30; i += 1) {
    await api.clock.advance(60_000);
    await api.want('POST', CONFIG_MAPS, configMap(`c${i}`));
  }
  const watcher = await api.watch(`${CONFIG_MAPS}?watch=true&resourceVersion=2`);
  const event = await watcher.next();
  assert.equal(event.type, 'ERROR');
  assert.equal(event.object.code, 410);
  assert.equal(event.object.reason, 'Expired');
  assert.equal((await watcher.next()).done, true);
  const future = `${CONFIG_MAPS}?watch=true&resourceVersion=${api.store.revision + 100}`;
  assert.equal((await api.send('GET', future)).code, 504);
});

test('streaming lists are refused so that informers fall back', async () => {
  await using api = await startHarness();
  const query =
    'watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true';
  const refused = await api.send('GET', `${CONFIG_MAPS}?${query}`);
  assert.equal(refused.code, 422);
  assert.match(refused.body.message ?? '', /sendInitialEvents is forbidden for watch/);
});

test('events are shown as tables or as metadata to those who ask', async () => {
  await using api = await startHarness();
  const as = (kind: string) => ({
    headers: { accept: `application/json;as=${kind};v=v1;g=meta.k8s.io,application/json` },
  });
  const query = `watch=true&resourceVersion=${api.store.revision}`;
  const tables = await api.watch(`${NS}/pods?${query}`, as('Table'));
  const metadata = await api.watch(`${NS}/pods?${query}`, as('PartialObjectMetadata'));
  await api.want('POST', `${NS}/pods`, pod('a'));
  const table = await tables.next();
  assert.equal(table.object.kind, 'Table');
  assert.equal((table.object.rows as { cells: unknown[] }[])[0]?.cells[0], 'a');
  const partial = await metadata.next();
  assert.equal(partial.object.kind, 'PartialObjectMetadata');
  assert.equal(partial.object.spec, undefined);
  await tables.stop();
  await metadata.stop();
});

test('closing the server ends its watches', async () => {
  const api = await startHarness();
  const watcher = await api.watch(`${CONFIG_MAPS}?watch=true`);
  const end = watcher.next();
  await api.server.close();
  assert.equal((await end).done, true);
  await api.store.close();
});
