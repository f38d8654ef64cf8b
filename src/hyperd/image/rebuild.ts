import { open } from 'node:fs/promises';
import type { ImageRecord } from './catalog.ts';
import type { ContentStore } from './content.ts';
import { sha256 } from './digest.ts';
import type { Digest } from './digest.ts';
import { MEDIA_TYPE } from './manifest.ts';
import type { Descriptor } from './manifest.ts';
import { ImageError } from './store.ts';

/** An image as registries and archives have it. */
export interface RebuiltImage {
  manifest: Descriptor;
  manifestBytes: Buffer;
  config: Descriptor;
  layers: Descriptor[];
}

/**
 * The manifest of an image from what is kept of it: its configuration and its layers, which are
 * what they were. The manifest itself may have another digest than that of where it came from.
 *
 * @throws ImageError NotFound where an older version has not kept all of it
 */
export async function rebuildImage(
  content: ContentStore,
  record: ImageRecord,
): Promise<RebuiltImage> {
  const describe = async (digest: Digest, mediaType: string): Promise<Descriptor> => {
    const size = await content.size(digest);
    if (size !== undefined) return { mediaType, digest, size };
    const name = record.references[0] ?? record.id;
    throw new ImageError('NotFound', `image "${name}" is not kept whole: pull it again`);
  };
  const config = await describe(record.id, MEDIA_TYPE.ociConfig);
  const layers: Descriptor[] = [];
  for (const digest of record.layers) {
    const layer = await describe(digest, MEDIA_TYPE.ociLayer);
    layers.push({ ...layer, mediaType: await layerType(content.path(digest)) });
  }
  const document = { schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config, layers };
  const manifestBytes = Buffer.from(JSON.stringify(document));
  const manifest = {
    mediaType: MEDIA_TYPE.ociManifest,
    digest: sha256(manifestBytes),
    size: manifestBytes.length,
  };
  return { manifest, manifestBytes, config, layers };
}

const GZIP = Buffer.from([0x1f, 0x8b]);
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/** By its first bytes: names of types in the wild are not reliable. */
async function layerType(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const start = Buffer.alloc(ZSTD.length);
    await file.read(start, 0, start.length, 0);
    if (start.equals(ZSTD)) return MEDIA_TYPE.ociLayerZstd;
    return start.subarray(0, GZIP.length).equals(GZIP)
      ? MEDIA_TYPE.ociLayerGzip
      : MEDIA_TYPE.ociLayer;
  } finally {
    await file.close();
  }
}
