import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { get as httpsGet } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Node, Pod } from '../../src/api/types.generated.ts';
import { queryStatus } from '../../src/cli/control.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { NODES, PODS } from '../../src/client/resources.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { startForward } from './support/forward.ts';
import { createHost } from './support/host.ts';
import type { TestHost } from './support/host.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { tracesOf } from './support/traces.ts';
import { waitFor } from './support/wait.ts';

/**
 * A second machine joins, works, is lost, and comes back. It is a network namespace of this one;
 * the two meet only by their addresses.
 */
const SECOND = 'second';
/** 40 s of silence, looked at every 5 s, and time to write it down. */
const LOSS_TIMEOUT_MS = 70_000;

let host: TestHost;
let cluster: TestCluster;
let kubectl: Kubectl;
let image: string;
let secondDir: string;
/** What `hypernetes token` prints, in words: the arguments of the command. */
let command: string[];

before(async () => {
  host = await createHost(1);
  cluster = await startCluster(['--address', host.peer]);
  const [found] = await findKubectls(cluster.kubeconfig, join(cluster.dataDir, 'kubectl'));
  assert.ok(found, 'a kubectl on the PATH');
  kubectl = found;
  image = await pushDemoImage(cluster.registryPort);
  secondDir = await mkdtemp(join(tmpdir(), 'hn-'));
});
after(async () => {
  await host?.cli('--data-dir', secondDir, 'down');
  await cluster?.[Symbol.asyncDispose]();
  await host?.[Symbol.asyncDispose]();
  await rm(secondDir, { recursive: true, force: true });
});

const isReady = (node: Node | undefined) => ready(node)?.status === 'True';
const ready = (node: Node | undefined) =>
  node?.status?.conditions?.find(({ type }) => type === 'Ready');

const isPodReady = (pod: Pod | undefined) =>
  pod?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ??
  false;

test('token prints the command that joins', async () => {
  const { stdout } = await cluster.cli('token');
  const words = stdout.trim().split(' ');
  assert.equal(words.shift(), 'hypernetes');
  const [, url, token, registryPort] =
    /^node --server (\S+) --token (\S+) --registry-port (\d+)$/.exec(words.join(' ')) ?? [];
  assert.equal(url, `https://${host.peer}:${cluster.apiPort}`);
  assert.match(token ?? '', /^[0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16}$/);
  assert.equal(registryPort, String(cluster.registryPort));
  command = words;
});

test('what cannot join says why in one sentence, and does not try for ever', async () => {
  const swap = (from: RegExp, to: string) => command.map((word) => word.replace(from, to));
  const nobody = `:${cluster.apiPort === 65_535 ? 65_534 : cluster.apiPort + 1}`;
  const attempts: [what: string, args: string[], says: RegExp][] = [
    ['token', swap(/\.[a-z0-9]{16}$/, '.aaaaaaaaaaaaaaaa'), /does not accept the token/],
    ['CA', swap(/^[0-9a-f]{64}::/, `${'0'.repeat(64)}::`), /its CA is not the one the token names/],
    ['form', swap(/^[0-9a-f]{64}::/, ''), /^hypernetes: Cannot read join token: want/],
    ['name', [...command, '--node-name', await serverName()], /and Ready: choose another/],
    ['server', swap(/:\d+$/, nobody), /no answer for \d+ s: .*ECONNREFUSED/],
  ];
  const fail = async (what: string, args: string[], says: RegExp, extra: string[]) => {
    const dataDir = await mkdtemp(join(tmpdir(), 'hn-'));
    try {
      const { exitCode, stderr } = await host.cli('--data-dir', dataDir, ...args, ...extra);
      assert.equal(exitCode, 1, what);
      assert.match(stderr, says, what);
      assert.equal(stderr.trim().split('\n').length, 1, `${what}: ${stderr}`);
      assert.deepEqual(await tracesOf(dataDir), [], what);
    } finally {
      await rm(dataDir, { recursive: true, force: true });
    }
  };
  const late = attempts.pop() ?? assert.fail();
  const waiting = Promise.all([fail(...late, []), fail(...late, ['--detach'])]);
  waiting.catch(() => {});
  for (const attempt of attempts) {
    await fail(...attempt, []);
    await fail(...attempt, ['--detach']);
  }
  await waiting;
});

async function serverName(): Promise<string> {
  const { items } = await cluster.client.list(NODES);
  assert.equal(items.length, 1);
  return items[0]?.metadata.name ?? '';
}

test('a machine joins, becomes Ready, and has addresses for pods of its own', async () => {
  const args = ['--data-dir', secondDir, ...command, '--node-name', SECOND, '--detach'];
  const { exitCode, stderr } = await host.cli(...args);
  assert.equal(exitCode, 0, stderr);
  const table = await kubectl.ok(['get', 'node', SECOND, '--no-headers']);
  assert.match(table, /^second +Ready /, 'it is Ready when the command returns');
  const { items } = await cluster.client.list(NODES);
  const second = items.find(({ metadata }) => metadata.name === SECOND);
  const addresses = second?.status?.addresses?.map(({ type, address }) => `${type} ${address}`);
  assert.deepEqual(addresses, [`InternalIP ${host.address}`, `Hostname ${SECOND}`]);
  const ranges = items.map(({ spec }) => spec?.podCIDR ?? '');
  for (const range of ranges) assert.match(range, /^10\.88\.\d+\.0\/24$/);
  assert.equal(new Set(ranges).size, 2);
});

