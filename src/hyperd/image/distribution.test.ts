import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { NetworkInterfaceInfo } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { createCa, createCaSigner, createKey } from '../../auth/pki.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { buildImage } from '../registry/build.ts';
import type { BuiltImage } from '../registry/build.ts';
import { basicAuthorization, parseChallenges, parseToken } from './auth.ts';
import { sha256 } from './digest.ts';
import { ingestKey, sourceId } from './distribution.ts';
import { isLocalAddress, isNodeAddress, STALL_TIMEOUT_MS } from './http.ts';
import { openImageStore } from './index.ts';
import { parseRegistriesConfig } from './registries.ts';
import type { RegistriesConfig } from './registries.ts';
import { ImageError } from './store.ts';
import type { RegistryCredential } from './store.ts';
import {
  openTestStore,
  plainRegistries,
  publish,
  serveDocument,
  startUpstream,
} from './testing/upstream.ts';
import type { TestStore, Upstream } from './testing/upstream.ts';

/** The client against registries that are strict, slow, broken or hostile. */
let upstream: Upstream;
let other: Upstream;
let image: BuiltImage;
let largeImage: BuiltImage;
let large: Buffer;
const stores: TestStore[] = [];

before(async () => {
  upstream = await startUpstream();
  other = await startUpstream();
  const platform = { os: 'linux', architecture: 'amd64' };
  image = await buildImage({ layers: [[{ path: 'a', content: 'a' }]], platform });
  const layers = [[{ path: 'noise', content: randomBytes(1 << 20) }]];
  largeImage = await buildImage({ layers, platform, compression: 'none' });
  large = [...largeImage.blobs.values()].find(({ length }) => length > 1 << 20) as Buffer;
});
after(async () => {
  await upstream.close();
  await other.close();
  for (const store of stores) await store.close();
});
beforeEach(() => {
  for (const server of [upstream, other]) {
    server.documents.clear();
    server.requests = [];
    server.intercept = () => false;
  }
  publish(upstream, 'app', '1', image);
  publish(upstream, 'large', '1', largeImage);
});

async function open(registries: RegistriesConfig, clock = undefined as FakeClock | undefined) {
  const opened = await openTestStore({ registries, ...(clock ? { clock } : {}) });
  stores.push(opened);
  return {
    ...opened,
    pull: (name: string, credentials: RegistryCredential[] = [], host = upstream.host) =>
      opened.store.pull({ reference: `${host}/${name}`, credentials }),
  };
}

const plain = () => open(plainRegistries([upstream.host]));
/** Of the large layer on its way from the repository `large`. */
const partialName = () =>
  ingestKey(sha256(large), sourceId(new URL(`${upstream.origin}/v2`), 'large'));

const ALICE = { username: 'alice', password: 'correct horse' };
const MALLORY = { username: 'mallory', password: 'wrong' };

/** Lets only requests with this header through, and challenges the others. */
function requireAuthorization(server: Upstream, expected: string, challenge: string): void {
  server.intercept = (request, response) => {
    if (request.headers.authorization === expected) return false;
    response.writeHead(401, { 'www-authenticate': challenge }).end('{}');
    return true;
  };
}

