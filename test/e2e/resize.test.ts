import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod, ResourceRequirements } from '../../src/api/types.generated.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { createHyperdClient } from '../../src/client/hyperd.ts';
import { EVENTS, PODS } from '../../src/client/resources.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { waitFor } from './support/wait.ts';

/**
 * Pods that run get more and less of what they may use, by `kubectl`, and do not notice but by what
 * they may use. What their virtual machine cannot give them is refused with its size.
 */
const NAMESPACE = 'default';
const MIB = 2 ** 20;
const SINCE_MINOR = 32;

let cluster: TestCluster;
let kubectl: Kubectl;
let image: string;

before(async () => {
  cluster = await startCluster(['--warm-pool', 'off']);
  image = await pushDemoImage(cluster.registryPort);
  const found = await findKubectls(cluster.kubeconfig, join(cluster.dataDir, 'kubectl'));
  const [newest] = found.sort((a, b) => b.minor - a.minor);
  assert.ok(newest && newest.minor >= SINCE_MINOR, 'kubectl 1.32 or newer is needed');
  kubectl = newest;
});
after(() => cluster?.[Symbol.asyncDispose]());

const GIVEN: ResourceRequirements = {
  requests: { cpu: '100m', memory: '64Mi' },
  limits: { cpu: '500m', memory: '128Mi' },
};

async function run(name: string, more: object = {}, command = 'sleep 1000'): Promise<void> {
  const volumeMounts = [{ name: 'memory', mountPath: '/memory' }];
  const main = { name: 'main', image, command: ['/bin/sh', '-c', command], volumeMounts };
  const pod: Pod = {
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { namespace: NAMESPACE, name } },
    spec: {
      terminationGracePeriodSeconds: 0,
      volumes: [{ name: 'memory', emptyDir: { medium: 'Memory' } }],
      containers: [{ ...main, resources: GIVEN, ...more }],
    },
  };
  await cluster.client.create(PODS, pod);
  await until(name, (each) => each.status?.phase === 'Running');
}

async function until(name: string, holds: (pod: Pod) => boolean): Promise<Pod> {
  const done = (pod: Pod | undefined) => pod !== undefined && holds(pod);
  const found = await waitFor(cluster.client, PODS, { namespace: NAMESPACE, name }, done);
  return found ?? assert.fail();
}

const status = (pod: Pod) => pod.status?.containerStatuses?.[0];
const condition = (pod: Pod, type: string) =>
  pod.status?.conditions?.find((each) => each.type === type);

function resize(name: string, resources: ResourceRequirements) {
  const patch = JSON.stringify({ spec: { containers: [{ name: 'main', resources }] } });
  return kubectl(['patch', 'pod', name, '--subresource', 'resize', '-p', patch]);
}

async function resized(name: string, resources: ResourceRequirements): Promise<Pod> {
  const { exitCode, stderr } = await resize(name, resources);
  assert.equal(exitCode, 0, stderr);
  return until(name, (pod) => {
    const { limits, requests } = status(pod)?.resources ?? {};
    const isThere = (wanted: object = {}, has: Record<string, unknown> = {}) =>
      Object.entries(wanted).every(([key, value]) => has[key] === value);
    const isDone = !condition(pod, 'PodResizeInProgress');
    return isDone && isThere(resources.limits, limits) && isThere(resources.requests, requests);
  });
}

const exec = async (name: string, script: string) =>
  (await kubectl.ok(['exec', name, '--', '/bin/sh', '-c', script])).trim();
const cgroup = (name: string, file: string) => exec(name, `cat /sys/fs/cgroup/${file}`);
const bootId = (name: string) => exec(name, 'cat /proc/sys/kernel/random/boot_id');

