import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NS, configMap, pod, startHarness } from '../testing/harness.ts';
import type { Harness } from '../testing/harness.ts';

const MERGE = { type: 'application/merge-patch+json' };

async function boundPod(api: Harness, name: string): Promise<void> {
  await api.want('POST', `${NS}/pods`, pod(name));
  const binding = { metadata: { name }, target: { kind: 'Node', name: 'node-1' } };
  await api.want('POST', `${NS}/pods/${name}/binding`, binding);
}

test('an object without finalizers goes at once, and the answer says which', async () => {
  await using api = await startHarness();
  const created = await api.want('POST', `${NS}/configmaps`, configMap('a'));
  const answer = await api.send('DELETE', `${NS}/configmaps/a`);
  assert.equal(answer.code, 200);
  assert.equal(answer.body.status, 'Success');
  const { uid } = created.metadata;
  assert.deepEqual(answer.body.details, { name: 'a', kind: 'configmaps', uid });
  assert.equal((await api.send('GET', `${NS}/configmaps/a`)).code, 404);
  assert.equal((await api.send('DELETE', `${NS}/configmaps/a`)).code, 404);
});

test('preconditions keep another object of the same name', async () => {
  await using api = await startHarness();
  const { metadata } = await api.want('POST', `${NS}/configmaps`, configMap('a'));
  const wrong = { preconditions: { uid: 'other' } };
  const refused = await api.send('DELETE', `${NS}/configmaps/a`, wrong);
  assert.equal(refused.code, 409);
  assert.match(refused.body.message ?? '', /Precondition failed: UID in precondition: other/);
  const stale = { preconditions: { resourceVersion: '1' } };
  assert.equal((await api.send('DELETE', `${NS}/configmaps/a`, stale)).code, 409);
  const right = { preconditions: { uid: metadata.uid, resourceVersion: metadata.resourceVersion } };
  assert.equal((await api.send('DELETE', `${NS}/configmaps/a`, right)).code, 200);
});

test('finalizers hold an object until the last one is taken off', async () => {
  await using api = await startHarness();
  const draft = configMap('a', { metadata: { finalizers: ['example.com/x', 'example.com/y'] } });
  await api.want('POST', `${NS}/configmaps`, draft);
  const waiting = await api.want('DELETE', `${NS}/configmaps/a`);
  assert.equal(waiting.metadata.deletionTimestamp, '2026-01-01T00:00:00Z');
  assert.equal(waiting.metadata.deletionGracePeriodSeconds, 0);
  const again = await api.want('DELETE', `${NS}/configmaps/a`);
  assert.equal(again.metadata.resourceVersion, waiting.metadata.resourceVersion);
  const set = (finalizers: string[] | null) =>
    api.send('PATCH', `${NS}/configmaps/a`, { metadata: { finalizers } }, MERGE);
  const added = await set(['example.com/x', 'example.com/z']);
  assert.equal(added.code, 422);
  assert.match(added.body.message ?? '', /no new finalizers can be added/);
  assert.equal((await set(['example.com/x'])).code, 200);
  assert.equal((await api.send('GET', `${NS}/configmaps/a`)).code, 200);
  const exists = await api.send('POST', `${NS}/configmaps`, configMap('a'));
  assert.match(exists.body.message ?? '', /object is being deleted/);
  assert.equal((await set(null)).code, 200);
  assert.equal((await api.send('GET', `${NS}/configmaps/a`)).code, 404);
});

test('propagation is left to the garbage collector as a finalizer', async () => {
  await using api = await startHarness();
  for (const [policy, finalizer] of [
    ['Orphan', 'orphan'],
    ['Foreground', 'foregroundDeletion'],
  ]) {
    await api.want('POST', `${NS}/configmaps`, configMap(`a-${finalizer}`.toLowerCase()));
    const path = `${NS}/configmaps/a-${finalizer}`.replace('Deletion', 'deletion');
    const waiting = await api.want('DELETE', path, { propagationPolicy: policy });
    assert.deepEqual(waiting.metadata.finalizers, [finalizer]);
    assert.ok(waiting.metadata.deletionTimestamp);
  }
  const both = { propagationPolicy: 'Orphan', orphanDependents: true };
  assert.equal((await api.send('DELETE', `${NS}/configmaps/x`, both)).code, 422);
  const unknown = { propagationPolicy: 'Sideways' };
  assert.equal((await api.send('DELETE', `${NS}/configmaps/x`, unknown)).code, 422);
});

