import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import type { Pod, PodSpec } from '../api/types.generated.ts';
import { createRig } from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';

/** Goal: what a suspended tenant has stops and is not lost. Method as in kubelet.test.ts. */
let rig: Rig;
afterEach(() => rig.close());

const ANNOTATION = 'hypernetes.io/suspended';
const status = (pod: Pod) => pod.status?.containerStatuses?.[0];
const running = (pod: Pod) => status(pod)?.state?.running !== undefined;
const isWaiting = (pod: Pod) => status(pod)?.state?.waiting?.reason === 'TenantSuspended';
const hasNoVm = (pod: Pod) =>
  pod.status?.conditions?.find(({ type }) => type === 'PodReadyToStartContainers')?.status ===
  'False';

async function start(spec: Partial<PodSpec> = {}): Promise<void> {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1', {});
  rig.addPod('p', { containers: [{ name: 'main', image: 'busybox:1' }], ...spec });
}

const suspend = (value: string | null = new Date(rig.clock.nowMs()).toISOString()) =>
  void rig.api.patch(rig.path('p'), { metadata: { annotations: { [ANNOTATION]: value } } });

for (const restartPolicy of ['Always', 'OnFailure', 'Never']) {
  test(`a pod of restartPolicy ${restartPolicy} waits without its VM, and goes on`, async () => {
    await start({ restartPolicy });
    await rig.until('p', running);
    suspend();
    const stopped = await rig.until('p', (pod) => isWaiting(pod) && hasNoVm(pod));
    assert.equal(stopped.status?.phase, 'Running');
    assert.equal(status(stopped)?.restartCount, 0);
    assert.equal(status(stopped)?.ready, false);
    assert.equal(status(stopped)?.lastState?.terminated?.reason, 'TenantSuspended');
    await rig.clock.advance(600_000);
    await rig.settle();
    assert.ok(isWaiting(rig.api.get(rig.path('p')) as Pod), 'it stays as it is');
    suspend(null);
    const again = await rig.until('p', running);
    assert.equal(status(again)?.restartCount, 1);
    assert.equal(status(again)?.lastState?.terminated?.reason, 'TenantSuspended');
    const events = await rig.events('p');
    assert.ok(events.includes('TenantSuspended'), events.join());
    assert.ok(!events.includes('SandboxChanged') && !events.includes('BackOff'), events.join());
  });
}

test('a kubelet that is restarted meanwhile knows that the pod goes on', async () => {
  await start({ restartPolicy: 'Never' });
  await rig.until('p', running);
  suspend();
  await rig.until('p', (pod) => isWaiting(pod) && hasNoVm(pod));
  await rig.stopKubelet();
  await rig.startKubelet();
  await rig.settle();
  assert.ok(isWaiting(rig.api.get(rig.path('p')) as Pod));
  await rig.stopKubelet();
  suspend(null);
  await rig.startKubelet();
  const again = await rig.until('p', running);
  assert.equal(status(again)?.restartCount, 1);
});

test('a pod that was made for a suspended tenant gets no VM until it is resumed', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1', {});
  const annotations = { [ANNOTATION]: new Date(rig.clock.nowMs()).toISOString() };
  const spec = { containers: [{ name: 'main', image: 'busybox:1' }] };
  rig.addPod('p', spec, { annotations });
  const pod = await rig.until('p', isWaiting);
  assert.equal(pod.status?.phase, 'Pending');
  assert.ok(!rig.hyperd.requests.some((each) => each.startsWith('PUT /v1/pods')));
  suspend(null);
  assert.equal(status(await rig.until('p', running))?.restartCount, 0);
});

test('a pod that was resumed has its new address alone, and can be deleted', async () => {
  await start();
  await rig.until('p', running);
  suspend();
  const stopped = await rig.until('p', (pod) => isWaiting(pod) && hasNoVm(pod));
  suspend(null);
  const again = await rig.until('p', running);
  assert.notEqual(again.status?.podIP, stopped.status?.podIP);
  assert.deepEqual(again.status?.podIPs, [{ ip: again.status?.podIP }]);
  rig.api.deletePod(rig.path('p'), 30);
  await rig.waitUntil(() => rig.api.get(rig.path('p')) === undefined);
});

test('a suspended pod can be deleted', async () => {
  await start();
  await rig.until('p', running);
  suspend();
  await rig.until('p', (pod) => isWaiting(pod) && hasNoVm(pod));
  rig.api.deletePod(rig.path('p'), 30);
  await rig.waitUntil(() => rig.api.get(rig.path('p')) === undefined);
});

test('a pod that is resumed while it stops is stopped first, and goes on then', async () => {
  await start({ restartPolicy: 'Never' });
  await rig.until('p', running);
  suspend();
  await rig.waitUntil(() => rig.hyperd.requests.some((each) => each.endsWith('signal')));
  suspend(null);
  const again = await rig.until('p', (pod) => running(pod) && status(pod)?.restartCount === 1);
  assert.equal(again.status?.phase, 'Running');
});
