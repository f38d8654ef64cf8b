import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, unlink, writeFile, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import * as tls from 'node:tls';
import { FakeClock } from '../base/clock.fake.ts';
import { seededRandom } from '../base/random.ts';
import { createCaSigner, createKey, ensurePki } from './pki.ts';
import { addressBytes } from './x509.ts';

const DAY_MS = 24 * 3600 * 1000;
let directory = '';
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pki-'));
});
after(() => rm(directory, { recursive: true }));

const hosts = ['127.0.0.1', '::1', 'localhost', 'kubernetes.default.svc'];

test('ensurePki() makes certificates that fit together, with private files', async () => {
  const clock = new FakeClock(Date.now());
  const pki = await ensurePki(join(directory, 'a'), { hosts, clock, random: seededRandom(1) });
  const ca = new X509Certificate(pki.caCert);
  assert.equal(ca.ca, true);
  for (const pem of [pki.serverCert, pki.kubeletClientCert, pki.adminCert]) {
    const cert = new X509Certificate(pem);
    assert.ok(cert.verify(ca.publicKey));
    assert.ok(cert.checkIssued(ca));
    assert.equal(cert.ca, false);
  }
  const server = new X509Certificate(pki.serverCert);
  assert.ok(server.checkIP('127.0.0.1') && server.checkIP('::1') && server.checkHost('localhost'));
  assert.equal(new X509Certificate(pki.adminCert).subject, 'O=system:masters\nCN=kubernetes-admin');
  for (const name of await readdir(join(directory, 'a'))) {
    assert.equal((await stat(join(directory, 'a', name))).mode & 0o077, 0, name);
  }
});

test('ensurePki() changes nothing when called again, and repairs what is missing', async () => {
  const clock = new FakeClock(Date.now());
  const options = { hosts, clock, random: seededRandom(2) };
  const path = join(directory, 'b');
  const first = await ensurePki(path, options);
  assert.deepEqual(await ensurePki(path, options), first);
  await unlink(join(path, 'admin.crt'));
  const third = await ensurePki(path, options);
  assert.equal(third.caCert, first.caCert);
  assert.equal(third.serverCert, first.serverCert);
  assert.ok(
    new X509Certificate(third.adminCert).verify(new X509Certificate(first.caCert).publicKey),
  );
});

test('ensurePki() renews leaves near their end or for new hosts, not CA and keys', async () => {
  const clock = new FakeClock(Date.now());
  const path = join(directory, 'c');
  const first = await ensurePki(path, { hosts, clock, random: seededRandom(3) });
  const added = await ensurePki(path, {
    hosts: [...hosts, '10.0.0.9'],
    clock,
    random: seededRandom(4),
  });
  assert.notEqual(added.serverCert, first.serverCert);
  assert.ok(new X509Certificate(added.serverCert).checkIP('10.0.0.9'));
  await clock.advance(300 * DAY_MS);
  const later = await ensurePki(path, { hosts, clock, random: seededRandom(5) });
  assert.notEqual(later.adminCert, first.adminCert);
  assert.equal(later.adminKey, first.adminKey);
  assert.equal(later.caCert, first.caCert);
  assert.equal(later.serviceAccountKey, first.serviceAccountKey);
});

test('ensurePki() refuses a CA whose key is missing or wrong', async () => {
  const options = { hosts, clock: new FakeClock(Date.now()), random: seededRandom(6) };
  const path = join(directory, 'd');
  await ensurePki(path, options);
  await writeFile(join(path, 'ca.key'), createKey());
  await assert.rejects(ensurePki(path, options), /is not its key/);
  await unlink(join(path, 'ca.key'));
  await assert.rejects(ensurePki(path, options), /is missing/);
  assert.ok(await readFile(join(path, 'ca.crt')));
});

test('server and client accept each other over TLS, and the client is who it says', async () => {
  const clock = new FakeClock(Date.now());
  const pki = await ensurePki(join(directory, 'e'), { hosts, clock, random: seededRandom(7) });
  const signer = createCaSigner({ ...pki, clock, random: seededRandom(8) });
  const client = signer.clientPair('system:node:n1', ['system:nodes', 'extra, "group"']);
  const server = tls.createServer({
    cert: pki.serverCert,
    key: pki.serverKey,
    ca: pki.caCert,
    requestCert: true,
    rejectUnauthorized: true,
  });
  const subject = await new Promise<tls.PeerCertificate['subject']>((resolve, reject) => {
    server.on('tlsClientError', reject);
    server.on('secureConnection', (socket) => {
      resolve(socket.getPeerCertificate().subject);
      socket.end();
    });
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      const socket = tls.connect({
        port,
        host: '127.0.0.1',
        ca: pki.caCert,
        cert: client.cert,
        key: client.key,
      });
      socket.on('error', reject);
      socket.on('end', () => socket.end());
      socket.resume();
    });
  });
  server.close();
  assert.equal(subject.CN, 'system:node:n1');
  assert.deepEqual(subject.O, ['system:nodes', 'extra, "group"']);
});

test('addressBytes() packs every written form of an address', () => {
  assert.deepEqual([...addressBytes('10.0.0.255')], [10, 0, 0, 255]);
  assert.equal(addressBytes('::1').toString('hex'), '00000000000000000000000000000001');
  assert.equal(addressBytes('fd00::a:1').toString('hex'), 'fd0000000000000000000000000a0001');
  assert.equal(addressBytes('::ffff:1.2.3.4').toString('hex'), '00000000000000000000ffff01020304');
  assert.equal(addressBytes('::').toString('hex'), '0'.repeat(32));
});
