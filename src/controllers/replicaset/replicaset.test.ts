import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod, ReplicaSet } from '../../api/types.generated.ts';
import { StatusError } from '../../api/status.ts';
import { PODS, REPLICA_SETS } from '../../client/resources.ts';
import { rankForDeletion } from '../common/pods.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import { runReplicaSetController } from './index.ts';

const labels = { app: 'web' };

const replicaSet = (replicas: number, more: object = {}): ReplicaSet => ({
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  metadata: { name: 'web', namespace: 'ns' },
  spec: {
    replicas,
    selector: { matchLabels: labels },
    template: { metadata: { labels }, spec: { containers: [{ name: 'c' }] } },
    ...more,
  },
});

const barePod = (name: string, podLabels: Record<string, string> = labels): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'ns', labels: podLabels },
  spec: { containers: [] },
});

test('a ReplicaSet makes its pods, counts them, and replaces what goes', async (t) => {
  const { api, pass, runPods, eventsAbout } = startTestCluster(t, [runReplicaSetController]);
  api.put(REPLICA_SETS, replicaSet(5));
  await pass(1000);
  const pods = api.all(PODS);
  assert.equal(pods.length, 5);
  const [owner] = pods[0]?.metadata.ownerReferences ?? [];
  assert.equal(owner?.kind, 'ReplicaSet');
  assert.ok(owner?.controller && owner.blockOwnerDeletion);
  assert.match(pods[0]?.metadata.name ?? '', /^web-/);
  assert.equal(api.get(REPLICA_SETS, 'ns', 'web')?.status?.replicas, 5);
  runPods();
  await pass(1000);
  const status = api.get(REPLICA_SETS, 'ns', 'web')?.status;
  assert.equal(status?.readyReplicas, 5);
  assert.equal(status?.availableReplicas, 5);
  assert.equal(status?.fullyLabeledReplicas, 5);
  api.remove(PODS, 'ns', pods[0]?.metadata.name ?? '');
  await pass(1000);
  assert.equal(api.all(PODS).length, 5);
  assert.equal(
    api.writes.filter((line) => line.startsWith('POST /api/v1/namespaces/ns/pods')).length,
    6,
  );
  assert.equal(eventsAbout('web').filter((line) => line.startsWith('SuccessfulCreate')).length, 6);
});

test('a ReplicaSet scales down by the pods that are missed least', async (t) => {
  const { api, pass, runPods } = startTestCluster(t, [runReplicaSetController]);
  api.put(REPLICA_SETS, replicaSet(4));
  await pass(1000);
  const keep = api.all(PODS)[2]?.metadata.name;
  runPods(({ metadata }) => metadata.name === keep);
  await pass(1000);
  const current = api.get(REPLICA_SETS, 'ns', 'web');
  api.put(REPLICA_SETS, { ...replicaSet(1), status: current?.status });
  await pass(1000);
  assert.deepEqual(
    api.all(PODS).map(({ metadata }) => metadata.name),
    [keep],
  );
  assert.equal(api.get(REPLICA_SETS, 'ns', 'web')?.status?.observedGeneration, 2);
});

test('a ReplicaSet adopts matching orphans and releases pods that no longer match', async (t) => {
  const { api, pass } = startTestCluster(t, [runReplicaSetController]);
  api.put(PODS, barePod('orphan'));
  api.put(PODS, barePod('stranger', { app: 'other' }));
  api.put(REPLICA_SETS, replicaSet(2));
  await pass(1000);
  assert.equal(api.all(PODS).length, 3);
  const orphan = api.get(PODS, 'ns', 'orphan');
  assert.equal(orphan?.metadata.ownerReferences?.[0]?.name, 'web');
  assert.equal(api.get(PODS, 'ns', 'stranger')?.metadata.ownerReferences, undefined);
  api.put(PODS, { ...orphan, metadata: { ...orphan?.metadata, labels: { app: 'x' } } } as Pod);
  await pass(1000);
  assert.deepEqual(api.get(PODS, 'ns', 'orphan')?.metadata.ownerReferences ?? [], []);
  assert.equal(api.all(PODS).length, 4);
});

test('pods that cannot be created are tried slowly and reported', async (t) => {
  const { api, pass, runPods, eventsAbout } = startTestCluster(t, [runReplicaSetController]);
  api.failNext(/^POST .*pods$/, new StatusError('Forbidden', 'exceeded quota'), 3);
  api.put(REPLICA_SETS, replicaSet(50));
  await pass(0);
  await pass(20);
  assert.ok(api.writes.filter((line) => /^POST .*pods$/.test(line)).length < 10);
  const conditions = api.get(REPLICA_SETS, 'ns', 'web')?.status?.conditions;
  assert.equal(conditions?.[0]?.type, 'ReplicaFailure');
  assert.match(conditions?.[0]?.message ?? '', /exceeded quota/);
  await pass(2000);
  runPods();
  await pass(1000);
  assert.equal(api.all(PODS).length, 50);
  assert.equal(api.get(REPLICA_SETS, 'ns', 'web')?.status?.conditions, undefined);
  assert.ok(eventsAbout('web').some((line) => line.includes('Error creating: exceeded quota')));
});

test('minReadySeconds makes pods available by mere time', async (t) => {
  const { api, pass, runPods } = startTestCluster(t, [runReplicaSetController]);
  api.put(REPLICA_SETS, replicaSet(2, { minReadySeconds: 10 }));
  await pass(1000);
  runPods();
  await pass(5000);
  assert.equal(api.get(REPLICA_SETS, 'ns', 'web')?.status?.availableReplicas, undefined);
  assert.equal(api.get(REPLICA_SETS, 'ns', 'web')?.status?.readyReplicas, 2);
  await pass(6000);
  assert.equal(api.get(REPLICA_SETS, 'ns', 'web')?.status?.availableReplicas, 2);
});

test('a ReplicaSet that is deleted manages nothing any more', async (t) => {
  const { api, pass } = startTestCluster(t, [runReplicaSetController]);
  const deleted = replicaSet(3);
  deleted.metadata.finalizers = ['keep'];
  deleted.metadata.deletionTimestamp = '2026-01-01T00:00:00Z';
  api.put(REPLICA_SETS, deleted);
  api.put(PODS, barePod('orphan'));
  await pass(1000);
  assert.equal(api.all(PODS).length, 1);
  assert.equal(api.get(PODS, 'ns', 'orphan')?.metadata.ownerReferences, undefined);
});

test('rankForDeletion() orders by placement, phase, readiness, cost, crowd and age', () => {
  const pod = (name: string, more: Partial<Pod['status']> & object, annotations = {}): Pod => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, uid: name, annotations, creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: { containers: [], nodeName: name === 'unplaced' ? undefined : `node-${name}` },
    status: { phase: 'Running', ...more },
  });
  const ready = { conditions: [{ type: 'Ready', status: 'True' }] };
  const pods = [
    pod('plain', ready),
    pod('crowded', ready),
    pod('cheap', ready, { 'controller.kubernetes.io/pod-deletion-cost': '-5' }),
    pod('unready', {}),
    pod('pending', { phase: 'Pending' }),
    pod('unplaced', ready),
  ];
  const crowd = ({ metadata }: Pod) => (metadata.name === 'crowded' ? 3 : 1);
  assert.deepEqual(
    rankForDeletion(pods, crowd, Date.UTC(2026, 1, 1)).map(({ metadata }) => metadata.name),
    ['unplaced', 'pending', 'unready', 'cheap', 'crowded', 'plain'],
  );
});
