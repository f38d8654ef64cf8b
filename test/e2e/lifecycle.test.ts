import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { KubeObject } from '../../src/api/object.ts';
import type { ContainerStatus, Pod } from '../../src/api/types.generated.ts';
import { systemClock } from '../../src/base/clock.ts';
import { CONFIG_MAPS, EVENTS, PODS, SECRETS } from '../../src/client/resources.ts';
import type { Resource } from '../../src/client/resources.ts';
import { createHyperdClient } from '../../src/client/hyperd.ts';
import { CONFIG, SECRET, lifecyclePods, pushTestImage } from './fixtures/lifecycle-pods.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { waitFor } from './support/wait.ts';

/**
 * Goal: pods live, fail and end on real VMs as users of Kubernetes know it. Method: a few pods of
 * many containers each, all created at once; every test waits for what it needs of them and looks
 * at it with kubectl.
 */
let cluster: TestCluster;
let kubectl: Kubectl;
const POD_TIMEOUT_MS = 120_000;

before(async () => {
  cluster = await startCluster();
  const found = await findKubectls(cluster.kubeconfig, join(cluster.dataDir, 'kubectl-cache'));
  kubectl = found.at(-1) as Kubectl;
  assert.ok(kubectl, 'kubectl is needed');
  const image = await pushTestImage(cluster.registryPort);
  const encoded = Object.entries(SECRET).map(([key, value]) => [key, btoa(value)]);
  const object = (kind: string, name: string) => ({
    apiVersion: 'v1',
    kind,
    metadata: { name, namespace: 'default' },
  });
  const login = Object.fromEntries(encoded) as Record<string, string>;
  await cluster.client.create(CONFIG_MAPS, { ...object('ConfigMap', 'settings'), data: CONFIG });
  await cluster.client.create(SECRETS, { ...object('Secret', 'login'), data: login });
  for (const pod of Object.values(lifecyclePods(image))) await cluster.client.create(PODS, pod);
});
after(() => cluster[Symbol.asyncDispose]());

function until(name: string, holds: (pod: Pod) => boolean): Promise<Pod> {
  const done = (pod: Pod | undefined) => pod !== undefined && holds(pod);
  const key = { namespace: 'default', name };
  return waitFor(cluster.client, PODS, key, done, POD_TIMEOUT_MS) as Promise<Pod>;
}

function of(pod: Pod, container: string): ContainerStatus {
  const all = [
    ...(pod.status?.initContainerStatuses ?? []),
    ...(pod.status?.containerStatuses ?? []),
  ];
  return all.find(({ name }) => name === container) as ContainerStatus;
}

const waiting = (pod: Pod, container: string) => of(pod, container)?.state?.waiting?.reason;
const terminated = (pod: Pod, container: string) => of(pod, container)?.state?.terminated;
const isReady = (pod: Pod, container: string) => of(pod, container)?.ready === true;
const phase = (pod: Pod) => pod.status?.phase;
const logs = (pod: string, container: string, ...more: string[]) =>
  kubectl.ok(['logs', pod, '-c', container, ...more]);
const exec = (pod: string, container: string, ...command: string[]) =>
  kubectl.ok(['exec', pod, '-c', container, '--', ...command]);

/** Conditions as `type: status reason`. */
function conditions(pod: Pod): Record<string, string> {
  const all = pod.status?.conditions ?? [];
  return Object.fromEntries(
    all.map(({ type, status, reason }) => [type, reason ? `${status} ${reason}` : status]),
  );
}

/** Nothing of it runs any more, not even its VM. */
function hasEnded(pod: Pod): boolean {
  return phase(pod) === 'Failed' && conditions(pod)['PodReadyToStartContainers'] === 'False';
}

/** The STATUS column. */
async function shownStatus(pod: string): Promise<string> {
  const line = await kubectl.ok(['get', 'pod', pod, '--no-headers']);
  return line.trim().split(/\s+/)[2] ?? '';
}

interface PodEvent extends KubeObject {
  reason: string;
  message: string;
  involvedObject: { name: string; fieldPath?: string };
}

/** Events about a container of a pod (or about the pod), once one of `reason` is among them. */
async function events(pod: string, reason: string, container?: string): Promise<string[]> {
  const path = container && `spec.containers{${container}}`;
  const deadlineMs = systemClock.monotonicMs() + POD_TIMEOUT_MS;
  for (;;) {
    const list = await cluster.client.list(EVENTS as Resource<PodEvent>, { namespace: 'default' });
    const mine = list.items.filter(
      ({ involvedObject: about }) => about.name === pod && about.fieldPath === (path || undefined),
    );
    const told = mine.map((event) => `${event.reason}: ${event.message}`);
    if (mine.some((event) => event.reason === reason)) return told;
    assert.ok(
      systemClock.monotonicMs() < deadlineMs,
      `no ${reason} of ${pod} in ${told.join('; ')}`,
    );
    await systemClock.sleep(200);
  }
}

