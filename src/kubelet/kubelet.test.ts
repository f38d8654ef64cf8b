import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import type { Pod } from '../api/types.generated.ts';
import { StatusError } from '../api/status.ts';
import { createRig } from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';

/**
 * Goal: pods live, fail and end as Kubernetes' users expect. Method: a whole kubelet between a
 * fake API and a fake hyperd, with a clock that is moved by hand.
 */
let rig: Rig;
afterEach(() => rig.close());

const running = (pod: Pod) => pod.status?.containerStatuses?.[0]?.state?.running !== undefined;

test('a pod runs, is ready, and has its address, times and events', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  rig.addPod('web', { containers: [{ name: 'main', image: 'busybox:1' }] });
  const pod = await rig.until('web', running);
  assert.equal(pod.status?.phase, 'Running');
  assert.equal(pod.status?.podIP, '10.88.0.2');
  assert.equal(pod.status?.hostIP, '192.0.2.1');
  assert.equal(pod.status?.qosClass, 'BestEffort');
  assert.match(pod.status?.containerStatuses?.[0]?.containerID ?? '', /^hyper:\/\/[0-9a-f]{64}$/);
  const conditions = Object.fromEntries(
    (pod.status?.conditions ?? []).map((each) => [each.type, each.status]),
  );
  assert.deepEqual(conditions, {
    PodReadyToStartContainers: 'True',
    Initialized: 'True',
    Ready: 'True',
    ContainersReady: 'True',
    PodScheduled: 'True',
  });
  assert.ok(pod.metadata.annotations?.['timeline.hypernetes.io/started']);
  assert.deepEqual(await rig.events('web'), ['Pulled', 'Created', 'Started']);
});

test('a failing container is restarted with back-off in the same VM', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  rig.addPod('crash', {
    containers: [{ name: 'main', image: 'busybox:1', command: ['exit', '3'] }],
  });
  const waits = (reason: string, count: number) => (pod: Pod) => {
    const status = pod.status?.containerStatuses?.[0];
    return status?.state?.waiting?.reason === reason && status.restartCount === count;
  };
  const first = await rig.until('crash', waits('CrashLoopBackOff', 1));
  const message = first.status?.containerStatuses?.[0]?.state?.waiting?.message ?? '';
  assert.match(message, /^back-off 10s restarting failed container=main pod=crash_default\(/);
  assert.equal(first.status?.containerStatuses?.[0]?.lastState?.terminated?.exitCode, 3);
  await rig.clock.advance(10_000);
  const second = await rig.until('crash', waits('CrashLoopBackOff', 2));
  assert.match(
    second.status?.containerStatuses?.[0]?.state?.waiting?.message ?? '',
    /back-off 20s/,
  );
  assert.equal(rig.hyperd.pods.size, 1);
  await rig.clock.advance(20_000);
  await rig.until('crash', waits('CrashLoopBackOff', 3));
  const kept = rig.hyperd.pods.get(rig.uid('crash'))?.containers.map((each) => each.attempt);
  assert.deepEqual(kept, [2, 3], 'of those that ended only the last one before is kept');
});

test('init containers run in order before the others', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  rig.addPod('staged', {
    initContainers: [
      { name: 'one', image: 'busybox:1', command: ['exit', '0'] },
      { name: 'two', image: 'busybox:1' },
    ],
    containers: [{ name: 'main', image: 'busybox:1' }],
  });
  const pod = await rig.until(
    'staged',
    (each) => each.status?.initContainerStatuses?.[1]?.state?.running !== undefined,
  );
  assert.equal(pod.status?.phase, 'Pending');
  assert.equal(pod.status?.initContainerStatuses?.[0]?.state?.terminated?.reason, 'Completed');
  assert.equal(pod.status?.containerStatuses?.[0]?.state?.waiting?.reason, 'PodInitializing');
  rig.hyperd.exit(rig.containerId('staged', 'two'), 0);
  await rig.until('staged', running);
});

test('a pod of restartPolicy Never ends as Succeeded or Failed', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  for (const [name, code, phase] of [
    ['good', '0', 'Succeeded'],
    ['bad', '1', 'Failed'],
  ] as const) {
    rig.addPod(name, {
      restartPolicy: 'Never',
      containers: [{ name: 'main', image: 'busybox:1', command: ['exit', code] }],
    });
    const pod = await rig.until(name, (each) => each.status?.phase === phase);
    assert.equal(pod.status?.containerStatuses?.[0]?.state?.terminated?.exitCode, Number(code));
  }
});

test('a pod that has ended lets its VM go and keeps its address, state and logs', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  const containers = [{ name: 'main', image: 'busybox:1', command: ['print', 'done'] }];
  rig.addPod('ended', { restartPolicy: 'Never', containers });
  await rig.until('ended', (each) => each.status?.phase === 'Succeeded');
  const sandbox = () => rig.hyperd.pods.get(rig.uid('ended'));
  await rig.waitUntil(() => sandbox()?.phase === 'stopped');
  await rig.settle();
  await rig.stopKubelet();
  await rig.startKubelet();
  await rig.settle();
  const pod = rig.api.get(rig.path('ended')) as Pod;
  assert.equal(pod.status?.podIP, '10.88.0.2');
  assert.equal(pod.status?.phase, 'Succeeded');
  assert.equal(pod.status?.containerStatuses?.[0]?.state?.terminated?.reason, 'Completed');
  assert.equal(sandbox()?.containers.length, 1);
  assert.deepEqual(await rig.events('ended'), ['Pulled', 'Created', 'Started']);
});

