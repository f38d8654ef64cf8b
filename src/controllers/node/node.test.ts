import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tolerates } from '../../api/placement.ts';
import type { Node, Pod } from '../../api/types.generated.ts';
import { rfc3339, rfc3339Micro } from '../../base/clock.ts';
import { LEASES, NODES, PODS } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import type { TestCluster } from '../common/testing.fake.ts';
import { createRanges, runNodeIpamController } from './ipam.ts';
import { runNodeLifecycleController } from './lifecycle.ts';
import { runPodGarbageCollector } from './pod-gc.ts';
import { evictionTimeMs } from './taints.ts';

function node(name: string, ready: string, time: string): Node {
  const stamps = { lastHeartbeatTime: time, lastTransitionTime: time };
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name },
    spec: {},
    status: { conditions: [{ type: 'Ready', status: ready, ...stamps }] },
  };
}

function pod(name: string, nodeName: string, tolerationSeconds?: number): Pod {
  const keys = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'];
  const toleration = { operator: 'Exists', effect: 'NoExecute', tolerationSeconds };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'ns' },
    spec: {
      nodeName,
      containers: [],
      tolerations:
        tolerationSeconds === undefined ? [] : keys.map((key) => ({ key, ...toleration })),
    },
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
  };
}

function heartbeat({ api, clock }: TestCluster, name: string): void {
  api.put(LEASES, {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name, namespace: 'kube-node-lease' },
    spec: { renewTime: rfc3339Micro(clock.nowMs()) },
  });
}

/** Time goes on while these nodes renew their leases. */
async function live(cluster: TestCluster, durationMs: number, names: string[]): Promise<void> {
  for (let left = durationMs; left > 0; left -= 5000) {
    for (const name of names) heartbeat(cluster, name);
    await cluster.pass(5000);
  }
}

const taintsOf = ({ api }: TestCluster, name: string) =>
  (api.get(NODES, undefined, name)?.spec?.taints ?? []).map(
    ({ key, effect }) => `${key}:${effect}`,
  );

const readyOf = ({ api }: TestCluster, name: string) =>
  api.get(NODES, undefined, name)?.status?.conditions?.find(({ type }) => type === 'Ready')?.status;

test('a silent node is lost after 40 s, and its pods go in their time', async (t) => {
  const cluster = startTestCluster(t, [runNodeLifecycleController]);
  const { api, clock } = cluster;
  const now = rfc3339(clock.nowMs());
  for (const name of ['alive', 'lost']) api.put(NODES, node(name, 'True', now));
  api.put(PODS, pod('short', 'lost', 30));
  api.put(PODS, pod('long', 'lost', 300));
  api.put(PODS, pod('safe', 'alive', 0));
  heartbeat(cluster, 'lost');
  await live(cluster, 35_000, ['alive']);
  assert.equal(readyOf(cluster, 'lost'), 'True');
  await live(cluster, 15_000, ['alive']);
  assert.equal(readyOf(cluster, 'lost'), 'Unknown');
  assert.equal(readyOf(cluster, 'alive'), 'True');
  assert.deepEqual(taintsOf(cluster, 'lost'), [
    'node.kubernetes.io/unreachable:NoSchedule',
    'node.kubernetes.io/unreachable:NoExecute',
  ]);
  const ready = api.get(PODS, 'ns', 'long')?.status?.conditions?.[0];
  assert.equal(ready?.status, 'False');
  assert.ok(api.get(PODS, 'ns', 'short'));
  await live(cluster, 40_000, ['alive']);
  assert.equal(api.get(PODS, 'ns', 'short'), undefined);
  assert.ok(api.get(PODS, 'ns', 'long') && api.get(PODS, 'ns', 'safe'));
  assert.ok(cluster.eventsAbout('short')[0]?.startsWith('TaintManagerEviction'));
});

test('a node that comes back keeps its pods and loses its taints', async (t) => {
  const cluster = startTestCluster(t, [runNodeLifecycleController]);
  const { api, clock } = cluster;
  for (const name of ['alive', 'away']) {
    api.put(NODES, node(name, 'True', rfc3339(clock.nowMs())));
  }
  api.put(PODS, pod('p', 'away', 60));
  heartbeat(cluster, 'away');
  await live(cluster, 60_000, ['alive']);
  assert.equal(readyOf(cluster, 'away'), 'Unknown');
  const current = api.get(NODES, undefined, 'away') as Node;
  const { status } = node('away', 'True', rfc3339(clock.nowMs()));
  api.put(NODES, { ...current, status });
  await live(cluster, 120_000, ['alive', 'away']);
  assert.deepEqual(taintsOf(cluster, 'away'), []);
  assert.ok(api.get(PODS, 'ns', 'p'));
});

