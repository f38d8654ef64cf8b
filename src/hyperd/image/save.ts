import { createReadStream } from 'node:fs';
import type { ImageRecord } from './catalog.ts';
import type { ContentStore } from './content.ts';
import { digestAlgorithm, digestHex } from './digest.ts';
import type { Digest } from './digest.ts';
import { MEDIA_TYPE } from './manifest.ts';
import { pin } from './pull.ts';
import type { PullContext } from './pull.ts';
import { rebuildImage } from './rebuild.ts';
import type { RebuiltImage } from './rebuild.ts';
import { TAR_END, tarFileHeader, tarPadding } from './tar-write.ts';

/** Where a blob lies in an OCI layout. */
function blobPath(digest: Digest): string {
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}

/**
 * An archive of images: an OCI layout, with the `manifest.json` beside it that `docker load` reads.
 * @throws ImageError NotFound, before the first byte
 */
export async function saveArchive(
  context: Pick<PullContext, 'content' | 'pinned'>,
  records: ImageRecord[],
  signal: AbortSignal | undefined,
): Promise<AsyncIterable<Uint8Array>> {
  const images: [ImageRecord, RebuiltImage][] = [];
  for (const record of records) images.push([record, await rebuildImage(context.content, record)]);
  return write(context, images, signal);
}

async function* write(
  { content, pinned }: Pick<PullContext, 'content' | 'pinned'>,
  images: [ImageRecord, RebuiltImage][],
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const blobs = new Map(
    images.flatMap(([, { config, layers }]) =>
      [config, ...layers].map(({ digest, size }) => [digest, size] as const),
    ),
  );
  pin(pinned, [...blobs.keys()], 1);
  try {
    for (const [path, bytes] of documents(images)) {
      yield Buffer.concat([tarFileHeader(path, bytes.length), bytes, tarPadding(bytes.length)]);
    }
    for (const [digest, size] of blobs) {
      signal?.throwIfAborted();
      yield tarFileHeader(blobPath(digest), size);
      yield* readBlob(content, digest);
      yield tarPadding(size);
    }
    yield TAR_END;
  } finally {
    pin(pinned, [...blobs.keys()], -1);
  }
}

async function* readBlob(content: ContentStore, digest: Digest): AsyncGenerator<Buffer> {
  yield* createReadStream(content.path(digest), { highWaterMark: 256 << 10 });
}

function documents(images: [ImageRecord, RebuiltImage][]): Map<string, Buffer> {
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  const entries = images.flatMap(([{ references }, { manifest }]) => {
    const names = tagsOf(references);
    if (names.length === 0) return [manifest];
    return names.map((name) => ({
      ...manifest,
      annotations: {
        'io.containerd.image.name': name,
        'org.opencontainers.image.ref.name': name,
      },
    }));
  });
  const forDocker = images.map(([{ references }, { config, layers }]) => ({
    Config: blobPath(config.digest),
    RepoTags: tagsOf(references),
    Layers: layers.map(({ digest }) => blobPath(digest)),
  }));
  const manifests = images.map(([, { manifest, manifestBytes }]) => {
    return [blobPath(manifest.digest), manifestBytes] as const;
  });
  const index = { schemaVersion: 2, mediaType: MEDIA_TYPE.ociIndex, manifests: entries };
  return new Map([
    ['oci-layout', json({ imageLayoutVersion: '1.0.0' })],
    ['index.json', json(index)],
    ['manifest.json', json(forDocker)],
    ...manifests,
  ]);
}

function tagsOf(references: string[]): string[] {
  return references.filter((reference) => !reference.includes('@'));
}
