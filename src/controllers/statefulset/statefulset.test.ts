import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod, StatefulSet } from '../../api/types.generated.ts';
import { PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import type { TestCluster } from '../common/testing.fake.ts';
import { runStatefulSetController } from './index.ts';

const labels = { app: 'db' };

const statefulSet = (image: string, replicas: number, more: object = {}): StatefulSet => ({
  apiVersion: 'apps/v1',
  kind: 'StatefulSet',
  metadata: { name: 'db', namespace: 'ns' },
  spec: {
    replicas,
    serviceName: 'peers',
    selector: { matchLabels: labels },
    template: { metadata: { labels }, spec: { containers: [{ name: 'c', image }] } },
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition: 0 } },
    ...more,
  },
});

const statusOf = ({ api }: TestCluster) => api.get(STATEFUL_SETS, 'ns', 'db')?.status;

const update = (cluster: TestCluster, set: StatefulSet): void =>
  void cluster.api.put(STATEFUL_SETS, { ...set, status: statusOf(cluster) });

/** `name image` of every pod. */
const replicas = ({ api }: TestCluster): string[] =>
  api
    .all(PODS)
    .map(({ metadata, spec }) => `${metadata.name} ${spec?.containers[0]?.image}`)
    .sort();

async function settle(cluster: TestCluster, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    cluster.runPods();
    await cluster.pass(500);
  }
}

test('replicas are made one after the other, each when those before it are ready', async (t) => {
  const cluster = startTestCluster(t, [runStatefulSetController]);
  const { api, pass, runPods } = cluster;
  api.put(STATEFUL_SETS, statefulSet('a', 3));
  for (const count of [1, 2, 3]) {
    await pass(1000);
    assert.equal(api.all(PODS).length, count);
    runPods();
  }
  await pass(1000);
  assert.deepEqual(replicas(cluster), ['db-0 a', 'db-1 a', 'db-2 a']);
  const pod = api.get(PODS, 'ns', 'db-1');
  assert.equal(pod?.spec?.hostname, 'db-1');
  assert.equal(pod?.spec?.subdomain, 'peers');
  assert.equal(pod?.metadata.labels?.['statefulset.kubernetes.io/pod-name'], 'db-1');
  assert.equal(pod?.metadata.labels?.['apps.kubernetes.io/pod-index'], '1');
  const status = statusOf(cluster);
  assert.equal(status?.replicas, 3);
  assert.equal(status.readyReplicas, 3);
  assert.equal(status.availableReplicas, 3);
  assert.equal(status.currentReplicas, 3);
  assert.equal(status.updatedReplicas, 3);
  assert.equal(status.currentRevision, status.updateRevision);
  assert.equal(pod?.metadata.labels?.['controller-revision-hash'], status.currentRevision);
});

test('a replica that goes comes back by its name; the highest goes first', async (t) => {
  const cluster = startTestCluster(t, [runStatefulSetController]);
  const { api, pass } = cluster;
  api.put(STATEFUL_SETS, statefulSet('a', 3));
  await settle(cluster, 4);
  api.remove(PODS, 'ns', 'db-1');
  await settle(cluster, 2);
  assert.equal(api.all(PODS).length, 3);
  const [failed] = api.all(PODS) as [Pod];
  api.put(PODS, { ...failed, status: { phase: 'Failed' } });
  await pass(1000);
  assert.notEqual(
    api.get(PODS, 'ns', failed.metadata.name ?? '')?.metadata.uid,
    failed.metadata.uid,
  );
  await settle(cluster, 2);
  update(cluster, statefulSet('a', 1));
  await settle(cluster, 3);
  assert.deepEqual(replicas(cluster), ['db-0 a']);
  assert.deepEqual(
    api.writes.filter((line) => line.startsWith('DELETE')).slice(-2),
    [2, 1].map((ordinal) => `DELETE /api/v1/namespaces/ns/pods/db-${ordinal}`),
  );
});

