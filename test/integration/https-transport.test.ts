import assert from 'node:assert/strict';
import { once } from 'node:events';
import * as http2 from 'node:http2';
import type { AddressInfo } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { peerIdentity } from '../../src/auth/authenticators.ts';
import { renderKubeconfig } from '../../src/auth/kubeconfig.ts';
import { createCaSigner, ensurePki } from '../../src/auth/pki.ts';
import type { Pki } from '../../src/auth/pki.ts';
import { FakeClock } from '../../src/base/clock.fake.ts';
import { systemClock } from '../../src/base/clock.ts';
import { writeFileAtomic } from '../../src/base/files.ts';
import { systemRandom } from '../../src/base/random.ts';
import { createHttpsTransport, fetchPinnedCa } from '../../src/client/https.ts';
import { loadKubeconfig } from '../../src/client/kubeconfig.ts';
import type { TLSSocket } from 'node:tls';

let directory = '';
let pki: Pki;
let server: http2.Http2SecureServer;
const sessions = new Set<http2.ServerHttp2Session>();
let url = '';
let sessionCount = 0;

/** Answers with who asked and what for; `/slow` never answers; `/endless` never ends. */
function startServer(port: number): Promise<http2.Http2SecureServer> {
  const made = http2.createSecureServer({
    key: pki.serverKey,
    cert: pki.serverCert,
    ca: pki.caCert,
    requestCert: true,
    rejectUnauthorized: false,
    allowHTTP1: true,
  });
  made.on('session', (session) => {
    sessionCount += 1;
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
  });
  made.on('request', (request, response) => {
    if (request.url.startsWith('/slow')) return;
    const socket = (request.stream?.session?.socket ?? request.socket) as TLSSocket;
    const who = peerIdentity(socket.getPeerCertificate());
    const { method, url: target, headers } = request;
    const { authorization } = headers;
    response.writeHead(200, { 'content-type': 'application/json' });
    if (target.startsWith('/endless')) {
      response.write('x'.repeat(1000));
      return;
    }
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      response.end(JSON.stringify({ method, target, who, authorization, body }));
    });
  });
  made.on('upgrade', (_request, socket) => {
    socket.write('HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n');
    socket.pipe(socket);
  });
  return new Promise((resolve) => made.listen(port, '127.0.0.1', () => resolve(made)));
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'https-'));
  const options = { hosts: ['127.0.0.1'], clock: systemClock, random: systemRandom };
  pki = await ensurePki(directory, options);
  server = await startServer(0);
  url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(async () => {
  for (const session of sessions) session.destroy();
  await new Promise((resolve) => server.close(resolve));
  await rm(directory, { recursive: true });
});

async function read(body: AsyncIterable<Uint8Array>): Promise<Record<string, unknown>> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>;
}

test('requests share one connection and carry certificate, token, query and body', async (t) => {
  const signer = createCaSigner({ ...pki, clock: systemClock, random: systemRandom });
  const pair = signer.clientPair('ann', ['dev']);
  const transport = createHttpsTransport({
    server: url,
    caCert: pki.caCert,
    clientCert: pair.cert,
    clientKey: pair.key,
    token: () => Promise.resolve('t0'),
  });
  t.after(() => transport.close());
  const before = sessionCount;
  const answers = await Promise.all(
    [1, 2, 3].map((number) =>
      transport
        .request({
          method: 'PUT',
          path: '/a',
          query: { n: `${number}`, no: undefined },
          body: 'hi',
        })
        .then(({ body }) => read(body)),
    ),
  );
  assert.equal(sessionCount - before, 1);
  assert.deepEqual(answers[2], {
    method: 'PUT',
    target: '/a?n=3',
    who: { commonName: 'ann', organizations: ['dev'] },
    authorization: 'Bearer t0',
    body: 'hi',
  });
});