test('when every node is silent no pod is driven away', async (t) => {
  const cluster = startTestCluster(t, [runNodeLifecycleController]);
  const { api, clock } = cluster;
  for (const name of ['a', 'b']) api.put(NODES, node(name, 'True', rfc3339(clock.nowMs())));
  api.put(PODS, pod('p', 'a'));
  await live(cluster, 120_000, []);
  assert.equal(readyOf(cluster, 'a'), 'Unknown');
  assert.deepEqual(taintsOf(cluster, 'a'), ['node.kubernetes.io/unreachable:NoSchedule']);
  assert.ok(api.get(PODS, 'ns', 'p'));
});

test('taints follow cordoning and conditions, and leave those of others alone', async (t) => {
  const cluster = startTestCluster(t, [runNodeLifecycleController]);
  const { api, clock } = cluster;
  const made = node('n', 'False', rfc3339(clock.nowMs()));
  made.spec = { unschedulable: true, taints: [{ key: 'mine', effect: 'NoExecute' }] };
  made.status?.conditions?.push({ type: 'DiskPressure', status: 'True' });
  api.put(NODES, made);
  await cluster.pass(1000);
  assert.deepEqual(taintsOf(cluster, 'n').sort(), [
    'mine:NoExecute',
    'node.kubernetes.io/disk-pressure:NoSchedule',
    'node.kubernetes.io/not-ready:NoSchedule',
    'node.kubernetes.io/unschedulable:NoSchedule',
  ]);
});

test('tolerates() and evictionTimeMs() follow the rules of tolerations', () => {
  const taint = { key: 'k', value: 'v', effect: 'NoExecute', timeAdded: '2026-01-01T00:00:00Z' };
  assert.ok(tolerates({ operator: 'Exists' }, taint));
  assert.ok(tolerates({ key: 'k', value: 'v' }, taint));
  assert.ok(!tolerates({ key: 'k', value: 'x' }, taint));
  assert.ok(!tolerates({ key: 'k', operator: 'Exists', effect: 'NoSchedule' }, taint));
  const startMs = Date.UTC(2026, 0, 1);
  const due = (tolerations: object[]) =>
    evictionTimeMs({ ...pod('p', 'n'), spec: { containers: [], tolerations } } as Pod, [taint], 5);
  assert.equal(due([]), 5);
  assert.equal(due([{ key: 'k', operator: 'Exists' }]), undefined);
  const timed = (tolerationSeconds: number) => ({ operator: 'Exists', tolerationSeconds });
  assert.equal(due([timed(60), timed(30)]), startMs + 30_000);
});

test('every node gets a range of its own, and freed ones are used again', async (t) => {
  const options = { clusterCidr: '10.88.0.0/30', nodeMaskSize: 30 };
  assert.deepEqual(
    createRanges({ ...options, clusterCidr: '10.88.0.0/16' }).take('a'),
    '10.88.0.0/30',
  );
  const cluster = startTestCluster(t, [
    (context) => runNodeIpamController(context, { clusterCidr: '10.88.0.0/23', nodeMaskSize: 24 }),
  ]);
  const { api, pass } = cluster;
  const taken = node('old', 'True', '');
  taken.spec = { podCIDR: '10.88.0.0/24' };
  api.put(NODES, taken);
  api.put(NODES, node('a', 'True', ''));
  api.put(NODES, node('b', 'True', ''));
  await pass(1000);
  const range = (name: string) => api.get(NODES, undefined, name)?.spec?.podCIDR;
  const first = range('a') ? 'a' : 'b';
  assert.equal(range(first), '10.88.1.0/24');
  const second = first === 'a' ? 'b' : 'a';
  assert.equal(range(second), undefined);
  assert.ok(cluster.eventsAbout(second)[0]?.startsWith('CIDRNotAvailable'));
  api.remove(NODES, undefined, 'old');
  await pass(35_000);
  assert.equal(range(second), '10.88.0.0/24');
});

test('pods on nodes that are gone for good are removed', async (t) => {
  const cluster = startTestCluster(t, [runPodGarbageCollector]);
  const { api, pass, clock } = cluster;
  api.put(NODES, node('n', 'True', rfc3339(clock.nowMs())));
  api.put(PODS, pod('stays', 'n'));
  api.put(PODS, pod('lost', 'gone'));
  await pass(30_000);
  assert.ok(api.get(PODS, 'ns', 'lost'), 'not before the quarantine is over');
  await pass(60_000);
  assert.equal(api.get(PODS, 'ns', 'lost'), undefined);
  assert.ok(api.get(PODS, 'ns', 'stays'));
});
