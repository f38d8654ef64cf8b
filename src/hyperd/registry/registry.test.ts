import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { request as requestHttps } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createCa, createCaSigner, createKey } from '../../auth/pki.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { systemClock } from '../../base/clock.ts';
import type { Clock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { sha256 } from '../image/digest.ts';
import { openTestStore, plainRegistries } from '../image/testing/upstream.ts';
import { parseRange } from './blobs.ts';
import { buildImage, pushImage } from './build.ts';
import { authenticateBasic, authenticateCertificate, createRegistry } from './index.ts';
import type { Listener, Principal, Registry, RegistryOptions } from './index.ts';

let directory = '';
let registry: Registry;
let listener: Listener;
let origin = '';

async function start(options: Partial<RegistryOptions> = {}): Promise<void> {
  registry = await createRegistry({ directory, clock: systemClock, log: silentLog, ...options });
  listener = await registry.listen({ host: '127.0.0.1', port: 0 });
  origin = `http://127.0.0.1:${listener.port}`;
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'registry-test-'));
  await start();
});
after(async () => {
  await registry.close();
  await rm(directory, { recursive: true, force: true });
});

interface Answer {
  status: number;
  headers: Headers;
  body: string;
}

async function call(
  method: string,
  path: string,
  body?: Uint8Array | string,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const url = path.startsWith('http') ? path : `${origin}${path}`;
  const init = { method, headers, redirect: 'manual' as const };
  const response = await fetch(url, body === undefined ? init : { ...init, body: body as string });
  return { status: response.status, headers: response.headers, body: await response.text() };
}

function expectError(answer: Answer, status: number, code: string): void {
  assert.equal(answer.status, status, answer.body);
  const document = JSON.parse(answer.body) as { errors: { code: string; message: string }[] };
  assert.equal(document.errors[0]?.code, code);
  assert.ok(document.errors[0]?.message);
}

async function pushBlob(repository: string, content: Uint8Array): Promise<string> {
  const digest = sha256(content);
  const path = `/v2/${repository}/blobs/uploads/?digest=${digest}`;
  assert.equal((await call('POST', path, content)).status, 201);
  return digest;
}

async function pushManifest(
  repository: string,
  tag: string,
  extra: Record<string, unknown> = {},
): Promise<string> {
  const config = await pushBlob(repository, Buffer.from('{}'));
  const layer = await pushBlob(repository, Buffer.from(`layer of ${repository}:${tag}`));
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: config, size: 2 },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: layer, size: 1 }],
    ...extra,
  });
  const answer = await call('PUT', `/v2/${repository}/manifests/${tag}`, manifest, {
    'content-type': mediaType,
  });
  assert.equal(answer.status, 201, answer.body);
  assert.equal(answer.headers.get('docker-content-digest'), sha256(manifest));
  return sha256(manifest);
}

test('the version is told', async () => {
  const answer = await call('GET', '/v2/');
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('docker-distribution-api-version'), 'registry/2.0');
});

test('a blob is uploaded in pieces that have to fit, and read back in parts', async () => {
  const content = randomBytes(300_000);
  const digest = sha256(content);
  const begun = await call('POST', '/v2/a/pieces/blobs/uploads/');
  assert.equal(begun.status, 202);
  const location = begun.headers.get('location') as string;
  const piece = (start: number, end: number) =>
    call('PATCH', location, content.subarray(start, end), {
      'content-range': `${start}-${end - 1}`,
    });
  const first = await piece(0, 100_000);
  assert.deepEqual([first.status, first.headers.get('range')], [202, '0-99999']);
  const outOfOrder = await piece(200_000, 300_000);
  expectError(outOfOrder, 416, 'RANGE_INVALID');
  assert.equal(outOfOrder.headers.get('range'), '0-99999');
  const status = await call('GET', location);
  assert.deepEqual([status.status, status.headers.get('range')], [204, '0-99999']);
  assert.equal((await piece(100_000, 250_000)).status, 202);
  const done = await call('PUT', `${location}?digest=${digest}`, content.subarray(250_000));
  assert.equal(done.status, 201, done.body);
  assert.equal(done.headers.get('location'), `/v2/a/pieces/blobs/${digest}`);

  const path = `/v2/a/pieces/blobs/${digest}`;
  const whole = await fetch(origin + path);
  assert.ok(Buffer.from(await whole.arrayBuffer()).equals(content));
  const head = await call('HEAD', path);
  assert.deepEqual(
    [head.status, head.headers.get('content-length'), head.body],
    [200, '300000', ''],
  );
  const part = await fetch(origin + path, { headers: { range: 'bytes=299990-' } });
  assert.equal(part.status, 206);
  assert.equal(part.headers.get('content-range'), 'bytes 299990-299999/300000');
  assert.ok(Buffer.from(await part.arrayBuffer()).equals(content.subarray(299_990)));
  expectError(await call('GET', path, undefined, { range: 'bytes=300000-' }), 416, 'RANGE_INVALID');
  expectError(await call('GET', `/v2/b/other/blobs/${digest}`), 404, 'BLOB_UNKNOWN');
});