test('containers end with their true exit codes, reasons and messages', async () => {
  const pod = await until('exits', hasEnded);
  const ends = Object.fromEntries(
    (pod.status?.containerStatuses ?? []).map(({ name, state }) => {
      const { exitCode, reason } = state?.terminated ?? {};
      return [name, `${exitCode} ${reason}`];
    }),
  );
  assert.deepEqual(ends, {
    ok: '0 Completed',
    own: '0 Completed',
    three: '3 Error',
    killed: '137 Error',
    terminated: '143 Error',
    oom: '137 OOMKilled',
    message: '1 Error',
    tail: '1 Error',
    missing: '128 StartError',
    plain: '128 StartError',
  });
  assert.equal(terminated(pod, 'message')?.message, 'the reason\n');
  assert.equal(terminated(pod, 'tail')?.message, 'from the log\n');
  assert.match(terminated(pod, 'missing')?.message ?? '', /exec: "\/bin\/nope": .*no such file/i);
  assert.match(terminated(pod, 'plain')?.message ?? '', /exec: "\/etc\/plain": permission denied/i);
  assert.equal(of(pod, 'ok').restartCount, 0);
  assert.deepEqual(conditions(pod), {
    PodReadyToStartContainers: 'False',
    Initialized: 'True',
    Ready: 'False PodFailed',
    ContainersReady: 'False PodFailed',
    PodScheduled: 'True',
  });
});

test('a pod that has ended gives its VM back and keeps its address and its logs', async () => {
  const pod = await until('exits', hasEnded);
  const hyperd = createHyperdClient(join(cluster.dataDir, 'run/hyperd.sock'));
  try {
    const state = await hyperd.pod(pod.metadata.uid ?? '');
    assert.equal(state.phase, 'stopped');
    assert.equal(state.reason, 'PoweredOff');
    assert.equal(state.address, '');
    await assert.rejects(hyperd.stats(state.id), /does not run/);
  } finally {
    hyperd.close();
  }
  assert.match(pod.status?.podIP ?? '', /^10\./);
  assert.equal(await logs('exits', 'ok'), 'fine\n');
  assert.equal(await logs('exits', 'own'), 'entrypoint command\n');
  const refused = await kubectl(['exec', 'exits', '-c', 'ok', '--', 'true']);
  assert.equal(refused.exitCode, 1);
  assert.match(refused.stderr, /cannot exec into a container in a completed pod; current phase is/);
});

test('init containers run in order; what fails says so and holds the others back', async () => {
  const never = await until('init-never', (pod) => phase(pod) === 'Failed');
  assert.equal(terminated(never, 'setup')?.exitCode, 7);
  assert.equal(waiting(never, 'main'), 'PodInitializing');
  assert.equal(await shownStatus('init-never'), 'Init:Error');
  assert.equal(await logs('init-never', 'setup'), 'cannot\n');
  const pod = await until('init-always', (each) => waiting(each, 'setup') === 'CrashLoopBackOff');
  assert.equal(await shownStatus('init-always'), 'Init:CrashLoopBackOff');
  assert.equal(phase(pod), 'Pending');
  assert.equal(conditions(pod)['Initialized'], 'False ContainersNotInitialized');
  const message = pod.status?.conditions?.find(({ type }) => type === 'Initialized')?.message;
  assert.equal(message, 'containers with incomplete status: [setup]');
});

test('OnFailure restarts what failed until it succeeds', async () => {
  const pod = await until('retried', (each) => phase(each) === 'Succeeded');
  assert.equal(of(pod, 'main').restartCount, 1);
  assert.equal(of(pod, 'main').lastState?.terminated?.exitCode, 4);
  assert.equal(conditions(pod)['Ready'], 'False PodCompleted');
  assert.equal(await shownStatus('retried'), 'Completed');
});

