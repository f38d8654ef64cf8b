import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import {
  applying,
  changing,
  creating,
  describing,
  exploring,
  getting,
  nodes,
  refusing,
} from './fixtures/kubectl-checks.ts';
import { executing, lookingAtPods, readingLogs } from './fixtures/kubectl-pod-checks.ts';
import { objects } from './fixtures/kubectl-objects.ts';
import type { Objects } from './fixtures/kubectl-objects.ts';
import { runChecks } from './support/checks.ts';
import type { Check, Tally } from './support/checks.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { startForward } from './support/forward.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { startSession, startTerminal } from './support/session.ts';

/**
 * Goal: kubectl cannot tell this from Kubernetes. Method: everything that a new user types, with
 * the two newest kubectls in full, each in a namespace of its own, and the main road with every
 * other one of the machine. What has to be said is what Kubernetes says.
 */
const FULL_COUNT = 2;
const MEBIBYTE = 1024 * 1024;
const READY_TIMEOUT_MS = 90_000;

interface Client {
  kubectl: Kubectl;
  kubeconfig: string;
  namespace: string;
  tally: Tally;
  check: (checks: Check[]) => Promise<void>;
}

const directory = await mkdtemp(join(tmpdir(), 'hn-kubectl-'));
const versions = await findKubectls('/nonexistent', directory);
versions.sort((a, b) => a.minor - b.minor);
const full = versions.slice(-FULL_COUNT);
const smoke = versions.slice(0, -FULL_COUNT);

let cluster: TestCluster;
let image: string;
let files: Objects;
let node: string;
const clients = new Map<string, Client>();

before(async () => {
  assert.ok(full.length > 0, 'a kubectl is needed');
  cluster = await startCluster();
  image = await pushDemoImage(cluster.registryPort);
  files = objects(image);
  for (const { version } of versions) clients.set(version, await createUser(version));
  node = (await client(full[0]!.version).kubectl.ok(['get', 'nodes', '-o', 'name'])).trim();
  node = node.replace('node/', '');
});

after(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
  for (const { kubectl, tally } of clients.values()) {
    const skipped = `${tally.skipped} checks skipped, which it is too old for`;
    console.log(`kubectl ${kubectl.version}: ${tally.done} checks done, ${skipped}`);
  }
});

/** A user's kubeconfig, with a namespace of its own as the default. */
async function createUser(version: string): Promise<Client> {
  const namespace = `v${version.replace('.', '-')}`;
  const kubeconfig = join(directory, `${namespace}.kubeconfig`);
  await copyFile(cluster.kubeconfig, kubeconfig);
  const all = await findKubectls(kubeconfig, join(directory, namespace));
  const kubectl = all.find((each) => each.version === version) as Kubectl;
  await kubectl.ok(['create', 'namespace', namespace]);
  await kubectl.ok(['config', 'set-context', '--current', `--namespace=${namespace}`]);
  const tally = { done: 0, skipped: 0 };
  const check = (checks: Check[]) => runChecks(kubectl, checks, tally);
  return { kubectl, kubeconfig, namespace, tally, check };
}

function client(version: string): Client {
  return clients.get(version) as Client;
}

async function startPods({ kubectl }: Client, ...manifests: string[]): Promise<void> {
  for (const input of manifests) {
    assert.match(await kubectl.ok(['create', '-f', '-'], { input }), /^pod\/\S+ created$/m);
  }
  const command = ['sh', '-c', 'echo hello; exec httpd -f -p 8080 -h /bin'];
  const ran = await kubectl.ok(['run', 'web', `--image=${image}`, '--', ...command]);
  assert.equal(ran, 'pod/web created\n');
}

