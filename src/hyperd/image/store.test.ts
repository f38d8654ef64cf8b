import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { run } from '../../base/exec.ts';
import { buildImage } from '../registry/build.ts';
import type { BuiltImage, ImageSpec } from '../registry/build.ts';
import { sha256 } from './digest.ts';
import { readErofs } from './testing/erofs-reader.ts';
import { ImageError } from './store.ts';
import type { ImageErrorReason } from './store.ts';
import { openTestStore, plainRegistries, publish, startUpstream } from './testing/upstream.ts';
import type { TestStore, Upstream, UpstreamImage } from './testing/upstream.ts';

const AMD64 = { os: 'linux', architecture: 'amd64' };
let upstream: Upstream;
let fixture: TestStore;

before(async () => {
  upstream = await startUpstream();
});
after(async () => {
  await upstream.close();
  await fixture.close();
});
beforeEach(async () => {
  await fixture?.close();
  upstream.documents.clear();
  upstream.requests = [];
  upstream.intercept = () => false;
  fixture = await openTestStore({ registries: plainRegistries([upstream.host]) });
});

function build(text: string, spec: Partial<ImageSpec> = {}): Promise<BuiltImage> {
  const layers = [[{ path: 'etc/text', content: text }]];
  return buildImage({ layers, platform: AMD64, ...spec });
}

const pull = (name: string, signal?: AbortSignal) =>
  fixture.store.pull({ reference: `${upstream.host}/${name}`, credentials: [] }, signal);

async function rejectsWith(
  promise: Promise<unknown>,
  reason: ImageErrorReason,
  message: RegExp,
): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof ImageError, String(error));
    assert.equal(error.reason, reason, error.message);
    assert.match(error.message, message);
    assert.match(error.message, /^failed to pull image "/);
    return true;
  });
}

async function readDisk(imageId: string) {
  const path = await fixture.store.acquire(imageId, 'reader');
  const disk = readErofs(await readFile(path));
  await fixture.store.release(imageId, 'reader');
  return disk;
}

test('pull() makes one read-only disk of all layers, whatever their compression', async () => {
  for (const compression of ['gzip', 'zstd', 'none'] as const) {
    const image = await build('1', {
      compression,
      layers: [
        [
          { path: 'a', content: 'old' },
          { path: 'b', content: 'b' },
        ],
        [
          { path: 'a', content: compression },
          { path: '.wh.b', content: '' },
        ],
      ],
      config: {
        env: ['A=1'],
        entrypoint: ['/a'],
        command: ['x'],
        user: '1000:1000',
        workingDir: '/w',
        exposedPorts: ['80/tcp'],
        stopSignal: 'SIGQUIT',
        labels: { k: 'v' },
      },
    });
    publish(upstream, 'app', compression, image);
    const pulled = await pull(`app:${compression}`);
    assert.equal(pulled.id, image.id);
    assert.equal(pulled.digest, image.digest);
    assert.deepEqual(pulled.references, [
      `${upstream.host}/app@${image.digest}`,
      `${upstream.host}/app:${compression}`,
    ]);
    assert.deepEqual(pulled.config, {
      architecture: 'amd64',
      user: '1000:1000',
      env: ['A=1'],
      entrypoint: ['/a'],
      command: ['x'],
      workingDir: '/w',
      exposedPorts: ['80/tcp'],
      volumes: [],
      stopSignal: 'SIGQUIT',
      labels: { k: 'v' },
    });
    const path = await fixture.store.acquire(image.id, 'test');
    assert.equal((await stat(path)).mode & 0o777, 0o444);
    assert.equal((await stat(path)).size, pulled.diskBytes);
    const disk = readErofs(await readFile(path));
    assert.deepEqual([...disk.keys()], ['', 'a']);
    assert.equal(disk.get('a')?.content.toString(), compression);
  }
});

test('pull() takes a zstd layer of several frames, and a gzip layer of several members', async () => {
  const image = await build('x'.repeat(100_000), { compression: 'none' });
  const [config, layer] =
    [...image.blobs.values()].length === 2 ? splitBlobs(image) : assert.fail();
  const { gzipSync, zstdCompressSync } = await import('node:zlib');
  for (const [name, compress] of [
    ['gzip', gzipSync],
    ['zstd', zstdCompressSync],
  ] as const) {
    const parts = [
      layer.subarray(0, 50_000),
      layer.subarray(50_000, 50_000),
      layer.subarray(50_000),
    ];
    const blob = Buffer.concat(parts.map((part) => compress(part)));
    publish(upstream, 'parts', name, repack(config, blob));
    const { id } = await pull(`parts:${name}`);
    assert.equal((await readDisk(id)).get('etc/text')?.content.length, 100_000);
    await fixture.store.remove(id);
  }
});

