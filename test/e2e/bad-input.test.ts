import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { after, before, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import type { Pod } from '../../src/api/types.generated.ts';
import { PODS } from '../../src/client/resources.ts';
import { pushBadImages } from './fixtures/bad-images.ts';
import type { BadImages } from './fixtures/bad-images.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { waitFor } from './support/wait.ts';

/**
 * What users get wrong and what attackers send: each has an answer that says what and why, and
 * the cluster is as well after it as before.
 */
let cluster: TestCluster;
let kubectl: Kubectl;
let images: BadImages;
let pids: (number | undefined)[];

const componentPids = async () => (await cluster.status())?.components.map(({ pid }) => pid) ?? [];

before(async () => {
  cluster = await startCluster();
  const [found] = await findKubectls(cluster.kubeconfig, join(cluster.dataDir, 'kubectl'));
  assert.ok(found, 'a kubectl on the PATH');
  kubectl = found;
  images = await pushBadImages(cluster.registryPort);
  await kubectl.ok(['create', 'configmap', 'kept', '--from-literal=key=value']);
  pids = await componentPids();
  assert.equal(pids.length, 3);
});
after(() => cluster?.[Symbol.asyncDispose]());

/** Every test ends with this: nothing was lost, and no process has died. */
async function assertWell(): Promise<void> {
  const data = await kubectl.ok(['get', 'configmap', 'kept', '-o', 'jsonpath={.data.key}']);
  assert.equal(data, 'value');
  const nodes = await kubectl.ok(['get', 'nodes', '--no-headers']);
  assert.match(nodes, /^\S+\s+Ready\s/);
  const components = (await cluster.status())?.components ?? [];
  const seen = components.map(({ name, state, restartCount }) => [name, state, restartCount]);
  assert.deepEqual(seen, [
    ['hyperd', 'ready', 0],
    ['server', 'ready', 0],
    ['kubelet', 'ready', 0],
  ]);
  assert.deepEqual(await componentPids(), pids);
}

const createPod = (name: string, spec: Pod['spec']) =>
  kubectl.ok(['create', '--validate=false', '-f', '-'], {
    input: JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name }, spec }),
  });

type ContainerStatus = NonNullable<NonNullable<Pod['status']>['containerStatuses']>[number];

async function statusesOf(
  name: string,
  done: (statuses: ContainerStatus[]) => boolean,
): Promise<ContainerStatus[]> {
  const key = { namespace: 'default', name };
  const statuses = (pod: Pod | undefined) => pod?.status?.containerStatuses ?? [];
  return statuses(await waitFor(cluster.client, PODS, key, (pod) => done(statuses(pod))));
}

test('images that cannot be had say why, and which one', async () => {
  const beganMs = performance.now();
  const cases: Record<string, [image: string, said: RegExp]> = {
    unknown: [`localhost:${cluster.registryPort}/bad/none:1`, /bad\/none:1.*not found/],
    'wrong-digest': [images.wrongDigest, /bad\/good@sha256:.*not found/],
    platform: [images.otherPlatform, /no matching manifest for .*: the image is for linux\/arm64/],
    escaping: [images.escaping, /\.\.\/\.\.\/etc\/x|"\.\."/],
    bomb: [images.bomb, /200 times/],
    name: ['team/Upper', /team\/Upper/],
  };
  assert.ok(images.bombBytes < 512 << 10, `${images.bombBytes} bytes`);
  for (const [name, [image]] of Object.entries(cases)) {
    await createPod(`image-${name}`, { containers: [{ name: 'main', image }] });
  }
  for (const [name, [image, said]] of Object.entries(cases)) {
    const reasons = name === 'name' ? /^InvalidImageName$/ : /^(ErrImagePull|ImagePullBackOff)$/;
    const [status] = await statusesOf(`image-${name}`, ([found]) =>
      reasons.test(found?.state?.waiting?.reason ?? ''),
    );
    const message = status?.state?.waiting?.message ?? '';
    assert.match(message, said, name);
    assert.ok(message.includes(image), message);
  }
  assert.ok(performance.now() - beganMs < 60_000, 'the bomb is recognized soon');
  await kubectl.ok(['delete', 'pods', '--all', '--timeout=60s']);
  await assertWell();
});

test('commands that cannot be run say why', async () => {
  await createPod('commands', {
    restartPolicy: 'Never',
    terminationGracePeriodSeconds: 1,
    containers: [
      { name: 'missing', image: images.good, command: ['/bin/none'] },
      { name: 'plain', image: images.good, command: ['/etc/plain'] },
    ],
  });
  const statuses = await statusesOf(
    'commands',
    (found) => found.length === 2 && found.every(({ state }) => state?.terminated),
  );
  assert.deepEqual(
    statuses.map(({ state }) => state?.terminated?.reason),
    ['StartError', 'StartError'],
  );
  const messages = statuses.map(({ state }) => state?.terminated?.message);
  assert.match(messages[0] ?? '', /"\/bin\/none".*no such file or directory/i);
  assert.match(messages[1] ?? '', /"\/etc\/plain".*permission denied/i);
  await kubectl.ok(['delete', 'pod', 'commands', '--timeout=60s']);
  await assertWell();
});

