import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import type { HyperPodSpec, PodState } from '../../src/api/hyperd.ts';
import type { Container, Pod, PodSpec } from '../../src/api/types.generated.ts';
import { isStatus } from '../../src/api/status.ts';
import { systemClock } from '../../src/base/clock.ts';
import { seededRandom } from '../../src/base/random.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { EVENTS, PODS } from '../../src/client/resources.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { NOTHING, hostState, vmUids } from './support/leftovers.ts';
import { reportCluster } from './support/report.ts';
import { waitFor } from './support/wait.ts';

/*
 * What happens when parts of a cluster die: components, emulators, guest kernels, and the whole of
 * it. All real. The order of what dies is drawn from a seed, which is printed.
 */
const seed = Number(process.env.HYPERNETES_TEST_SEED ?? Date.now() % 2 ** 32);
const random = seededRandom(seed);
const draw = (count: number) => Math.floor(random.next() * count);

const NAMESPACE = 'default';
const LINES = 400;
/** Rounds with real VMs; src/hyperd/daemon/rounds.test.ts does many more with pretended ones. */
const ROUNDS = 24;
const ROUNDS_AT_A_TIME = 3;
/** Several times of what it takes on a busy machine: only what never comes is waited for so long. */
const RESTART_MS = 120_000;
const COMPONENTS = ['server', 'kubelet', 'hyperd'];
const KILLS_EACH = 4;