function splitBlobs(image: BuiltImage): [config: Buffer, layer: Buffer] {
  const config = image.blobs.get(image.id) as Buffer;
  return [config, [...image.blobs.values()].find((blob) => blob !== config) as Buffer];
}

/** A manifest by hand. */
function repack(config: Buffer, layer: Buffer, edit: (manifest: Manifest) => void = () => {}) {
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: {
      mediaType: 'application/vnd.oci.image.config.v1+json',
      digest: sha256(config),
      size: config.length,
    },
    layers: [
      {
        mediaType: 'application/vnd.oci.image.layer.v1.tar',
        digest: sha256(layer),
        size: layer.length,
      },
    ],
  };
  edit(manifest);
  const bytes = Buffer.from(JSON.stringify(manifest));
  const blobs = new Map([config, layer].map((blob) => [sha256(blob), blob]));
  return { digest: sha256(bytes), manifest: bytes, mediaType: manifest.mediaType, blobs };
}

interface Manifest {
  schemaVersion: number;
  mediaType: string;
  config: { mediaType: string; digest: string; size: number };
  layers: { mediaType: string; digest: string; size: number }[];
}

test('pull() chooses from an index what fits the machine', async () => {
  const image = await build('amd64');
  publish(upstream, 'multi', 'x', image);
  const entry = (digest: string, os: string, architecture: string) => ({
    mediaType: image.mediaType,
    digest,
    size: 1,
    platform: { os, architecture },
  });
  for (const mediaType of [
    'application/vnd.oci.image.index.v1+json',
    'application/vnd.docker.distribution.manifest.list.v2+json',
  ]) {
    const manifests = [
      entry(sha256('1'), 'linux', 'arm64'),
      entry(sha256('2'), 'unknown', 'unknown'),
      entry(image.digest, 'linux', 'amd64'),
    ];
    const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
    upstream.documents.set('/v2/multi/manifests/1', { body, contentType: mediaType });
    const pulled = await pull('multi:1');
    assert.equal(pulled.id, image.id);
    assert.equal(pulled.digest, sha256(body), 'the digest is that of what the tag names');
    const others = JSON.stringify({
      schemaVersion: 2,
      mediaType,
      manifests: manifests.slice(0, 2),
    });
    upstream.documents.set('/v2/multi/manifests/2', {
      body: Buffer.from(others),
      contentType: mediaType,
    });
    await rejectsWith(
      pull('multi:2'),
      'WrongPlatform',
      /for linux\/amd64: the image is for linux\/arm64$/,
    );
  }
});