/** What the host's kernel holds the pod's VMM to. */
async function hostCpuQuota(name: string): Promise<string> {
  const { metadata } = await cluster.client.get(PODS, { namespace: NAMESPACE, name });
  const hyperd = createHyperdClient(join(cluster.dataDir, 'run/hyperd.sock'));
  try {
    const { pid } = (await hyperd.vms()).find((vm) => vm.pod === metadata.uid) ?? { pid: 0 };
    const groups = await readFile(`/proc/${pid}/cgroup`, 'utf8');
    const [, unified] = /^0::(.*)$/m.exec(groups) ?? [];
    const [, split] = /^\d+:(?:[^:]*,)?cpu(?:,[^:]*)?:(.*)$/m.exec(groups) ?? [];
    if (split === undefined) {
      return (await readFile(`/sys/fs/cgroup${unified}/cpu.max`, 'utf8')).split(' ')[0] ?? '';
    }
    return (await readFile(`/sys/fs/cgroup/cpu${split}/cpu.cfs_quota_us`, 'utf8')).trim();
  } finally {
    hyperd.close();
  }
}

test('CPU and memory change in place, up and down, and the container runs on', async () => {
  await run('a');
  const first = await until('a', () => true);
  const boot = await bootId('a');
  const pid = await exec('a', 'cat /proc/1/stat');
  assert.equal(await cgroup('a', 'cpu.max'), '50000 100000');
  assert.equal(await cgroup('a', 'memory.max'), String(128 * MIB));
  assert.equal(await hostCpuQuota('a'), '50000');
  const weight = Number(await cgroup('a', 'cpu.weight'));

  const limits = { cpu: '800m', memory: '96Mi' };
  const grown = await resized('a', { requests: { cpu: '300m' }, limits });
  assert.equal(await cgroup('a', 'cpu.max'), '80000 100000');
  assert.equal(await cgroup('a', 'memory.max'), String(96 * MIB));
  assert.ok(Number(await cgroup('a', 'cpu.weight')) > weight);
  assert.equal(await hostCpuQuota('a'), '80000');
  assert.deepEqual(status(grown)?.allocatedResources, { cpu: '300m', memory: '64Mi' });
  assert.equal(grown.status?.observedGeneration, grown.metadata.generation);

  await resized('a', { requests: { cpu: '50m' }, limits: { cpu: '200m', memory: '128Mi' } });
  assert.equal(await cgroup('a', 'cpu.max'), '20000 100000');
  assert.equal(await cgroup('a', 'memory.max'), String(128 * MIB));
  assert.equal(await hostCpuQuota('a'), '20000');
  const { metadata } = await until('a', (pod) => status(pod)?.restartCount === 0);
  assert.equal(metadata.generation, (first.metadata.generation ?? 0) + 2);
  assert.equal(await bootId('a'), boot);
  const started = (stat: string) => stat.split(' ')[21];
  assert.equal(started(await exec('a', 'cat /proc/1/stat')), started(pid));
  const { items } = await cluster.client.list(EVENTS, { namespace: NAMESPACE });
  const reasons = items.map((event) => event['reason']);
  assert.ok(reasons.includes('ResizeStarted') && reasons.includes('ResizeCompleted'));
});

test('an editor changes what a resize may change, and is told what it may not', async () => {
  const edit = (change: string) => {
    const env = { ...process.env, EDITOR: `sed -i ${change}`, KUBE_EDITOR: `sed -i ${change}` };
    return kubectl(['edit', 'pod', 'a', '--subresource=resize'], { env });
  };
  const edited = await edit("'s/cpu: 200m/cpu: 250m/'");
  assert.equal(edited.exitCode, 0, edited.stderr);
  await until('a', (pod) => status(pod)?.resources?.limits?.['cpu'] === '250m');
  assert.equal(await cgroup('a', 'cpu.max'), '25000 100000');
  const qos = await resize('a', { requests: { cpu: '250m', memory: '128Mi' } });
  assert.match(qos.stderr, /Pod QOS Class may not change as a result of resizing/);
  const usual = JSON.stringify({ spec: { containers: [{ name: 'main', resources: GIVEN }] } });
  const refused = await kubectl(['patch', 'pod', 'a', '-p', usual]);
  assert.match(refused.stderr, /pod updates may not change fields other than/);
});

