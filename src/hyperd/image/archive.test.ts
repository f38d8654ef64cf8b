import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import type { TransferProgress } from '../../api/hyperd.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import type { BuiltImage } from '../registry/build.ts';
import { authenticateBasic, createRegistry } from '../registry/index.ts';
import type { Registry } from '../registry/index.ts';
import { digestHex } from './digest.ts';
import { ImageError } from './store.ts';
import type { ImageErrorReason } from './store.ts';
import { build } from './testing/store-rig.ts';
import { openTestStore, plainRegistries } from './testing/upstream.ts';
import type { TestStore } from './testing/upstream.ts';
import { writeTar } from './tar-write.ts';
import type { TarMember } from './tar-write.ts';

/** Archives into a store and out of it, and images out of it into a registry. */

let registry: Registry;
let directory = '';
let host = '';
let fixture: TestStore;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'archive-test-'));
  registry = await createRegistry({ directory, clock: systemClock, log: silentLog });
  const authenticate = authenticateBasic(async (name, password) =>
    password === 'secret' ? { name, allows: () => true } : undefined,
  );
  const { port } = await registry.listen({ host: '127.0.0.1', port: 0, authenticate });
  host = `127.0.0.1:${port}`;
});
after(async () => {
  await registry.close();
  await rm(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  fixture = await openTestStore({ registries: plainRegistries([host]) });
});
afterEach(() => fixture.close());

const file = (path: string, content: string | Uint8Array): TarMember => ({
  path,
  type: 'file',
  content: Buffer.from(content as string),
});

/** As `docker save` wrote it for years: layers are named by an id, and repeated by links. */
function dockerArchive(image: BuiltImage, names: string[] | null): Buffer {
  const { config, layers } = JSON.parse(image.manifest.toString()) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  const blob = (digest: string) => image.blobs.get(digest) ?? Buffer.alloc(0);
  const Config = `${digestHex(config.digest)}.json`;
  const Layers = layers.map((_, i) => `layer-${i}/layer.tar`);
  return writeTar([
    file(Config, blob(config.digest)),
    ...layers.map(({ digest }, i) => file(`real-${i}.tar`, blob(digest))),
    ...Layers.map((path, i): TarMember => {
      return { path, type: 'symlink', linkName: `../real-${i}.tar` };
    }),
    file('manifest.json', JSON.stringify([{ Config, RepoTags: names, Layers }])),
  ]);
}

function layoutFiles(image: BuiltImage, annotations: object = {}): TarMember[] {
  const descriptor = {
    mediaType: image.mediaType,
    digest: image.digest,
    size: image.manifest.length,
  };
  const index = { schemaVersion: 2, manifests: [{ ...descriptor, annotations }] };
  return [
    file('oci-layout', '{"imageLayoutVersion":"1.0.0"}'),
    file('index.json', JSON.stringify(index)),
    file(`blobs/sha256/${digestHex(image.digest)}`, image.manifest),
    ...[...image.blobs].map(([digest, bytes]) => file(`blobs/sha256/${digestHex(digest)}`, bytes)),
  ];
}

async function* pieces(bytes: Buffer, size = 700): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const load = (archive: Buffer, references: string[] = []) =>
  fixture.store.load({ archive: pieces(archive), references });

const plain = () => build('hello', { compression: 'none' });

test('load() takes what docker saves, compressed or not, with the names that it brings', async () => {
  const image = await plain();
  const archive = dockerArchive(image, ['demo/app:1', 'localhost:5000/app:2']);
  for (const bytes of [archive, gzipSync(archive), zstdCompressSync(archive)]) {
    const [loaded] = await load(bytes);
    assert.equal(loaded?.id, image.id);
    assert.deepEqual(loaded?.references, ['docker.io/demo/app:1', 'localhost:5000/app:2']);
  }
  assert.equal(fixture.store.get('demo/app:1')?.id, image.id);
  assert.ok(fixture.store.mayUse({ reference: 'demo/app:1', credentials: [] }), "it is everyone's");
  assert.equal((await readdir(join(fixture.directory, 'blobs/sha256'))).length, 2, 'layer, config');
});

test('load() takes OCI layouts; a tag alone is no name, and a given name outweighs all', async () => {
  const image = await build('oci');
  const named = layoutFiles(image, { 'org.opencontainers.image.ref.name': 'quay.io/a/b:3' });
  assert.deepEqual((await load(writeTar(named)))[0]?.references, ['quay.io/a/b:3']);
  const tagged = layoutFiles(await build('tag'), { 'org.opencontainers.image.ref.name': 'latest' });
  const [nameless] = await load(writeTar(tagged));
  assert.deepEqual(nameless?.references, []);
  assert.equal(fixture.store.get(nameless?.id ?? '')?.id, nameless?.id, 'it has its id');
  assert.deepEqual((await load(writeTar(tagged), ['mine:1']))[0]?.references, [
    'docker.io/library/mine:1',
  ]);
  assert.equal((await readdir(join(fixture.directory, 'ingest'))).length, 0);
});

test('save() makes an archive that load() takes, with all names', async () => {
  const [one, two] = [await build('one'), await plain()];
  await load(writeTar(layoutFiles(one)), ['one:1']);
  await load(dockerArchive(two, ['two:1', 'two:2']));
  const chunks: Uint8Array[] = [];
  for await (const chunk of await fixture.store.save(['one:1', two.id])) chunks.push(chunk);
  const archive = Buffer.concat(chunks);
  for (const { id } of fixture.store.list()) await fixture.store.remove(id);
  assert.equal((await readdir(join(fixture.directory, 'blobs/sha256'))).length, 0);
  const loaded = await load(archive);
  assert.deepEqual(
    loaded.map(({ id, references }) => [id, references]),
    [
      [one.id, ['docker.io/library/one:1']],
      [two.id, ['docker.io/library/two:1', 'docker.io/library/two:2']],
    ],
  );
  await assert.rejects(fixture.store.save(['three']), /image "three": not found/);
});

test('load() refuses what is no image, names what is wrong, and leaves nothing behind', async () => {
  const image = await plain();
  const archive = (members: TarMember[]) => writeTar(members);
  const layout = layoutFiles(image);
  const loop: TarMember = { path: 'manifest.json', type: 'symlink', linkName: 'manifest.json' };
  const outside = { Config: '../../../etc/passwd', RepoTags: null, Layers: [] };
  const cases: [bytes: Buffer, reason: ImageErrorReason, message: RegExp][] = [
    [Buffer.from('no archive at all'), 'Malformed', /ends in the middle/],
    [Buffer.alloc(0), 'Malformed', /neither an OCI layout nor a manifest\.json/],
    [archive([loop]), 'Malformed', /neither an OCI layout/],
    [archive([{ path: 'x', type: 'fifo' }]), 'Malformed', /neither a file nor a directory/],
    [archive([file('manifest.json', '{}')]), 'Malformed', /manifest\.json is not a list/],
    [
      archive([file('manifest.json', JSON.stringify([outside]))]),
      'Malformed',
      /passwd.*is missing/,
    ],
    [archive(layout.slice(0, -1)), 'Malformed', /blobs\/sha256\/.* is missing/],
    [
      archive([
        ...layout.slice(0, -1),
        { ...layout.at(-1), content: Buffer.from('x') } as TarMember,
      ]),
      'DigestMismatch',
      /of the archive has the digest/,
    ],
    [gzipSync(archive(layout)).subarray(0, 300), 'Malformed', /cannot be decompressed/],
    [dockerArchive(await plain(), ['Not A Name']), 'InvalidReference', /Not A Name/],
  ];
  for (const [bytes, reason, message] of cases) {
    await assert.rejects(load(bytes), (error) => {
      assert.ok(error instanceof ImageError, String(error));
      assert.equal(error.reason, reason, error.message);
      assert.match(error.message, message);
      assert.match(error.message, /^failed to load images: /);
      return true;
    });
  }
  assert.deepEqual(fixture.store.list(), []);
  for (const place of ['blobs/sha256', 'ingest']) {
    assert.deepEqual(await readdir(join(fixture.directory, place)), [], place);
  }
});

test('push() sends what is missing, once it has the credential that the registry takes', async () => {
  const image = await build('pushed');
  await load(writeTar(layoutFiles(image)), [`${host}/app:1`]);
  const wrong = { username: 'me', password: 'wrong' };
  const right = { username: 'me', password: 'secret' };
  const reference = `${host}/app:1`;
  await assert.rejects(fixture.store.push({ reference, credentials: [wrong] }), (error) => {
    assert.ok(error instanceof ImageError && error.reason === 'Unauthorized', String(error));
    return true;
  });
  const told: TransferProgress[] = [];
  const credentials = [wrong, right];
  await fixture.store.push({ reference, credentials }, undefined, (each) => void told.push(each));
  assert.ok(told.some((each) => each.type === 'layer' && each.doneBytes === each.totalBytes));
  await fixture.store.push({ reference: `${host}/app:2`, image: image.id, credentials });
  for (const { id } of fixture.store.list()) await fixture.store.remove(id);
  const steps: string[] = [];
  const pulled = await fixture.store.pull(
    { reference: `${host}/app:2`, credentials },
    undefined,
    (s) => void steps.push(s.type),
  );
  assert.equal(pulled.id, image.id);
  assert.deepEqual([...new Set(steps)], ['layer', 'disk']);
  await assert.rejects(
    fixture.store.push({ reference: `${host}/app@${image.digest}`, image: image.id, credentials }),
    /pushed under a tag/,
  );
});