test('a blob of another repository is mounted, an unknown one is begun to be uploaded', async () => {
  const digest = await pushBlob('mount/from', Buffer.from('shared'));
  const mounted = await call('POST', `/v2/mount/to/blobs/uploads/?mount=${digest}&from=mount/from`);
  assert.equal(mounted.status, 201);
  assert.equal((await call('GET', `/v2/mount/to/blobs/${digest}`)).body, 'shared');
  const unknown = await call(
    'POST',
    `/v2/mount/to/blobs/uploads/?mount=${sha256('x')}&from=mount/from`,
  );
  assert.equal(unknown.status, 202);
  const location = unknown.headers.get('location') as string;
  assert.equal((await call('DELETE', location)).status, 204);
  expectError(await call('GET', location), 404, 'BLOB_UPLOAD_UNKNOWN');
});

test('an upload belongs to its repository, and its content to its digest', async () => {
  const begun = await call('POST', '/v2/up/one/blobs/uploads/');
  const location = begun.headers.get('location') as string;
  const elsewhere = location.replace('up/one', 'up/two');
  expectError(await call('PATCH', elsewhere, 'x'), 404, 'BLOB_UPLOAD_UNKNOWN');
  expectError(await call('PUT', location, 'x'), 400, 'DIGEST_INVALID');
  expectError(await call('PUT', `${location}?digest=${sha256('y')}`, 'x'), 400, 'DIGEST_INVALID');
  expectError(await call('GET', location), 404, 'BLOB_UPLOAD_UNKNOWN');
  expectError(await call('GET', `/v2/up/one/blobs/${sha256('y')}`), 404, 'BLOB_UNKNOWN');
  const sha512 = `sha512:${createHash('sha512').update('long').digest('hex')}`;
  const long = await call('POST', `/v2/up/one/blobs/uploads/?digest=${sha512}`, 'long');
  assert.equal(long.status, 201, long.body);
  assert.equal((await call('GET', `/v2/up/one/blobs/${sha512}`)).body, 'long');
  assert.deepEqual(await readdir(join(directory, 'ingest')), []);
});

test('manifests are read by tag and digest, and deleted by either', async () => {
  const digest = await pushManifest('m/app', 'v1');
  assert.equal(await pushManifest('m/app', 'v1'), digest);
  const body = (await call('GET', '/v2/m/app/manifests/v1')).body;
  for (const name of ['v1', digest]) {
    const answer = await call('GET', `/v2/m/app/manifests/${name}`);
    assert.equal(answer.headers.get('content-type'), 'application/vnd.oci.image.manifest.v1+json');
    assert.equal(answer.headers.get('docker-content-digest'), digest);
    assert.equal(answer.body, body);
    const head = await call('HEAD', `/v2/m/app/manifests/${name}`);
    assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(body.length)]);
  }
  const put = await call('PUT', '/v2/m/app/manifests/v2', body, { 'content-type': 'x/y' });
  assert.equal(put.status, 201);
  assert.equal((await call('DELETE', '/v2/m/app/manifests/v1')).status, 202);
  expectError(await call('GET', '/v2/m/app/manifests/v1'), 404, 'MANIFEST_UNKNOWN');
  assert.equal((await call('GET', `/v2/m/app/manifests/${digest}`)).status, 200);
  const layer = sha256('layer of m/app:v1');
  expectError(await call('DELETE', `/v2/m/app/blobs/${layer}`), 403, 'DENIED');
  assert.equal((await call('DELETE', `/v2/m/app/manifests/${digest}`)).status, 202);
  expectError(await call('GET', '/v2/m/app/manifests/v2'), 404, 'MANIFEST_UNKNOWN');
  assert.equal((await call('DELETE', `/v2/m/app/blobs/${layer}`)).status, 202);
});