test('a container that crashes is restarted with back-off in the same VM', async () => {
  const hasCrashed = (count: number) => (each: Pod) =>
    (of(each, 'crash')?.restartCount ?? 0) >= count &&
    waiting(each, 'crash') === 'CrashLoopBackOff';
  const pod = await until('restarts', hasCrashed(1));
  const { uid } = pod.metadata;
  const message = of(pod, 'crash').state?.waiting?.message ?? '';
  assert.match(message, /^back-off (10|20|40|1m20)s restarting failed container=crash /);
  assert.ok(message.endsWith(` pod=restarts_default(${uid})`), message);
  assert.equal(of(pod, 'crash').lastState?.terminated?.exitCode, 5);
  const told = await events('restarts', 'BackOff', 'crash');
  const text = `Back-off restarting failed container crash in pod restarts_default(${uid})`;
  assert.ok(told.includes(`BackOff: ${text}`), told.join('; '));
  const again = await until('restarts', hasCrashed(2));
  assert.equal(of(again, 'steady').restartCount, 0);
  const boot = await logs('restarts', 'steady');
  assert.match(boot, /^[0-9a-f-]{36}\n$/);
  assert.equal(await logs('restarts', 'crash'), boot, 'the VM is the same');
  assert.equal(await logs('restarts', 'crash', '--previous'), boot);
});

test('liveness restarts, startup holds back', async () => {
  const pod = await until('restarts', (each) => (of(each, 'sick')?.restartCount ?? 0) > 0);
  assert.notEqual(of(pod, 'sick').lastState?.terminated, undefined);
  const told = await events('restarts', 'Killing', 'sick');
  assert.ok(told.includes('Unhealthy: Liveness probe failed: not well\n'), told.join('; '));
  const text = 'Killing: Container sick failed liveness probe, will be restarted';
  assert.ok(told.includes(text), told.join('; '));
  const slow = await until('restarts', (each) => of(each, 'slow')?.started === true);
  assert.equal(of(slow, 'slow').restartCount, 0);
  const failures = await events('restarts', 'Unhealthy', 'slow');
  assert.ok(failures.some((each) => each.startsWith('Unhealthy: Startup probe failed')));
});

test('what cannot be started says why, and does not disturb the others', async () => {
  const reasons = (pod: Pod) =>
    ['ghost', 'misnamed', 'never', 'missing', 'unset'].map((name) => waiting(pod, name)).join();
  const wanted =
    'ImagePullBackOff,InvalidImageName,ErrImageNeverPull,CrashLoopBackOff,CreateContainerConfigError';
  const pod = await until('broken', (each) => reasons(each) === wanted && isReady(each, 'fine'));
  const message = (name: string) => of(pod, name).state?.waiting?.message ?? '';
  assert.match(message('ghost'), /^Back-off pulling image ".*\/test\/ghost:1": .*: not found$/);
  assert.match(message('misnamed'), /"Not A Name"/);
  assert.match(message('never'), /is not present with pull policy of Never$/);
  assert.equal(message('unset'), 'configmap "not-there" not found');
  assert.equal(of(pod, 'missing').lastState?.terminated?.reason, 'StartError');
  assert.equal(phase(pod), 'Pending');
  const told = await events('broken', 'BackOff', 'ghost');
  for (const reason of ['Pulling', 'Failed']) {
    assert.ok(
      told.some((each) => each.startsWith(`${reason}: `)),
      told.join('; '),
    );
  }
  assert.ok(told.includes('Failed: Error: ErrImagePull'), told.join('; '));
});

test('a pod that fits nowhere stays Pending and says why', async () => {
  const pod = await until('huge', (each) => conditions(each)['PodScheduled'] !== undefined);
  assert.equal(conditions(pod)['PodScheduled'], 'False Unschedulable');
  const told = await events('huge', 'FailedScheduling');
  const text = 'FailedScheduling: 0/1 nodes are available: 1 Insufficient memory.';
  assert.ok(
    told.some((each) => each.startsWith(text)),
    told.join('; '),
  );
  assert.equal(await shownStatus('huge'), 'Pending');
});

test('a container has the identity, environment, files and neighbours that it was given', async () => {
  await until('work', (pod) => isReady(pod, 'main') && isReady(pod, 'polite'));
  const ended = await kubectl.ok(['logs', 'work', '-c', 'main', '--limit-bytes=65536']);
  assert.match(ended, /\ndone\n$/);
  const facts = Object.fromEntries(
    ended.split('\n').map((line) => [line.split('=', 1)[0], line.slice(line.indexOf('=') + 1)]),
  );
  const wanted = {
    id: '1000:1001:1001 1002 2000',
    cwd: '/srv',
    args: 'hello world,$(GREETING),$(MISSING)',
    caps: 'CapEff:0000000000000000',
    rootfs: 'read-only',
    order: 'first,second,',
    mode: '444:404',
    projected: 's3cret,work',
    localhost: 'hello-from-web',
    FROM_IMAGE: 'yes',
    GREETING: 'hello world',
    CM_color: 'red',
    COLOR: 'red',
    PASS: 's3cret',
    POD: 'work',
    MEM: '64',
    HOSTNAME: 'work',
  };
  assert.deepEqual(Object.fromEntries(Object.keys(wanted).map((key) => [key, facts[key]])), wanted);
  const pod = await until('work', () => true);
  assert.equal(facts['IP'], pod.status?.podIP);
  assert.equal(await exec('work', 'polite', 'cat', '/data/post-start'), '1234\n');
  const memory = await logs('work', 'memory');
  assert.match(memory, /\n1024\+0 records out\n/);
  assert.match(memory, /tmpfs +1024 +1024 +0 100% \/mem/, 'a Memory volume has its limit');
});

