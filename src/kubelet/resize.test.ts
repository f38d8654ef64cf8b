import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import type { Container, Pod, PodSpec, ResourceRequirements } from '../api/types.generated.ts';
import { StatusError } from '../api/status.ts';
import { createRig } from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';

/** The fake node has 4 CPUs and 8 GiB; a VM has 64 MiB beside its containers. */
let rig: Rig;
afterEach(() => rig.close());

const MIB = 2 ** 20;
const GIVEN: ResourceRequirements = {
  requests: { cpu: '100m', memory: '64Mi' },
  limits: { cpu: '500m', memory: '128Mi' },
};

async function start(
  spec: Partial<PodSpec> = {},
  container: Partial<Container> = {},
): Promise<Pod> {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
  rig.addPod('a', podSpec(spec, container));
  return rig.until('a', isRunning);
}

function podSpec(spec: Partial<PodSpec> = {}, container: Partial<Container> = {}): PodSpec {
  return {
    containers: [{ name: 'main', image: 'busybox:1', resources: GIVEN, ...container }],
    ...spec,
  };
}

/** As `pods/resize` would write it. */
function resize(resources: ResourceRequirements, name = 'a'): void {
  const pod = rig.api.get(rig.path(name)) as Pod;
  const containers = pod.spec?.containers.map((each) => ({ ...each, resources }));
  const generation = (pod.metadata.generation ?? 0) + 1;
  rig.api.patch(rig.path(name), { metadata: { generation }, spec: { containers } });
}

const status = (pod: Pod) => pod.status?.containerStatuses?.[0];
const isRunning = (pod: Pod) => status(pod)?.state?.running !== undefined;
const condition = (pod: Pod, type: string) =>
  pod.status?.conditions?.find((each) => each.type === type);
const limitsOf = (name = 'a') => rig.hyperd.pods.get(rig.uid(name))?.spec.limits;
const held = (attempt = 0) =>
  rig.hyperd.specs.get(rig.containerId('a', 'main', attempt))?.resources;
const resizes = () => rig.hyperd.requests.filter((each) => each.endsWith('/resources')).length;
const has = (resources: ResourceRequirements) => (pod: Pod) =>
  JSON.stringify(status(pod)?.resources) === JSON.stringify(resources);

test('a resize is carried out where the container runs, and told', async () => {
  const before = await start();
  assert.deepEqual(status(before)?.resources, GIVEN);
  assert.deepEqual(status(before)?.allocatedResources, GIVEN.requests);
  const { memoryMib } = limitsOf() ?? {};
  const wanted = {
    requests: { cpu: '200m', memory: '64Mi' },
    limits: { cpu: '800m', memory: '96Mi' },
  };
  resize(wanted);
  const pod = await rig.until('a', has(wanted));
  assert.deepEqual(status(pod)?.allocatedResources, wanted.requests);
  assert.equal(status(pod)?.restartCount, 0);
  assert.deepEqual(held(), { cpuMillis: 800, cpuWeightMillis: 200, memoryBytes: 96 * MIB });
  assert.deepEqual(limitsOf(), { cpuMillis: 800, cpuWeightMillis: 200, memoryMib });
  const done = await rig.until('a', (each) => !condition(each, 'PodResizeInProgress'));
  assert.equal(done.status?.observedGeneration, 2);
  const events = (await rig.events('a')).filter((each) => each.startsWith('Resize'));
  assert.deepEqual(events.sort(), ['ResizeCompleted', 'ResizeStarted']);

  await rig.stopKubelet();
  await rig.startKubelet();
  await rig.until('a', isRunning);
  await rig.settle();
  assert.equal(resizes(), 1, 'a kubelet that is started later finds it done');
  resize(GIVEN);
  await rig.until('a', has(GIVEN));
  assert.equal(resizes(), 2);
});

const INFEASIBLE: [string, ResourceRequirements, RegExp][] = [
  [
    'more memory than the VM has',
    { requests: GIVEN.requests, limits: { cpu: '500m', memory: '129Mi' } },
    /virtual machine has too little memory: memory, needed: 202375168, capacity: 201326592/,
  ],
  [
    'more CPUs than the VM has',
    { requests: GIVEN.requests, limits: { cpu: '1001m', memory: '128Mi' } },
    /virtual machine has too few CPUs: cpu, needed: 2, capacity: 1/,
  ],
  [
    'more than the node has',
    { requests: { cpu: '5', memory: '64Mi' }, limits: { cpu: '6', memory: '128Mi' } },
    /^Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000$/,
  ],
];

for (const [what, wanted, message] of INFEASIBLE) {
  test(`${what} is Infeasible: all stays as it was`, async () => {
    await start();
    resize(wanted);
    const pod = await rig.until('a', (each) => Boolean(condition(each, 'PodResizePending')));
    const pending = condition(pod, 'PodResizePending');
    assert.equal(pending?.reason, 'Infeasible');
    assert.match(pending?.message ?? '', message);
    assert.equal(pending?.observedGeneration, 2);
    assert.deepEqual(status(pod)?.resources, GIVEN);
    assert.deepEqual(status(pod)?.allocatedResources, GIVEN.requests);
    assert.equal(resizes(), 0);
    assert.ok((await rig.events('a')).includes('ResizeInfeasible'));
    rig.hyperd.exit(rig.containerId('a', 'main'), 1);
    const again = await rig.until('a', (each) => status(each)?.restartCount === 1);
    assert.deepEqual(status(again)?.resources, GIVEN, 'it is started with what it had');
    assert.equal(held(1)?.memoryBytes, 128 * MIB);
    resize(GIVEN);
    await rig.until('a', (each) => !condition(each, 'PodResizePending'));
  });
}