function shuffled<T>(items: T[]): T[] {
  const keyed = items.map((item) => ({ item, key: random.next() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item);
}

let cluster: TestCluster;
let image: string;
const uids = new Set<number>();

before(async () => {
  console.log(`seed ${seed}`);
  // What waits for pods is not left behind by any: the count is of pods' VMs.
  cluster = await startCluster(['--warm-pool', 'off']);
  image = await pushDemoImage(cluster.registryPort);
});

afterEach(async (context) => {
  if ('passed' in context && !context.passed && cluster) await reportCluster(cluster);
});

after(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

function sh(script: string, rest: Partial<Container> = {}): Container {
  return { name: 'main', image, command: ['/bin/sh', '-c', script], ...rest };
}

async function createPod(
  name: string,
  restartPolicy: PodSpec['restartPolicy'],
  container: Container,
): Promise<void> {
  await cluster.client.create(PODS, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: NAMESPACE },
    spec: { restartPolicy, terminationGracePeriodSeconds: 0, containers: [container] },
  });
}

/** The same as `waitFor`, for a server that may go away under it. */
async function podUntil(
  name: string,
  done: (pod: Pod) => boolean,
  timeoutMs = 120_000,
): Promise<Pod> {
  const deadlineMs = systemClock.monotonicMs() + timeoutMs;
  for (;;) {
    const leftMs = Math.max(1, Math.ceil(deadlineMs - systemClock.monotonicMs()));
    try {
      const key = { namespace: NAMESPACE, name };
      const pod = await waitFor(
        cluster.client,
        PODS,
        key,
        (p) => p !== undefined && done(p),
        leftMs,
      );
      if (pod) return pod;
    } catch (error) {
      const isAway = isStatus(error, 'ServiceUnavailable') || isDisconnect(error);
      if (!isAway || leftMs < 1000) throw error;
      await systemClock.sleep(100);
    }
  }
}

const DISCONNECTS = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ERR_HTTP2_STREAM_ERROR']);

function isDisconnect(error: unknown): boolean {
  const { code, cause } = error as NodeJS.ErrnoException;
  return DISCONNECTS.has(code ?? '') || (cause !== undefined && isDisconnect(cause));
}

const status = (pod: Pod) => pod.status?.containerStatuses?.[0];
const isRunning = (pod: Pod) => status(pod)?.state?.running !== undefined;
const hasEnded = (pod: Pod) => ['Succeeded', 'Failed'].includes(pod.status?.phase ?? '');

async function deletePods(...names: string[]): Promise<void> {
  for (const name of names) {
    await cluster.client.delete(PODS, { namespace: NAMESPACE, name }, { gracePeriodSeconds: 0 });
  }
  for (const name of names) {
    const key = { namespace: NAMESPACE, name };
    await waitFor(cluster.client, PODS, key, (pod) => pod === undefined);
  }
  // A grace period of 0 removes the object at once; the kubelet follows.
  const { items } = await cluster.client.listAll(PODS, { namespace: NAMESPACE });
  const known = items.map(({ metadata }) => metadata.uid ?? '');
  const isKnown = (state: PodState) => known.some((uid) => state.id.startsWith(uid));
  const deadlineMs = systemClock.monotonicMs() + RESTART_MS;
  for (;;) {
    const rest = ((await hyperd('GET', '/pods')) as PodState[]).filter((state) => !isKnown(state));
    if (rest.length === 0) return;
    assert.ok(systemClock.monotonicMs() < deadlineMs, `hyperd keeps ${rest[0]?.name}`);
    await systemClock.sleep(50);
  }
}

async function logOf(name: string): Promise<string> {
  const path = `/api/v1/namespaces/${NAMESPACE}/pods/${name}/log`;
  const response = await cluster.transport.request({ method: 'GET', path });
  const parts: Uint8Array[] = [];
  for await (const part of response.body) parts.push(part);
  const text = Buffer.concat(parts).toString('utf8');
  assert.equal(response.status, 200, text);
  return text;
}

/** Of a container that may not have come to print it yet. */
async function firstLine(name: string): Promise<string> {
  const path = `/api/v1/namespaces/${NAMESPACE}/pods/${name}/log`;
  const signal = AbortSignal.timeout(RESTART_MS);
  const query = { follow: 'true' };
  const response = await cluster.transport.request({ method: 'GET', path, query, signal });
  for await (const part of response.body) return Buffer.from(part).toString('utf8');
  return '';
}

/** Kills a component and returns when the supervisor has another one ready. */
async function killComponent(name: string): Promise<void> {
  const pid = await cluster.pidOf(name);
  process.kill(pid, 'SIGKILL');
  const deadlineMs = systemClock.monotonicMs() + RESTART_MS;
  for (;;) {
    const component = (await cluster.status())?.components.find((each) => each.name === name);
    if (component?.state === 'ready' && component.pid !== pid) return;
    assert.ok(systemClock.monotonicMs() < deadlineMs, `${name} did not come back, seed ${seed}`);
    await systemClock.sleep(20);
  }
}

/** Process id of the emulator of a pod, from where the jail notes it. */
async function vmmOf(name: string): Promise<number> {
  const pod = await cluster.client.get(PODS, { namespace: NAMESPACE, name });
  return (await vmmOfRecord(pod.metadata.uid ?? '')) ?? assert.fail(`pod ${name} has no VM`);
}

/** The same from the pod's record, which names its VM; undefined where it has not come so far. */
async function vmmOfRecord(id: string): Promise<number | undefined> {
  const hyperdDirectory = join(cluster.dataDir, 'hyperd');
  const read = (path: string) => readFile(join(hyperdDirectory, path), 'utf8').catch(() => '');
  const record = await read(`pods/${id}/pod.json`);
  if (record === '') return undefined;
  const { vmId } = JSON.parse(record) as { vmId: string };
  const jail = await read(`vms/${vmId}/vm/jail.json`);
  return jail === '' ? undefined : (JSON.parse(jail) as { vmm: { pid: number } }).vmm.pid;
}

test('components that are killed in any order lose no pod, no line and no exit code', async () => {
  const codes: Record<string, number> = { 'ends-0': 0, 'ends-7': 7, 'ends-42': 42 };
  const print = `i=0; while [ $i -lt ${LINES} ]; do echo "line $i"; i=$((i+1)); sleep 0.05; done`;
  await createPod('printer', 'Never', sh(`${print}; exit 3`));
  for (const [name, code] of Object.entries(codes)) {
    await createPod(name, 'Never', sh(`sleep ${6 + draw(12)}; echo over; exit ${code}`));
  }
  // Some while the VMs boot, some while the containers run and end.
  const order = shuffled(Array.from({ length: KILLS_EACH }, () => COMPONENTS).flat());
  for (const name of order) {
    const pause = systemClock.sleep(draw(1500));
    await Promise.all([killComponent(name), pause]);
  }
  for (const [name, code] of Object.entries({ ...codes, printer: 3 })) {
    const pod = await podUntil(name, hasEnded);
    const { state, restartCount } = status(pod) ?? assert.fail(`${name} has no status`);
    const summary = { code: state?.terminated?.exitCode, restartCount };
    assert.deepEqual(summary, { code, restartCount: 0 }, `${name}, seed ${seed}`);
    assert.equal(pod.status?.phase, code === 0 ? 'Succeeded' : 'Failed');
  }
  const expected = Array.from({ length: LINES }, (_, line) => `line ${line}\n`).join('');
  assert.equal(await logOf('printer'), expected, `seed ${seed}`);
  for (const name of Object.keys(codes)) assert.equal(await logOf(name), 'over\n');
  const { items } = await cluster.client.listAll(PODS, { namespace: NAMESPACE });
  assert.equal(items.length, 4);
  await deletePods('printer', ...Object.keys(codes));
});

const LIVES = 'echo started; exec sleep 3600';
const PANICS = 'echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger';

/** How a VM ends, how its containers then say that they ended, and what each policy does. */
const ENDS = [
  { how: 'killed', reason: 'VMKilled' },
  { how: 'panic', reason: 'GuestPanic' },
] as const;
const POLICIES = ['Always', 'OnFailure', 'Never'] as const;

async function endVm(name: string, how: 'killed' | 'panic'): Promise<void> {
  if (how === 'killed') process.kill(await vmmOf(name), 'SIGKILL');
  else await kubeExec(name, PANICS);
}

/** hyperd's answers when the line to the guest breaks, and when the pod has ended. */
const WENT_DOWN = new Set([503, 409]);

/** Runs a command that takes its own kernel down: no answer is to be expected. */
async function kubeExec(name: string, script: string): Promise<void> {
  const pod = await cluster.client.get(PODS, { namespace: NAMESPACE, name });
  const uid = pod.metadata.uid ?? '';
  const state = (await hyperd('GET', `/pods/${uid}`)) as PodState;
  const id = state.containers[0]?.id ?? '';
  const security = {
    privileged: true,
    runAsNonRoot: false,
    noNewPrivileges: false,
    capabilities: [],
    seccompDefault: false,
  };
  const process = {
    argv: ['/bin/sh', '-c', script],
    env: ['PATH=/bin'],
    workingDir: '/',
    user: '',
    supplementalGroups: [],
    tty: false,
    security,
  };
  const body = JSON.stringify({ process, stdin: false, stdout: true, stderr: true, timeoutMs: 0 });
  await new Promise<void>((resolve, reject) => {
    const outgoing = request({
      socketPath: join(cluster.dataDir, 'run/hyperd.sock'),
      path: `/v1/pods/${uid}/containers/${id}/exec`,
      method: 'POST',
      headers: {
        connection: 'Upgrade',
        upgrade: 'hyper-stream',
        'content-length': Buffer.byteLength(body),
      },
    });
    outgoing.on('upgrade', (_response, socket) => {
      socket.on('error', () => {});
      socket.on('close', () => resolve());
      socket.on('end', () => socket.end());
      socket.resume();
    });
    outgoing.on('response', (response) => {
      response.resume();
      // The guest may be down before it has said that the command runs.
      if (WENT_DOWN.has(response.statusCode ?? 0)) resolve();
      else reject(new Error(`exec: ${response.statusCode}`));
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

test('a VM that dies is told as it was, and its pod goes on as its policy says', async () => {
  const cases = ENDS.flatMap((end) =>
    POLICIES.map((policy) => ({ ...end, policy, name: `${end.how}-${policy.toLowerCase()}` })),
  );
  const privileged = { securityContext: { privileged: true } };
  for (const { name, policy } of cases) await createPod(name, policy, sh(LIVES, privileged));
  for (const { name } of cases) await podUntil(name, isRunning);
  // It runs from `exec` on, and has printed somewhat later: what it never did cannot be kept.
  for (const { name } of cases) assert.equal(await firstLine(name), 'started\n', name);
  await Promise.all(cases.map(({ name, how }) => endVm(name, how)));
  for (const { name, policy, reason } of cases) {
    const restarts = policy !== 'Never';
    const isDone = (pod: Pod) =>
      restarts ? isRunning(pod) && status(pod)?.restartCount === 1 : hasEnded(pod);
    const pod = await podUntil(name, isDone);
    const container = status(pod);
    const ended = restarts ? container?.lastState?.terminated : container?.state?.terminated;
    assert.deepEqual([ended?.exitCode, ended?.reason], [137, reason], name);
    assert.equal(container?.restartCount, restarts ? 1 : 0, name);
    assert.equal(pod.status?.phase, restarts ? 'Running' : 'Failed', name);
    if (reason === 'GuestPanic') assert.match(ended?.message ?? '', /panic/i, name);
    assert.equal(await firstLine(name), 'started\n', name);
  }
  const names = cases.map(({ name }) => name).sort();
  // Events are sent beside the status.
  const deadlineMs = systemClock.monotonicMs() + RESTART_MS;
  let told = await toldOfEnds();
  while (told.length < names.length && systemClock.monotonicMs() < deadlineMs) {
    await systemClock.sleep(100);
    told = await toldOfEnds();
  }
  assert.deepEqual(told, names);
  const kept = ['killed-always', 'panic-onfailure'];
  await deletePods(...names.filter((name) => !kept.includes(name)));
});

/** Names of pods with an event that says that their VM has ended. */
async function toldOfEnds(): Promise<string[]> {
  const { items } = await cluster.client.listAll(EVENTS, { namespace: NAMESPACE });
  const events = items as unknown as { reason: string; involvedObject: { name: string } }[];
  const ends = events.filter(({ reason }) => reason === 'SandboxChanged');
  return [...new Set(ends.map(({ involvedObject }) => involvedObject.name))].sort();
}

async function hyperd(method: string, path: string, body?: unknown): Promise<unknown> {
  const text = body === undefined ? '' : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        socketPath: join(cluster.dataDir, 'run/hyperd.sock'),
        path: `/v1${path}`,
        method,
        headers: { 'content-length': Buffer.byteLength(text) },
      },
      async (response) => {
        const parts: Buffer[] = [];
        for await (const part of response) parts.push(part as Buffer);
        const answer = Buffer.concat(parts).toString('utf8');
        if ((response.statusCode ?? 500) >= 400) reject(new Error(`${method} ${path}: ${answer}`));
        else resolve(answer === '' ? undefined : JSON.parse(answer));
      },
    );
    outgoing.on('error', reject);
    outgoing.end(text);
  });
}

function roundSpec(id: string, template: HyperPodSpec): HyperPodSpec {
  return { ...template, id, name: id, hostname: id, labels: {}, volumes: [] };
}

/** One pod that comes, is disturbed at some moment in some way, and goes. */
async function round(id: string, template: PodState): Promise<void> {
  await hyperd('PUT', `/pods/${id}`, roundSpec(id, template.spec));
  for (const uid of await vmUids(cluster.dataDir)) uids.add(uid);
  const way = draw(4);
  await systemClock.sleep(draw(1500));
  if (way === 1) {
    const pid = await vmmOfRecord(id);
    // It may not have come that far, or be gone already.
    if (pid !== undefined) killQuietly(pid);
  }
  const removals = [hyperd('DELETE', `/pods/${id}`)];
  if (way === 2) removals.push(hyperd('DELETE', `/pods/${id}`));
  await Promise.all(removals);
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ESRCH');
  }
}

test(`${ROUNDS} rounds of create, kill and delete with real VMs leave nothing behind`, async () => {
  const pods = (await hyperd('GET', '/pods')) as PodState[];
  const template = pods.find(({ phase }) => phase === 'running') ?? assert.fail('no pod runs');
  for (const uid of await vmUids(cluster.dataDir)) uids.add(uid);
  const first = await hostState(cluster.dataDir, uids);
  for (let done = 0; done < ROUNDS; done += ROUNDS_AT_A_TIME) {
    const batch = Array.from({ length: ROUNDS_AT_A_TIME }, (_, n) =>
      round(`r${done + n}`, template),
    );
    // In the middle of some of them hyperd dies as well.
    if (done % (4 * ROUNDS_AT_A_TIME) === 0) batch.push(killComponent('hyperd'));
    const results = await Promise.allSettled(batch);
    if (results.some(({ status: how }) => how === 'rejected')) {
      // Who was talking to the daemon that died asks the next one again.
      for (let n = 0; n < ROUNDS_AT_A_TIME; n += 1) await hyperd('DELETE', `/pods/r${done + n}`);
    }
  }
  assert.deepEqual(await hostState(cluster.dataDir, uids), first, `seed ${seed}`);
});

test('after down nothing but the data directory is left; up brings the pods back', async () => {
  for (const uid of await vmUids(cluster.dataDir)) uids.add(uid);
  const names = ['killed-always', 'panic-onfailure'];
  const restarts = new Map<string, number>();
  for (const name of names)
    restarts.set(name, status(await podUntil(name, isRunning))?.restartCount ?? 0);
  const down = await cluster.cli('down');
  assert.equal(down.exitCode, 0, down.stderr);
  const { files, ...rest } = await hostState(cluster.dataDir, uids);
  assert.deepEqual(rest, NOTHING);
  assert.deepEqual(
    files.filter((path) => /pods\/|\.sock$|\.tmp$|leases\//.test(path)),
    [],
  );
  const up = await cluster.cli('up', '--detach');
  assert.equal(up.exitCode, 0, up.stderr);
  for (const name of names) {
    const wanted = (restarts.get(name) ?? 0) + 1;
    const pod = await podUntil(name, (p) => isRunning(p) && status(p)?.restartCount === wanted);
    assert.equal(pod.status?.phase, 'Running');
  }
});
