import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DaemonSet, Node, Pod } from '../../api/types.generated.ts';
import { CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS } from '../../client/resources.ts';
import { hashOf } from '../common/history.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import type { TestCluster } from '../common/testing.fake.ts';
import { runDaemonSetController } from './index.ts';
import { nodeOf } from './nodes.ts';

const labels = { app: 'agent' };

const daemonSet = (image: string, more: object = {}, podSpec: object = {}): DaemonSet => ({
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata: { name: 'agent', namespace: 'ns' },
  spec: {
    selector: { matchLabels: labels },
    template: { metadata: { labels }, spec: { containers: [{ name: 'c', image }], ...podSpec } },
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 0, maxUnavailable: 1 } },
    ...more,
  },
});

const node = (name: string, spec: object = {}, nodeLabels: Record<string, string> = {}): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name, labels: nodeLabels },
  spec,
});

const statusOf = ({ api }: TestCluster) => api.get(DAEMON_SETS, 'ns', 'agent')?.status;

function update(cluster: TestCluster, set: DaemonSet): void {
  cluster.api.put(DAEMON_SETS, { ...set, status: statusOf(cluster) });
}

const places = ({ api }: TestCluster): string[] => api.all(PODS).map((pod) => nodeOf(pod) ?? '');
const images = ({ api }: TestCluster): (string | undefined)[] =>
  api.all(PODS).map(({ spec }) => spec?.containers[0]?.image);

function startWithNodes(t: Parameters<typeof startTestCluster>[0], count: number): TestCluster {
  const cluster = startTestCluster(t, [runDaemonSetController]);
  for (let index = 0; index < count; index++) cluster.api.put(NODES, node(`n${index}`));
  return cluster;
}

test('every node gets one pod, new nodes and emptied ones too', async (t) => {
  const cluster = startWithNodes(t, 2);
  const { api, pass, runPods } = cluster;
  api.put(DAEMON_SETS, daemonSet('a'));
  await pass(1000);
  assert.deepEqual(places(cluster).sort(), ['n0', 'n1']);
  const tolerations = api.all(PODS)[0]?.spec?.tolerations ?? [];
  assert.ok(tolerations.some(({ key }) => key === 'node.kubernetes.io/unschedulable'));
  runPods();
  api.put(NODES, node('n2'));
  await pass(1000);
  assert.deepEqual(places(cluster).sort(), ['n0', 'n1', 'n2']);
  api.remove(PODS, 'ns', api.all(PODS)[0]?.metadata.name ?? '');
  await pass(1000);
  assert.deepEqual(places(cluster).sort(), ['n0', 'n1', 'n2']);
  runPods();
  await pass(1000);
  const status = statusOf(cluster);
  assert.equal(status?.desiredNumberScheduled, 3);
  assert.equal(status.currentNumberScheduled, 3);
  assert.equal(status.numberReady, 3);
  assert.equal(status.numberAvailable, 3);
  assert.equal(status.updatedNumberScheduled, 3);
  assert.equal(status.numberMisscheduled, 0);
  api.remove(NODES, undefined, 'n2');
  await pass(1000);
  assert.deepEqual(places(cluster).sort(), ['n0', 'n1'], 'not yet bound, so nobody else ends it');
});

test('nodes are chosen by selector, affinity and taints', async (t) => {
  const cluster = startTestCluster(t, [runDaemonSetController]);
  const { api, pass } = cluster;
  const taint = (key: string, effect: string) => ({ taints: [{ key, effect }] });
  const disk = { disk: 'ssd' };
  api.put(NODES, node('fits', {}, disk));
  api.put(NODES, node('other'));
  api.put(NODES, node('tainted', taint('own', 'NoSchedule'), disk));
  api.put(NODES, node('cordoned', taint('node.kubernetes.io/unschedulable', 'NoSchedule'), disk));
  api.put(NODES, node('soft', taint('own', 'PreferNoSchedule'), disk));
  api.put(DAEMON_SETS, daemonSet('a', {}, { nodeSelector: disk }));
  await pass(1000);
  assert.deepEqual(places(cluster).sort(), ['cordoned', 'fits', 'soft']);
  api.put(NODES, node('fits', taint('own', 'NoSchedule'), disk));
  await pass(1000);
  assert.ok(places(cluster).includes('fits'), 'what runs may stay');
  assert.equal(statusOf(cluster)?.numberMisscheduled, 1);
  api.put(NODES, node('fits', taint('own', 'NoExecute'), disk));
  await pass(1000);
  assert.ok(!places(cluster).includes('fits'));
});

