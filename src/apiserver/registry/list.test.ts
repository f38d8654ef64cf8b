import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeList } from '../../api/object.ts';
import { NS, configMap, pod, startHarness } from '../testing/harness.ts';
import type { Harness } from '../testing/harness.ts';

const CONFIG_MAPS = `${NS}/configmaps`;

async function fill(api: Harness, count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) {
    const labels = { parity: i % 2 ? 'odd' : 'even' };
    await api.want('POST', CONFIG_MAPS, configMap(nameOf(i), { metadata: { labels } }));
  }
}

function nameOf(index: number): string {
  return `c${String(index).padStart(3, '0')}`;
}

function names(list: KubeList): string[] {
  return list.items.map(({ metadata }) => metadata.name ?? '');
}

test('pages show one moment, whatever is written between them', async () => {
  await using api = await startHarness();
  await fill(api, 10);
  const first = await api.want<KubeList>('GET', `${CONFIG_MAPS}?limit=4`);
  assert.deepEqual(names(first), [0, 1, 2, 3].map(nameOf));
  assert.equal(first.metadata.remainingItemCount, 6);
  await api.want('DELETE', `${CONFIG_MAPS}/${nameOf(5)}`);
  await api.want('POST', CONFIG_MAPS, configMap(`${nameOf(4)}-new`));
  const token = encodeURIComponent(first.metadata.continue ?? '');
  const rest = await api.want<KubeList>('GET', `${CONFIG_MAPS}?limit=100&continue=${token}`);
  assert.deepEqual(names(rest), [4, 5, 6, 7, 8, 9].map(nameOf));
  assert.equal(rest.metadata.resourceVersion, first.metadata.resourceVersion);
  assert.equal(rest.metadata.continue, undefined);
});

test('pages of a filtered list say nothing about how many remain', async () => {
  await using api = await startHarness();
  await fill(api, 10);
  const target = `${CONFIG_MAPS}?labelSelector=parity%3Dodd&limit=2`;
  const found: string[] = [];
  let token = '';
  do {
    const page = await api.want<KubeList>('GET', `${target}&continue=${encodeURIComponent(token)}`);
    assert.equal(page.metadata.remainingItemCount, undefined);
    assert.ok(page.items.length <= 2);
    found.push(...names(page));
    token = page.metadata.continue ?? '';
  } while (token);
  assert.deepEqual(found, [1, 3, 5, 7, 9].map(nameOf));
});

test('a token whose moment is forgotten is answered with 410 and one that goes on', async () => {
  await using api = await startHarness({
    storeLimits: { historyMs: 1_000, ringEventCount: 5 },
  });
  await fill(api, 6);
  const first = await api.want<KubeList>('GET', `${CONFIG_MAPS}?limit=2`);
  for (let i = 0; i < 50; i += 1) {
    await api.clock.advance(60_000);
    await api.want('POST', `${NS}/secrets`, { metadata: { name: `s${i}` } });
    await api.want(
      'PUT',
      `${CONFIG_MAPS}/${nameOf(5)}`,
      configMap(nameOf(5), { data: { i: `${i}` } }),
    );
  }
  const token = encodeURIComponent(first.metadata.continue ?? '');
  const expired = await api.send('GET', `${CONFIG_MAPS}?limit=2&continue=${token}`);
  assert.equal(expired.code, 410);
  assert.equal(expired.body.reason, 'Expired');
  const fresh = encodeURIComponent((expired.body.metadata as { continue: string }).continue);
  const rest = await api.want<KubeList>('GET', `${CONFIG_MAPS}?continue=${fresh}`);
  assert.deepEqual(names(rest), [2, 3, 4, 5].map(nameOf));
});

test('resourceVersion and resourceVersionMatch mean what Kubernetes says', async () => {
  await using api = await startHarness();
  await fill(api, 2);
  const then = api.store.revision;
  await api.want('POST', CONFIG_MAPS, configMap('later'));
  const count = async (query: string) =>
    (await api.want<KubeList>('GET', `${CONFIG_MAPS}?${query}`)).items.length;
  assert.equal(await count(''), 3);
  assert.equal(await count('resourceVersion=0'), 3);
  assert.equal(await count(`resourceVersion=${then}`), 3);
  assert.equal(await count(`resourceVersion=${then}&resourceVersionMatch=NotOlderThan`), 3);
  assert.equal(await count(`resourceVersion=${then}&resourceVersionMatch=Exact`), 2);
  assert.equal(await count(`resourceVersion=${then}&limit=5`), 2);
  const future = await api.send('GET', `${CONFIG_MAPS}?resourceVersion=${then + 1000}`);
  assert.equal(future.code, 504);
  assert.equal(future.body.details?.causes?.[0]?.reason, 'ResourceVersionTooLarge');
  assert.equal(future.body.details?.retryAfterSeconds, 1);
  const wrong: [string, number][] = [
    ['resourceVersion=x', 400],
    ['resourceVersionMatch=Exact', 422],
    ['resourceVersion=0&resourceVersionMatch=Exact', 422],
    [`resourceVersion=${then}&resourceVersionMatch=Nearly`, 422],
    ['limit=-1', 400],
    ['continue=x', 400],
    ['labelSelector=a%20b%20c', 400],
    ['fieldSelector=spec.nodeName%3Dx', 400],
  ];
  for (const [query, code] of wrong) {
    assert.equal((await api.send('GET', `${CONFIG_MAPS}?${query}`)).code, code, query);
  }
});

test('field selectors find pods by what schedulers and kubelets ask for', async () => {
  await using api = await startHarness();
  for (const name of ['a', 'b', 'c']) await api.want('POST', `${NS}/pods`, pod(name));
  const target = { kind: 'Node', name: 'node-1' };
  await api.want('POST', `${NS}/pods/b/binding`, { metadata: { name: 'b' }, target });
  const found = async (selector: string) =>
    names(await api.want('GET', `/api/v1/pods?fieldSelector=${encodeURIComponent(selector)}`));
  assert.deepEqual(await found('spec.nodeName=node-1'), ['b']);
  assert.deepEqual(await found('spec.nodeName='), ['a', 'c']);
  assert.deepEqual(await found('metadata.name=c'), ['c']);
  assert.deepEqual(await found('status.phase!=Pending'), []);
  assert.deepEqual(await found('spec.nodeName!=node-1,metadata.namespace=default'), ['a', 'c']);
});

test('a long list is streamed and complete', async () => {
  await using api = await startHarness();
  const data = { k: 'x'.repeat(10_000) };
  for (let i = 0; i < 60; i += 1) {
    await api.want('POST', CONFIG_MAPS, configMap(nameOf(i), { data }));
  }
  const list = await api.want<KubeList>('GET', CONFIG_MAPS);
  assert.equal(list.items.length, 60);
  assert.equal(list.kind, 'ConfigMapList');
  assert.equal(list.metadata.resourceVersion, String(api.store.revision));
});
