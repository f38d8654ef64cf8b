import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { createRig } from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';

/**
 * Goal: what a node has of a tenant is known to the API before it is there, and until it is gone.
 * Method: a whole kubelet between a fake API and a fake hyperd.
 */
let rig: Rig;
afterEach(() => rig.close());

const NODE = '/api/v1/nodes/node-1';
const HOLDING = 'holdings.hypernetes.io/acme';
const ALLOWANCE = 'allowances.hypernetes.io/acme';
const MIB = 2 ** 20;
const LOOK_MS = 10_000;

const annotation = (name: string) => rig.api.get(NODE)?.metadata.annotations?.[name];
const allow = (value: string | null) =>
  rig.api.patch(NODE, { metadata: { annotations: { [ALLOWANCE]: value } } });

async function addPod(name: string, tenant?: string): Promise<void> {
  const annotations: Record<string, string> = {};
  if (tenant !== undefined) annotations['hypernetes.io/tenant'] = tenant;
  rig.addPod(name, { containers: [{ name: 'main', image: 'busybox:1' }] }, { annotations });
  await rig.until(name, (pod) => pod.status?.phase === 'Running');
}

async function start(): Promise<void> {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  await rig.kubelet.ready;
}

test('a tenant is told of before its first pod has a VM, and the operator is not', async () => {
  await start();
  await addPod('own');
  assert.equal(annotation(HOLDING), undefined);
  let atCreation: string | undefined = 'no VM was asked for';
  rig.hyperd.onCreatePod = () => (atCreation = annotation(HOLDING));
  await addPod('web', 'acme');
  assert.equal(atCreation, '0');
});

test('memory of VMs that wait is told, with what a VM costs beside its guest', async () => {
  await start();
  await addPod('web', 'acme');
  rig.hyperd.addKept('tenant/acme', 2);
  await rig.clock.advance(LOOK_MS);
  await rig.waitUntil(() => annotation(HOLDING) === String(2 * 132 * MIB));
});

test('an allowance becomes a limit of the pool, and is taken back', async () => {
  await start();
  await addPod('web', 'acme');
  allow(String(100 * MIB + 1));
  await rig.waitUntil(() => rig.hyperd.poolLimits.get('tenant/acme') === 100);
  allow(null);
  await rig.waitUntil(() => rig.hyperd.poolLimits.get('tenant/acme') === null);
});

test('all of a tenant that is going is removed, after its pods; then the node names it no more', async () => {
  await start();
  await addPod('web', 'acme');
  rig.hyperd.addKept('tenant/acme', 1);
  allow('nothing');
  await rig.waitUntil(() => rig.hyperd.requests.includes('DELETE /v1/owners/tenant%2Facme'));
  await rig.settle();
  assert.notEqual(annotation(HOLDING), undefined, 'it has a pod');
  const other = { 'allowances.hypernetes.io/other': String(64 * MIB) };
  rig.api.patch(NODE, { metadata: { annotations: other } });
  await rig.waitUntil(() => rig.hyperd.poolLimits.get('tenant/other') === 64);
  rig.api.deletePod(rig.path('web'), 0);
  await rig.waitUntil(() => rig.hyperd.pods.size === 0);
  await rig.clock.advance(LOOK_MS);
  await rig.waitUntil(() => annotation(HOLDING) === undefined);
});

test('what a kubelet before had told is let go of when there is nothing', async () => {
  await start();
  await rig.stopKubelet();
  rig.api.patch(NODE, { metadata: { annotations: { [HOLDING]: '7' } } });
  await rig.startKubelet();
  await rig.waitUntil(() => annotation(HOLDING) === undefined);
});