test('what the node has no room for now is Deferred, until another pod goes', async () => {
  await start({}, { resources: { requests: { cpu: '1' }, limits: { cpu: '4' } } });
  const other = { requests: { cpu: '2' }, limits: { cpu: '4' } };
  rig.addPod('b', podSpec({}, { resources: other }));
  await rig.until('b', isRunning);
  const wanted = { requests: { cpu: '3' }, limits: { cpu: '4' } };
  resize(wanted);
  const pod = await rig.until('a', (each) => Boolean(condition(each, 'PodResizePending')));
  const { reason, message } = condition(pod, 'PodResizePending') ?? {};
  assert.equal(reason, 'Deferred');
  const amounts = 'cpu, requested: 3000, used: 2000, capacity: 4000';
  assert.equal(message, `Node didn't have enough resource: ${amounts}`);
  resize({ ...other, requests: { cpu: '3' } }, 'b');
  await rig.until('b', has({ ...other, requests: { cpu: '3' } }));
  rig.api.deletePod(rig.path('b'), 0);
  const done = await rig.until('a', has(wanted));
  assert.equal(condition(done, 'PodResizePending'), undefined);
});

test('less memory than is used stays in progress, and is tried again', async () => {
  await start();
  const why = 'memory limit 67108864 is below the 70000000 bytes in use';
  rig.hyperd.failResize(new StatusError('Conflict', why));
  const wanted = { requests: GIVEN.requests, limits: { cpu: '500m', memory: '64Mi' } };
  resize(wanted);
  const pod = await rig.until(
    'a',
    (each) => condition(each, 'PodResizeInProgress')?.reason === 'Error',
  );
  assert.equal(condition(pod, 'PodResizeInProgress')?.message, why);
  assert.deepEqual(status(pod)?.resources, GIVEN);
  rig.hyperd.failResize(undefined);
  await rig.clock.advance(1_000);
  await rig.until('a', has(wanted));
  await rig.until('a', (each) => !condition(each, 'PodResizeInProgress'));
});

for (const restartPolicy of ['Always', 'OnFailure']) {
  test(`a container whose policy wants it is restarted at once (${restartPolicy})`, async () => {
    const resizePolicy = [
      { resourceName: 'cpu', restartPolicy: 'NotRequired' },
      { resourceName: 'memory', restartPolicy: 'RestartContainer' },
    ];
    await start({ restartPolicy }, { resizePolicy });
    const faster = { ...GIVEN, limits: { cpu: '600m', memory: '128Mi' } };
    resize(faster);
    const pod = await rig.until('a', has(faster));
    assert.equal(status(pod)?.restartCount, 0);
    const smaller = { ...GIVEN, limits: { cpu: '600m', memory: '96Mi' } };
    resize(smaller);
    const restarted = await rig.until('a', (each) => status(each)?.restartCount === 1);
    await rig.until('a', (each) => isRunning(each) && has(smaller)(each));
    assert.equal(status(restarted)?.lastState?.terminated?.exitCode, 143);
    assert.equal(held(1)?.memoryBytes, 96 * MIB);
    const events = await rig.events('a');
    assert.ok(events.includes('Killing') && !events.includes('BackOff'), events.join());
    await rig.until('a', (each) => !condition(each, 'PodResizeInProgress'));
  });
}

test('what changes while a container is down holds for the VM at once, and for it when it starts', async () => {
  await start();
  rig.hyperd.exit(rig.containerId('a', 'main'), 1);
  await rig.until('a', (each) => status(each)?.restartCount === 1 && isRunning(each));
  rig.hyperd.exit(rig.containerId('a', 'main', 1), 1);
  await rig.until('a', (each) => status(each)?.state?.waiting !== undefined);
  const wanted = { requests: GIVEN.requests, limits: { cpu: '800m', memory: '96Mi' } };
  resize(wanted);
  await rig.waitUntil(() => limitsOf()?.cpuMillis === 800);
  await rig.clock.advance(20_000);
  await rig.until('a', (each) => isRunning(each) && has(wanted)(each));
  assert.equal(held(2)?.memoryBytes, 96 * MIB);
});

test('a container that has not run is started with what its VM was made for, not with more', async () => {
  rig = await createRig();
  rig.addPod('a', podSpec());
  await rig.waitUntil(() => rig.hyperd.pods.get(rig.uid('a'))?.phase === 'running');
  resize({ requests: GIVEN.requests, limits: { cpu: '500m', memory: '256Mi' } });
  await rig.until('a', (each) => condition(each, 'PodResizePending')?.reason === 'Infeasible');
  rig.hyperd.addImage('busybox:1');
  await rig.clock.advance(60_000);
  const pod = await rig.until('a', isRunning);
  assert.deepEqual(status(pod)?.resources, GIVEN);
  assert.equal(held()?.memoryBytes, 128 * MIB);
});

test('a pod whose VM is made anew has what it wants then', async () => {
  await start();
  const wanted = { requests: GIVEN.requests, limits: { cpu: '2', memory: '256Mi' } };
  resize(wanted);
  await rig.until('a', (each) => condition(each, 'PodResizePending')?.reason === 'Infeasible');
  rig.hyperd.kill(rig.uid('a'), 'GuestPanic', 'panic');
  await rig.clock.advance(20_000);
  const pod = await rig.until('a', (each) => status(each)?.restartCount === 1 && isRunning(each));
  assert.deepEqual(status(pod)?.resources, wanted);
  assert.equal(condition(pod, 'PodResizePending'), undefined);
});
