import type { ImageRecord } from './catalog.ts';
import { unpackArchive } from './archive.ts';
import type { StoredFile, UnpackedArchive } from './archive.ts';
import { digestAlgorithm, digestHex, sha256 } from './digest.ts';
import type { Digest } from './digest.ts';
import {
  CONFIG_BYTES_MAX,
  MANIFEST_BYTES_MAX,
  MEDIA_TYPE,
  parseConfig,
  parseManifest,
  selectPlatform,
} from './manifest.ts';
import type { IndexEntry, Manifest } from './manifest.ts';
import { makeImage, nameImage } from './pull.ts';
import type { PullContext } from './pull.ts';
import { formatReference, parseReference, repositoryName } from './reference.ts';
import { ImageError } from './store.ts';
import type { LoadRequest } from './store.ts';

/** An image as an archive has it. */
interface ArchivedImage {
  manifest: Manifest;
  digest: Digest;
  /** Names that the archive gives it. */
  names: string[];
}

const IMAGES_MAX = 64;
const NAMES_MAX = 256;

/** @throws ImageError; the signal's reason */
export async function loadArchive(
  context: PullContext,
  { archive, references }: LoadRequest,
  signal: AbortSignal,
  removeBlobs: (digests: ReadonlySet<Digest>) => Promise<void>,
): Promise<ImageRecord[]> {
  const unpacked = await unpackArchive({ ...context, removeBlobs }, archive, signal);
  try {
    const images = await findImages(context, unpacked);
    if (references.length > 0 && images.length > 1) {
      const state = `the archive has ${images.length} images`;
      throw new ImageError('InvalidReference', `a name can be given to one image: ${state}`);
    }
    const records: ImageRecord[] = [];
    for (const image of images) {
      const names = references.length > 0 ? references : image.names;
      records.push(await loadImage(context, { ...image, names }, signal));
    }
    return records;
  } finally {
    await unpacked.release();
  }
}

async function loadImage(
  context: PullContext,
  { manifest, digest, names }: ArchivedImage,
  signal: AbortSignal,
): Promise<ImageRecord> {
  const imageId = manifest.config.digest;
  const references = names.map((name) => parseReference(name));
  const config = await context.content.read(imageId, CONFIG_BYTES_MAX);
  const parsed = parseConfig(config, context.platform);
  if (parsed.diffIds.length !== manifest.layers.length) {
    const layers = `it has ${manifest.layers.length} layers`;
    const named = `its configuration names ${parsed.diffIds.length}`;
    throw new ImageError('Malformed', `image is malformed: ${layers}, but ${named}`);
  }
  const release = await context.lock(`image ${imageId}`, signal);
  try {
    const present = context.catalog.find(imageId);
    let image = present ?? (await makeImage(context, manifest, parsed, signal));
    if (!present) {
      image = { ...image, digest };
      await context.catalog.put(image);
    }
    for (const reference of references) {
      image = await nameImage(context, image, {
        digest: image.digest,
        repository: repositoryName(reference),
        references: [formatReference({ ...reference, digest: '' })],
        holder: undefined,
      });
    }
    return image;
  } finally {
    release();
  }
}

async function findImages(context: PullContext, files: UnpackedArchive): Promise<ArchivedImage[]> {
  const docker = await readDockerManifest(context, files);
  const isLayout = files.find('index.json') && files.find('oci-layout');
  const images = isLayout ? await readLayout(context, files) : docker;
  if (!images) {
    const wanted = 'neither an OCI layout nor a manifest.json is in it';
    throw new ImageError('Malformed', `this is no archive of images: ${wanted}`);
  }
  if (images.length > IMAGES_MAX) {
    throw new ImageError('TooLarge', `archive has ${images.length} images, at most ${IMAGES_MAX}`);
  }
  // Where both are there the one may know names that the other does not.
  const known = new Map(docker?.map(({ manifest, names }) => [manifest.config.digest, names]));
  return merge(images).map((image) => {
    if (image.names.length > 0) return image;
    return { ...image, names: known.get(image.manifest.config.digest) ?? [] };
  });
}

/** One image with several names is as many entries of an index. */
function merge(images: ArchivedImage[]): ArchivedImage[] {
  const merged = new Map<Digest, ArchivedImage>();
  for (const image of images) {
    const { digest } = image.manifest.config;
    const names = [...(merged.get(digest)?.names ?? []), ...image.names];
    merged.set(digest, { ...image, names: [...new Set(names)].slice(0, NAMES_MAX) });
  }
  return [...merged.values()];
}

