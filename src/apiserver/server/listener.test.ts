import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ClientHttp2Session } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { systemClock } from '../../base/clock.ts';
import { createCertificateAuthenticator } from '../../auth/authenticators.ts';
import { createRbac } from '../../auth/rbac.ts';
import { NS, configMap, startHarness } from '../testing/harness.ts';
import { createTestPki, exchange, openHttp2, openTls, requestHttp2 } from '../testing/tls.ts';
import type { ApiServerLimits } from '../limits.ts';

const pki = createTestPki();
const admin = pki.signer.clientPair('admin', ['system:masters']);
const HOST = 'Host: localhost\r\n';

async function startListening(limits: Partial<ApiServerLimits> = {}) {
  const rbac = createRbac();
  const api = await startHarness({
    clock: systemClock,
    authorizer: rbac,
    rbac,
    authenticators: [createCertificateAuthenticator()],
    limits,
  });
  const tls = { ...pki.server, clientCa: pki.ca };
  const { port } = await api.server.listen({ host: '127.0.0.1', port: 0, tls });
  return Object.assign(api, { port });
}

test('HTTP/2 and HTTP/1.1 are served on one port, as the user of the certificate', async () => {
  await using api = await startListening();
  const session = openHttp2(api.port, pki.ca, admin);
  const created = await requestHttp2(session, 'POST', `${NS}/configmaps`, {
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(configMap('a')),
  });
  assert.equal(created.status, 201);
  assert.match(created.headers['audit-id'] ?? '', /^[0-9a-f-]{36}$/);
  session.close();
  const socket = await openTls(api.port, pki.ca, admin);
  const text = await exchange(
    socket,
    `GET ${NS}/configmaps/a HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`,
  );
  assert.match(text, /^HTTP\/1\.1 200 OK/);
  assert.match(text, /"name":"a"/);
});

test('nobody, somebody without rights, and a stranger get 403, 403 and 401', async () => {
  await using api = await startListening();
  const get = async (pair?: { cert: string; key: string }, headers = {}) => {
    const session = openHttp2(api.port, pki.ca, pair);
    const answer = await requestHttp2(session, 'GET', `${NS}/pods`, { headers });
    session.close();
    return { status: answer.status, message: JSON.parse(answer.body).message as string };
  };
  const anonymous = await get();
  assert.equal(anonymous.status, 403);
  assert.match(
    anonymous.message,
    /^pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group/,
  );
  assert.equal((await get(pki.signer.clientPair('bob'))).status, 403);
  assert.equal(
    (await get(createTestPki().signer.clientPair('admin', ['system:masters']))).status,
    401,
  );
  assert.equal((await get(undefined, { authorization: 'Bearer nothing' })).status, 401);
  assert.equal((await get(undefined, { authorization: 'Basic eDp5' })).status, 401);
});

test('impersonation needs the right to it, for every part', async () => {
  await using api = await startListening();
  const session = openHttp2(api.port, pki.ca, pki.signer.clientPair('bob'));
  const refused = await requestHttp2(session, 'GET', `${NS}/pods`, {
    headers: { 'impersonate-user': 'alice' },
  });
  session.close();
  assert.equal(refused.status, 403);
  assert.match(refused.body, /users \\"alice\\" is forbidden: User \\"bob\\" cannot impersonate/);
  const master = openHttp2(api.port, pki.ca, admin);
  const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
  const answer = await requestHttp2(master, 'POST', path, {
    headers: {
      'content-type': 'application/json',
      'impersonate-user': 'alice',
      'impersonate-group': 'dev, ops',
      'impersonate-extra-scope': 'view',
    },
    body: '{}',
  });
  // Acting as alice is acting with her rights only: she may not even ask who she is.
  assert.equal(answer.status, 403);
  const noUser = await requestHttp2(master, 'GET', '/version', {
    headers: { 'impersonate-group': 'dev' },
  });
  assert.equal(noUser.status, 400);
  master.close();
});