test('a private image is for those who could pull it, a public one for everyone', async () => {
  requireAuthorization(upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  const registries = plainRegistries([upstream.host, other.host]);
  const { pull, store, directory } = await open(registries);
  const mayUse = (name: string, credentials: RegistryCredential[], from = store) =>
    from.mayUse({ reference: name, credentials });
  const name = `${upstream.host}/app:1`;
  await pull('app:1', [MALLORY, ALICE]);
  assert.equal(mayUse(name, [ALICE]), true);
  assert.equal(mayUse(name, [MALLORY, ALICE]), true);
  for (const reference of [name, `${upstream.host}/app@${image.digest}`, image.id]) {
    assert.equal(mayUse(reference, []), false, reference);
    assert.equal(mayUse(reference, [MALLORY]), false, 'it came with the right one, and is not');
  }
  const text = await readFile(join(directory, 'images.json'), 'utf8');
  assert.ok(!text.includes(ALICE.password), 'the credential itself is not written down');

  publish(other, 'app', '1', image);
  await pull('app:1', [ALICE], other.host);
  assert.equal(mayUse(`${other.host}/app:1`, []), true, 'nobody was asked for a credential');
  assert.equal(mayUse(name, []), false, 'the same image is private where it was private');
  await store.close();
  const again = await openImageStore({ directory, registries, clock: systemClock, log: silentLog });
  assert.equal(mayUse(name, [ALICE], again), true);
  assert.equal(mayUse(name, [MALLORY], again), false);
  upstream.intercept = () => false;
  await again.pull({ reference: name, credentials: [] });
  assert.equal(mayUse(name, [MALLORY], again), true, 'it has become public');
  await again.close();
});

test('basic authentication: each credential is tried, the right one is found and kept', async () => {
  requireAuthorization(upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  const { pull } = await plain();
  const denied = {
    name: 'ImageError',
    reason: 'Unauthorized',
    message: /failed to pull image ".*\/app:1": .*pull access denied/,
  };
  await assert.rejects(pull('app:1'), denied);
  await assert.rejects(pull('app:1', [MALLORY]), denied);
  assert.equal((await pull('app:1', [MALLORY, ALICE])).id, image.id);
  upstream.requests = [];
  await pull('app:1', [ALICE]);
  assert.equal(upstream.requests.length, 1, 'without being asked again');
  await assert.rejects(
    pull('app:1', [MALLORY]),
    denied,
    'an image that is present is no secret key',
  );
});

test("the node's own credential is tried after those of the pull", async () => {
  requireAuthorization(upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  const credential = { credential: ALICE };
  const { pull } = await open(plainRegistries([upstream.host], { [upstream.host]: credential }));
  assert.equal((await pull('app:1', [MALLORY])).id, image.id);
});

test('bearer tokens: anonymous, by password, by identity token', async () => {
  const asked: { url: URL; authorization: string | undefined; body: string }[] = [];
  other.intercept = (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString('utf8');
      const url = new URL(request.url as string, other.origin);
      asked.push({ url, authorization: request.headers.authorization, body });
      response.end(
        JSON.stringify(request.method === 'POST' ? { access_token: 'T' } : { token: 'T' }),
      );
    });
    return true;
  };
  const challenge = `Bearer realm="${other.origin}/token?x=1",service="reg,istry",scope="ignored"`;
  const cases: { credentials: RegistryCredential[]; authorization?: string; body: RegExp }[] = [
    { credentials: [], body: /^$/ },
    { credentials: [ALICE], authorization: basicAuthorization(ALICE), body: /^$/ },
    {
      credentials: [{ username: '<token>', password: 'identity' }],
      body: /grant_type=refresh_token.*refresh_token=identity&scope=repository%3Aapp%3Apull&service=/,
    },
  ];
  for (const { credentials, authorization, body } of cases) {
    asked.length = 0;
    requireAuthorization(upstream, 'Bearer T', challenge);
    const { pull } = await plain();
    assert.equal((await pull('app:1', credentials)).id, image.id);
    assert.equal(asked.length, 1, 'one token serves all requests');
    const [token] = asked;
    assert.equal(token?.authorization, authorization);
    assert.match(token?.body ?? '', body);
    if (body.test('')) {
      assert.equal(token?.url.searchParams.get('scope'), 'repository:app:pull');
      assert.equal(token?.url.searchParams.get('service'), 'reg,istry');
      assert.equal(token?.url.searchParams.get('x'), '1');
    }
  }
});

test('a token that has run out is replaced', async () => {
  let current = 0;
  upstream.intercept = (request, response) => {
    if (request.url?.startsWith('/token')) {
      current += 1;
      response.end(JSON.stringify({ token: `T${current}`, expires_in: 3600 }));
      return true;
    }
    if (request.headers.authorization === `Bearer T${current}` && current > 0) return false;
    response
      .writeHead(401, { 'www-authenticate': `Bearer realm="${upstream.origin}/token"` })
      .end();
    return true;
  };
  const { pull } = await plain();
  await pull('app:1');
  assert.equal(current, 1);
  current = 7;
  await pull('app:1');
  assert.equal(current, 8);
});

test('useless challenges and token servers are an error, not a loop', async () => {
  const { pull } = await plain();
  const challenges = [
    'Bearer realm="not a url"',
    'Bearer',
    'Negotiate',
    '',
    'Basic realm="x"',
    `Bearer realm="${other.origin}/no-token"`,
    `Bearer realm="http://user:pass@${other.host}/t"`,
  ];
  other.intercept = (_request, response) => {
    response.end('{"token":"a\\r\\nx: y"}');
    return true;
  };
  for (const challenge of challenges) {
    requireAuthorization(upstream, 'never', challenge);
    await assert.rejects(pull('app:1'), { reason: 'Unauthorized' }, challenge);
  }
  assert.ok(upstream.requests.length <= 2 * challenges.length);
});

test('redirects are followed, and no credential goes to another host', async () => {
  requireAuthorization(upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  const guard = upstream.intercept;
  upstream.intercept = (request, response) => {
    if (guard(request, response)) return true;
    if (!request.url?.includes('/blobs/')) return false;
    response.writeHead(307, { location: `${other.origin}/storage${request.url}` }).end();
    return true;
  };
  for (const [digest, body] of image.blobs) {
    other.documents.set(`/storage/v2/app/blobs/${digest}`, { body });
  }
  const { pull } = await plain();
  assert.equal((await pull('app:1', [ALICE])).id, image.id);
  assert.equal(other.requests.length, 2);
  for (const { headers } of other.requests) assert.equal(headers.authorization, undefined);
});

test('redirects that lead nowhere are an error', async () => {
  const { pull } = await plain();
  for (const location of ['/v2/app/manifests/1', 'ftp://example.com/x', 'http://', '']) {
    upstream.intercept = (_request, response) => {
      response.writeHead(302, { location }).end();
      return true;
    };
    await assert.rejects(
      pull('app:1'),
      { reason: 'Unreachable', transient: false, message: /redirects (too often|to nowhere)/ },
      location,
    );
  }
  assert.ok(upstream.requests.length < 10);
});

test('a download that breaks goes on where it stopped', async () => {
  const { pull } = await plain();
  let sent = 0;
  upstream.intercept = (request, response) => {
    if (!request.url?.includes(sha256(large))) return false;
    const start = Number(/bytes=([0-9]+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const body = large.subarray(start, start + 150_000);
    sent += body.length;
    if (start > 0)
      response.setHeader('content-range', `bytes ${start}-${large.length - 1}/${large.length}`);
    response.writeHead(start > 0 ? 206 : 200, { 'content-length': String(large.length - start) });
    response.write(body, () => setImmediate(() => response.destroy()));
    return true;
  };
  assert.equal((await pull('large:1')).id, largeImage.id);
  assert.ok(upstream.count(/large\/blobs/) > 7);
  assert.ok(sent < large.length * 1.7, `${sent} of ${large.length} bytes`);
});

test('what an earlier run downloaded is used, and thrown away where it is damaged', async () => {
  for (const damage of [false, true]) {
    const { pull, directory } = await plain();
    const half = Buffer.from(large.subarray(0, large.length >> 1));
    if (damage) half[5] = (half[5] as number) ^ 1;
    await writeFile(join(directory, 'ingest', partialName()), half);
    upstream.requests = [];
    assert.equal((await pull('large:1')).id, largeImage.id);
    const ranges = upstream.requests
      .filter(({ url }) => url.includes(sha256(large)))
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
    (_request, response) => response.end(large),
    (_request, response) => response.writeHead(416).end(),
    (_request, response) =>
      response
        .writeHead(206, { 'content-range': `bytes 5-9/${large.length}` })
        .end(large.subarray(5, 10)),
  ];
  for (const answer of answers) {
    const { pull, directory } = await plain();
    await writeFile(join(directory, 'ingest', partialName()), large.subarray(0, 1000));
    upstream.intercept = (request, response) => {
      if (request.headers.range === undefined || !request.url?.includes('/blobs/')) return false;
      answer(request, response);
      return true;
    };
    assert.equal((await pull('large:1')).id, largeImage.id);
  }
});

test('passing failures are tried again, lasting ones are told as such', async () => {
  const { pull } = await plain();
  let failures = 0;
  upstream.intercept = (request, response) => {
    failures += 1;
    if (failures % 4 === 0) return false;
    if (failures % 4 === 1) response.writeHead(503, { 'retry-after': '1' }).end();
    else if (failures % 4 === 2)
      response.writeHead(429).end('{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}');
    else request.socket.destroy();
    return true;
  };
  assert.equal((await pull('app:1')).id, image.id);

  upstream.requests = [];
  upstream.intercept = (_request, response) => {
    response.writeHead(500).end('{"errors":[{"code":"UNKNOWN","message":"it \\u0007broke"}]}');
    return true;
  };
  await assert.rejects(pull('app:2'), {
    reason: 'Unreachable',
    transient: true,
    message: /unexpected status 500: unknown: it \?broke$/,
  });
  assert.equal(upstream.requests.length, 5);
  upstream.requests = [];
  upstream.intercept = (_request, response) => {
    response.writeHead(418).end('teapot');
    return true;
  };
  await assert.rejects(pull('app:2'), {
    reason: 'Unreachable',
    transient: false,
    message: /unexpected status 418$/,
  });
  assert.equal(upstream.requests.length, 1);
});

test('a registry that stops sending is given up after a while', async () => {
  const clock = new FakeClock();
  const { pull } = await open(plainRegistries([upstream.host]), clock);
  let stalled = Promise.withResolvers<void>();
  upstream.intercept = (request, response) => {
    if (!request.url?.includes(sha256(large))) return false;
    response.writeHead(200, { 'content-length': String(large.length) });
    response.write(large.subarray(0, 1000), () => stalled.resolve());
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
  publish(other, 'copy', '1', image);
  const arrived = Promise.withResolvers<void>();
  upstream.intercept = (request, response) => {
    if (!request.url?.includes('/blobs/')) return false;
    response.writeHead(200, { 'content-length': '1000' });
    response.write('x', () => arrived.resolve());
    return true;
  };
  const { pull, store } = await open(plainRegistries([upstream.host, other.host]));
  const slow = pull('app:1');
  await arrived.promise;
  assert.equal((await pull('copy:1', [], other.host)).id, image.id);
  const closed = assert.rejects(slow, /closed/);
  await store.close();
  await closed;
});

test('mirrors are asked first, know whose image it is, and get no credential of a pull', async () => {
  publish(other, 'app', '1', image);
  const registries = plainRegistries([upstream.host]);
  const endpoints = [new URL(`${other.origin}/v2`), new URL(`${upstream.origin}/v2`)];
  registries.mirrors.set(upstream.host, { endpoints });
  const { pull } = await open(registries);
  requireAuthorization(upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  assert.equal((await pull('app:1', [ALICE])).id, image.id);
  assert.equal(upstream.requests.length, 0);
  assert.ok(
    other.requests.every(({ url }) => url.endsWith(`?ns=${encodeURIComponent(upstream.host)}`)),
  );
  assert.ok(other.requests.every(({ headers }) => headers.authorization === undefined));

  other.documents.clear();
  const fresh = await open(registries);
  assert.equal((await fresh.pull('app:1', [ALICE])).id, image.id, 'the registry itself has it');
  await assert.rejects(fresh.pull('app:9', [ALICE]), { reason: 'NotFound' });

  const star = plainRegistries([]);
  star.mirrors.set('*', { endpoints: [new URL(`${upstream.origin}/v2`)] });
  upstream.intercept = () => false;
  const any = await open(star);
  publish(upstream, 'library/busybox', 'latest', image);
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
      const document = upstream.documents.get(request.url as string);
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
    assert.equal((await pull(full)).id, image.id);
    assert.equal(
      (await pull({ ...full, ca_file: undefined, insecure_skip_verify: true })).id,
      image.id,
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

test('parseRegistriesConfig() names the field that is wrong', async () => {
  const cases: [document: unknown, message: RegExp][] = [
    [[], /the file is not a mapping/],
    [{ mirror: {} }, /mirror is not known \(known: mirrors, configs\)/],
    [
      { mirrors: { a: { endpoint: ['ftp://x'] } } },
      /mirrors\["a"\]\.endpoint\[0\] is not an http or https URL/,
    ],
    [{ mirrors: { a: { endpoint: ['http://u:p@x'] } } }, /without user/],
    [{ mirrors: { a: { endpoint: 'http://x' } } }, /endpoint is not a list/],
    [
      { configs: { a: { auth: { username: 'u' } } } },
      /configs\["a"\]\.auth is not a complete credential/,
    ],
    [{ configs: { a: { auth: { auth: 'eA==' } } } }, /complete credential/],
    [{ configs: { a: { tls: { insecure_skip_verify: 'yes' } } } }, /not true or false/],
    [{ configs: { a: { tls: { ca: 'x' } } } }, /tls\.ca is not known/],
  ];
  for (const [document, message] of cases) {
    await assert.rejects(
      parseRegistriesConfig(document, () => Promise.resolve('')),
      { name: 'RegistriesConfigError', message },
    );
  }
  const config = await parseRegistriesConfig(
    {
      configs: {
        a: { auth: { auth: Buffer.from('u:p:q').toString('base64') } },
        b: { auth: { identity_token: 't' } },
      },
    },
    () => Promise.resolve(''),
  );
  assert.deepEqual(config.hosts.get('a')?.credential, { username: 'u', password: 'p:q' });
  assert.deepEqual(config.hosts.get('b')?.credential, { username: '<token>', password: 't' });
});

test('parseChallenges() and parseToken() take what servers send', () => {
  const challenges = parseChallenges(
    'Negotiate, Bearer realm="https://a/b?c=d,e", service=x , scope="a\\"b", Basic realm="r"',
  );
  assert.deepEqual(
    challenges.map(({ scheme }) => scheme),
    ['negotiate', 'bearer', 'basic'],
  );
  assert.deepEqual(
    [...(challenges[1]?.parameters ?? [])],
    [
      ['realm', 'https://a/b?c=d,e'],
      ['service', 'x'],
      ['scope', 'a"b'],
    ],
  );
  const long = 'a'.repeat(100_000);
  assert.ok(parseChallenges(long).length <= 1);
  assert.deepEqual(parseToken('{"token":"t","expires_in":120}'), {
    value: 't',
    lifetimeMs: 120_000,
  });
  for (const body of ['', 'null', '[]', '{"token":5}', '{"token":"a b"}', '{}'])
    assert.equal(parseToken(body), undefined, body);
  assert.ok(new ImageError('Unreachable', 'x').transient);
});

test('the addresses that the node has are no more open to pulls than its loopback', () => {
  const own = (address: string, family: 'IPv4' | 'IPv6'): NetworkInterfaceInfo =>
    ({ address, family, internal: false }) as NetworkInterfaceInfo;
  const interfaces = {
    eth0: [own('192.0.2.7', 'IPv4'), own('2001:db8::7', 'IPv6')],
    hn0: [own('10.9.0.1', 'IPv4')],
  };
  for (const address of [
    '192.0.2.7',
    '::ffff:192.0.2.7',
    '2001:db8:0::7',
    '10.9.0.1',
    '127.1.1.1',
  ]) {
    assert.ok(isNodeAddress(address, interfaces), address);
  }
  for (const address of ['192.0.2.8', '2001:db8::8', 'registry.example']) {
    assert.ok(!isNodeAddress(address, interfaces), address);
  }
});
