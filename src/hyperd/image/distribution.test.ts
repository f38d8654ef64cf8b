import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { createCa, createCaSigner, createKey } from '../../auth/pki.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { systemClock } from '../../base/clock.ts';
import { systemRandom } from '../../base/random.ts';
import { basicAuthorization } from './auth.ts';
import { sha256 } from './digest.ts';
import { ingestKey, sourceId } from './distribution.ts';
import { isLocalAddress, STALL_TIMEOUT_MS } from './http.ts';
import { parseRegistriesConfig } from './registries.ts';
import { plainRegistries, publish, serveDocument } from './testing/upstream.ts';
import type { Upstream } from './testing/upstream.ts';
import { ALICE, requireAuthorization, useRegistries } from './testing/registries-rig.ts';

/** The client against registries that are slow, broken or hostile. */
const rig = useRegistries();
const { open, plain } = rig;

/** Of the large layer on its way from the repository `large`. */
const partialName = () =>
  ingestKey(sha256(rig.large), sourceId(new URL(`${rig.upstream.origin}/v2`), 'large'));

test('redirects are followed, and no credential goes to another host', async () => {
  requireAuthorization(rig.upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  const guard = rig.upstream.intercept;
  rig.upstream.intercept = (request, response) => {
    if (guard(request, response)) return true;
    if (!request.url?.includes('/blobs/')) return false;
    response.writeHead(307, { location: `${rig.other.origin}/storage${request.url}` }).end();
    return true;
  };
  for (const [digest, body] of rig.image.blobs) {
    rig.other.documents.set(`/storage/v2/app/blobs/${digest}`, { body });
  }
  const { pull } = await plain();
  assert.equal((await pull('app:1', [ALICE])).id, rig.image.id);
  assert.equal(rig.other.requests.length, 2);
  for (const { headers } of rig.other.requests) assert.equal(headers.authorization, undefined);
});

test('redirects that lead nowhere are an error', async () => {
  const { pull } = await plain();
  for (const location of ['/v2/app/manifests/1', 'ftp://example.com/x', 'http://', '']) {
    rig.upstream.intercept = (_request, response) => {
      response.writeHead(302, { location }).end();
      return true;
    };
    await assert.rejects(
      pull('app:1'),
      { reason: 'Unreachable', transient: false, message: /redirects (too often|to nowhere)/ },
      location,
    );
  }
  assert.ok(rig.upstream.requests.length < 10);
});

test('a download that breaks goes on where it stopped', async () => {
  const { pull } = await plain();
  let sent = 0;
  rig.upstream.intercept = (request, response) => {
    if (!request.url?.includes(sha256(rig.large))) return false;
    const start = Number(/bytes=([0-9]+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const body = rig.large.subarray(start, start + 150_000);
    sent += body.length;
    if (start > 0)
      response.setHeader(
        'content-range',
        `bytes ${start}-${rig.large.length - 1}/${rig.large.length}`,
      );
    response.writeHead(start > 0 ? 206 : 200, {
      'content-length': String(rig.large.length - start),
    });
    response.write(body, () => setImmediate(() => response.destroy()));
    return true;
  };
  assert.equal((await pull('large:1')).id, rig.largeImage.id);
  assert.ok(rig.upstream.count(/large\/blobs/) > 7);
  assert.ok(sent < rig.large.length * 1.7, `${sent} of ${rig.large.length} bytes`);
});

test('what an earlier run downloaded is used, and thrown away where it is damaged', async () => {
  for (const damage of [false, true]) {
    const { pull, directory } = await plain();
    const half = Buffer.from(rig.large.subarray(0, rig.large.length >> 1));
    if (damage) half[5] = (half[5] as number) ^ 1;
    await writeFile(join(directory, 'ingest', partialName()), half);
    rig.upstream.requests = [];
    assert.equal((await pull('large:1')).id, rig.largeImage.id);
    const ranges = rig.upstream.requests
      .filter(({ url }) => url.includes(sha256(rig.large)))
      .map(({ headers }) => headers.range);
    assert.deepEqual(
      ranges,
      damage ? [`bytes=${half.length}-`, undefined] : [`bytes=${half.length}-`],
    );
  }
});

test('registries that do not know ranges, or mix them up, are served from the start', async () => {
  const answers: ((
    request: Parameters<Upstream['intercept']>[0],
    response: Parameters<Upstream['intercept']>[1],
  ) => void)[] = [
    (_request, response) => response.end(rig.large),
    (_request, response) => response.writeHead(416).end(),
    (_request, response) =>
      response
        .writeHead(206, { 'content-range': `bytes 5-9/${rig.large.length}` })
        .end(rig.large.subarray(5, 10)),
  ];
  for (const answer of answers) {
    const { pull, directory } = await plain();
    await writeFile(join(directory, 'ingest', partialName()), rig.large.subarray(0, 1000));
    rig.upstream.intercept = (request, response) => {
      if (request.headers.range === undefined || !request.url?.includes('/blobs/')) return false;
      answer(request, response);
      return true;
    };
    assert.equal((await pull('large:1')).id, rig.largeImage.id);
  }
});

test('passing failures are tried again, lasting ones are told as such', async () => {
  const { pull } = await plain();
  let failures = 0;
  rig.upstream.intercept = (request, response) => {
    failures += 1;
    if (failures % 4 === 0) return false;
    if (failures % 4 === 1) response.writeHead(503, { 'retry-after': '1' }).end();
    else if (failures % 4 === 2)
      response.writeHead(429).end('{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}');
    else request.socket.destroy();
    return true;
  };
  assert.equal((await pull('app:1')).id, rig.image.id);

  rig.upstream.requests = [];
  rig.upstream.intercept = (_request, response) => {
    response.writeHead(500).end('{"errors":[{"code":"UNKNOWN","message":"it \\u0007broke"}]}');
    return true;
  };
  await assert.rejects(pull('app:2'), {
    reason: 'Unreachable',
    transient: true,
    message: /unexpected status 500: unknown: it \?broke$/,
  });
  assert.equal(rig.upstream.requests.length, 5);
  rig.upstream.requests = [];
  rig.upstream.intercept = (_request, response) => {
    response.writeHead(418).end('teapot');
    return true;
  };
  await assert.rejects(pull('app:2'), {
    reason: 'Unreachable',
    transient: false,
    message: /unexpected status 418$/,
  });
  assert.equal(rig.upstream.requests.length, 1);
});

test('a registry that stops sending is given up after a while', async () => {
  const clock = new FakeClock();
  const { pull } = await open(plainRegistries([rig.upstream.host]), clock);
  let stalled = Promise.withResolvers<void>();
  rig.upstream.intercept = (request, response) => {
    if (!request.url?.includes(sha256(rig.large))) return false;
    response.writeHead(200, { 'content-length': String(rig.large.length) });
    response.write(rig.large.subarray(0, 1000), () => stalled.resolve());
    return true;
  };
  const rejected = assert.rejects(pull('large:1'), {
    reason: 'Unreachable',
    transient: true,
    message: /no data for 30 s$/,
  });
  let done = false;
  void rejected.finally(() => (done = true));
  await stalled.promise;
  while (!done) {
    await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(STALL_TIMEOUT_MS / 10);
  }
  await rejected;
  stalled = Promise.withResolvers();
});

test('a slow registry does not hold up who gets the same image elsewhere', async () => {
  publish(rig.other, 'copy', '1', rig.image);
  const arrived = Promise.withResolvers<void>();
  rig.upstream.intercept = (request, response) => {
    if (!request.url?.includes('/blobs/')) return false;
    response.writeHead(200, { 'content-length': '1000' });
    response.write('x', () => arrived.resolve());
    return true;
  };
  const { pull, store } = await open(plainRegistries([rig.upstream.host, rig.other.host]));
  const slow = pull('app:1');
  await arrived.promise;
  assert.equal((await pull('copy:1', [], rig.other.host)).id, rig.image.id);
  const closed = assert.rejects(slow, /closed/);
  await store.close();
  await closed;
});

test('mirrors are asked first, know whose image it is, and get no credential of a pull', async () => {
  publish(rig.other, 'app', '1', rig.image);
  const registries = plainRegistries([rig.upstream.host]);
  const endpoints = [new URL(`${rig.other.origin}/v2`), new URL(`${rig.upstream.origin}/v2`)];
  registries.mirrors.set(rig.upstream.host, { endpoints });
  const { pull } = await open(registries);
  requireAuthorization(rig.upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  assert.equal((await pull('app:1', [ALICE])).id, rig.image.id);
  assert.equal(rig.upstream.requests.length, 0);
  assert.ok(
    rig.other.requests.every(({ url }) =>
      url.endsWith(`?ns=${encodeURIComponent(rig.upstream.host)}`),
    ),
  );
  assert.ok(rig.other.requests.every(({ headers }) => headers.authorization === undefined));

  rig.other.documents.clear();
  const fresh = await open(registries);
  assert.equal((await fresh.pull('app:1', [ALICE])).id, rig.image.id, 'the registry itself has it');
  await assert.rejects(fresh.pull('app:9', [ALICE]), { reason: 'NotFound' });

  const star = plainRegistries([]);
  star.mirrors.set('*', { endpoints: [new URL(`${rig.upstream.origin}/v2`)] });
  rig.upstream.intercept = () => false;
  const any = await open(star);
  publish(rig.upstream, 'library/busybox', 'latest', rig.image);
  const pulled = await any.store.pull({ reference: 'busybox', credentials: [] });
  assert.ok(pulled.references.includes('docker.io/library/busybox:latest'));
});

test('addresses of the node itself are reached only where the operator says so', async () => {
  const { pull, store } = await open(plainRegistries([]));
  const refused = {
    reason: 'Unreachable',
    transient: false,
    message: /is an address of this node/,
  };
  await assert.rejects(pull('app:1'), refused);
  const hosts = ['localhost:1', '127.1.2.3', '[::1]:5000', '169.254.169.254', '0.0.0.0:80'];
  for (const host of hosts) {
    await assert.rejects(store.pull({ reference: `${host}/a`, credentials: [] }), refused, host);
  }
  for (const address of ['::ffff:127.0.0.1', 'fe80::1', '::', '127.255.0.1'])
    assert.ok(isLocalAddress(address), address);
  for (const address of ['10.0.0.1', '8.8.8.8', '2001:db8::1', 'example.com'])
    assert.ok(!isLocalAddress(address), address);
});

test('a registry that does not listen is told with its address', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const host = `127.0.0.1:${port}`;
  const { pull } = await open(plainRegistries([host]));
  await assert.rejects(pull('app:1', [], host), {
    reason: 'Unreachable',
    message: new RegExp(`dial tcp 127\\.0\\.0\\.1:${port}: connection refused`),
  });
});

test('TLS: a private CA, a client certificate, and none of it', async () => {
  const options = { clock: systemClock, random: systemRandom };
  const caKey = createKey();
  const caCert = createCa(caKey, options);
  const signer = createCaSigner({ caCert, caKey, ...options });
  const pair = signer.serverPair('registry', ['127.0.0.1']);
  const client = signer.clientPair('node-1');
  const server = createServer(
    { ...pair, ca: caCert, requestCert: true, rejectUnauthorized: true },
    (request, response) => {
      const document = rig.upstream.documents.get(request.url as string);
      if (document) serveDocument(request, response, document);
      else response.writeHead(404).end();
    },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const files: Record<string, string> = { ca: caCert, cert: client.cert, key: client.key };
    const configure = (tls: Record<string, unknown>) =>
      parseRegistriesConfig({ configs: { [host]: { tls } } }, (file) =>
        Promise.resolve(files[file] ?? ''),
      );
    const full = { ca_file: 'ca', cert_file: 'cert', key_file: 'key' };
    const pull = async (tls: Record<string, unknown>) =>
      (await open(await configure(tls))).pull('app:1', [], host);
    assert.equal((await pull(full)).id, rig.image.id);
    assert.equal(
      (await pull({ ...full, ca_file: undefined, insecure_skip_verify: true })).id,
      rig.image.id,
    );
    await assert.rejects(pull({ cert_file: 'cert', key_file: 'key' }), {
      reason: 'Unreachable',
      transient: false,
      message: /certificate/,
    });
    await assert.rejects(pull({ ca_file: 'ca' }), { reason: 'Unreachable' });
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