test('a body above the limit is refused with a Status, however it is announced', async () => {
  await using api = await startListening();
  const body = JSON.stringify(configMap('a', { data: { k: 'x'.repeat(4 << 20) } }));
  const session = openHttp2(api.port, pki.ca, admin);
  const headers = { 'content-type': 'application/json' };
  const answer = await requestHttp2(session, 'POST', `${NS}/configmaps`, { headers, body });
  assert.equal(answer.status, 413);
  assert.equal(JSON.parse(answer.body).reason, 'RequestEntityTooLarge');
  const after = await requestHttp2(session, 'GET', '/version');
  assert.equal(after.status, 200);
  session.close();
  const socket = await openTls(api.port, pki.ca, admin);
  const head = `POST ${NS}/configmaps HTTP/1.1\r\n${HOST}Content-Type: application/json\r\n`;
  const text = await exchange(socket, `${head}Content-Length: 99999999\r\n\r\n{`);
  assert.match(text, /^HTTP\/1\.1 413/);
});

test('a body that is nested too deep, broken, or of an unknown type is a 4xx', async () => {
  await using api = await startListening();
  const session = openHttp2(api.port, pki.ca, admin);
  const post = async (type: string, body: string) =>
    (
      await requestHttp2(session, 'POST', `${NS}/configmaps`, {
        headers: { 'content-type': type },
        body,
      })
    ).status;
  assert.equal(await post('application/json', '['.repeat(1_000_000)), 400);
  assert.equal(await post('application/json', '{"a":'.repeat(400_000)), 400);
  assert.equal(await post('application/yaml', `a: ${'['.repeat(50_000)}`), 400);
  assert.equal(await post('application/json', '{"metadata":'), 400);
  assert.equal(await post('application/json', '[]'), 400);
  assert.equal(await post('application/json', ''), 400);
  assert.equal(await post('application/vnd.kubernetes.protobuf', 'k8s\0garbage'), 400);
  assert.equal(await post('text/plain', '{}'), 415);
  assert.equal(await post('application/json', '{"metadata":{"name":"fine"}}'), 201);
  session.close();
});

test('a body that does not come in time is given up', async () => {
  await using api = await startListening({ requestBodyTimeoutMs: 50 });
  const socket = await openTls(api.port, pki.ca, admin);
  const head = `POST ${NS}/configmaps HTTP/1.1\r\n${HOST}Content-Type: application/json\r\n`;
  const text = await exchange(socket, `${head}Content-Length: 100\r\n\r\n{`);
  assert.match(text, /^HTTP\/1\.1 408/);
  assert.match(text, /did not arrive within/);
});

test('half a TLS handshake is ended by the server', async () => {
  await using api = await startListening({ tlsHandshakeTimeoutMs: 100 });
  const socket = connect(api.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.on('error', () => {});
  // The first bytes of a ClientHello that never goes on.
  socket.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]));
  socket.resume();
  await once(socket, 'close');
});

test('a connection that asks for nothing, or never ends its headers, is closed', async () => {
  await using api = await startListening({ requestHeadersTimeoutMs: 100 });
  const silent = await openTls(api.port, pki.ca, admin);
  const slow = await openTls(api.port, pki.ca, admin);
  const [, text] = await Promise.all([
    exchange(silent),
    exchange(slow, `GET /version HTTP/1.1\r\n${HOST}X-Slow: 1`),
  ]);
  assert.match(text ?? '', /^HTTP\/1\.1 408/);
});

test('bytes that are no TLS, and no HTTP inside it, do no harm', async () => {
  await using api = await startListening();
  const plain = connect(api.port, '127.0.0.1');
  plain.on('error', () => {});
  plain.resume();
  plain.write('GET / HTTP/1.1\r\n\r\n');
  await once(plain, 'close');
  const socket = await openTls(api.port, pki.ca, admin);
  const text = await exchange(socket, 'this is not HTTP\r\n\r\n');
  assert.match(text, /^HTTP\/1\.1 400/);
  const large = await openTls(api.port, pki.ca, admin);
  const filler = `X-Filler: ${'y'.repeat(100_000)}\r\n`;
  // The refusal may be lost when the client is still writing; the end of the connection is not.
  const refusal = await exchange(large, `GET / HTTP/1.1\r\n${HOST}${filler}\r\n`);
  assert.match(refusal, /^(HTTP\/1\.1 431|$)/);
  const session = openHttp2(api.port, pki.ca, admin);
  assert.equal((await requestHttp2(session, 'GET', '/healthz')).body, 'ok');
  session.close();
});