test('what is wrong with an image is said in words', async () => {
  const good = await build('good');
  const [config, layer] = splitBlobs(good);
  const gzipped = (edit: (manifest: Manifest) => void) =>
    repack(config, layer, (manifest) => {
      edit(manifest);
    });
  const configOf = (edit: (json: Record<string, unknown>) => void) => {
    const json = JSON.parse(config.toString('utf8')) as Record<string, unknown>;
    edit(json);
    return repack(Buffer.from(JSON.stringify(json)), layer);
  };
  const document = (json: unknown) => {
    const manifest = Buffer.from(typeof json === 'string' ? json : JSON.stringify(json));
    return {
      digest: sha256(manifest),
      manifest,
      mediaType: 'application/json',
      blobs: new Map<string, Buffer>(),
    };
  };
  const cases: [name: string, image: UpstreamImage, reason: ImageErrorReason, message: RegExp][] = [
    [
      'arm',
      await build('a', { platform: { os: 'linux', architecture: 'arm64' } }),
      'WrongPlatform',
      /linux\/amd64: the image is for linux\/arm64/,
    ],
    ['not-json', document('<html>'), 'Malformed', /not JSON/],
    ['not-object', document([]), 'Malformed', /not an object/],
    ['schema1', document({ schemaVersion: 1, fsLayers: [] }), 'Malformed', /retired format/],
    [
      'artifact',
      gzipped(
        (manifest) => (manifest.config.mediaType = 'application/vnd.cncf.helm.config.v1+json'),
      ),
      'Malformed',
      /not a container image.*helm/,
    ],
    [
      'foreign',
      gzipped(
        (manifest) =>
          ((manifest.layers[0] as { mediaType: string }).mediaType =
            'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'),
      ),
      'Malformed',
      /layers\[0\] is of type .*foreign.*not supported/,
    ],
    [
      'no-digest',
      gzipped((manifest) => (manifest.config.digest = '../../etc/passwd')),
      'Malformed',
      /config\.digest is not a digest/,
    ],
    ['negative', gzipped((manifest) => (manifest.config.size = -1)), 'Malformed', /config\.size/],
    [
      'huge',
      gzipped((manifest) => ((manifest.layers[0] as { size: number }).size = 2 ** 50)),
      'TooLarge',
      /layers have 1125899906842624 bytes/,
    ],
    [
      'many',
      gzipped(
        (manifest) =>
          (manifest.layers = Array(1000).fill(manifest.layers[0]) as Manifest['layers']),
      ),
      'TooLarge',
      /layers has 1000 items, at most 256/,
    ],
    [
      'more-layers',
      gzipped((manifest) => manifest.layers.push(manifest.layers[0] as Manifest['layers'][0])),
      'Malformed',
      /2 layers, but its configuration names 1/,
    ],
    [
      'diff-id',
      configOf((json) => (json['rootfs'] = { diff_ids: [sha256('x')] })),
      'DigestMismatch',
      /unpacks to sha256:.*but the image says/,
    ],
    [
      'env',
      configOf((json) => (json['config'] = { Env: [1] })),
      'Malformed',
      /config\.Env\[0\] is not a string/,
    ],
    [
      'no-rootfs',
      configOf((json) => delete json['rootfs']),
      'Malformed',
      /rootfs is not an object/,
    ],
    [
      'broken-gzip',
      repack(config, Buffer.concat([Buffer.from([0x1f, 0x8b]), Buffer.alloc(500, 1)])),
      'Malformed',
      /cannot be decompressed/,
    ],
    [
      'cut-gzip',
      repack(config, layer.subarray(0, layer.length - 20)),
      'Malformed',
      /cannot be decompressed/,
    ],
    [
      'escape',
      await build('e', {
        layers: [
          [
            { path: 'ok', content: '' },
            { path: '../../etc/cron.d/x', content: '' },
          ],
        ],
      }),
      'Malformed',
      /leads out of the image's root/,
    ],
  ];
  for (const [name, image, reason, message] of cases) {
    publish(upstream, 'bad', name, image);
    await rejectsWith(pull(`bad:${name}`), reason, message);
  }
  await rejectsWith(pull('bad:absent'), 'NotFound', /127\.0\.0\.1:[0-9]+\/bad:absent: not found$/);
  await rejectsWith(
    pull(`bad@${sha256('absent')}`),
    'NotFound',
    /bad@sha256:[0-9a-f]+: not found$/,
  );
  assert.deepEqual(fixture.store.list(), []);
  assert.deepEqual(await readdir(join(fixture.directory, 'disks')), []);
});

test('content that does not have its digest is refused, and not kept', async () => {
  const image = await build('text');
  publish(upstream, 'app', '1', image);
  const [config, layer] = splitBlobs(image);
  for (const blob of [config, layer]) {
    const path = `/v2/app/blobs/${sha256(blob)}`;
    const damaged = Buffer.from(blob);
    damaged[10] = (damaged[10] as number) ^ 1;
    upstream.documents.set(path, { body: damaged });
    await rejectsWith(pull('app:1'), 'DigestMismatch', /content has the digest sha256:/);
    upstream.documents.set(path, { body: Buffer.concat([blob, blob]) });
    await rejectsWith(pull('app:1'), 'DigestMismatch', /is larger than/);
    upstream.documents.set(path, { body: blob });
  }
  const asked = `app@${image.digest}`;
  const wrong = {
    body: Buffer.concat([image.manifest, Buffer.from(' ')]),
    contentType: image.mediaType,
  };
  upstream.documents.set(`/v2/app/manifests/${image.digest}`, wrong);
  await rejectsWith(pull(asked), 'DigestMismatch', /manifest has the digest/);
  upstream.documents.set('/v2/app/manifests/1', {
    ...wrong,
    body: Buffer.alloc((4 << 20) + 1, ' '),
  });
  await rejectsWith(pull('app:1'), 'TooLarge', /manifest is larger than 4194304 bytes/);
});

