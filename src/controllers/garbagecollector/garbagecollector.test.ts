import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject, OwnerReference } from '../../api/object.ts';
import type { ConfigMap, Namespace, Pod } from '../../api/types.generated.ts';
import { createClient } from '../../client/client.ts';
import { CONFIG_MAPS, NAMESPACES, PODS, REPLICA_SETS, SECRETS } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';
import { runNamespaceController } from '../namespace/index.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import { runGarbageCollector } from './index.ts';

const WIDGETS: Resource = {
  group: 'example.com',
  version: 'v1',
  resource: 'widgets',
  kind: 'Widget',
  namespaced: true,
};

const collect = (context: Parameters<typeof runGarbageCollector>[0]) =>
  runGarbageCollector(context, [PODS]);

function map(name: string, owners: (KubeObject | OwnerReference)[] = [], block = true): ConfigMap {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: {
      name,
      namespace: 'ns',
      ownerReferences: owners.map((owner) =>
        'metadata' in owner
          ? {
              apiVersion: owner.apiVersion as string,
              kind: owner.kind as string,
              name: (owner as KubeObject).metadata.name ?? '',
              uid: (owner as KubeObject).metadata.uid ?? '',
              blockOwnerDeletion: block,
            }
          : (owner as OwnerReference),
      ),
    },
  };
}

function start(t: Parameters<typeof startTestCluster>[0]) {
  const cluster = startTestCluster(t, [collect], [WIDGETS]);
  const client = createClient(cluster.api.transport, { userAgent: 'user' });
  const names = () =>
    cluster.api
      .all(CONFIG_MAPS)
      .map(({ metadata }) => metadata.name)
      .sort();
  const remove = (name: string, propagationPolicy: 'Background' | 'Foreground' | 'Orphan') =>
    client.delete(CONFIG_MAPS, { namespace: 'ns', name }, { propagationPolicy });
  return { ...cluster, client, names, remove };
}

test('background: the owner goes at once, and all it owns follows', async (t) => {
  const { api, pass, names, remove } = start(t);
  const owner = api.put(CONFIG_MAPS, map('owner'));
  const child = api.put(CONFIG_MAPS, map('child', [owner]));
  api.put(CONFIG_MAPS, map('grandchild', [child]));
  const widget = { ...map('w', [child]), apiVersion: 'example.com/v1', kind: 'Widget' };
  api.put(WIDGETS, widget);
  api.put(CONFIG_MAPS, map('bystander'));
  await pass(1000);
  assert.equal(names().length, 4);
  await remove('owner', 'Background');
  await pass(2000);
  assert.deepEqual(names(), ['bystander']);
  assert.equal(api.all(WIDGETS).length, 0);
});

test('foreground: the owner stays until what blocks it is gone', async (t) => {
  const { api, pass, names, remove } = start(t);
  const owner = api.put(CONFIG_MAPS, map('owner'));
  const held = map('held', [owner]);
  held.metadata.finalizers = ['example.com/hold'];
  api.put(CONFIG_MAPS, held);
  api.put(CONFIG_MAPS, map('free', [owner]));
  await pass(1000);
  await remove('owner', 'Foreground');
  await pass(2000);
  assert.deepEqual(names(), ['held', 'owner']);
  const waiting = api.get(CONFIG_MAPS, 'ns', 'held') as ConfigMap;
  assert.ok(waiting.metadata.deletionTimestamp);
  api.put(CONFIG_MAPS, { ...waiting, metadata: { ...waiting.metadata, finalizers: [] } });
  await pass(2000);
  assert.deepEqual(names(), []);
});

test('foreground: a dependent that does not block does not hold the owner', async (t) => {
  const { api, pass, names, remove } = start(t);
  const owner = api.put(CONFIG_MAPS, map('owner'));
  const held = map('held', [owner], false);
  held.metadata.finalizers = ['example.com/hold'];
  api.put(CONFIG_MAPS, held);
  await pass(1000);
  await remove('owner', 'Foreground');
  await pass(2000);
  assert.deepEqual(names(), ['held']);
  assert.ok(api.get(CONFIG_MAPS, 'ns', 'held')?.metadata.deletionTimestamp);
});