test('a rolling update replaces no more at a time than may be missing', async (t) => {
  const cluster = startWithNodes(t, 4);
  const { api, pass, runPods } = cluster;
  api.put(DAEMON_SETS, daemonSet('a'));
  await pass(1000);
  runPods();
  await pass(1000);
  update(cluster, daemonSet('b'));
  for (let step = 1; step <= 4; step++) {
    await pass(1000);
    assert.equal(images(cluster).filter((image) => image === 'b').length, step);
    assert.equal(api.all(PODS).length, 4);
    runPods();
  }
  await pass(1000);
  assert.equal(statusOf(cluster)?.updatedNumberScheduled, 4);
  const revisions = api.all(CONTROLLER_REVISIONS);
  assert.deepEqual(revisions.map(({ revision }) => revision).sort(), [1, 2]);
  const latest = revisions.find(({ revision }) => revision === 2);
  assert.ok(latest && api.all(PODS).every((pod) => hashOf(pod) === hashOf(latest)));
  update(cluster, daemonSet('a'));
  await pass(1000);
  const again = api.all(CONTROLLER_REVISIONS).map(({ revision }) => revision);
  assert.deepEqual(again.sort(), [2, 3], 'an old template is the same revision, put last');
});

test('pods that do not work are replaced at once, and OnDelete waits for people', async (t) => {
  const cluster = startWithNodes(t, 3);
  const { api, pass } = cluster;
  api.put(DAEMON_SETS, daemonSet('bad', { updateStrategy: { type: 'OnDelete' } }));
  await pass(1000);
  update(cluster, daemonSet('good', { updateStrategy: { type: 'OnDelete' } }));
  await pass(1000);
  assert.deepEqual(images(cluster), ['bad', 'bad', 'bad']);
  update(cluster, daemonSet('good'));
  await pass(1000);
  assert.deepEqual(images(cluster), ['good', 'good', 'good']);
});

test('with a surge the new pod works before the old one goes', async (t) => {
  const cluster = startWithNodes(t, 3);
  const { api, pass, runPods } = cluster;
  const rollingUpdate = { maxSurge: 1, maxUnavailable: 0 };
  const updateStrategy = { type: 'RollingUpdate', rollingUpdate };
  api.put(DAEMON_SETS, daemonSet('a', { updateStrategy }));
  await pass(1000);
  runPods();
  await pass(1000);
  update(cluster, daemonSet('b', { updateStrategy }));
  await pass(1000);
  assert.deepEqual(images(cluster).sort(), ['a', 'a', 'a', 'b']);
  for (let step = 0; step < 3; step++) {
    runPods();
    await pass(1000);
    assert.ok(images(cluster).length >= 3);
  }
  assert.deepEqual(images(cluster), ['b', 'b', 'b']);
});

test('ended pods are replaced, ever more slowly', async (t) => {
  const cluster = startWithNodes(t, 1);
  const { api, pass, eventsAbout } = cluster;
  api.put(DAEMON_SETS, daemonSet('a'));
  await pass(500);
  const fail = (): void => {
    const pod = api.all(PODS)[0] as Pod;
    const spec = { ...pod.spec, nodeName: 'n0' } as Pod['spec'];
    api.put(PODS, { ...pod, spec, status: { phase: 'Failed' } });
  };
  const phase = () => api.all(PODS)[0]?.status?.phase;
  for (const delayMs of [0, 1000, 2000, 4000]) {
    fail();
    await pass(delayMs * 0.8);
    assert.equal(phase(), delayMs === 0 ? undefined : 'Failed');
    await pass(delayMs * 0.4);
    assert.equal(phase(), undefined);
  }
  assert.ok(eventsAbout('agent').some((line) => line.startsWith('FailedDaemonPod')));
});

test('old revisions beyond the limit go', async (t) => {
  const cluster = startWithNodes(t, 1);
  const { api, pass } = cluster;
  for (const image of ['a', 'b', 'c', 'd']) {
    update(cluster, daemonSet(image, { revisionHistoryLimit: 1 }));
    await pass(1000);
  }
  const revisions = api.all(CONTROLLER_REVISIONS).map(({ revision }) => revision);
  assert.deepEqual(revisions.sort(), [3, 4]);
});