test('a VM that dies is told truthfully and replaced', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  rig.addPod('vm', { containers: [{ name: 'main', image: 'busybox:1' }] });
  await rig.until('vm', running);
  rig.hyperd.kill(rig.uid('vm'), 'GuestPanic', 'Kernel panic - not syncing');
  const pod = await rig.until('vm', (each) => {
    const status = each.status?.containerStatuses?.[0];
    return status?.restartCount === 1 && status.state?.running !== undefined;
  });
  const last = pod.status?.containerStatuses?.[0]?.lastState?.terminated;
  assert.equal(last?.reason, 'GuestPanic');
  assert.equal(last?.exitCode, 137);
  assert.ok(rig.hyperd.pods.has(`${rig.uid('vm')}-1`));
});

test('deletion stops the container, removes the VM, then the object', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  rig.addPod('gone', { containers: [{ name: 'main', image: 'busybox:1', command: ['stubborn'] }] });
  await rig.until('gone', running);
  rig.api.deletePod(rig.path('gone'), 30);
  await rig.settle();
  assert.equal(rig.hyperd.pods.size, 1, 'the grace period is not over');
  await rig.clock.advance(30_000);
  await rig.waitUntil(() => rig.api.get(rig.path('gone')) === undefined);
  assert.equal(rig.hyperd.pods.size, 0);
  const signals = rig.hyperd.requests.filter((each) => each.endsWith('/signal'));
  assert.equal(signals.length, 2);
});

test('an image that cannot be pulled is told, and tried again', async () => {
  rig = await createRig();
  const causes = [{ reason: 'NotFound', message: 'manifest unknown' }];
  const error = new StatusError('NotFound', 'manifest unknown', { details: { causes } });
  rig.hyperd.failPull('nope:1', error);
  rig.addPod('pull', { containers: [{ name: 'main', image: 'nope:1' }] });
  const reason = (pod: Pod) => pod.status?.containerStatuses?.[0]?.state?.waiting?.reason;
  await rig.until('pull', (pod) => reason(pod) === 'ErrImagePull');
  await rig.clock.advance(2_000);
  await rig.until('pull', (pod) => reason(pod) === 'ImagePullBackOff');
  rig.hyperd.failPull('nope:1', undefined);
  rig.hyperd.addImage('nope:1');
  await rig.clock.advance(10_000);
  await rig.until('pull', running);
});

test('a kubelet that was restarted goes on where the old one was', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  rig.addPod('kept', { containers: [{ name: 'main', image: 'busybox:1' }] });
  rig.addPod('lost', { containers: [{ name: 'main', image: 'busybox:1' }] });
  await rig.until('kept', running);
  await rig.until('lost', running);
  await rig.stopKubelet();
  rig.hyperd.exit(rig.containerId('kept', 'main'), 7);
  rig.api.remove(rig.path('lost'));
  await rig.startKubelet();
  const pod = await rig.until('kept', (each) => {
    const status = each.status?.containerStatuses?.[0];
    return status?.restartCount === 1 && status.state?.running !== undefined;
  });
  assert.equal(pod.status?.containerStatuses?.[0]?.lastState?.terminated?.exitCode, 7);
  await rig.waitUntil(() => rig.hyperd.pods.size === 1);
});

test('a restarted kubelet runs probes in what the container was started with', async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  const path = '/api/v1/namespaces/default/configmaps/mode';
  rig.api.create(path, { data: { MODE: 'old' } });
  const livenessProbe = {
    exec: { command: ['has', 'MODE=old'] },
    periodSeconds: 1,
    failureThreshold: 1,
  };
  const envFrom = [{ configMapRef: { name: 'mode' } }];
  rig.addPod('kept', {
    containers: [{ name: 'main', image: 'busybox:1', envFrom, livenessProbe }],
  });
  await rig.until('kept', running);
  await rig.stopKubelet();
  rig.api.remove(path);
  rig.api.create(path, { data: { MODE: 'new' } });
  const before = rig.hyperd.requests.length;
  await rig.startKubelet();
  const probes = () => rig.hyperd.requests.slice(before).filter((each) => each.endsWith('/exec'));
  for (let second = 0; second < 3; second += 1) {
    const seen = probes().length;
    await rig.clock.advance(1_000);
    await rig.waitUntil(() => probes().length > seen);
  }
  await rig.settle();
  assert.ok(!(await rig.events('kept')).includes('Unhealthy'));
  const pod = await rig.until('kept', running);
  assert.equal(pod.status?.containerStatuses?.[0]?.restartCount, 0);
});