test('long answers are compressed for those who take it', async () => {
  await using api = await startListening();
  for (let i = 0; i < 4; i += 1) {
    const data = { k: 'x'.repeat(100_000) };
    await api.want('POST', `${NS}/configmaps`, configMap(`c${i}`, { data }));
  }
  const socket = await openTls(api.port, pki.ca, admin);
  const request = `GET ${NS}/configmaps HTTP/1.0\r\n${HOST}Accept-Encoding: gzip\r\n\r\n`;
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => void chunks.push(chunk));
  socket.write(request);
  await once(socket, 'close');
  const answer = Buffer.concat(chunks);
  const split = answer.indexOf('\r\n\r\n') + 4;
  assert.match(answer.subarray(0, split).toString(), /content-encoding: gzip/i);
  const list = JSON.parse(gunzipSync(answer.subarray(split)).toString('utf8'));
  assert.equal(list.items.length, 4);
});

test('a watch over a socket ends with it', async () => {
  await using api = await startListening();
  const before = api.store.stats().watcherCount;
  const session = openHttp2(api.port, pki.ca, admin);
  const stream = session.request({ ':path': `${NS}/configmaps?watch=true` });
  await once(stream, 'response');
  assert.equal(api.store.stats().watcherCount, before + 1);
  await api.want('POST', `${NS}/configmaps`, configMap('a'));
  const [chunk] = (await once(stream, 'data')) as [Buffer];
  assert.match(chunk.toString('utf8'), /"type":"ADDED"/);
  session.destroy();
  while (api.store.stats().watcherCount > before) {
    await new Promise((resolve) => setImmediate(resolve));
  }
});

test('too many requests in flight are told to come back, masters are not', async () => {
  await using api = await startListening({ readsInFlight: 0 });
  const rules = [{ apiGroups: [''], resources: ['pods'], verbs: ['list'] }];
  const root = '/apis/rbac.authorization.k8s.io/v1';
  await api.want('POST', `${root}/clusterroles`, { metadata: { name: 'r' }, rules });
  await api.want('POST', `${root}/clusterrolebindings`, {
    metadata: { name: 'r' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'r' },
    subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'bob' }],
  });
  const get = async (name: string, groups: string[] = []) => {
    const session = openHttp2(api.port, pki.ca, pki.signer.clientPair(name, groups));
    const answer = await requestHttp2(session, 'GET', '/api/v1/pods');
    session.close();
    return answer;
  };
  const refused = await get('bob');
  assert.equal(refused.status, 429);
  assert.equal(refused.headers['retry-after'], '1');
  assert.equal((await get('admin', ['system:masters'])).status, 200);
});

test('one user cannot take the places of all, nor one address all connections', async () => {
  const limits = { writesInFlightPerTenant: 1, connectionsPerAddress: 4 };
  await using api = await startListening(limits);
  const rules = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['create'] }];
  const root = '/apis/rbac.authorization.k8s.io/v1';
  await api.want('POST', `${root}/clusterroles`, { metadata: { name: 'r' }, rules });
  await api.want('POST', `${root}/clusterrolebindings`, {
    metadata: { name: 'r' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'r' },
    subjects: ['ann', 'bob'].map((name) => ({ kind: 'User', name })),
  });
  const sessions = ['bob', 'bob', 'ann'].map((name) =>
    openHttp2(api.port, pki.ca, pki.signer.clientPair(name)),
  );
  const [slow, more, other] = sessions as [
    ClientHttp2Session,
    ClientHttp2Session,
    ClientHttp2Session,
  ];
  const headers = { ':method': 'POST', ':path': `${NS}/configmaps` };
  const stalled = slow.request({ ...headers, 'content-type': 'application/json' });
  stalled.on('error', () => {});
  stalled.write('{');
  const create = (session: ClientHttp2Session, name: string) =>
    requestHttp2(session, 'POST', `${NS}/configmaps`, {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(configMap(name)),
    });
  let refused = await create(more, 'probe-0');
  for (let i = 1; refused.status === 201; i += 1) refused = await create(more, `probe-${i}`);
  assert.equal(refused.status, 429);
  assert.equal((await create(other, 'b')).status, 201);
  stalled.close();
  await openTls(api.port, pki.ca);
  await assert.rejects(openTls(api.port, pki.ca));
  for (const session of sessions) session.destroy();
});

test('closing the server closes connections that wait', async () => {
  const api = await startListening();
  const socket = await openTls(api.port, pki.ca, admin);
  socket.on('error', () => {});
  socket.resume();
  const closed = once(socket, 'close');
  await api.server.close();
  await closed;
  await api.store.close();
});
