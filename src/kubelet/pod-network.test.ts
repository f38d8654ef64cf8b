import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import type { Node } from '../api/types.generated.ts';
import { createRig } from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';

/**
 * Goal: pods get addresses of the range that the cluster has given the node, and wait for it.
 * Method: a whole kubelet between a fake API, which assigns nothing by itself, and a fake hyperd.
 */
let rig: Rig;
afterEach(() => rig.close());

const NODE = '/api/v1/nodes/node-1';
const segment = (cidr: string) => ({
  ...{ id: 'default', mtu: 0, nat: true, cidr },
  gateway: cidr.replace('.0/24', '.1'),
});

function readiness() {
  const node = rig.api.get(NODE) as Node | undefined;
  return node?.status?.conditions?.find(({ type }) => type === 'Ready');
}

test('node and pods are not ready until the node has its range', async () => {
  rig = await createRig({ network: segment });
  rig.hyperd.addImage('busybox:1');
  rig.addPod('web', { containers: [{ name: 'main', image: 'busybox:1' }] });
  let isReady = false;
  void rig.kubelet.ready.then(() => (isReady = true));
  await rig.waitUntil(() => readiness() !== undefined);
  assert.equal(readiness()?.status, 'False');
  assert.equal(readiness()?.reason, 'KubeletNotReady');
  assert.match(readiness()?.message ?? '', /NetworkReady=false reason:NetworkPluginNotReady/);
  assert.deepEqual(await rig.events('web'), ['NetworkNotReady']);
  assert.equal(rig.hyperd.pods.size, 0);
  assert.equal(isReady, false);

  rig.api.patch(NODE, { spec: { podCIDR: '10.88.7.0/24' } });
  const pod = await rig.until('web', (each) => each.status?.phase === 'Running');
  assert.ok(pod.status?.podIP);
  assert.deepEqual(rig.hyperd.pods.get(rig.uid('web'))?.spec.network, segment('10.88.7.0/24'));
  await rig.waitUntil(() => readiness()?.status === 'True');
  await rig.kubelet.ready;
});

test('a restarted kubelet finds its range at the node', async () => {
  rig = await createRig({ network: segment });
  rig.api.patch(NODE, { spec: { podCIDR: '10.88.3.0/24' } });
  await rig.kubelet.ready;
  await rig.stopKubelet();
  await rig.startKubelet();
  await rig.kubelet.ready;
  assert.equal(readiness()?.status, 'True');
});
