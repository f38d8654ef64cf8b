import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod, PodDisruptionBudget } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { DISRUPTION_BUDGETS, PODS, REPLICA_SETS } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import type { TestCluster } from '../common/testing.fake.ts';
import { runDisruptionController } from './index.ts';

const labels = { app: 'web' };

function budget(spec: object): PodDisruptionBudget {
  return {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    metadata: { name: 'b', namespace: 'ns', generation: 1 },
    spec: { selector: { matchLabels: labels }, ...spec },
  };
}

/** Pods of one ReplicaSet that is scaled to as many. */
function startPods({ api, runPods }: TestCluster, count: number): void {
  const template = { metadata: { labels }, spec: { containers: [] } };
  const set = api.put(REPLICA_SETS, {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: { name: 'web', namespace: 'ns' },
    spec: { replicas: count, selector: { matchLabels: labels }, template },
  });
  const { uid = '' } = set.metadata;
  const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web', uid, controller: true };
  for (let index = 0; index < count; index++) {
    api.put(PODS, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: `web-${index}`, namespace: 'ns', labels, ownerReferences: [owner] },
    } as Pod);
  }
  runPods();
}

const read = ({ api }: TestCluster) => {
  const { conditions, ...numbers } = api.get(DISRUPTION_BUDGETS, 'ns', 'b')?.status ?? {};
  return { ...numbers, reason: conditions?.[0]?.reason };
};

for (const [spec, allowed, desired] of [
  [{ minAvailable: 3 }, 1, 3],
  [{ minAvailable: '50%' }, 2, 2],
  [{ maxUnavailable: 1 }, 1, 3],
  [{ maxUnavailable: '30%' }, 2, 2],
  [{ minAvailable: 4 }, 0, 4],
] as const) {
  test(`${JSON.stringify(spec)} of four healthy pods allows ${allowed}`, async (t) => {
    const cluster = startTestCluster(t, [runDisruptionController]);
    startPods(cluster, 4);
    cluster.api.put(DISRUPTION_BUDGETS, budget(spec));
    await cluster.pass(500);
    assert.deepEqual(read(cluster), {
      currentHealthy: 4,
      desiredHealthy: desired,
      disruptionsAllowed: allowed,
      expectedPods: 4,
      observedGeneration: 1,
      reason: allowed > 0 ? 'SufficientPods' : 'InsufficientPods',
    });
    assert.deepEqual(cluster.complaints, []);
  });
}

test('an evicted pod counts as lost until it goes or two minutes are over', async (t) => {
  const cluster = startTestCluster(t, [runDisruptionController]);
  startPods(cluster, 2);
  const made = cluster.api.put(DISRUPTION_BUDGETS, budget({ minAvailable: 1 }));
  await cluster.pass(500);
  const status = cluster.api.get(DISRUPTION_BUDGETS, 'ns', 'b')?.status;
  assert.equal(status?.disruptionsAllowed, 1);
  const disruptedPods = { 'web-0': rfc3339(cluster.clock.nowMs()) };
  const charged = { ...status, disruptionsAllowed: 0, disruptedPods };
  cluster.api.put(DISRUPTION_BUDGETS, { ...made, status: charged } as PodDisruptionBudget);
  await cluster.pass(500);
  assert.equal(cluster.api.get(DISRUPTION_BUDGETS, 'ns', 'b')?.status?.currentHealthy, 1);
  await cluster.pass(121_000);
  const after = cluster.api.get(DISRUPTION_BUDGETS, 'ns', 'b')?.status;
  assert.equal(after?.disruptionsAllowed, 1);
  assert.equal(after?.disruptedPods, undefined);
});