/** Fails with what is known of the pods. */
async function waitUntilReady({ kubectl }: Client, ...pods: string[]): Promise<void> {
  const wait = ['wait', '--for=condition=Ready', ...pods, `--timeout=${READY_TIMEOUT_MS / 1000}s`];
  const { exitCode, stderr } = await kubectl(wait, { timeoutMs: READY_TIMEOUT_MS + 10_000 });
  if (exitCode === 0) return;
  assert.fail(`${stderr}\n${await kubectl.ok(['describe', ...pods])}`);
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Arguments for programs that run on, of which `Kubectl` knows nothing. */
const flags = ({ kubeconfig }: Client) => ['--kubeconfig', kubeconfig];

for (const { version } of full) {
  describe(`kubectl ${version}`, () => {
    const user = () => client(version);
    // VMs start while the API is looked at.
    before(() => startPods(user(), files.multi));
    test('creates objects of many kinds', () => user().check(creating(user().namespace, image)));
    test('applies, compares and deletes files', () => user().check(applying(files)));
    test('gets and selects', () => user().check(getting(user().namespace)));
    test('describes', () => user().check(describing(user().namespace)));
    test('changes objects in every way', () => user().check(changing));
    test('is told what is wrong', () => user().check(refusing(files)));
    test('explores the cluster', () => user().check(exploring(user().namespace)));
    test('manages nodes', () => user().check(nodes(node)));

    test('looks at running pods', async () => {
      await waitUntilReady(user(), 'pod/web', 'pod/multi');
      await user().check(lookingAtPods);
    });
    test('reads logs', async () => {
      await using follower = startSession(user().kubectl.path, [
        ...flags(user()),
        'logs',
        '-f',
        'web',
      ]);
      await follower.until(/^hello$/m);
      await user().check(readingLogs);
    });
    test('runs commands in containers', () => user().check(executing));
    test('sends a mebibyte through a command and gets it back', () => testVolume(user()));
    test('has a terminal in a container, which can be resized', () => testTerminal(user()));
    test('attaches, and follows the log meanwhile', () => testAttach(user()));
    test('runs a pod with a terminal and takes its exit code', () => testRun(user()));
    test('copies files and directories both ways', () => testCopy(user()));
    test('forwards ports, several connections at once', () => testForward(user()));
    test('rolls a Deployment out, back and on', () => testRollout(user()));
    test('deletes gracefully, by force and in cascade', () => testDelete(user()));
  });
}

describe('older kubectls', () => {
  before(async () => {
    for (const { version } of smoke) await startPods(client(version));
  });
  for (const { version } of smoke) {
    test(`kubectl ${version} goes the main road`, () => testMainRoad(client(version)));
  }
});

test('a node is drained', async () => {
  const { kubectl, check } = client(full.at(-1)!.version);
  const input = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"alone"},
    "spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":"${image}"}]}}`;
  await kubectl.ok(['create', '-f', '-'], { input });
  await kubectl.ok(['wait', '--for=condition=PodScheduled', 'pod/alone', '--timeout=30s']);
  await check([
    { run: `drain ${node}`, exit: 1, err: /Pods that declare no controller|not managed by/ },
    {
      run: `drain ${node} --force --ignore-daemonsets --timeout=60s`,
      out: [/^pod\/alone evicted$/m, new RegExp(`^node/${node} (drained|evicted)$`, 'm')],
    },
    { run: 'get pod alone', exit: 1, err: /pods "alone" not found/ },
    { run: `uncordon ${node}`, out: /uncordoned$/m },
  ]);
});

async function testVolume({ kubectl }: Client): Promise<void> {
  const bytes = randomBytes(MEBIBYTE);
  const sum = await kubectl.ok(['exec', '-i', 'web', '--', 'sha256sum'], { input: bytes });
  assert.equal(sum.split(' ')[0], sha256(bytes));
  const text = bytes.toString('hex').slice(0, MEBIBYTE);
  assert.equal(await kubectl.ok(['exec', '-i', 'web', '--', 'cat'], { input: text }), text);
}

async function testTerminal(user: Client): Promise<void> {
  const args = [...flags(user), 'exec', '-it', 'web', '--', 'sh'];
  await using terminal = await startTerminal(user.kubectl.path, args, { rows: 33, columns: 99 });
  await terminal.until(/# /);
  terminal.send('tty; stty size; echo $TERM\r');
  await terminal.until(/\/dev\/pts\/0\r\n33 99\r\nxterm\r\n/);
  terminal.send('until [ "$(stty size)" = "40 120" ]; do sleep 0.1; done; echo it is big\r');
  await terminal.resize(40, 120);
  await terminal.until(/\nit is big\r\n/);
  // Printed by the one that sleeps: a shell loses the key while it is handing the terminal over.
  terminal.send(`sh -c 'echo it "sleeps"; exec sleep 1000'\r`);
  await terminal.until(/\nit sleeps\r\n/);
  terminal.send('\x03');
  terminal.send('echo "interrupt""ed"; exit 3\r');
  await terminal.until(/\ninterrupted\r\n/);
  assert.equal(await terminal.exited, 3);
}

async function testAttach(user: Client): Promise<void> {
  const { path } = user.kubectl;
  await using follower = startSession(path, [...flags(user), 'logs', '-f', 'multi', '-c', 'cat']);
  await follower.until(/out\n/);
  const args = [...flags(user), 'attach', 'multi', '-c', 'cat', '-i'];
  await using attached = startSession(path, args);
  attached.send('typed\n');
  await attached.until(/^typed$/m);
  await follower.until(/^typed$/m);
}

async function testRun(user: Client): Promise<void> {
  const { kubectl } = user;
  const common = [...flags(user), 'run', '--rm', '--restart=Never', `--image=${image}`];
  const shell = [...common, 'shell', '-it', '--', 'sh'];
  await using terminal = await startTerminal(kubectl.path, shell, { rows: 24, columns: 80 });
  await using piped = startSession(kubectl.path, [...common, 'piped', '-i', '--', 'sha256sum']);
  piped.send('through a pod');
  piped.endInput();
  await terminal.until(/command prompt, try pressing enter/);
  terminal.send('echo "from ""$(hostname)"; exit 4\r');
  await terminal.until(/\nfrom shell\r\n/);
  await terminal.until(/pod "shell" deleted/);
  assert.equal(await terminal.exited, 4);
  assert.equal(await piped.exited, 0);
  assert.match(piped.output, new RegExp(sha256(Buffer.from('through a pod'))));
  const left = await kubectl.ok(['get', 'pods', '-o', 'name']);
  assert.equal(left, 'pod/multi\npod/web\n');
}

async function testCopy({ kubectl, namespace }: Client): Promise<void> {
  const local = await mkdtemp(join(directory, 'copy-'));
  const bytes = randomBytes(MEBIBYTE + 1);
  await mkdir(join(local, 'tree/deep'), { recursive: true });
  await writeFile(join(local, 'tree/deep/binary'), bytes);
  await writeFile(join(local, 'tree/empty'), '');
  await kubectl.ok(['cp', join(local, 'tree'), 'web:/tmp/tree']);
  const sum = await kubectl.ok(['exec', 'web', '--', 'sha256sum', '/tmp/tree/deep/binary']);
  assert.equal(sum.split(' ')[0], sha256(bytes));
  await kubectl.ok(['cp', `${namespace}/web:/tmp/tree`, join(local, 'back')]);
  assert.ok((await readFile(join(local, 'back/deep/binary'))).equals(bytes));
  assert.equal((await readFile(join(local, 'back/empty'))).length, 0);
  await kubectl.ok(['cp', 'web:/tmp/tree/deep/binary', join(local, 'file')]);
  assert.ok((await readFile(join(local, 'file'))).equals(bytes));
  const missing = await kubectl(['cp', join(local, 'none'), 'web:/tmp/']);
  assert.equal(missing.exitCode, 1);
  assert.match(missing.stderr, /none.* doesn't exist in local filesystem/);
}

async function testForward(user: Client): Promise<void> {
  const wanted = sha256(await readFile('/bin/busybox'));
  {
    const { path } = user.kubectl;
    await user.check([
      { run: 'expose pod web --port=80 --target-port=8080 --name=web', out: /exposed$/m },
    ]);
    await using forward = await startForward(path, user.kubeconfig, 'service/web', 80);
    const base = `http://127.0.0.1:${forward.port}`;
    const fetches = Array.from({ length: 5 }, async () => {
      const response = await fetch(`${base}/busybox`);
      return sha256(await response.bytes());
    });
    assert.deepEqual(await Promise.all(fetches), Array(5).fill(wanted));
    const missing = await fetch(`${base}/missing`);
    await missing.bytes();
    assert.equal(missing.status, 404);
  }
  const args = [...flags(user), 'port-forward', 'pod/web', ':9999'];
  await using refused = startSession(user.kubectl.path, args);
  const [, port] = await refused.until(/127\.0\.0\.1:(\d+) -> 9999/);
  await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
  await refused.until(/error forwarding port 9999 to pod .*connection refused/);
}

