import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Deployment, ReplicaSet } from '../../api/types.generated.ts';
import { DEPLOYMENTS, PODS, REPLICA_SETS } from '../../client/resources.ts';
import { runReplicaSetController } from '../replicaset/index.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import type { TestCluster } from '../common/testing.fake.ts';
import { runDeploymentController } from './index.ts';
import { templateHash } from '../common/template-hash.ts';
import { limitsOf } from './replicasets.ts';
import { planOldSets, planScaling } from './scaling.ts';

const labels = { app: 'web' };

function deployment(image: string, spec: Partial<Deployment['spec']> & object = {}): Deployment {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'ns', generation: 1 },
    spec: {
      replicas: 4,
      progressDeadlineSeconds: 600,
      revisionHistoryLimit: 10,
      strategy: {
        type: 'RollingUpdate',
        rollingUpdate: { maxSurge: '25%', maxUnavailable: '25%' },
      },
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: 'c', image }] } },
      ...spec,
    },
  };
}

function start(t: Parameters<typeof startTestCluster>[0]) {
  const cluster = startTestCluster(t, [runDeploymentController, runReplicaSetController]);
  const apply = (image: string, spec: Partial<Deployment['spec']> & object = {}) => {
    const current = cluster.api.get(DEPLOYMENTS, 'ns', 'web');
    const next = deployment(image, spec);
    next.metadata.annotations = current?.metadata.annotations;
    cluster.api.put(DEPLOYMENTS, { ...next, status: current?.status });
  };
  const current = () => cluster.api.get(DEPLOYMENTS, 'ns', 'web') as Deployment;
  return { ...cluster, apply, current };
}

/** Runs until nothing changes, the pods becoming ready each half second. */
async function rollOut(cluster: TestCluster, look: () => void = () => {}): Promise<void> {
  for (let round = 0; round < 24; round++) {
    await cluster.pass(500);
    look();
    cluster.runPods();
  }
}

const imageOf = ({ spec }: ReplicaSet) => spec?.template?.spec?.containers[0]?.image ?? '';

function sizes(cluster: TestCluster): Record<string, number> {
  const sets = cluster.api.all(REPLICA_SETS);
  return Object.fromEntries(sets.map((set) => [imageOf(set), set.spec?.replicas ?? -1]));
}

test('a Deployment makes a ReplicaSet and reports when it is complete', async (t) => {
  const cluster = start(t);
  cluster.apply('v1');
  await rollOut(cluster);
  const [set] = cluster.api.all(REPLICA_SETS);
  assert.equal(cluster.api.all(PODS).length, 4);
  const hash = set?.metadata.labels?.['pod-template-hash'];
  assert.equal(set?.metadata.name, `web-${hash}`);
  assert.equal(set?.spec?.selector.matchLabels?.['pod-template-hash'], hash);
  assert.equal(set?.metadata.annotations?.['deployment.kubernetes.io/desired-replicas'], '4');
  assert.equal(set?.metadata.annotations?.['deployment.kubernetes.io/max-replicas'], '5');
  const { status, metadata } = cluster.current();
  assert.equal(metadata.annotations?.['deployment.kubernetes.io/revision'], '1');
  assert.equal(status?.availableReplicas, 4);
  assert.equal(status?.updatedReplicas, 4);
  assert.equal(status?.unavailableReplicas ?? 0, 0);
  const reasons = status?.conditions?.map(({ type, reason }) => `${type} ${reason}`).sort();
  assert.deepEqual(reasons, [
    'Available MinimumReplicasAvailable',
    'Progressing NewReplicaSetAvailable',
  ]);
  const message = `ScalingReplicaSet: Scaled up replica set web-${hash} from 0 to 4`;
  assert.deepEqual(cluster.eventsAbout('web'), [message]);
  const before = cluster.api.writes.length;
  await cluster.pass(60_000);
  assert.equal(cluster.api.writes.length, before, 'a complete Deployment writes nothing');
});

test('a rolling update stays within surge and unavailability, and can be undone', async (t) => {
  const cluster = start(t);
  cluster.apply('v1');
  await rollOut(cluster);
  cluster.apply('v2');
  let stepCount = 0;
  await rollOut(cluster, () => {
    const pods = cluster.api.all(PODS).filter(({ metadata }) => !metadata.deletionTimestamp);
    const ready = pods.filter(({ status }) => status?.conditions?.[0]?.status === 'True');
    assert.ok(pods.length <= 5, `${pods.length} pods`);
    assert.ok(ready.length >= 3, `${ready.length} ready`);
    if (ready.length < pods.length) stepCount += 1;
  });
  assert.ok(stepCount >= 2);
  assert.deepEqual(sizes(cluster), { v1: 0, v2: 4 });
  assert.equal(cluster.current().metadata.annotations?.['deployment.kubernetes.io/revision'], '2');
  cluster.apply('v1');
  await rollOut(cluster);
  assert.deepEqual(sizes(cluster), { v1: 4, v2: 0 });
  assert.equal(cluster.current().metadata.annotations?.['deployment.kubernetes.io/revision'], '3');
  const first = cluster.api.all(REPLICA_SETS).find((set) => imageOf(set) === 'v1');
  assert.equal(first?.metadata.annotations?.['deployment.kubernetes.io/revision-history'], '1');
});