const SCRIPT = [
  'echo "line 1"; mkdir /www; echo "page of $(hostname)" > /www/index.html; httpd -p 8080 -h /www',
  'i=1; while true; do usleep 300000; i=$((i + 1)); echo "line $i"; done',
].join('; ');

test('a pod runs there: its image comes from the cluster, its streams through the API', async () => {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'far', namespace: 'default' },
    spec: {
      nodeSelector: { 'kubernetes.io/hostname': SECOND },
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          ...{ name: 'main', image, command: ['sh', '-c', SCRIPT] },
          readinessProbe: { httpGet: { port: 8080 }, periodSeconds: 1 },
        },
      ],
    },
  };
  await cluster.client.create(PODS, pod);
  const key = { namespace: 'default', name: 'far' };
  const running = await waitFor(cluster.client, PODS, key, isPodReady);
  assert.equal(running?.spec?.nodeName, SECOND);
  const node = await cluster.client.get(NODES, { name: SECOND });
  const prefix = (node.spec?.podCIDR ?? '').replace(/0\/24$/, '');
  assert.ok(running?.status?.podIP?.startsWith(prefix), `${running?.status?.podIP} in ${prefix}`);
  assert.equal(running?.status?.hostIP, host.address);
  assert.match(await kubectl.ok(['logs', 'far', '--tail=1']), /^line \d+$/m);
  assert.equal(await kubectl.ok(['exec', 'far', '--', 'hostname']), 'far\n');
  await using forward = await startForward(kubectl.path, cluster.kubeconfig, 'pod/far', 8080);
  const page = await fetch(`http://127.0.0.1:${forward.port}/`);
  assert.equal(await page.text(), 'page of far\n');
  const api = 'nc -w 45 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT < /dev/null';
  await kubectl.ok(['exec', 'far', '--', 'sh', '-c', api]);
});

test('the registry gives images to nodes of the cluster and to nobody else', async () => {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const where = { host: host.peer, port: cluster.registryPort, path: '/v2/_catalog' };
  httpsGet({ ...where, ca: cluster.access.caCert, agent: false }, (response) => {
    response.resume();
    resolve(response.statusCode ?? 0);
  }).on('error', reject);
  assert.equal(await promise, 401);
});

test('a lost machine is noticed; when it is back its pod has run on', async () => {
  const bootId = () => kubectl.ok(['exec', 'far', '--', 'cat', '/proc/sys/kernel/random/boot_id']);
  const before = await bootId();
  const machine = await queryStatus(join(secondDir, 'run/supervisor.sock'));
  assert.ok(machine);
  for (const pid of [machine.pid, ...machine.components.map((each) => each.pid)]) {
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
  }
  const lost = await waitFor(
    cluster.client,
    NODES,
    { name: SECOND },
    (node) => node?.spec?.taints?.some(({ effect }) => effect === 'NoExecute') ?? false,
    LOSS_TIMEOUT_MS,
  );
  assert.equal(ready(lost)?.status, 'Unknown');
  assert.equal(ready(lost)?.reason, 'NodeStatusUnknown');
  const taints = lost?.spec?.taints?.map(({ key, effect }) => `${key}:${effect}`).sort();
  const unreachable = 'node.kubernetes.io/unreachable';
  assert.deepEqual(taints, [`${unreachable}:NoExecute`, `${unreachable}:NoSchedule`]);
  assert.match(await kubectl.ok(['get', 'node', SECOND, '--no-headers']), /^second +NotReady /);

  const { exitCode, stderr } = await host.cli('--data-dir', secondDir, 'node', '--detach');
  assert.equal(exitCode, 0, stderr);
  const isBack = (node: Node | undefined) => isReady(node) && !node?.spec?.taints?.length;
  await waitFor(cluster.client, NODES, { name: SECOND }, isBack);
  const key = { namespace: 'default', name: 'far' };
  const pod = await waitFor(cluster.client, PODS, key, isPodReady);
  assert.equal(pod?.status?.containerStatuses?.[0]?.restartCount, 0);
  assert.equal(await bootId(), before, 'it is the same virtual machine');
  const lines = (await kubectl.ok(['logs', 'far'])).trim().split('\n');
  assert.deepEqual(
    lines,
    lines.map((_, index) => `line ${index + 1}`),
    'no line is lost',
  );
});

test('down leaves nothing behind, on either machine', async () => {
  assert.notDeepEqual(await tracesOf(secondDir), []);
  for (const down of [await host.cli('--data-dir', secondDir, 'down'), await cluster.cli('down')]) {
    assert.equal(down.exitCode, 0, down.stderr);
  }
  assert.deepEqual(await tracesOf(secondDir), []);
  assert.deepEqual(await tracesOf(cluster.dataDir), []);
  assert.equal((await host.run('nft', ['list', 'tables'])).stdout, '');
  const devices = await host.run('ip', ['-brief', 'link']);
  const names = devices.stdout
    .trim()
    .split('\n')
    .map((line) => line.split(/[ @]/)[0]);
  assert.deepEqual(names, ['lo', 'uplink0']);
});