test('readiness of http and tcp flips the pod to Ready', async () => {
  const unready = await until('work', (pod) => isReady(pod, 'main'));
  assert.equal(conditions(unready)['Ready'], 'False ContainersNotReady');
  const message = unready.status?.conditions?.find(({ type }) => type === 'Ready')?.message;
  assert.match(message ?? '', /^containers with unready status: \[.*web tcp.*\]$/);
  await exec('work', 'polite', 'touch', '/data/ready');
  const pod = await until('work', (each) => conditions(each)['Ready'] === 'True');
  assert.ok(isReady(pod, 'web') && isReady(pod, 'tcp'));
  await kubectl.ok(['exec', 'work', '-c', 'web', '--', 'rm', '/data/ready']);
  await until('work', (each) => conditions(each)['Ready'] === 'False ContainersNotReady');
});

test('files follow their ConfigMap and annotations while the pod runs', async () => {
  await until('work', (pod) => isReady(pod, 'main'));
  assert.equal(await exec('work', 'main', 'cat', '/config/app.conf'), 'level=1\n');
  const patch = JSON.stringify({ data: { 'app.conf': 'level=2\n' } });
  await kubectl.ok(['patch', 'configmap', 'settings', '--type=merge', '-p', patch]);
  // A change of the pod is followed at once, and takes what else has changed along.
  await kubectl.ok(['annotate', 'pod', 'work', 'note=seen']);
  const script = 'until [ "$(cat /config/note)" = seen ]; do sleep 0.1; done; cat /config/app.conf';
  const options = { timeoutMs: POD_TIMEOUT_MS };
  const command = ['exec', 'work', '-c', 'main', '--', 'sh', '-c', script];
  assert.equal((await kubectl(command, options)).stdout, 'level=2\n');
});

test('the token in a pod is that of its service account, and valid', async () => {
  const pod = await until('work', (each) => isReady(each, 'main'));
  const folder = '/var/run/secrets/kubernetes.io/serviceaccount';
  assert.equal(await exec('work', 'main', 'cat', `${folder}/namespace`), 'default');
  assert.match(await exec('work', 'main', 'cat', `${folder}/ca.crt`), /^-----BEGIN CERTIFICATE/);
  const token = await exec('work', 'main', 'cat', `${folder}/token`);
  const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token } };
  const input = JSON.stringify(review);
  const create = ['create', '-f', '-', '-o', 'json', '--validate=false'];
  const answer = await kubectl.ok(create, { input });
  const { status } = JSON.parse(answer) as { status: TokenReviewStatus };
  assert.equal(status.authenticated, true);
  assert.equal(status.user?.username, 'system:serviceaccount:default:default');
  const names = status.user?.extra?.['authentication.kubernetes.io/pod-uid'];
  assert.deepEqual(names, [pod.metadata.uid]);
});

interface TokenReviewStatus {
  authenticated?: boolean;
  user?: { username?: string; extra?: Record<string, string[]> };
}

test('a pod that lives too long is ended', async () => {
  const pod = await until('late', (each) => phase(each) === 'Failed');
  assert.equal(pod.status?.reason, 'DeadlineExceeded');
  assert.match(pod.status?.message ?? '', /longer than the specified deadline/);
  await events('late', 'DeadlineExceeded');
});

test('a deleted pod ends gracefully: hook, signal, grace period, SIGKILL', async () => {
  await until('work', (pod) => isReady(pod, 'polite') && isReady(pod, 'stubborn'));
  const polite = kubectl(['logs', '-f', 'work', '-c', 'polite']);
  const stubborn = kubectl(['logs', '-f', 'work', '-c', 'stubborn']);
  const startMs = systemClock.monotonicMs();
  assert.match(await kubectl.ok(['delete', 'pod', 'work']), /^pod "work" deleted/);
  const tookMs = systemClock.monotonicMs() - startMs;
  assert.ok(tookMs >= 4_000, `who ignores the signal has the grace period: took ${tookMs} ms`);
  assert.ok(tookMs < 20_000, `and no more: took ${tookMs} ms`);
  assert.equal((await polite).stdout, 'bye\ntrapped\n');
  assert.equal((await stubborn).stdout, 'up\nignored\n');
});