test('a pod that nobody runs goes at once', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/pods`, pod('a'));
  const gone = await api.want('DELETE', `${NS}/pods/a`);
  assert.equal(gone.kind, 'Pod');
  assert.equal((await api.send('GET', `${NS}/pods/a`)).code, 404);
});

test('a pod on a node waits for its kubelet, and can be hurried but not put off', async () => {
  await using api = await startHarness();
  await boundPod(api, 'a');
  const waiting = await api.want('DELETE', `${NS}/pods/a`);
  assert.equal(waiting.metadata.deletionTimestamp, '2026-01-01T00:00:30Z');
  assert.equal(waiting.metadata.deletionGracePeriodSeconds, 30);
  assert.equal(waiting.metadata.generation, 3);
  const later = await api.want('DELETE', `${NS}/pods/a`, { gracePeriodSeconds: 60 });
  assert.equal(later.metadata.deletionGracePeriodSeconds, 30);
  const sooner = await api.want('DELETE', `${NS}/pods/a`, { gracePeriodSeconds: 5 });
  assert.equal(sooner.metadata.deletionTimestamp, '2026-01-01T00:00:05Z');
  const { uid } = waiting.metadata;
  const final = { gracePeriodSeconds: 0, preconditions: { uid } };
  assert.equal((await api.send('DELETE', `${NS}/pods/a`, final)).code, 200);
  assert.equal((await api.send('GET', `${NS}/pods/a`)).code, 404);
});

test("a pod with finalizers outlives its kubelet's deletion", async () => {
  await using api = await startHarness();
  await boundPod(api, 'a');
  const finalizers = ['example.com/x'];
  await api.want('PATCH', `${NS}/pods/a`, { metadata: { finalizers } }, MERGE);
  await api.want('DELETE', `${NS}/pods/a`);
  const held = await api.want('DELETE', `${NS}/pods/a`, { gracePeriodSeconds: 0 });
  assert.equal(held.metadata.deletionGracePeriodSeconds, 0);
  await api.want('PATCH', `${NS}/pods/a`, { metadata: { finalizers: null } }, MERGE);
  assert.equal((await api.send('GET', `${NS}/pods/a`)).code, 404);
});

test('a namespace is emptied by its controller before it goes', async () => {
  await using api = await startHarness();
  await api.want('POST', '/api/v1/namespaces', { metadata: { name: 'team' } });
  const { metadata, spec, status } = await api.want('GET', '/api/v1/namespaces/team');
  assert.deepEqual(metadata.labels, { 'kubernetes.io/metadata.name': 'team' });
  assert.deepEqual(spec, { finalizers: ['kubernetes'] });
  assert.deepEqual(status, { phase: 'Active' });
  const going = await api.want('DELETE', '/api/v1/namespaces/team');
  assert.deepEqual(going.status, { phase: 'Terminating' });
  const late = await api.send('POST', '/api/v1/namespaces/team/configmaps', configMap('a'));
  assert.equal(late.code, 403);
  assert.match(late.body.message ?? '', /because it is being terminated/);
  assert.equal(late.body.details?.causes?.[0]?.reason, 'NamespaceTerminating');
  const emptied = { ...going, spec: {} };
  assert.equal((await api.send('PUT', '/api/v1/namespaces/team/finalize', emptied)).code, 200);
  assert.equal((await api.send('GET', '/api/v1/namespaces/team')).code, 404);
  const immortal = await api.send('DELETE', '/api/v1/namespaces/default');
  assert.equal(immortal.code, 403);
});

test('a collection is deleted as far as it is selected', async () => {
  await using api = await startHarness();
  for (let i = 0; i < 30; i += 1) {
    const labels = { parity: i % 2 ? 'odd' : 'even' };
    await api.want('POST', `${NS}/configmaps`, configMap(`c${i}`, { metadata: { labels } }));
  }
  await api.want('DELETE', `${NS}/configmaps?labelSelector=parity=odd`);
  const left = await api.want<{ items: unknown[] }>('GET', `${NS}/configmaps`);
  assert.equal(left.items.length, 15);
});