test('a layer that explodes is stopped early', async () => {
  await fixture.close();
  fixture = await openTestStore({
    registries: plainRegistries([upstream.host]),
    limits: { ratioFreeBytes: 1 << 20, unpackedBytesMax: 8 << 20, entriesMax: 50 },
  });
  const zeros = Buffer.alloc(8 << 20);
  const noise = randomBytes(9 << 20);
  publish(
    upstream,
    'bomb',
    'ratio',
    await build('', { layers: [[{ path: 'z', content: zeros }]], compression: 'zstd' }),
  );
  await rejectsWith(pull('bomb:ratio'), 'TooLarge', /grows more than 200 times/);
  publish(
    upstream,
    'bomb',
    'size',
    await build('', { layers: [[{ path: 'z', content: noise }]], compression: 'none' }),
  );
  await rejectsWith(pull('bomb:size'), 'TooLarge', /larger than 8388608 bytes when it is unpacked/);
  const files = Array.from({ length: 60 }, (_, i) => ({ path: `f${i}`, content: '' }));
  publish(upstream, 'bomb', 'files', await build('', { layers: [files] }));
  await rejectsWith(pull('bomb:files'), 'TooLarge', /more than 50 files/);
  assert.deepEqual(await readdir(join(fixture.directory, 'disks')), []);
  assert.deepEqual(await readdir(join(fixture.directory, 'spool')), []);
});