test('manifests that are not right are refused', async () => {
  const put = (body: string, name = 'x') => call('PUT', `/v2/bad/app/manifests/${name}`, body);
  const config = { mediaType: 'a/b', digest: sha256('absent'), size: 1 };
  const valid = { schemaVersion: 2, mediaType: 'a/b' };
  expectError(await put('<html>'), 400, 'MANIFEST_INVALID');
  expectError(await put('null'), 400, 'MANIFEST_INVALID');
  expectError(await put('{"schemaVersion":1}'), 400, 'MANIFEST_INVALID');
  expectError(
    await put(JSON.stringify({ ...valid, config: { digest: '../x' } })),
    400,
    'MANIFEST_INVALID',
  );
  expectError(await put(JSON.stringify({ ...valid, config })), 404, 'MANIFEST_BLOB_UNKNOWN');
  expectError(
    await put(JSON.stringify({ ...valid, manifests: [config] })),
    404,
    'MANIFEST_BLOB_UNKNOWN',
  );
  expectError(await put(JSON.stringify(valid), sha256('other')), 400, 'DIGEST_INVALID');
  expectError(await put(JSON.stringify(valid), '-tag'), 400, 'TAG_INVALID');
  expectError(await put(' '.repeat((4 << 20) + 1)), 413, 'SIZE_INVALID');
});

test('tags and repositories are listed in pages; any word can be a tag', async () => {
  const tags = ['1', '2', '__proto__', 'constructor', 'toString'];
  for (const tag of tags) await pushManifest('pages/app', tag);
  const all = JSON.parse((await call('GET', '/v2/pages/app/tags/list')).body) as { tags: string[] };
  assert.deepEqual(all, { name: 'pages/app', tags });
  const seen: string[] = [];
  for (let path: string | undefined = '/v2/pages/app/tags/list?n=2'; path;) {
    const page = await call('GET', path);
    seen.push(...(JSON.parse(page.body) as { tags: string[] }).tags);
    path = /<(.+)>; rel="next"/.exec(page.headers.get('link') ?? '')?.[1];
  }
  assert.deepEqual(seen, tags);
  const catalog = await call('GET', '/v2/_catalog?n=1&last=mount/from');
  assert.deepEqual(JSON.parse(catalog.body), { repositories: ['mount/to'] });
  assert.match(
    catalog.headers.get('link') ?? '',
    /^<\/v2\/_catalog\?n=1&last=mount%2Fto>; rel="next"$/,
  );
  expectError(await call('GET', '/v2/pages/app/tags/list?n=x'), 400, 'PAGINATION_NUMBER_INVALID');
  expectError(await call('GET', '/v2/pages/none/tags/list'), 404, 'NAME_UNKNOWN');
});

test('what refers to a manifest is found, also before it exists', async () => {
  const subject = { mediaType: 'a/b', digest: sha256('later'), size: 1 };
  const digest = await pushManifest('ref/app', 'sig', {
    subject,
    artifactType: 'example/signature',
    annotations: { by: 'alice' },
  });
  const list = async (query = '') =>
    JSON.parse((await call('GET', `/v2/ref/app/referrers/${subject.digest}${query}`)).body) as {
      manifests: Record<string, unknown>[];
    };
  const [found] = (await list()).manifests;
  assert.equal(found?.['digest'], digest);
  assert.equal(found?.['artifactType'], 'example/signature');
  assert.deepEqual(found?.['annotations'], { by: 'alice' });
  assert.equal((await list('?artifactType=other/x')).manifests.length, 0);
  expectError(await call('GET', '/v2/ref/app/referrers/x'), 400, 'DIGEST_INVALID');
});

