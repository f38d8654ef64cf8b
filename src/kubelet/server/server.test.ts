import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:tls';
import type { Duplex } from 'node:stream';
import { after, before, test } from 'node:test';
import { WebSocket } from 'ws';
import { createCa, createCaSigner, createKey } from '../../auth/pki.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { SpdyConnection } from '../../streams/spdy.ts';
import { createHyperdClient } from '../../client/hyperd.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import { createRig } from '../testing/rig.ts';
import type { Rig } from '../testing/rig.ts';
import { createKubeletServer } from './server.ts';
import type { KubeletServer } from './server.ts';

/** Goal: the API server, and nobody else, gets logs and streams. Method: TLS on loopback. */
let rig: Rig;
let server: KubeletServer;
let hyperd: HyperdClient;
let port: number;
let credentials: Record<
  'apiServer' | 'tenant' | 'none',
  { ca: string; cert?: string; key?: string }
>;

before(async () => {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1', { env: ['FROM_IMAGE=1'] });
  rig.addPod('web', { containers: [{ name: 'main', image: 'busybox:1' }] });
  await rig.until('web', (pod) => pod.status?.phase === 'Running');
  const options = { clock: systemClock, random: systemRandom };
  const caKey = createKey();
  const ca = createCa(caKey, options);
  const signer = createCaSigner({ caCert: ca, caKey, ...options });
  credentials = {
    apiServer: { ca, ...signer.clientPair('kube-apiserver-kubelet-client', ['system:masters']) },
    tenant: { ca, ...signer.clientPair('alice', ['system:masters']) },
    none: { ca },
  };
  hyperd = createHyperdClient(rig.hyperd.socketPath);
  server = createKubeletServer({
    pods: rig.kubelet.pods,
    findPod: (namespace, name) => rig.kubelet.findPod(namespace, name),
    hyperd,
    nodeName: 'node-1',
    clock: systemClock,
    log: silentLog,
  });
  server.setCertificate({ ca, ...signer.serverPair('node-1', ['127.0.0.1', 'localhost']) });
  port = await server.listen(0, '127.0.0.1');
});

after(async () => {
  await server.close();
  hyperd.close();
  await rig.close();
});

