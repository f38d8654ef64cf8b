import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BuiltImage } from '../registry/build.ts';
import { sha256 } from './digest.ts';
import { readErofs } from './testing/erofs-reader.ts';
import type { ImageErrorReason } from './store.ts';
import { openTestStore, plainRegistries, publish } from './testing/upstream.ts';
import type { UpstreamImage } from './testing/upstream.ts';
import { build, rejectsWith, useStoreRig } from './testing/store-rig.ts';

const rig = useStoreRig();
const { pull } = rig;

async function readDisk(imageId: string) {
  const path = await rig.fixture.store.acquire(imageId, 'reader');
  const disk = readErofs(await readFile(path));
  await rig.fixture.store.release(imageId, 'reader');
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
    publish(rig.upstream, 'app', compression, image);
    const pulled = await pull(`app:${compression}`);
    assert.equal(pulled.id, image.id);
    assert.equal(pulled.digest, image.digest);
    assert.deepEqual(pulled.references, [
      `${rig.upstream.host}/app@${image.digest}`,
      `${rig.upstream.host}/app:${compression}`,
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
    const path = await rig.fixture.store.acquire(image.id, 'test');
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
    publish(rig.upstream, 'parts', name, repack(config, blob));
    const { id } = await pull(`parts:${name}`);
    assert.equal((await readDisk(id)).get('etc/text')?.content.length, 100_000);
    await rig.fixture.store.remove(id);
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
  publish(rig.upstream, 'multi', 'x', image);
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
    rig.upstream.documents.set('/v2/multi/manifests/1', { body, contentType: mediaType });
    const pulled = await pull('multi:1');
    assert.equal(pulled.id, image.id);
    assert.equal(pulled.digest, sha256(body), 'the digest is that of what the tag names');
    const others = JSON.stringify({
      schemaVersion: 2,
      mediaType,
      manifests: manifests.slice(0, 2),
    });
    rig.upstream.documents.set('/v2/multi/manifests/2', {
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
    publish(rig.upstream, 'bad', name, image);
    await rejectsWith(pull(`bad:${name}`), reason, message);
  }
  await rejectsWith(pull('bad:absent'), 'NotFound', /127\.0\.0\.1:[0-9]+\/bad:absent: not found$/);
  await rejectsWith(
    pull(`bad@${sha256('absent')}`),
    'NotFound',
    /bad@sha256:[0-9a-f]+: not found$/,
  );
  assert.deepEqual(rig.fixture.store.list(), []);
  assert.deepEqual(await readdir(join(rig.fixture.directory, 'disks')), []);
});

test('content that does not have its digest is refused, and not kept', async () => {
  const image = await build('text');
  publish(rig.upstream, 'app', '1', image);
  const [config, layer] = splitBlobs(image);
  for (const blob of [config, layer]) {
    const path = `/v2/app/blobs/${sha256(blob)}`;
    const damaged = Buffer.from(blob);
    damaged[10] = (damaged[10] as number) ^ 1;
    rig.upstream.documents.set(path, { body: damaged });
    await rejectsWith(pull('app:1'), 'DigestMismatch', /content has the digest sha256:/);
    rig.upstream.documents.set(path, { body: Buffer.concat([blob, blob]) });
    await rejectsWith(pull('app:1'), 'DigestMismatch', /is larger than/);
    rig.upstream.documents.set(path, { body: blob });
  }
  const asked = `app@${image.digest}`;
  const wrong = {
    body: Buffer.concat([image.manifest, Buffer.from(' ')]),
    contentType: image.mediaType,
  };
  rig.upstream.documents.set(`/v2/app/manifests/${image.digest}`, wrong);
  await rejectsWith(pull(asked), 'DigestMismatch', /manifest has the digest/);
  rig.upstream.documents.set('/v2/app/manifests/1', {
    ...wrong,
    body: Buffer.alloc((4 << 20) + 1, ' '),
  });
  await rejectsWith(pull('app:1'), 'TooLarge', /manifest is larger than 4194304 bytes/);
});

test('a layer that explodes is stopped early', async () => {
  await rig.fixture.close();
  rig.fixture = await openTestStore({
    registries: plainRegistries([rig.upstream.host]),
    limits: { ratioFreeBytes: 1 << 20, unpackedBytesMax: 8 << 20, entriesMax: 50 },
  });
  const zeros = Buffer.alloc(8 << 20);
  const noise = randomBytes(9 << 20);
  publish(
    rig.upstream,
    'bomb',
    'ratio',
    await build('', { layers: [[{ path: 'z', content: zeros }]], compression: 'zstd' }),
  );
  await rejectsWith(pull('bomb:ratio'), 'TooLarge', /grows more than 200 times/);
  publish(
    rig.upstream,
    'bomb',
    'size',
    await build('', { layers: [[{ path: 'z', content: noise }]], compression: 'none' }),
  );
  await rejectsWith(pull('bomb:size'), 'TooLarge', /larger than 8388608 bytes when it is unpacked/);
  const files = Array.from({ length: 60 }, (_, i) => ({ path: `f${i}`, content: '' }));
  publish(rig.upstream, 'bomb', 'files', await build('', { layers: [files] }));
  await rejectsWith(pull('bomb:files'), 'TooLarge', /more than 50 files/);
  assert.deepEqual(await readdir(join(rig.fixture.directory, 'disks')), []);
  assert.deepEqual(await readdir(join(rig.fixture.directory, 'spool')), []);
});
