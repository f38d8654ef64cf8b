import { rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../../base/clock.ts';
import { syncDirectory } from '../../base/files.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { grantAccess } from './access.ts';
import type { Catalog, ImageRecord } from './catalog.ts';
import { checkSpace } from './content.ts';
import type { ContentStore } from './content.ts';
import { digestHex, sha256 } from './digest.ts';
import type { Digest } from './digest.ts';
import type { DiskLimits } from './disk.ts';
import { buildDiskInThread } from './disk-builder.ts';
import type { DistributionClient, FetchedManifest, Source } from './distribution.ts';
import { createSemaphore } from './locks.ts';
import type { Acquire, Lock } from './locks.ts';
import { CONFIG_BYTES_MAX, parseConfig, parseManifest, selectPlatform } from './manifest.ts';
import type { Descriptor, Manifest, ParsedConfig, Platform } from './manifest.ts';
import { formatReference, parseReference, repositoryName } from './reference.ts';
import type { Reference } from './reference.ts';
import { ImageError } from './store.ts';
import { tellEverySoOften } from './progress.ts';
import type { ImageErrorReason, RegistryCredential, TellProgress } from './store.ts';

/** What a pull works with. */
export interface PullContext {
  directory: string;
  catalog: Catalog;
  content: ContentStore;
  client: DistributionClient;
  platform: Platform;
  limits: DiskLimits;
  /** Layers that arrive at the same time, on the whole node. */
  downloads: Acquire;
  /** Disks that are built at the same time. */
  builds: Acquire;
  /** By blob and by image: what two pulls both want is fetched once. */
  lock: Lock;
  /** Blobs that pulls under way need, with how many of them. */
  pinned: Map<Digest, number>;
  clock: Clock;
  random: Random;
  log: Log;
  /** Of one pull: who is told how far it is. */
  tell?: TellProgress | undefined;
}

/** An index may name indexes; more steps than this lead nowhere. */
const INDEX_DEPTH_MAX = 2;
/** Layers of one image that arrive at the same time. */
const LAYERS_AT_ONCE_MAX = 3;
/** Names of one image; the oldest give way. */
const REFERENCES_MAX = 256;
/** Failures that another endpoint or another credential can be free of. */
const WORTH_ANOTHER_SOURCE: ReadonlySet<ImageErrorReason> = new Set([
  'NotFound',
  'Unauthorized',
  'Unreachable',
  'DigestMismatch',
]);

/**
 * Pulls from the first source that has the image.
 * @throws ImageError of the last source that answered; the signal's reason
 */
export async function pullImage(
  context: PullContext,
  reference: Reference,
  credentials: RegistryCredential[],
  signal: AbortSignal,
): Promise<ImageRecord> {
  let failure: unknown;
  for (const source of await context.client.sources(reference, credentials)) {
    try {
      return await pullFrom(context, source, reference, signal);
    } catch (error) {
      signal.throwIfAborted();
      failure = moreTelling(failure, error);
      if (!(error instanceof ImageError) || !WORTH_ANOTHER_SOURCE.has(error.reason)) break;
      const endpoint = source.endpoint.base.href;
      context.log.info('cannot pull from endpoint', { endpoint, reason: error.reason, error });
    }
  }
  throw failure;
}

/** The later failure, unless it is silence and the earlier was an answer. */
function moreTelling(earlier: unknown, later: unknown): unknown {
  const isSilence = (error: unknown) =>
    error instanceof ImageError && error.reason === 'Unreachable';
  return earlier !== undefined && isSilence(later) && !isSilence(earlier) ? earlier : later;
}

async function pullFrom(
  context: PullContext,
  source: Source,
  reference: Reference,
  signal: AbortSignal,
): Promise<ImageRecord> {
  const top = await source.fetchManifest(reference.digest || reference.tag, signal);
  const manifest = await resolveManifest(context, source, top, signal);
  const imageId = manifest.config.digest;
  const references = [`${repositoryName(reference)}@${top.digest}`];
  if (reference.tag !== '') references.push(formatReference({ ...reference, digest: '' }));

  const blobs = [manifest.config.digest, ...manifest.layers.map(({ digest }) => digest)];
  pin(context.pinned, blobs, 1);
  try {
    // Again only where a present image is removed meanwhile.
    for (;;) {
      const isPresent = context.catalog.find(imageId) !== undefined;
      const parsed = isPresent ? undefined : await fetchImage(context, source, manifest, signal);
      // Not before everything is here: nobody waits for somebody else's slow registry.
      const release = await context.lock(`image ${imageId}`, signal);
      try {
        const present = context.catalog.find(imageId);
        const image = present ?? (parsed && (await makeImage(context, manifest, parsed, signal)));
        const names = { repository: repositoryName(reference), references };
        const granted = { digest: top.digest, ...names, holder: source.holder };
        if (image) return await nameImage(context, image, granted);
      } finally {
        release();
      }
    }
  } finally {
    pin(context.pinned, blobs, -1);
  }
}

interface Granted {
  digest: Digest;
  repository: string;
  references: string[];
  holder: RegistryCredential | undefined;
}

/** Gives an image its names, notes who has got it, and returns it as it is then. */
export async function nameImage(
  context: PullContext,
  image: ImageRecord,
  { digest, repository, references, holder }: Granted,
): Promise<ImageRecord> {
  const isKnown = references.every((name) => image.references.includes(name));
  const others = image.references.filter((name) => !references.includes(name));
  const names = isKnown ? image.references : [...others, ...references].slice(-REFERENCES_MAX);
  const repositories = new Set(names.map((name) => repositoryName(parseReference(name))));
  const access = grantAccess(image.access, repository, holder, repositories);
  const record = { ...image, digest, references: names, access };
  if (isDeepStrictEqual(record, image)) return image;
  await context.catalog.put(record);
  return record;
}

/** Goes down from an index to the manifest for this platform. */
async function resolveManifest(
  context: PullContext,
  source: Source,
  top: FetchedManifest,
  signal: AbortSignal,
): Promise<Manifest> {
  let fetched = top;
  for (let depth = 0; ; depth++) {
    const document = parseManifest(fetched.bytes, fetched.contentType);
    if (document.kind === 'manifest') return document.manifest;
    if (depth === INDEX_DEPTH_MAX)
      throw new ImageError('Malformed', 'image is an index of indexes');
    const entry = selectPlatform(document.entries, context.platform);
    fetched = await source.fetchManifest(entry.digest, signal);
  }
}

/** Brings the configuration and all layers into the content store. */
async function fetchImage(
  context: PullContext,
  source: Source,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<ParsedConfig> {
  const startedMs = context.clock.monotonicMs();
  const wantedBytes = manifest.layers.reduce((sum, { size }) => sum + size, 0);
  await checkSpace(context.directory, context.limits.freeBytesMin, wantedBytes);
  const parsed = await fetchConfig(context, source, manifest.config, signal);
  if (parsed.diffIds.length !== manifest.layers.length) {
    throw new ImageError(
      'Malformed',
      `image is malformed: it has ${manifest.layers.length} layers, ` +
        `but its configuration names ${parsed.diffIds.length}`,
    );
  }
  await fetchLayers(context, source, manifest.layers, signal);
  const downloadMs = Math.round(context.clock.monotonicMs() - startedMs);
  context.log.info('image is downloaded', { image: manifest.config.digest, downloadMs });
  return parsed;
}

export async function makeImage(
  context: PullContext,
  manifest: Manifest,
  parsed: ParsedConfig,
  signal: AbortSignal,
): Promise<ImageRecord> {
  const startedMs = context.clock.monotonicMs();
  const { diskBytes, diskModifiedMs } = await makeDisk(context, manifest, parsed, signal);
  const diskMs = Math.round(context.clock.monotonicMs() - startedMs);
  context.log.info('image has its disk', { image: manifest.config.digest, diskMs, diskBytes });
  return {
    id: manifest.config.digest,
    digest: '',
    references: [],
    diskBytes,
    config: parsed.config,
    layers: manifest.layers.map(({ digest }) => digest),
    access: {},
    pulledAtMs: context.clock.nowMs(),
    diskModifiedMs,
  };
}

async function fetchConfig(
  context: PullContext,
  source: Source,
  descriptor: Descriptor,
  signal: AbortSignal,
): Promise<ParsedConfig> {
  await fetchOnce(context, source, descriptor, signal);
  return parseConfig(
    await context.content.read(descriptor.digest, CONFIG_BYTES_MAX),
    context.platform,
  );
}

/** Several at a time; the first failure ends the others. */
async function fetchLayers(
  context: PullContext,
  source: Source,
  layers: Descriptor[],
  signal: AbortSignal,
): Promise<void> {
  const own = createSemaphore(LAYERS_AT_ONCE_MAX);
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  let failure: unknown;
  const unique = new Map(layers.map((layer) => [layer.digest, layer]));
  await Promise.all(
    [...unique.values()].map(async (layer) => {
      try {
        const leave = await own(either);
        try {
          await fetchOnce(context, source, layer, either);
        } finally {
          leave();
        }
      } catch (error) {
        if (either.aborted) return;
        failure = error;
        failed.abort();
      }
    }),
  );
  signal.throwIfAborted();
  if (failure !== undefined) throw failure;
}

async function fetchOnce(
  context: PullContext,
  source: Source,
  blob: Descriptor,
  signal: AbortSignal,
): Promise<void> {
  // By source too: who names a digest at a slow place must not hold up who gets it elsewhere.
  const release = await context.lock(`blob ${source.id} ${blob.digest}`, signal);
  try {
    const tell = tellEverySoOften(context, blob);
    if ((await context.content.size(blob.digest)) !== undefined) {
      tell(blob.size);
      return;
    }
    const leave = await context.downloads(signal);
    try {
      tell(0);
      await source.fetchBlob(blob, context.content, signal, tell);
    } finally {
      leave();
    }
  } finally {
    release();
  }
}

async function makeDisk(
  context: PullContext,
  manifest: Manifest,
  parsed: ParsedConfig,
  signal: AbortSignal,
): Promise<{ diskBytes: number; diskModifiedMs: number }> {
  const imageId = manifest.config.digest;
  const path = context.catalog.diskPath(imageId);
  const suffix = Buffer.from(context.random.bytes(8)).toString('hex');
  const output = `${path}.${suffix}.tmp`;
  context.tell?.({ type: 'disk' });
  const leave = await context.builds(signal);
  const timeout = new AbortController();
  const timer = context.clock.after(context.limits.timeoutMs, () => {
    const limit = `${context.limits.timeoutMs / 1000} s`;
    timeout.abort(new ImageError('TooLarge', `image takes longer than ${limit} to unpack`));
  });
  try {
    const result = await buildDiskInThread(
      {
        layers: manifest.layers.map((layer, i) => ({
          path: context.content.path(layer.digest),
          bytes: layer.size,
          digest: layer.digest,
          diffId: parsed.diffIds[i] as Digest,
        })),
        output,
        spoolDirectory: join(context.directory, 'spool'),
        uuid: digestHex(sha256(imageId)).slice(0, 32),
        limits: context.limits,
      },
      AbortSignal.any([signal, timeout.signal]),
    );
    await rename(output, path);
    await syncDirectory(join(path, '..'));
    return { diskBytes: result.bytes, diskModifiedMs: (await stat(path)).mtimeMs };
  } catch (error) {
    await rm(output, { force: true });
    throw error;
  } finally {
    timer.cancel();
    leave();
  }
}

/** Keeps blobs from being removed, or lets go of them again. */
export function pin(pinned: Map<Digest, number>, blobs: Digest[], by: 1 | -1): void {
  for (const digest of blobs) {
    const count = (pinned.get(digest) ?? 0) + by;
    if (count > 0) pinned.set(digest, count);
    else pinned.delete(digest);
  }
}