async function testRollout(user: Client): Promise<void> {
  const { kubectl, check } = user;
  // Ends at once when it is told to, unlike a plain sleep.
  const command = ['sh', '-c', 'trap exit TERM; while :; do sleep 0.2; done'];
  await check([
    {
      run: ['create', 'deployment', 'roll', `--image=${image}`, '--', ...command],
      out: /created$/m,
    },
  ]);
  const watch = [...flags(user), 'get', 'pods', '-l', 'app=roll', '-w'];
  await using watcher = startSession(kubectl.path, watch);
  const status = (message: RegExp): Check => ({
    run: 'rollout status deployment/roll --timeout=80s',
    out: message,
  });
  await check([
    status(/^deployment "roll" successfully rolled out$/m),
    { run: 'get deployment roll', out: /^roll +1\/1 +1 +1 +\d+s$/m },
    { run: 'set env deployment/roll X=y', out: /^deployment\.apps\/roll env updated$/m },
    status(/^deployment "roll" successfully rolled out$/m),
    { run: ['exec', 'deployment/roll', '--', 'sh', '-c', 'echo $X'], out: /^y$/m },
    { run: 'rollout undo deployment/roll', out: /^deployment\.apps\/roll rolled back$/m },
    { run: 'rollout history deployment/roll', out: /^2 +<none>\n3 +<none>$/m },
    { run: 'scale deployment/roll --replicas=0', out: /^deployment\.apps\/roll scaled$/m },
    { run: 'wait --for=delete pod -l app=roll --timeout=60s' },
    status(/^deployment "roll" successfully rolled out$/m),
  ]);
  assert.match(watcher.output, /^roll-\S+ +0\/1 +ContainerCreating +0 /m);
  assert.match(watcher.output, /^roll-\S+ +1\/1 +Running +0 /m);
  assert.match(watcher.output, /^roll-\S+ +\d\/1 +Terminating +0 /m);
}