test('what the VM does not have is Infeasible, and taken back leaves no trace', async () => {
  assert.equal((await resize('a', { limits: { memory: '1Gi' } })).exitCode, 0);
  const pod = await until('a', (each) => Boolean(condition(each, 'PodResizePending')));
  const { reason, message = '' } = condition(pod, 'PodResizePending') ?? {};
  assert.equal(reason, 'Infeasible');
  assert.match(message, /too little memory: memory, needed: \d+, capacity: \d+, which/);
  assert.equal(status(pod)?.resources?.limits?.['memory'], '128Mi');
  assert.equal(await cgroup('a', 'memory.max'), String(128 * MIB));
  await resize('a', { limits: { memory: '128Mi', cpu: '1500m' } });
  const more = await until('a', (each) =>
    /too few CPUs/.test(condition(each, 'PodResizePending')?.message ?? ''),
  );
  assert.equal(condition(more, 'PodResizePending')?.observedGeneration, more.metadata.generation);
  await resized('a', { limits: { cpu: '1', memory: '128Mi' } });
  await until('a', (each) => !condition(each, 'PodResizePending'));
  assert.equal(await cgroup('a', 'cpu.max'), '100000 100000');
});

test('memory that is used is not taken away, but once it is not used any more', async () => {
  const hold = 'dd if=/dev/zero of=/memory/x bs=1M count=80 2>/dev/null; echo ok';
  assert.equal(await exec('a', hold), 'ok');
  assert.equal((await resize('a', { limits: { memory: '64Mi' } })).exitCode, 0);
  const pod = await until(
    'a',
    (each) => condition(each, 'PodResizeInProgress')?.reason === 'Error',
  );
  const why = /memory limit 67108864 is below the \d+ bytes in use/;
  assert.match(condition(pod, 'PodResizeInProgress')?.message ?? '', why);
  assert.equal(await cgroup('a', 'memory.max'), String(128 * MIB));
  await exec('a', 'rm /memory/x');
  await until('a', (each) => status(each)?.resources?.limits?.['memory'] === '64Mi');
  assert.equal(await cgroup('a', 'memory.max'), String(64 * MIB));
});

test('hyperd and the kubelet are killed in between, and what was resized stays so', async () => {
  for (const component of ['hyperd', 'kubelet']) {
    process.kill(await cluster.pidOf(component), 'SIGKILL');
  }
  await resized('a', { limits: { cpu: '700m', memory: '64Mi' } });
  assert.equal(await cgroup('a', 'cpu.max'), '70000 100000');
  assert.equal(await cgroup('a', 'memory.max'), String(64 * MIB));
  await until('a', (pod) => status(pod)?.restartCount === 0);
});

test('a container whose policy wants it is started anew, in the same VM', async () => {
  const resizePolicy = [{ resourceName: 'memory', restartPolicy: 'RestartContainer' }];
  await run('b', { resizePolicy });
  const boot = await bootId('b');
  await resized('b', { limits: { cpu: '600m' } });
  await until('b', (pod) => status(pod)?.restartCount === 0);
  await resized('b', { limits: { memory: '96Mi' } });
  const pod = await until('b', (each) => status(each)?.state?.running !== undefined);
  assert.equal(status(pod)?.restartCount, 1);
  assert.equal(await bootId('b'), boot);
  assert.equal(await cgroup('b', 'memory.max'), String(96 * MIB));
  assert.equal(await cgroup('b', 'cpu.max'), '60000 100000');
});

test('a quota holds for what pods grow by', async () => {
  const hard = 'requests.cpu=400m';
  await kubectl.ok(['create', 'quota', 'small', `--hard=${hard}`]);
  const refused = await resize('b', { requests: { cpu: '500m' } });
  assert.equal(refused.exitCode, 1);
  assert.match(refused.stderr, /forbidden: exceeded quota: small, requested: requests.cpu=400m/);
  await resized('b', { requests: { cpu: '200m' } });
});
