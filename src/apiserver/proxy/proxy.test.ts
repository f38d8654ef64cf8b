import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { test } from 'node:test';
import { createCertificateAuthenticator } from '../../auth/authenticators.ts';
import { KUBELET_CLIENT_USER } from '../../auth/pki.ts';
import { createRbac } from '../../auth/rbac.ts';
import { systemClock } from '../../base/clock.ts';
import { NS, pod, startHarness } from '../testing/harness.ts';
import type { Harness } from '../testing/harness.ts';
import { createTestPki, exchange, openTls } from '../testing/tls.ts';

const pki = createTestPki();
const admin = pki.signer.clientPair('admin', ['system:masters']);
const MERGE = { type: 'application/merge-patch+json' };
const HOST = 'Host: localhost\r\n';
const CHUNK = Buffer.alloc(64 * 1024, 'x');
const LOG_CHUNKS = 200;

interface StubKubelet extends AsyncDisposable {
  port: number;
  requests: { url: string; headers: IncomingMessage['headers'] }[];
  /** What came after an upgrade that was refused. */
  smuggled(): string;
  /** Bytes of the endless log that were taken by the connection. */
  writtenBytes(): number;
  openSockets(): number;
}

/** Answers as a kubelet does, and keeps what it was asked. */
async function startKubelet(
  nodeName = 'node-1',
  pair = pki.signer.serverPair(`system:node:${nodeName}`, [nodeName], ['system:nodes']),
): Promise<StubKubelet> {
  let smuggled = '';
  const requests: StubKubelet['requests'] = [];
  const sockets = new Set<Duplex>();
  let written = 0;
  const server: Server = createServer(
    { ...pair, ca: pki.ca, requestCert: true, rejectUnauthorized: true },
    (request, response) => {
      requests.push({ url: request.url ?? '', headers: request.headers });
      const { CN } = (request.socket as TLSSocket).getPeerCertificate().subject;
      assert.equal(CN, KUBELET_CLIENT_USER);
      if (request.url?.includes('/failing')) {
        response.writeHead(400, { 'content-type': 'text/plain' });
        response.end('container "failing" in pod "a" is waiting to start: ContainerCreating');
        return;
      }
      if (!request.url?.includes('follow')) {
        response.end('hello\n');
        return;
      }
      const feed = () => {
        while (written < LOG_CHUNKS * CHUNK.length) {
          written += CHUNK.length;
          if (!response.write(CHUNK)) return void response.once('drain', feed);
        }
        response.end();
      };
      feed();
    },
  );
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    requests.push({ url: request.url ?? '', headers: request.headers });
    socket.on('error', () => {});
    if (request.url?.includes('/failing')) {
      smuggled += head.toString();
      socket.on('data', (chunk: Buffer) => (smuggled += chunk.toString()));
      socket.on('end', () => socket.end());
      socket.write('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n',
    );
    if (head.length > 0) socket.write(head);
    socket.pipe(socket);
  });
  server.on('secureConnection', (socket: Duplex) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    smuggled: () => smuggled,
    writtenBytes: () => written,
    openSockets: () => sockets.size,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function startCluster(kubelet: StubKubelet): Promise<Harness & { port: number }> {
  const client = pki.signer.clientPair(KUBELET_CLIENT_USER, ['system:masters']);
  const rbac = createRbac();
  const api = await startHarness({
    clock: systemClock,
    authorizer: rbac,
    rbac,
    authenticators: [createCertificateAuthenticator()],
    kubelet: { ...client, ca: pki.ca },
  });
  const status = {
    addresses: [{ type: 'InternalIP', address: '127.0.0.1' }],
    daemonEndpoints: { kubeletEndpoint: { Port: kubelet.port } },
  };
  await api.want('POST', '/api/v1/nodes', { metadata: { name: 'node-1' }, status });
  const containers = ['c', 'failing'].map((name) => ({ name, image: 'x' }));
  await api.want('POST', `${NS}/pods`, pod('a', { spec: { containers } }));
  await api.want('POST', `${NS}/pods`, pod('homeless'));
  const target = { kind: 'Node', name: 'node-1' };
  await api.want('POST', `${NS}/pods/a/binding`, { metadata: { name: 'a' }, target });
  const tls = { ...pki.server, clientCa: pki.ca };
  const { port } = await api.server.listen({ host: '127.0.0.1', port: 0, tls });
  return Object.assign(api, { port });
}

test("logs come from the container meant; failures in the kubelet's words", async () => {
  await using kubelet = await startKubelet();
  await using api = await startCluster(kubelet);
  const log = await api.send('GET', `${NS}/pods/a/log?container=c&tailLines=3&evil=1`);
  assert.deepEqual([log.code, log.text], [200, 'hello\n']);
  assert.equal(kubelet.requests[0]?.url, '/containerLogs/default/a/c?tailLines=3');
  assert.equal(kubelet.requests[0]?.headers.authorization, undefined);
  const errors: [string, number, RegExp][] = [
    ['a/log', 400, /a container name must be specified for pod a, choose one of: \[c failing\]/],
    ['a/log?container=x', 400, /container x is not valid for pod a/],
    ['a/log?container=failing', 400, /is waiting to start: ContainerCreating/],
    ['homeless/log', 400, /pod homeless does not have a host assigned/],
    ['nobody/log', 404, /pods "nobody" not found/],
  ];
  for (const [path, code, message] of errors) {
    const answer = await api.send('GET', `${NS}/pods/${path}`);
    assert.equal(answer.code, code, path);
    assert.match(answer.body.message ?? '', message);
  }
  const annotations = { 'kubectl.kubernetes.io/default-container': 'c' };
  await api.want('PATCH', `${NS}/pods/a`, { metadata: { annotations } }, MERGE);
  assert.equal((await api.send('GET', `${NS}/pods/a/log`)).text, 'hello\n');
});

test('a log that nobody reads is not read from the kubelet, and ends with its reader', async () => {
  await using kubelet = await startKubelet();
  await using api = await startCluster(kubelet);
  const response = await api.transport.request({
    method: 'GET',
    path: `${NS}/pods/a/log`,
    query: { container: 'c', follow: 'true' },
  });
  const iterator = response.body[Symbol.asyncIterator]();
  await iterator.next();
  let last = -1;
  while (last !== kubelet.writtenBytes()) {
    last = kubelet.writtenBytes();
    await systemClock.sleep(50);
  }
  assert.ok(last < LOG_CHUNKS * CHUNK.length, `${last} bytes were taken that nobody had read`);
  await iterator.return?.();
  while (kubelet.openSockets() > 0) await new Promise((resolve) => setImmediate(resolve));
});

test('an upgrade joins the client to the kubelet, both ways, to the end', async () => {
  await using kubelet = await startKubelet();
  await using api = await startCluster(kubelet);
  const asks = 'container=c&command=sh&command=-c&stdin=true&stdout=true&stderr=false';
  const path = `${NS}/pods/a/exec?${asks}`;
  const socket = await openTls(api.port, pki.ca, admin);
  socket.setNoDelay(true);
  const secret = 'base64url.bearer.authorization.k8s.io.c2VjcmV0';
  const request =
    `GET ${path} HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n` +
    `Sec-WebSocket-Protocol: v5.channel.k8s.io, ${secret}\r\nCookie: a=b\r\n\r\n`;
  socket.write(`${request}early`);
  const received: Buffer[] = [];
  let size = 0;
  socket.on('data', (chunk: Buffer) => {
    received.push(chunk);
    size += chunk.length;
  });
  const big = Buffer.alloc(3 << 20, 'y');
  socket.write(big);
  while (size < big.length + 5) await once(socket, 'data');
  const text = Buffer.concat(received).toString('latin1');
  assert.match(text, /^HTTP\/1\.1 101 Switching Protocols\r\n/);
  const body = text.slice(text.indexOf('\r\n\r\n') + 4);
  assert.equal(body.slice(0, 5), 'early');
  const asked = kubelet.requests.at(-1);
  const { metadata } = await api.want('GET', `${NS}/pods/a`);
  const query = 'command=sh&command=-c&input=1&output=1';
  assert.equal(asked?.url, `/exec/default/a/${metadata.uid}/c?${query}`);
  assert.equal(asked?.headers['sec-websocket-protocol'], 'v5.channel.k8s.io');
  assert.equal(asked?.headers.cookie, undefined);
  const closed = once(socket, 'close');
  socket.end();
  await closed;
  while (kubelet.openSockets() > 0) await new Promise((resolve) => setImmediate(resolve));
});

test('closing the server ends joined connections on both sides', async () => {
  await using kubelet = await startKubelet();
  const api = await startCluster(kubelet);
  const socket = await openTls(api.port, pki.ca, admin);
  const upgrade = 'Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n';
  socket.write(`POST ${NS}/pods/a/portforward?ports=80 HTTP/1.1\r\n${HOST}${upgrade}\r\n`);
  await once(socket, 'data');
  assert.match(kubelet.requests.at(-1)?.url ?? '', /^\/portForward\/default\/a\/[^/]+\?port=80$/);
  socket.on('error', () => {});
  const closed = once(socket, 'close');
  await api.server.close();
  await closed;
  while (kubelet.openSockets() > 0) await new Promise((resolve) => setImmediate(resolve));
  await api.store.close();
});

test('without an upgrade, or without the right to create, there is no exec', async () => {
  await using kubelet = await startKubelet();
  await using api = await startCluster(kubelet);
  const plain = await api.send('POST', `${NS}/pods/a/exec?container=c&command=ls&stdout=true`);
  assert.equal(plain.code, 400);
  assert.match(plain.body.message ?? '', /Upgrade request required/);
  const root = '/apis/rbac.authorization.k8s.io/v1';
  assert.equal((await api.send('GET', `${root}/roles`)).code, 200);
  const socket = await openTls(api.port, pki.ca, pki.signer.clientPair('bob'));
  const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n';
  const request = `GET ${NS}/pods/a/exec?command=ls HTTP/1.1\r\n${HOST}${upgrade}\r\n`;
  const text = await exchange(socket, request);
  assert.match(text, /^HTTP\/1\.1 403 /);
  assert.match(text, /cannot get resource \\"pods\/exec\\"/);
  assert.equal(kubelet.requests.length, 0);
});

test("a node with another node's certificate is not talked to", async () => {
  await using kubelet = await startKubelet('node-2');
  await using api = await startCluster(kubelet);
  const answer = await api.send('GET', `${NS}/pods/a/log?container=c`);
  assert.equal(answer.code, 500);
  assert.match(
    answer.body.message ?? '',
    /error dialing backend: cannot reach the kubelet of node "node-1"/,
  );
  assert.equal(kubelet.requests.length, 0);
});

test("a node's own API is reached below its proxy", async () => {
  await using kubelet = await startKubelet();
  await using api = await startCluster(kubelet);
  const answer = await api.send('GET', '/api/v1/nodes/node-1/proxy/stats/summary?only=cpu');
  assert.equal(answer.text, 'hello\n');
  assert.equal(kubelet.requests.at(-1)?.url, '/stats/summary?only=cpu');
  assert.equal((await api.send('GET', '/api/v1/nodes/none/proxy/stats')).code, 404);
});

test('who is refused an upgrade has no connection to the kubelet to make requests on', async () => {
  await using kubelet = await startKubelet();
  await using api = await startCluster(kubelet);
  const socket = await openTls(api.port, pki.ca, admin);
  const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n';
  const request = `GET ${NS}/pods/a/exec?container=failing&command=x HTTP/1.1\r\n${HOST}${upgrade}`;
  const further = `GET /exec/kube-system/other/uid/c?command=id HTTP/1.1\r\n${HOST}${upgrade}\r\n`;
  const text = await exchange(socket, `${request}\r\n${further}`, further);
  assert.match(text, /^HTTP\/1\.1 400 /);
  while (kubelet.openSockets() > 0) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(kubelet.smuggled(), '');
});

test("an address that a node claims does not make its owner's certificate the node's", async () => {
  const names = ['node-1', '127.0.0.1'];
  await using kubelet = await startKubelet(
    'node-1',
    pki.signer.serverPair('kube-apiserver', names),
  );
  await using api = await startCluster(kubelet);
  const answer = await api.send('GET', `${NS}/pods/a/log?container=c`);
  assert.equal(answer.code, 500);
  assert.match(answer.body.message ?? '', /its certificate is that of "kube-apiserver"/);
});

test('a right to read through a node does not run commands there', async () => {
  await using kubelet = await startKubelet();
  await using api = await startCluster(kubelet);
  const root = '/apis/rbac.authorization.k8s.io/v1';
  const rules = [{ apiGroups: [''], resources: ['nodes/proxy'], verbs: ['get'] }];
  await api.want('POST', `${root}/clusterroles`, { metadata: { name: 'r' }, rules });
  await api.want('POST', `${root}/clusterrolebindings`, {
    metadata: { name: 'r' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'r' },
    subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'bob' }],
  });
  const ask = async (headers: string) => {
    const socket = await openTls(api.port, pki.ca, pki.signer.clientPair('bob'));
    const path = '/api/v1/nodes/node-1/proxy/exec/default/a/uid/c?command=id';
    return exchange(socket, `GET ${path} HTTP/1.1\r\n${HOST}${headers}\r\n`);
  };
  await api.want('GET', `${root}/clusterroles/r`);
  assert.match(await ask('Connection: close\r\n'), /^HTTP\/1\.1 200 /);
  assert.match(await ask('Connection: Upgrade\r\nUpgrade: websocket\r\n'), /^HTTP\/1\.1 403 /);
});