test('orphan: what was owned stays, without its owner', async (t) => {
  const { api, pass, names, remove } = start(t);
  const owner = api.put(CONFIG_MAPS, map('owner'));
  api.put(CONFIG_MAPS, map('child', [owner]));
  await pass(1000);
  await remove('owner', 'Orphan');
  await pass(2000);
  assert.deepEqual(names(), ['child']);
  assert.deepEqual(api.get(CONFIG_MAPS, 'ns', 'child')?.metadata.ownerReferences, []);
});

test('an object lives as long as one of its owners, and is freed of the others', async (t) => {
  const { api, pass, names, remove } = start(t);
  const first = api.put(CONFIG_MAPS, map('first'));
  const second = api.put(CONFIG_MAPS, map('second'));
  api.put(CONFIG_MAPS, map('child', [first, second]));
  await pass(1000);
  await remove('first', 'Background');
  await pass(2000);
  assert.deepEqual(names(), ['child', 'second']);
  const owners = api.get(CONFIG_MAPS, 'ns', 'child')?.metadata.ownerReferences;
  assert.deepEqual(
    owners?.map(({ name }) => name),
    ['second'],
  );
});

test('an owner with another uid or in another namespace is no owner', async (t) => {
  const { api, pass, names } = start(t);
  const real = api.put(CONFIG_MAPS, map('real'));
  const elsewhere = api.put(SECRETS, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 's', namespace: 'other' },
  });
  const wrong = { apiVersion: 'v1', kind: 'ConfigMap', name: 'real', uid: 'long-gone' };
  api.put(CONFIG_MAPS, map('impostor', [wrong]));
  api.put(CONFIG_MAPS, map('stranger', [elsewhere]));
  api.put(CONFIG_MAPS, map('child', [real]));
  await pass(2000);
  assert.deepEqual(names(), ['child', 'real']);
});

test('an owner of a kind that is not served is never taken for gone', async (t) => {
  const { api, pass, names, complaints } = start(t);
  const owner = { apiVersion: 'nowhere.io/v1', kind: 'Thing', name: 'x', uid: 'u' };
  api.put(CONFIG_MAPS, map('child', [owner]));
  await pass(60_000);
  assert.deepEqual(names(), ['child']);
  assert.deepEqual(complaints, []);
});

test('two objects that own each other do not block their own deletion', async (t) => {
  const { api, pass, names, remove } = start(t);
  const a = api.put(CONFIG_MAPS, map('a'));
  const b = api.put(CONFIG_MAPS, map('b', [a]));
  const looped = map('a', [b]);
  api.put(CONFIG_MAPS, { ...looped, metadata: { ...looped.metadata, uid: a.metadata.uid } });
  await pass(1000);
  await remove('a', 'Foreground');
  await pass(5000);
  assert.deepEqual(names(), []);
});

test('a namespace goes when it is empty: pods first, and it says what holds it', async (t) => {
  const cluster = startTestCluster(t, [runNamespaceController]);
  const { api, pass } = cluster;
  const space: Namespace = {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'ns' },
    spec: { finalizers: ['kubernetes'] },
    status: { phase: 'Active' },
  };
  api.put(NAMESPACES, space);
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'ns', finalizers: ['example.com/hold'] },
  };
  api.put(PODS, pod);
  api.put(CONFIG_MAPS, map('m'));
  api.put(CONFIG_MAPS, { ...map('other'), metadata: { name: 'other', namespace: 'elsewhere' } });
  await pass(500);
  const client = createClient(api.transport, { userAgent: 'user' });
  await client.delete(NAMESPACES, { name: 'ns' });
  await pass(1000);
  assert.ok(api.get(CONFIG_MAPS, 'ns', 'm'), 'what protects pods stays as long as they do');
  const conditions = api.get(NAMESPACES, undefined, 'ns')?.status?.conditions ?? [];
  const find = (type: string) => conditions.find((condition) => condition.type === type);
  assert.equal(
    find('NamespaceContentRemaining')?.message,
    'Some resources are remaining: pods. has 1 resource instances',
  );
  assert.equal(
    find('NamespaceFinalizersRemaining')?.message,
    'Some content in the namespace has finalizers remaining: ' +
      'example.com/hold in 1 resource instances',
  );
  const held = api.get(PODS, 'ns', 'p') as Pod;
  api.put(PODS, { ...held, metadata: { ...held.metadata, finalizers: [] } });
  await pass(5000);
  assert.equal(api.get(NAMESPACES, undefined, 'ns'), undefined);
  assert.equal(api.all(CONFIG_MAPS).length, 1);
  assert.equal(api.all(REPLICA_SETS).length, 0);
});
