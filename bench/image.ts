import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../src/base/clock.ts';
import { execute, run } from '../src/base/exec.ts';
import { silentLog } from '../src/base/log.ts';
import { seededRandom } from '../src/base/random.ts';
import { DISK_LIMITS } from '../src/hyperd/image/disk.ts';
import type { DiskLayer } from '../src/hyperd/image/disk.ts';
import { buildDiskInThread } from '../src/hyperd/image/disk-builder.ts';
import {
  emptyRegistriesConfig,
  openImageStore,
  withEmbeddedRegistry,
} from '../src/hyperd/image/index.ts';
import { buildImage, pushImage } from '../src/hyperd/registry/build.ts';
import type { BuiltImage, LayerFile } from '../src/hyperd/registry/build.ts';
import { createRegistry } from '../src/hyperd/registry/index.ts';
import { describeMachine, series } from './report.ts';
import type { BenchReport, Series } from './report.ts';

const ROUNDS = 5;
const SMALL_FILES = 4000;
const SMALL_FILE_BYTES_MAX = 20_000;

/**
 * From a registry on loopback to a finished disk, and the steps of it; beside it what other
 * programs need for the same: `umoci unpack` and `mkfs.erofs`, where they are installed.
 */
export async function benchImage(): Promise<BenchReport> {
  const directory = await mkdtemp(join(tmpdir(), 'image-bench-'));
  try {
    const image = await exampleImage();
    const layers = await writeLayers(image, directory);
    const pull = await timePull(image, directory);
    const { times, unpackedBytes } = await timeDisk(layers, directory);
    const peer = await timePeer(image, directory);
    const perSecond = (all: number[]) => all.map((ms) => unpackedBytes / 1e6 / (ms / 1000));
    return {
      name: 'image',
      machine: describeMachine('not used'),
      series: [
        series('pull to finished disk', pull),
        series('pull to finished disk', perSecond(pull), 'MB/s'),
        series('layers to disk', times),
        series('layers to disk', perSecond(times), 'MB/s'),
        ...peer,
      ],
      notes: [
        `${image.blobs.size - 1} gzip layers, ${Math.round(unpackedBytes / 1e6)} MB unpacked, ` +
          `${SMALL_FILES} small files and one large; the registry shares the machine.`,
      ],
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** This Node.js as a large file, and pieces of it as small ones: real data, known everywhere. */
async function exampleImage(): Promise<BuiltImage> {
  const random = seededRandom(1);
  const binary = await readFile(process.execPath);
  const small: LayerFile[] = Array.from({ length: SMALL_FILES }, (_, i) => {
    const start = Math.floor(random.next() * binary.length);
    const size = Math.floor(random.next() * SMALL_FILE_BYTES_MAX);
    return { path: `usr/share/d${i % 97}/f${i}`, content: binary.subarray(start, start + size) };
  });
  return buildImage({ layers: [[{ path: 'bin/node', content: binary, mode: 0o755 }], small] });
}

async function timePull(image: BuiltImage, directory: string): Promise<number[]> {
  const common = { clock: systemClock, log: silentLog };
  const registry = await createRegistry({ directory: join(directory, 'registry'), ...common });
  const { port } = await registry.listen({ host: '127.0.0.1', port: 0 });
  const reference = `localhost:${port}/bench/app:1`;
  await pushImage(reference, image);
  const registries = withEmbeddedRegistry(emptyRegistriesConfig(), port);
  const store = await openImageStore({
    directory: join(directory, 'images'),
    registries,
    ...common,
  });
  try {
    return await repeat(async () => {
      const { id } = await store.pull({ reference, credentials: [] });
      return () => store.remove(id);
    });
  } finally {
    await store.close();
    await registry.close();
  }
}

async function timeDisk(layers: DiskLayer[], directory: string) {
  let unpackedBytes = 0;
  const output = join(directory, 'disk.erofs');
  const times = await repeat(async () => {
    const uuid = '0'.repeat(32);
    const request = { layers, output, spoolDirectory: directory, uuid, limits: DISK_LIMITS };
    ({ unpackedBytes } = await buildDiskInThread(request));
    return () => rm(output);
  });
  return { times, unpackedBytes };
}

async function timePeer(image: BuiltImage, directory: string): Promise<Series[]> {
  for (const [program, option] of [
    ['umoci', '--version'],
    ['mkfs.erofs', '--help'],
  ] as const) {
    if ((await execute(program, [option]).catch(() => ({ exitCode: 1 }))).exitCode !== 0) return [];
  }
  const layout = join(directory, 'layout');
  await writeLayout(image, layout);
  const bundle = join(directory, 'bundle');
  const output = join(directory, 'peer.erofs');
  const times = await repeat(async () => {
    await run('umoci', ['unpack', '--image', `${layout}:1`, bundle]);
    await run('mkfs.erofs', ['--quiet', output, join(bundle, 'rootfs')]);
    await run('sync', [output]);
    return async () => {
      await rm(bundle, { recursive: true });
      await rm(output);
    };
  });
  return [series('layers to disk by umoci and mkfs.erofs', times)];
}

/** Times `action`; what it returns puts things back, untimed. */
async function repeat(action: () => Promise<() => Promise<void>>): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const startedMs = systemClock.monotonicMs();
    const restore = await action();
    times.push(systemClock.monotonicMs() - startedMs);
    await restore();
  }
  return times;
}

interface ManifestDocument {
  layers: { digest: string }[];
}

async function writeLayers(image: BuiltImage, directory: string): Promise<DiskLayer[]> {
  const config = JSON.parse((image.blobs.get(image.id) as Buffer).toString()) as {
    rootfs: { diff_ids: string[] };
  };
  const { layers } = JSON.parse(image.manifest.toString()) as ManifestDocument;
  return Promise.all(
    layers.map(async ({ digest }, i) => {
      const path = join(directory, `layer-${i}`);
      const blob = image.blobs.get(digest) as Buffer;
      await writeFile(path, blob);
      return { path, digest, bytes: blob.length, diffId: config.rootfs.diff_ids[i] as string };
    }),
  );
}

/** An OCI image layout on disk, as umoci reads it. */
async function writeLayout(image: BuiltImage, directory: string): Promise<void> {
  const blobs = join(directory, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const all = [...image.blobs, [image.digest, image.manifest] as const];
  for (const [digest, bytes] of all) await writeFile(join(blobs, digest.slice(7)), bytes);
  const manifest = {
    mediaType: image.mediaType,
    digest: image.digest,
    size: image.manifest.length,
    annotations: { 'org.opencontainers.image.ref.name': '1' },
  };
  await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  const index = { schemaVersion: 2, manifests: [manifest] };
  await writeFile(join(directory, 'index.json'), JSON.stringify(index));
}

if (import.meta.main) {
  const { renderReport } = await import('./report.ts');
  process.stdout.write(renderReport(await benchImage()));
}