test('a pod that fits on no node stays Pending and says what is short', async () => {
  const resources = { requests: { memory: '100Ti', cpu: '5000' } };
  await createPod('huge', { containers: [{ name: 'main', image: images.good, resources }] });
  const conditionOf = (pod?: Pod) =>
    pod?.status?.conditions?.find(({ type }) => type === 'PodScheduled');
  const key = { namespace: 'default', name: 'huge' };
  const pod = await waitFor(cluster.client, PODS, key, (found) => !!conditionOf(found)?.message);
  assert.equal(conditionOf(pod)?.reason, 'Unschedulable');
  assert.match(conditionOf(pod)?.message ?? '', /0\/1 nodes are available:.*Insufficient memory/);
  assert.match(conditionOf(pod)?.message ?? '', /Insufficient cpu/);
  await kubectl.ok(['delete', 'pod', 'huge', '--timeout=30s']);
  await assertWell();
});

test('names and objects that are too large are refused with the limit', async () => {
  const long = await kubectl(['create', 'configmap', 'x'.repeat(300)]);
  assert.equal(long.exitCode, 1);
  assert.match(long.stderr, /metadata\.name: Invalid value.*must be no more than 253/);
  const object = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'large' },
    data: { text: 'x'.repeat(4 << 20) },
  };
  const args = ['create', '--validate=false', '-f', '-'];
  const large = await kubectl(args, { input: JSON.stringify(object) });
  assert.equal(large.exitCode, 1);
  assert.match(large.stderr, /Request entity too large: limit is 3145728/);
  await assertWell();
});

/** Sends a body to the collection of ConfigMaps; whoever sends `hold` bytes less waits. */
async function post(body: string, contentType: string, hold = 0) {
  const { caCert, clientCert, clientKey } = cluster.access;
  const outgoing = httpsRequest({
    host: '127.0.0.1',
    port: cluster.apiPort,
    method: 'POST',
    path: '/api/v1/namespaces/default/configmaps',
    headers: { 'content-type': contentType, 'content-length': Buffer.byteLength(body) },
    agent: false,
    ca: caCert,
    cert: clientCert,
    key: clientKey,
  });
  if (hold > 0) outgoing.write(body.slice(0, -hold));
  else outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [import('node:http').IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  outgoing.destroy();
  return { code: response.statusCode, message: (JSON.parse(text) as { message: string }).message };
}

test('bombs of brackets and of aliases are refused at once', async () => {
  const head = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"data":';
  const laughs = Array.from(
    { length: 9 },
    (_, at) => `a${at + 1}: &a${at + 1} [${Array(9).fill(`*a${at}`).join(',')}]`,
  );
  const yaml = `apiVersion: v1\nkind: ConfigMap\na0: &a0 lol\n${laughs.join('\n')}\n`;
  const cases = [
    [`${head}${'['.repeat(1_000_000)}`, 'application/json', /nesting exceeds 200 levels/],
    [`${head}${'{"a":'.repeat(100_000)}`, 'application/json', /nesting exceeds 200 levels/],
    [yaml, 'application/yaml', /aliases cannot be resolved/],
    [`a: ${'['.repeat(100_000)}`, 'application/yaml', /nesting exceeds 200 levels/],
  ] as const;
  for (const [body, type, said] of cases) {
    const beganMs = performance.now();
    const answer = await post(body, type);
    assert.equal(answer.code, 400);
    assert.match(answer.message, said);
    assert.ok(performance.now() - beganMs < 5_000);
  }
  await assertWell();
});

/** Opens a connection, says `bytes` and resolves with what came back when the other side ends it. */
async function say(port: number, bytes: Uint8Array): Promise<Buffer> {
  const socket = connect(port, '127.0.0.1');
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => {});
  const closed = once(socket, 'close');
  socket.write(bytes);
  await closed;
  return Buffer.concat(chunks);
}

test('half a greeting, garbage and bodies that do not come end in time', async () => {
  const record = Buffer.from('16030102000100', 'hex');
  const hello = Buffer.concat([record, Buffer.alloc(100)]).subarray(0, 20);
  const garbage = Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 167 + 13) & 0xff));
  const plain = Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const beganMs = performance.now();
  const spoken = [cluster.apiPort, cluster.kubeletPort].flatMap((port) =>
    [hello, garbage, plain, Buffer.from([0x16])].map((bytes) => say(port, bytes)),
  );
  const body = JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'slow' } });
  const slow = Array.from({ length: 20 }, () => post(body, 'application/json', 1));
  await assertWell();
  await Promise.all(spoken);
  const handshakesMs = performance.now() - beganMs;
  assert.ok(handshakesMs < 25_000, `the last handshake was given up after ${handshakesMs} ms`);
  for (const answer of await Promise.all(slow)) {
    assert.equal(answer.code, 408);
    assert.match(answer.message, /did not arrive within 30 seconds/);
  }
  await assertWell();
});

const PLAIN_COUNT = 4_000;
const TLS_COUNT = 1_000;
const BATCH_COUNT = 100;

test('thousands of idle connections leave room for kubectl', async () => {
  const sockets: Socket[] = [];
  const open = async (port: number, encrypted: boolean) => {
    const { caCert: ca } = cluster.access;
    const options = { host: '127.0.0.1', port };
    const socket = encrypted ? connectTls({ ...options, ca }) : connect(options);
    socket.on('error', () => {});
    sockets.push(socket);
    await once(socket, encrypted ? 'secureConnect' : 'connect');
  };
  try {
    for (const [count, encrypted] of [
      [TLS_COUNT, true],
      [PLAIN_COUNT, false],
    ] as const) {
      for (let at = 0; at < count; at += BATCH_COUNT) {
        const batch = Array.from({ length: BATCH_COUNT }, () => open(cluster.apiPort, encrypted));
        await Promise.all(batch);
      }
    }
    assert.equal(sockets.filter(({ destroyed }) => !destroyed).length, PLAIN_COUNT + TLS_COUNT);
    await assertWell();
  } finally {
    for (const socket of sockets) socket.destroy();
  }
  await assertWell();
});