test('a lost connection is opened again, and reads survive it', async (t) => {
  const transport = createHttpsTransport({ server: url, caCert: pki.caCert });
  t.after(() => transport.close());
  const get = async () => read((await transport.request({ method: 'GET', path: '/a' })).body);
  await get();
  for (const session of sessions) session.destroy();
  assert.equal((await get()).target, '/a');
  for (const session of sessions) session.close();
  assert.equal((await get()).target, '/a');
});

test('an idle connection is kept alive for as long as it takes, and collects nothing', async (t) => {
  const clock = new FakeClock();
  const transport = createHttpsTransport({ server: url, caCert: pki.caCert, clock });
  t.after(() => transport.close());
  const complaints: string[] = [];
  const complain = ({ name }: Error) => void complaints.push(name);
  process.on('warning', complain);
  t.after(() => process.off('warning', complain));
  const get = async () => read((await transport.request({ method: 'GET', path: '/a' })).body);
  const known = new Set(sessions);
  await get();
  const [session] = [...sessions].filter((one) => !known.has(one));
  assert.ok(session);
  for (let count = 0; count < 12; count++) {
    const pinged = once(session, 'ping');
    await clock.advance(30_000);
    await pinged;
    // Its answer follows that of the ping.
    await get();
  }
  assert.deepEqual(complaints, []);
  assert.ok(!session.destroyed);
});

test('an aborted request ends at once, and so does a body that is broken off', async (t) => {
  const transport = createHttpsTransport({ server: url, caCert: pki.caCert });
  t.after(() => transport.close());
  const signal = AbortSignal.timeout(50);
  await assert.rejects(transport.request({ method: 'GET', path: '/slow', signal }), /abort/i);
  const { body } = await transport.request({ method: 'GET', path: '/endless' });
  for await (const chunk of body) {
    assert.ok(chunk.length);
    break;
  }
});

test('a server of another CA is not trusted, even for an upgrade', async () => {
  const other = await ensurePki(join(directory, 'other'), {
    hosts: ['127.0.0.1'],
    clock: systemClock,
    random: systemRandom,
  });
  const transport = createHttpsTransport({ server: url, caCert: other.caCert });
  const request = { method: 'GET', path: '/' };
  await assert.rejects(transport.request(request), (error: Error) => {
    assert.match(String((error.cause as Error).message), /certificate|self-signed/i);
    return true;
  });
  await assert.rejects(
    transport.upgrade({ ...request, protocol: 'echo' }),
    /certificate|self-sig/i,
  );
  await transport.close();
});

test('an upgrade gives a raw stream, and a refusal the text of the answer', async (t) => {
  const transport = createHttpsTransport({ server: url, caCert: pki.caCert });
  t.after(() => transport.close());
  const { socket } = await transport.upgrade({ method: 'GET', path: '/', protocol: 'echo' });
  const echoed = new Promise<string>((resolve) => {
    socket.once('data', (chunk: Buffer) => resolve(chunk.toString()));
  });
  socket.write('ping');
  assert.equal(await echoed, 'ping');
  socket.destroy();
});

test('fetchPinnedCa() returns the CA the fingerprint names, and no other', async () => {
  assert.equal(await fetchPinnedCa(url, pki.caSha256), pki.caCert);
  await assert.rejects(fetchPinnedCa(url, 'ab'.repeat(32)), /not the one the token names/);
});

test('loadKubeconfig() reads what renderKubeconfig() writes', async () => {
  const path = join(directory, 'config');
  const fields = { server: url, caCert: pki.caCert, clientCert: pki.adminCert, clientKey: 'k' };
  await writeFileAtomic(path, renderKubeconfig(fields));
  assert.deepEqual(await loadKubeconfig(path), { ...fields, namespace: 'default' });
  await assert.rejects(loadKubeconfig(path, 'x'), /there is no context "x"/);
  await assert.rejects(loadKubeconfig(join(directory, 'none')), /does not exist/);
});