test('paths, names and methods that are not of the API are refused', async () => {
  expectError(await call('GET', '/v1/'), 404, 'NAME_UNKNOWN');
  expectError(await call('GET', '/v2/a/b'), 404, 'NAME_UNKNOWN');
  expectError(await call('GET', '/v2/UPPER/manifests/x'), 400, 'NAME_INVALID');
  expectError(await call('GET', '/v2/a%2F..%2F..%2Fb/manifests/x'), 400, 'NAME_INVALID');
  expectError(await call('GET', '/v2/%zz/manifests/x'), 400, 'NAME_INVALID');
  expectError(await call('GET', `/v2/${'a/'.repeat(150)}a/manifests/x`), 400, 'NAME_INVALID');
  expectError(await call('GET', '/v2/a/blobs/sha256:..'), 400, 'DIGEST_INVALID');
  expectError(await call('GET', '/v2/a/blobs/..%2f..%2fetc'), 404, 'NAME_UNKNOWN');
  const method = await call('PATCH', '/v2/a/manifests/x');
  expectError(method, 405, 'UNSUPPORTED');
  assert.match(method.headers.get('allow') ?? '', /GET/);
  expectError(
    await call('GET', '/v2/', undefined, { origin: 'https://evil.example' }),
    403,
    'DENIED',
  );
});

test('uploads are bounded in size, number and time', async () => {
  const clock = new FakeClock();
  const own = await mkdtemp(join(tmpdir(), 'registry-test-'));
  const small = await createRegistry({
    directory: own,
    clock,
    log: silentLog,
    limits: { blobBytesMax: 1000, uploadsMax: 2, idleTimeoutMs: 60_000 },
  });
  const door = await small.listen({ host: '127.0.0.1', port: 0 });
  const base = `http://127.0.0.1:${door.port}/v2/a/blobs/uploads/`;
  try {
    const large = Buffer.alloc(1001);
    expectError(await call('POST', `${base}?digest=${sha256(large)}`, large), 413, 'SIZE_INVALID');
    const first = await call('POST', base);
    const location = `http://127.0.0.1:${door.port}${first.headers.get('location')}`;
    assert.equal((await call('PATCH', location, Buffer.alloc(600))).status, 202);
    expectError(await call('PATCH', location, Buffer.alloc(600)), 413, 'SIZE_INVALID');
    expectError(await call('GET', location), 404, 'BLOB_UPLOAD_UNKNOWN');
    assert.equal((await call('POST', base)).status, 202);
    assert.equal((await call('POST', base)).status, 202);
    expectError(await call('POST', base), 429, 'TOOMANYREQUESTS');
    await clock.advance(60_000);
    assert.equal((await call('POST', base)).status, 202);
  } finally {
    await small.close();
    assert.deepEqual(await readdir(join(own, 'ingest')), []);
    await rm(own, { recursive: true, force: true });
  }
});

test('a client that goes away in the middle can go on', async () => {
  const content = randomBytes(50_000);
  const begun = await call('POST', '/v2/cut/app/blobs/uploads/');
  const location = begun.headers.get('location') as string;
  const socket = connect(listener.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.resume();
  socket.write(`PATCH ${location} HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n`);
  socket.end(content.subarray(0, 20_000));
  await once(socket, 'close');
  let status = await call('GET', location);
  while (status.status !== 204) status = await call('GET', location);
  assert.equal(status.headers.get('range'), '0-19999');
  const offset = 20_000;
  const done = await call('PUT', `${location}?digest=${sha256(content)}`, content.subarray(offset));
  assert.equal(done.status, 201, done.body);
});

test('everything is there after a restart; garbage is collected when it is old', async () => {
  const digest = await pushManifest('kept/app', 'v1');
  const orphan = await pushBlob('kept/app', Buffer.from('orphan'));
  await call('POST', '/v2/kept/app/blobs/uploads/');
  await registry.close();
  const later: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + 25 * 3600 * 1000 };
  await start({ clock: later });
  assert.deepEqual(await readdir(join(directory, 'ingest')), []);
  assert.equal((await call('GET', `/v2/kept/app/blobs/${orphan}`)).status, 200);
  assert.ok((await registry.collectGarbage()) >= 'orphan'.length);
  expectError(await call('GET', `/v2/kept/app/blobs/${orphan}`), 404, 'BLOB_UNKNOWN');
  assert.equal((await call('GET', '/v2/kept/app/manifests/v1')).status, 200);
  assert.equal(
    (await call('GET', `/v2/kept/app/blobs/${sha256('layer of kept/app:v1')}`)).status,
    200,
  );
  assert.equal((await call('GET', `/v2/kept/app/manifests/${digest}`)).status, 200);
});