test('parallel management makes and takes away all at once', async (t) => {
  const cluster = startTestCluster(t, [runStatefulSetController]);
  const { api, pass } = cluster;
  const more = { podManagementPolicy: 'Parallel', ordinals: { start: 5 } };
  api.put(STATEFUL_SETS, statefulSet('a', 3, more));
  await pass(1000);
  assert.deepEqual(replicas(cluster), ['db-5 a', 'db-6 a', 'db-7 a']);
  update(cluster, statefulSet('a', 0, more));
  await pass(1000);
  assert.deepEqual(replicas(cluster), []);
});

test('an update goes from the highest replica down, and waits for each', async (t) => {
  const cluster = startTestCluster(t, [runStatefulSetController]);
  const { api, pass, runPods } = cluster;
  api.put(STATEFUL_SETS, statefulSet('a', 3));
  await settle(cluster, 4);
  const before = statusOf(cluster)?.currentRevision;
  update(cluster, statefulSet('b', 3));
  await pass(1000);
  assert.deepEqual(replicas(cluster), ['db-0 a', 'db-1 a', 'db-2 b']);
  assert.equal(statusOf(cluster)?.currentRevision, before);
  assert.equal(statusOf(cluster)?.updatedReplicas, 1);
  await pass(5000);
  assert.deepEqual(replicas(cluster), ['db-0 a', 'db-1 a', 'db-2 b'], 'until it is ready');
  runPods();
  await pass(1000);
  assert.deepEqual(replicas(cluster), ['db-0 a', 'db-1 b', 'db-2 b']);
  await settle(cluster, 3);
  assert.deepEqual(replicas(cluster), ['db-0 b', 'db-1 b', 'db-2 b']);
  const status = statusOf(cluster);
  assert.equal(status?.currentRevision, status?.updateRevision);
  assert.notEqual(status?.currentRevision, before);
});

test('replicas below the partition stay as they were, even when they are replaced', async (t) => {
  const cluster = startTestCluster(t, [runStatefulSetController]);
  const { api } = cluster;
  const updateStrategy = { type: 'RollingUpdate', rollingUpdate: { partition: 2 } };
  api.put(STATEFUL_SETS, statefulSet('a', 3));
  await settle(cluster, 4);
  update(cluster, statefulSet('b', 3, { updateStrategy }));
  await settle(cluster, 4);
  assert.deepEqual(replicas(cluster), ['db-0 a', 'db-1 a', 'db-2 b']);
  api.remove(PODS, 'ns', 'db-0');
  await settle(cluster, 3);
  assert.deepEqual(replicas(cluster), ['db-0 a', 'db-1 a', 'db-2 b']);
});

test('OnDelete updates what people delete', async (t) => {
  const cluster = startTestCluster(t, [runStatefulSetController]);
  const { api } = cluster;
  api.put(STATEFUL_SETS, statefulSet('a', 2));
  await settle(cluster, 3);
  update(cluster, statefulSet('b', 2, { updateStrategy: { type: 'OnDelete' } }));
  await settle(cluster, 2);
  assert.deepEqual(replicas(cluster), ['db-0 a', 'db-1 a']);
  api.remove(PODS, 'ns', 'db-0');
  await settle(cluster, 2);
  assert.deepEqual(replicas(cluster), ['db-0 b', 'db-1 a']);
});

test('each replica has claims of its own, which outlive it', async (t) => {
  const cluster = startTestCluster(t, [runStatefulSetController]);
  const { api } = cluster;
  const template = { apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata: { name: 'data' } };
  const more = { volumeClaimTemplates: [template] };
  api.put(STATEFUL_SETS, statefulSet('a', 2, more));
  await settle(cluster, 3);
  const claims = () => api.all(PERSISTENT_VOLUME_CLAIMS).map(({ metadata }) => metadata.name);
  assert.deepEqual(claims().sort(), ['data-db-0', 'data-db-1']);
  const [volume] = api.get(PODS, 'ns', 'db-1')?.spec?.volumes ?? [];
  const persistentVolumeClaim = { claimName: 'data-db-1' };
  assert.deepEqual(volume, { name: 'data', persistentVolumeClaim });
  update(cluster, statefulSet('a', 1, more));
  await settle(cluster, 2);
  assert.deepEqual(claims().sort(), ['data-db-0', 'data-db-1']);
  update(cluster, statefulSet('a', 2, more));
  await settle(cluster, 3);
  assert.equal(claims().length, 2);
});