async function testDelete({ check, namespace }: Client): Promise<void> {
  await check([
    { run: 'scale deployment/roll --replicas=1' },
    {
      run: 'delete configmap c1 --dry-run=server',
      out: /^configmap "c1" deleted.*\(server dry run\)/m,
    },
    { run: 'delete configmap c1', out: /^configmap "c1" deleted/m },
    { run: 'delete pod multi', out: /^pod "multi" deleted/m },
    { run: 'get pod multi', exit: 1, err: /pods "multi" not found/ },
    { run: 'delete pod web --force --grace-period=0', err: /Immediate deletion does not wait/ },
    { run: 'get pod web', exit: 1, err: /pods "web" not found/ },
    { run: 'delete deployment roll', out: /^deployment\.apps "roll" deleted/m },
    { run: 'wait --for=delete replicaset,pod -l app=roll --timeout=60s' },
    { run: 'get rs,pods -l app=roll -o name', out: /^$/ },
    { run: `delete namespace ${namespace}-more`, out: /^namespace ".*-more" deleted/m },
    { run: `delete namespace ${namespace} --timeout=60s`, out: /^namespace ".*" deleted/m },
    { run: `get namespace ${namespace}`, exit: 1, err: /namespaces ".*" not found/ },
    { run: `create namespace ${namespace}` },
  ]);
}

async function testMainRoad(user: Client): Promise<void> {
  const { kubectl, check } = user;
  await check([
    ...applying(files),
    { run: 'create configmap c1 --from-literal=a=1', out: /^configmap\/c1 created$/m },
    { run: 'explain pod.spec.containers', out: /imagePullPolicy/ },
  ]);
  await waitUntilReady(user, 'pod/web');
  const args = [...flags(user), 'logs', '-f', 'web'];
  await using follower = startSession(kubectl.path, args);
  await follower.until(/^hello$/m);
  await check([
    { run: 'get pods', out: /^web +1\/1 +Running +0 /m },
    { run: 'describe pod web', out: /Normal +Started .* Started container web$/m },
    ...executing.filter(({ run }) => !String(run).includes('multi')),
  ]);
  await testTerminal(user);
  await testForward(user);
  await check([{ run: 'delete pod web --grace-period=1', out: /^pod "web" deleted/m }]);
  assert.equal(await kubectl.ok(['get', 'pods', '-o', 'name']), '');
  assert.equal(await follower.exited, 0);
}