test('an update whose pods never become ready stops, and misses its deadline', async (t) => {
  const cluster = start(t);
  cluster.apply('v1');
  await rollOut(cluster);
  cluster.apply('broken', { progressDeadlineSeconds: 30 });
  const isOld = (pod: { spec?: { containers: { image?: string }[] } }) =>
    pod.spec?.containers[0]?.image === 'v1';
  for (let round = 0; round < 40; round++) {
    await cluster.pass(1000);
    cluster.runPods(isOld);
  }
  assert.deepEqual(sizes(cluster), { v1: 3, broken: 2 });
  const progressing = cluster
    .current()
    .status?.conditions?.find(({ type }) => type === 'Progressing');
  assert.equal(progressing?.reason, 'ProgressDeadlineExceeded');
  assert.equal(progressing?.status, 'False');
  cluster.apply('v1', { progressDeadlineSeconds: 30 });
  await rollOut(cluster);
  assert.deepEqual(sizes(cluster), { v1: 4, broken: 0 });
});

test('Recreate starts nothing new before everything old is gone', async (t) => {
  const cluster = start(t);
  const recreate = { strategy: { type: 'Recreate' } };
  cluster.apply('v1', recreate);
  await rollOut(cluster);
  cluster.apply('v2', recreate);
  await rollOut(cluster, () => {
    const images = cluster.api.all(PODS).map((pod) => pod.spec?.containers[0]?.image);
    assert.ok(new Set(images).size <= 1, 'pods of two versions at once');
  });
  assert.deepEqual(sizes(cluster), { v1: 0, v2: 4 });
});

test('a paused Deployment scales but does not update', async (t) => {
  const cluster = start(t);
  cluster.apply('v1');
  await rollOut(cluster);
  cluster.apply('v2', { paused: true, replicas: 6 });
  await rollOut(cluster);
  assert.deepEqual(sizes(cluster), { v1: 6 });
  const reason = () =>
    cluster.current().status?.conditions?.find(({ type }) => type === 'Progressing')?.reason;
  assert.equal(reason(), 'DeploymentPaused');
  cluster.apply('v2', { replicas: 6 });
  await rollOut(cluster);
  assert.deepEqual(sizes(cluster), { v1: 0, v2: 6 });
  assert.equal(reason(), 'NewReplicaSetAvailable');
});

test('old ReplicaSets beyond the history limit are removed', async (t) => {
  const cluster = start(t);
  for (const image of ['v1', 'v2', 'v3', 'v4']) {
    cluster.apply(image, { revisionHistoryLimit: 1 });
    await rollOut(cluster);
  }
  assert.deepEqual(sizes(cluster), { v3: 0, v4: 4 });
});

test('a name taken by another template leads to another hash', async (t) => {
  const cluster = start(t);
  const wanted = deployment('v1');
  const hash = templateHash(wanted.spec?.template);
  const squatter = deployment('other');
  cluster.api.put(REPLICA_SETS, {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: { name: `web-${hash}`, namespace: 'ns' },
    spec: { replicas: 0, selector: { matchLabels: { x: 'y' } }, template: squatter.spec?.template },
  });
  cluster.apply('v1');
  await rollOut(cluster);
  assert.equal(cluster.current().status?.collisionCount, 1);
  assert.equal(cluster.api.all(PODS).length, 4);
});

const set = (name: string, replicas: number, available: number, annotations = {}): ReplicaSet => ({
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  metadata: { name, creationTimestamp: `2026-01-0${name}T00:00:00Z`, annotations },
  spec: { replicas, selector: {} },
  status: { replicas, availableReplicas: available },
});

test('limitsOf() rounds surge up, unavailability down, and never both to nothing', () => {
  const limits = (replicas: number, maxSurge: string | number, maxUnavailable: string | number) => {
    const rollingUpdate = { maxSurge, maxUnavailable };
    const strategy = { type: 'RollingUpdate', rollingUpdate };
    return limitsOf(deployment('x', { replicas, strategy }));
  };
  assert.deepEqual(limits(10, '25%', '25%'), { surge: 3, unavailable: 2 });
  assert.deepEqual(limits(1, '25%', '25%'), { surge: 1, unavailable: 0 });
  assert.deepEqual(limits(3, 0, '25%'), { surge: 0, unavailable: 1 });
  assert.deepEqual(limits(2, 0, 5), { surge: 0, unavailable: 2 });
});

test('planScaling() spreads a new size over an unfinished update in proportion', () => {
  const max = { 'deployment.kubernetes.io/max-replicas': '13' };
  const sets = [set('1', 8, 8, max), set('2', 5, 2, max)];
  const scaled = deployment('x', { replicas: 15 });
  scaled.spec!.strategy!.rollingUpdate = { maxSurge: 3, maxUnavailable: 2 };
  const plan = planScaling(scaled, sets[1], [sets[0] as ReplicaSet]);
  assert.deepEqual(
    plan.map(({ set: { metadata }, replicas }) => [metadata.name, replicas]),
    [
      ['1', 11],
      ['2', 7],
    ],
  );
});

test('planOldSets() takes broken pods first and never goes below what must be available', () => {
  const rolling = deployment('x', { replicas: 10 });
  rolling.spec!.strategy!.rollingUpdate = { maxSurge: 3, maxUnavailable: 2 };
  const names = (plan: ReturnType<typeof planOldSets>) =>
    plan.map(({ set: { metadata }, replicas }) => [metadata.name, replicas]);
  assert.deepEqual(names(planOldSets(rolling, set('3', 3, 0), [set('1', 10, 10)])), [['1', 8]]);
  assert.deepEqual(names(planOldSets(rolling, set('3', 5, 0), [set('1', 8, 8)])), []);
  assert.deepEqual(names(planOldSets(rolling, set('3', 3, 3), [set('1', 2, 0), set('2', 8, 8)])), [
    ['1', 0],
    ['2', 5],
  ]);
});