async function get(path: string, who: keyof typeof credentials = 'apiServer') {
  const outgoing = httpsRequest({
    host: '127.0.0.1',
    port,
    path,
    agent: false,
    ...credentials[who],
  });
  outgoing.end();
  const [response] = (await once(outgoing, 'response')) as [import('node:http').IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  return { status: response.statusCode, text };
}

test('serves the API server alone', async () => {
  assert.deepEqual(await get('/healthz'), { status: 200, text: 'ok' });
  const tenant = await get('/pods', 'tenant');
  assert.equal(tenant.status, 403);
  await assert.rejects(get('/healthz', 'none'));
  assert.equal((await get('/nothing')).status, 404);
});

test('logs: tail, timestamps, limit and what is not there', async () => {
  const id = rig.containerId('web', 'main');
  rig.hyperd.print(id, 'one\ntwo\n');
  rig.hyperd.print(id, 'par');
  rig.hyperd.print(id, 'tial\n');
  const log = (query: string) => get(`/containerLogs/default/web/main?${query}`);
  assert.equal((await log('')).text, 'one\ntwo\npartial\n');
  assert.equal((await log('tailLines=1')).text, 'partial\n');
  assert.equal((await log('limitBytes=5')).text, 'one\nt');
  const stamped = (await log('timestamps=true')).text.split('\n');
  assert.equal(stamped[0], '2026-01-01T00:00:00.000000000Z one');
  assert.equal(stamped[2], '2026-01-01T00:00:00.000000000Z partial');
  const previous = await log('previous=true');
  assert.equal(previous.status, 400);
  assert.match(
    previous.text,
    /previous terminated container \\"main\\" in pod \\"web\\" not found/,
  );
  assert.equal((await get('/containerLogs/default/web/other')).status, 400);
  assert.equal((await get('/containerLogs/default/none/main')).status, 404);
  assert.equal((await log('tailLines=-1')).status, 400);
});

test('logs: follow gives what comes later, and ends with the container', async () => {
  rig.addPod('talk', {
    restartPolicy: 'Never',
    containers: [{ name: 'main', image: 'busybox:1' }],
  });
  await rig.until('talk', (pod) => pod.status?.phase === 'Running');
  const id = rig.containerId('talk', 'main');
  const following = get('/containerLogs/default/talk/main?follow=true');
  await rig.settle();
  rig.hyperd.print(id, 'later\n');
  rig.hyperd.exit(id, 0);
  assert.equal((await following).text, 'later\n');
});

function open(path: string, protocol: string): WebSocket {
  return new WebSocket(`wss://127.0.0.1:${port}${path}`, protocol, credentials.apiServer);
}

/** Bytes by channel, once the session is closed. */
async function collect(socket: WebSocket): Promise<Record<number, string>> {
  const channels: Record<number, string> = {};
  socket.on('message', (data: Buffer) => {
    const channel = data[0] ?? 0;
    channels[channel] = (channels[channel] ?? '') + data.subarray(1).toString();
  });
  await once(socket, 'close');
  return channels;
}

test('exec: v5 carries input, its half-close, output and exit code', async () => {
  const uid = rig.uid('web');
  const path = `/exec/default/web/${uid}/main?command=cat&stdin=true&stdout=true&stderr=true`;
  const socket = open(path, 'v5.channel.k8s.io');
  await once(socket, 'open');
  assert.equal(socket.protocol, 'v5.channel.k8s.io');
  const result = collect(socket);
  socket.send(Buffer.from('\0hello'));
  socket.send(Buffer.from([255, 0]));
  const channels = await result;
  assert.equal(channels[1], 'hello');
  assert.equal((JSON.parse(channels[3] ?? '') as { status: string }).status, 'Success');
});

test('exec: a failing command is a Status with its exit code', async () => {
  const socket = open(
    '/exec/default/web/main?command=exit&command=42&output=1',
    'v4.channel.k8s.io',
  );
  const { 3: text } = await collect(socket);
  const status = JSON.parse(text ?? '') as {
    reason: string;
    details: { causes: { reason: string; message: string }[] };
  };
  assert.equal(status.reason, 'NonZeroExitCode');
  assert.deepEqual(status.details.causes, [{ reason: 'ExitCode', message: '42' }]);
});

test('exec: is refused with a reason a client can print', async () => {
  for (const [path, code] of [
    ['/exec/default/web/wrong-uid/main?command=x&stdout=1', 404],
    ['/exec/default/web/nobody?command=x&stdout=1', 400],
    ['/exec/default/web/main?stdout=1', 400],
    ['/exec/default/web/main?command=x', 400],
  ] as const) {
    const socket = open(path, 'v4.channel.k8s.io');
    const [, response] = (await once(socket, 'unexpected-response')) as [
      unknown,
      import('node:http').IncomingMessage,
    ];
    assert.equal(response.statusCode, code, path);
    response.resume();
  }
});

test('port-forward: SPDY connections reach the pod', async () => {
  const tls = connect({ host: '127.0.0.1', port, ...credentials.apiServer });
  await once(tls, 'secureConnect');
  const path = `/portForward/default/web/${rig.uid('web')}`;
  const headers = 'Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nHost: x\r\nContent-Length: 0';
  const version = 'X-Stream-Protocol-Version: portforward.k8s.io';
  tls.write(`POST ${path} HTTP/1.1\r\n${headers}\r\n${version}\r\n\r\n`);
  const [head] = (await once(tls, 'data')) as [Buffer];
  assert.match(head.toString(), /^HTTP\/1.1 101 /);
  const session = new SpdyConnection(tls as Duplex, { role: 'client' });
  const error = await session.open({ streamtype: 'error', port: '80', requestid: '0' });
  error.end();
  const data = await session.open({ streamtype: 'data', port: '80', requestid: '0' });
  data.end('echo');
  let text = '';
  for await (const chunk of data as AsyncIterable<Buffer>) text += chunk.toString();
  assert.equal(text, 'echo');
  session.destroy();
});

test('metrics are those of hyperd', async () => {
  const { text } = await get('/metrics');
  assert.match(text, /^# TYPE hyperd_vm_starts_total counter$/m);
});

test('stats name the pods that run', async () => {
  const { text } = await get('/stats/summary');
  const summary = JSON.parse(text) as { pods: { podRef: { name: string } }[] };
  assert.ok(summary.pods.some((pod) => pod.podRef.name === 'web'));
});