test('authentication by password and by certificate, with rights per repository', async () => {
  const options = { clock: systemClock, random: systemRandom };
  const caKey = createKey();
  const caCert = createCa(caKey, options);
  const signer = createCaSigner({ caCert, caKey, ...options });
  const server = signer.serverPair('registry', ['127.0.0.1']);
  const node = signer.clientPair('system:node:n1', ['system:nodes']);
  const stranger = signer.clientPair('someone');
  const may = (name: string, actions: string[]): Principal => ({
    name,
    allows: (action, repository) => actions.includes(action) && repository.startsWith('team/'),
  });
  const byCertificate = authenticateCertificate(({ organizations }) =>
    organizations.includes('system:nodes') ? may('node', ['pull']) : undefined,
  );
  const byPassword = authenticateBasic((username, password) =>
    Promise.resolve(
      username === 'u' && password === 'p:q' ? may('u', ['pull', 'push']) : undefined,
    ),
  );
  const door = await registry.listen({
    host: '127.0.0.1',
    port: 0,
    tls: { ...server, clientCa: caCert },
    authenticate: async (request) => (await byCertificate(request)) ?? byPassword(request),
  });
  const status = (method: string, path: string, extra: object) =>
    new Promise<number>((resolve, reject) => {
      const { port } = door;
      const request = requestHttps(
        { port, host: '127.0.0.1', path, method, ca: caCert, agent: false, ...extra },
        (response) => {
          response.resume();
          response.on('end', () => resolve(response.statusCode ?? 0));
        },
      );
      request.on('error', reject);
      request.end();
    });
  const password = { auth: 'u:p:q' };
  const upload = '/v2/team/app/blobs/uploads/';
  assert.equal(await status('GET', '/v2/', {}), 401);
  assert.equal(await status('GET', '/v2/', { auth: 'u:wrong' }), 401);
  assert.equal(await status('GET', '/v2/', stranger), 401);
  assert.equal(await status('GET', '/v2/', password), 200);
  assert.equal(await status('GET', '/v2/', node), 200);
  assert.equal(await status('POST', upload, password), 202);
  assert.equal(await status('POST', upload, node), 403);
  assert.equal(await status('GET', '/v2/team/app/manifests/x', node), 404);
  assert.equal(await status('GET', '/v2/kept/app/manifests/v1', node), 403);
  assert.equal(await status('POST', '/v2/other/app/blobs/uploads/', password), 403);
  const mount = `${upload}?mount=${sha256('{}')}&from=kept/app`;
  assert.equal(
    await status('POST', mount, password),
    202,
    'nothing to mount of what may not be read',
  );
  await door.close();
});

test('images are pushed and pulled', async () => {
  const host = `127.0.0.1:${listener.port}`;
  const platform = { os: 'linux', architecture: 'amd64' };
  const layers = [
    [
      { path: 'bin/tool', content: 'tool', mode: 0o755 },
      { path: 'sh', symlink: 'bin/tool' },
    ],
  ];
  const image = await buildImage({ layers, platform });
  assert.equal((await buildImage({ layers, platform })).digest, image.digest, 'reproducible');
  await pushImage(`localhost:${listener.port}/push/app:1`, image);
  await pushImage(`localhost:${listener.port}/push/app:2`, image);
  const { store, close } = await openTestStore({ registries: plainRegistries([host]) });
  try {
    const pulled = await store.pull({ reference: `${host}/push/app:2`, credentials: [] });
    assert.equal(pulled.id, image.id);
    await assert.rejects(store.pull({ reference: `${host}/push/no:1`, credentials: [] }), {
      reason: 'NotFound',
    });
  } finally {
    await close();
  }
});

test('parseRange() takes one range and ignores what it does not know', () => {
  assert.deepEqual(parseRange('bytes=0-0', 10), { start: 0, end: 0 });
  assert.deepEqual(parseRange('bytes=5-', 10), { start: 5, end: 9 });
  assert.deepEqual(parseRange('bytes=-3', 10), { start: 7, end: 9 });
  assert.deepEqual(parseRange('bytes=0-99', 10), { start: 0, end: 9 });
  for (const header of [undefined, 'bytes=-', 'bytes=0-1,3-4', 'lines=1-2', '']) {
    assert.equal(parseRange(header, 10), undefined);
  }
  for (const header of ['bytes=10-', 'bytes=5-4', 'bytes=-0']) {
    assert.throws(() => parseRange(header, 10), { code: 'RANGE_INVALID' });
  }
});