test('pulls of the same image share one download and one disk', async () => {
  publish(upstream, 'app', '1', await build('shared'));
  publish(upstream, 'app', '2', await build('shared'));
  const pulled = await Promise.all(
    Array.from({ length: 12 }, (_, i) => pull(`app:${1 + (i % 2)}`)),
  );
  assert.equal(new Set(pulled.map(({ id }) => id)).size, 1);
  assert.equal(upstream.count(/\/blobs\//), 2);
  assert.equal(fixture.store.list().length, 1);
  assert.equal(fixture.store.list()[0]?.references.length, 3);
});

test('an aborted pull ends at once, and leaves others alone', async () => {
  publish(upstream, 'app', '1', await build('x'));
  const held: (() => void)[] = [];
  const arrived = Promise.withResolvers<void>();
  upstream.intercept = (request, response) => {
    if (!/blobs/.test(request.url ?? '')) return false;
    held.push(() => {
      const { body } = upstream.documents.get(request.url as string) as { body: Buffer };
      response.end(body);
    });
    arrived.resolve();
    return true;
  };
  const controller = new AbortController();
  const reason = new Error('pod deleted');
  const first = pull('app:1', controller.signal);
  await arrived.promise;
  const second = pull('app:1');
  controller.abort(reason);
  await assert.rejects(first, reason);
  upstream.intercept = () => false;
  for (const release of held) release();
  assert.match((await second).id, /^sha256:/);
  await assert.rejects(pull('app:1', AbortSignal.abort(reason)), reason);
});

test('get(), list() and remove() know images by every name they have', async () => {
  const image = await build('x');
  publish(upstream, 'app', '1', image);
  publish(upstream, 'app', '2', image);
  publish(upstream, 'other', 'latest', image);
  await pull('app:1');
  await pull('app:2');
  await pull('other');
  const { store } = fixture;
  const hex = image.id.slice('sha256:'.length);
  const names = ['app:1', 'app:2', 'other', `app@${image.digest}`].map(
    (name) => `${upstream.host}/${name}`,
  );
  for (const name of [...names, image.id, hex]) assert.equal(store.get(name)?.id, image.id, name);
  assert.equal(store.get('busybox'), undefined);
  assert.equal(store.get('not a reference'), undefined);

  await store.remove(names[0] as string);
  assert.equal(store.get(names[0] as string), undefined);
  assert.equal(store.get(names[3] as string)?.id, image.id);
  await store.remove(names[1] as string);
  assert.equal(store.get(names[3] as string), undefined, 'the last tag takes the digest along');
  assert.equal(store.list().length, 1);

  await store.acquire(image.id, 'pod-1');
  await assert.rejects(store.remove(names[2] as string), {
    reason: 'InUse',
    message: /in use by 1 containers: pod-1/,
  });
  await store.release(image.id, 'pod-1');
  await store.remove(names[2] as string);
  assert.deepEqual(store.list(), []);
  assert.deepEqual(await readdir(join(fixture.directory, 'disks')), []);
  await assert.rejects(store.remove(image.id), { reason: 'NotFound' });
  await assert.rejects(store.acquire(image.id, 'pod-1'), { reason: 'NotFound' });
  await assert.rejects(store.acquire(image.id, '../../x'), RangeError);
});

test('a tag that moves leaves the old image with its digest alone', async () => {
  const [old, next] = [await build('old'), await build('new')];
  publish(upstream, 'app', 'latest', old);
  await pull('app');
  publish(upstream, 'app', 'latest', next);
  assert.equal((await pull('app')).id, next.id);
  assert.equal(fixture.store.get(`${upstream.host}/app`)?.id, next.id);
  assert.deepEqual(fixture.store.get(old.id)?.references, [`${upstream.host}/app@${old.digest}`]);
});

test('layers are fetched once, kept while an image needs them, and removed after that', async () => {
  const base = [{ path: 'base', content: 'b'.repeat(5000) }];
  const one = await build('', { layers: [base, [{ path: 'one', content: '1' }]] });
  const two = await build('', { layers: [base, [{ path: 'two', content: '2' }]] });
  publish(upstream, 'app', '1', one);
  publish(upstream, 'app', '2', two);
  await pull('app:1');
  await pull('app:2');
  assert.equal(upstream.count(/\/blobs\//), 5);
  const blobs = async () => (await readdir(join(fixture.directory, 'blobs/sha256'))).length;
  await fixture.store.remove(one.id);
  assert.equal(await blobs(), 4, 'two layers of the other image, two configurations');
  await fixture.store.remove(two.id);
  assert.equal(await blobs(), 2);
});

test('images, names and leases survive a restart; what a crash left is cleaned up', async () => {
  const image = await build('x');
  publish(upstream, 'app', '1', image);
  publish(upstream, 'gone', '1', await build('gone'));
  await pull('app:1');
  const gone = await pull('gone:1');
  await fixture.store.acquire(image.id, 'pod-1.main');
  const { directory } = fixture;
  await fixture.store.close();
  const disks = join(directory, 'disks');
  await rm(join(disks, `${gone.id.slice(7)}.erofs`));
  await writeFile(join(disks, `${'a'.repeat(64)}.erofs`), 'left behind');
  await writeFile(join(disks, `${image.id.slice(7)}.erofs.00.tmp`), 'left behind');
  await writeFile(join(directory, 'spool', 'spool-1'), 'left behind');

  fixture = await openTestStore({ registries: plainRegistries([upstream.host]), directory });
  assert.deepEqual(
    fixture.store.list().map(({ id }) => id),
    [image.id],
  );
  assert.deepEqual(fixture.store.leases(), [{ imageId: image.id, owner: 'pod-1.main' }]);
  assert.deepEqual(await readdir(disks), [`${image.id.slice(7)}.erofs`]);
  assert.deepEqual(await readdir(join(directory, 'spool')), []);
  await assert.rejects(fixture.store.remove(image.id), { reason: 'InUse' });
  assert.equal((await pull('gone:1')).id, gone.id);
  assert.equal(upstream.count(/gone\/blobs/), 2, 'its blobs were still there');
});

test('a full disk is said, and nothing is left of the image', async () => {
  const { directory } = fixture;
  await fixture.store.close();
  await run('mount', ['-t', 'tmpfs', '-o', 'size=80m', 'image-test', directory]);
  try {
    fixture = await openTestStore({
      registries: plainRegistries([upstream.host]),
      directory,
      limits: { freeBytesMin: 40 << 20 },
    });
    const large = Buffer.alloc(90 << 20, 'text');
    const layers = [[{ path: 'f', content: large }]];
    publish(upstream, 'big', '1', await build('', { layers, compression: 'zstd' }));
    await rejectsWith(pull('big:1'), 'NoSpace', /no space left on the device for images$/);
    assert.deepEqual(await readdir(join(directory, 'disks')), []);
    const small = await build('small');
    publish(upstream, 'small', '1', small);
    assert.equal((await pull('small:1')).id, small.id);
    const random = [[{ path: 'f', content: randomBytes(45 << 20) }]];
    const huge = await build('', { layers: random, compression: 'none' });
    publish(upstream, 'huge', '1', huge);
    await rejectsWith(
      pull('huge:1'),
      'NoSpace',
      /bytes are free, [0-9]+ are needed and 41943040 are kept free$/,
    );
    await fixture.store.close();
  } finally {
    await run('umount', [directory]);
  }
  fixture = await openTestStore({ registries: plainRegistries([upstream.host]), directory });
});

test('close() ends pulls that are under way', async () => {
  publish(upstream, 'app', '1', await build('x'));
  const arrived = Promise.withResolvers<void>();
  upstream.intercept = (request) => {
    if (!/blobs/.test(request.url ?? '')) return false;
    arrived.resolve();
    return true;
  };
  const pending = assert.rejects(pull('app:1'), /The image store is closed/);
  await arrived.promise;
  await fixture.store.close();
  await pending;
});