/** The file, which must be what its name says. */
function blobOf(files: UnpackedArchive, digest: Digest): StoredFile {
  const path = `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
  const file = files.find(path);
  if (!file) throw missing(path);
  if (digestAlgorithm(digest) === 'sha256' && file.digest !== digest) {
    throw new ImageError('DigestMismatch', `${path} of the archive has the digest ${file.digest}`);
  }
  return file;
}

function missing(path: string): ImageError {
  return new ImageError('Malformed', `archive is malformed: ${path.slice(0, 300)} is missing`);
}

async function readLayout(context: PullContext, files: UnpackedArchive): Promise<ArchivedImage[]> {
  const top = files.find('index.json');
  if (!top) throw missing('index.json');
  const bytes = await context.content.read(top.digest, MANIFEST_BYTES_MAX);
  const document = parseManifest(bytes, MEDIA_TYPE.ociIndex);
  if (document.kind !== 'index') throw missing('the list of manifests in index.json');
  const names = annotatedNames(bytes);
  const { os, architecture } = context.platform;
  const isOurs = ({ platform }: IndexEntry) =>
    !platform || (platform.os === os && platform.architecture === architecture);
  if (!document.entries.some(isOurs)) selectPlatform(document.entries, context.platform);
  const images: ArchivedImage[] = [];
  for (const [i, entry] of document.entries.entries()) {
    if (!isOurs(entry)) continue;
    images.push({ ...(await readManifest(context, files, entry.digest)), names: names[i] ?? [] });
  }
  return images;
}

/** Goes down to the manifest for this platform; an index in an index leads to one, and no further. */
async function readManifest(
  context: PullContext,
  files: UnpackedArchive,
  digest: Digest,
  isNested = false,
): Promise<Omit<ArchivedImage, 'names'>> {
  const bytes = await context.content.read(blobOf(files, digest).digest, MANIFEST_BYTES_MAX);
  const document = parseManifest(bytes, MEDIA_TYPE.ociManifest);
  if (document.kind === 'index') {
    if (isNested) throw new ImageError('Malformed', 'image is an index of indexes');
    const entry = selectPlatform(document.entries, context.platform);
    return readManifest(context, files, entry.digest, true);
  }
  const { config, layers } = document.manifest;
  for (const blob of [config, ...layers]) {
    const file = blobOf(files, blob.digest);
    if (file.digest !== blob.digest) throw unsupported(blob.digest);
  }
  return { manifest: document.manifest, digest };
}

function unsupported(digest: Digest): ImageError {
  return new ImageError('Malformed', `archive has ${digest}: only sha256 is read from archives`);
}

/** What tools call the images of a layout: a tag alone is no name. */
function annotatedNames(index: Buffer): string[][] {
  const { manifests } = JSON.parse(index.toString('utf8')) as {
    manifests: { annotations?: Record<string, unknown> }[];
  };
  return manifests.map(({ annotations = {} }) => {
    const name =
      annotations['io.containerd.image.name'] ?? annotations['org.opencontainers.image.ref.name'];
    return typeof name === 'string' && /[/:]/.test(name) ? [name] : [];
  });
}

interface DockerEntry {
  Config?: unknown;
  RepoTags?: unknown;
  Layers?: unknown;
}

/** `manifest.json`, as `docker save` writes it. */
async function readDockerManifest(
  context: PullContext,
  files: UnpackedArchive,
): Promise<ArchivedImage[] | undefined> {
  const file = files.find('manifest.json');
  if (!file) return undefined;
  const bytes = await context.content.read(file.digest, MANIFEST_BYTES_MAX);
  const entries = parseEntries(bytes);
  return entries.map(({ Config, RepoTags, Layers }, i) => {
    const find = (path: unknown): StoredFile => {
      const found = typeof path === 'string' ? files.find(path) : undefined;
      if (!found) throw missing(`file ${JSON.stringify(path)} of manifest.json[${i}]`);
      return found;
    };
    const config = { ...find(Config), mediaType: MEDIA_TYPE.ociConfig };
    const layers = list(Layers).map((path) => ({ ...find(path), mediaType: MEDIA_TYPE.ociLayer }));
    const names = list(RepoTags).filter((name) => typeof name === 'string');
    const manifest = { config, layers };
    const document = { schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, ...manifest };
    return { manifest, digest: sha256(JSON.stringify(document)), names };
  });
}

function parseEntries(bytes: Buffer): DockerEntry[] {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    if (Array.isArray(value)) return value as DockerEntry[];
  } catch {
    // Told below.
  }
  throw new ImageError('Malformed', 'archive is malformed: manifest.json is not a list');
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
