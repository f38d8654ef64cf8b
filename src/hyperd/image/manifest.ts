import { isDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import { ImageError } from './store.ts';
import type { ImageConfig } from '../../api/hyperd.ts';

/**
 * Manifests, indexes and configurations of images, in their OCI and Docker forms, parsed
 * strictly: they come from strangers.
 */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  size: number;
}

export interface Manifest {
  config: Descriptor;
  layers: Descriptor[];
}

export interface Platform {
  os: string;
  architecture: string;
}

export interface IndexEntry extends Descriptor {
  platform: Platform | undefined;
}

/** Of a manifest or an index: what registries accept. */
export const MANIFEST_BYTES_MAX = 4 << 20;
export const CONFIG_BYTES_MAX = 4 << 20;
const LAYERS_MAX = 256;
/** Of all layers of an image together, compressed. */
export const IMAGE_BYTES_MAX = 16 * 2 ** 30;
const INDEX_ENTRIES_MAX = 1000;
const LIST_ITEMS_MAX = 10_000;

export const MEDIA_TYPE = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  ociLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const;

const INDEX_TYPES: string[] = [MEDIA_TYPE.ociIndex, MEDIA_TYPE.dockerIndex];
const MANIFEST_TYPES: string[] = [MEDIA_TYPE.ociManifest, MEDIA_TYPE.dockerManifest];
const CONFIG_TYPES: string[] = [MEDIA_TYPE.ociConfig, MEDIA_TYPE.dockerConfig];
const LAYER_TYPES: string[] = [
  MEDIA_TYPE.ociLayer,
  MEDIA_TYPE.ociLayerGzip,
  MEDIA_TYPE.ociLayerZstd,
  'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd',
];

/** What is asked for, in order of preference. */
export const MANIFEST_ACCEPT = [...MANIFEST_TYPES, ...INDEX_TYPES].join(', ');

export type ManifestDocument =
  { kind: 'manifest'; manifest: Manifest } | { kind: 'index'; entries: IndexEntry[] };

/**
 * Reads what a registry answered for a manifest.
 * @throws ImageError Malformed, TooLarge
 */
export function parseManifest(bytes: Uint8Array, contentType: string): ManifestDocument {
  const json = parseObject(bytes, 'manifest');
  const declared = typeof json['mediaType'] === 'string' ? json['mediaType'] : contentType;
  if (json['schemaVersion'] !== 2) {
    throw malformed('manifest has a retired format: want "schemaVersion" 2');
  }
  const isIndex =
    INDEX_TYPES.includes(declared) || (!MANIFEST_TYPES.includes(declared) && 'manifests' in json);
  if (isIndex) return { kind: 'index', entries: parseIndex(json) };
  if (!MANIFEST_TYPES.includes(declared) && !('layers' in json)) {
    throw malformed(`manifest is of type "${declared.slice(0, 100)}", which is not an image`);
  }
  return { kind: 'manifest', manifest: parseImageManifest(json) };
}

function parseIndex(json: Record<string, unknown>): IndexEntry[] {
  return list(json['manifests'], 'manifests', INDEX_ENTRIES_MAX).map((item, i) => {
    const path = `manifests[${i}]`;
    const entry = object(item, path);
    const platform = entry['platform'];
    return {
      ...descriptor(entry, path),
      platform:
        platform === undefined || platform === null ? undefined : parsePlatform(platform, path),
    };
  });
}

function parsePlatform(value: unknown, path: string): Platform {
  const platform = object(value, `${path}.platform`);
  return {
    os: text(platform['os'], `${path}.platform.os`),
    architecture: text(platform['architecture'], `${path}.platform.architecture`),
  };
}

function parseImageManifest(json: Record<string, unknown>): Manifest {
  const config = descriptor(json['config'], 'config');
  if (!CONFIG_TYPES.includes(config.mediaType)) {
    throw malformed(
      `it is not a container image: its configuration is of type "${config.mediaType}"`,
    );
  }
  if (config.size > CONFIG_BYTES_MAX) {
    throw tooLarge(
      `its configuration has ${config.size} bytes, at most ${CONFIG_BYTES_MAX} are allowed`,
    );
  }
  const layers = list(json['layers'], 'layers', LAYERS_MAX).map((item, i) => {
    const layer = descriptor(item, `layers[${i}]`);
    if (!LAYER_TYPES.includes(layer.mediaType)) {
      throw malformed(`layers[${i}] is of type "${layer.mediaType}", which is not supported`);
    }
    return layer;
  });
  const total = layers.reduce((sum, layer) => sum + layer.size, 0);
  if (total > IMAGE_BYTES_MAX) {
    throw tooLarge(`its layers have ${total} bytes, at most ${IMAGE_BYTES_MAX} are allowed`);
  }
  return { config, layers };
}

/**
 * The entry for `platform`.
 * @throws ImageError WrongPlatform, which names what is there
 */
export function selectPlatform(entries: IndexEntry[], platform: Platform): IndexEntry {
  const match = entries.find(
    (entry) =>
      entry.platform?.os === platform.os && entry.platform.architecture === platform.architecture,
  );
  if (match) return match;
  const there = entries
    .filter((entry) => entry.platform && entry.platform.os !== 'unknown')
    .map((entry) => showPlatform(entry.platform as Platform));
  throw wrongPlatform([...new Set(there)].slice(0, 20).join(', ') || 'no platform', platform);
}

export interface ParsedConfig {
  config: ImageConfig;
  diffIds: Digest[];
}

/**
 * Reads an image's configuration for a node of `platform`.
 * @throws ImageError Malformed, WrongPlatform
 */
export function parseConfig(bytes: Uint8Array, platform: Platform): ParsedConfig {
  const json = parseObject(bytes, 'configuration');
  const actual = {
    os: text(json['os'], 'os'),
    architecture: text(json['architecture'], 'architecture'),
  };
  if (actual.os !== platform.os || actual.architecture !== platform.architecture) {
    throw wrongPlatform(showPlatform(actual), platform);
  }
  const rootfs = object(json['rootfs'], 'rootfs');
  const diffIds = list(rootfs['diff_ids'], 'rootfs.diff_ids', LAYERS_MAX).map((item, i) => {
    if (!isDigest(item)) throw malformed(`rootfs.diff_ids[${i}] is not a digest`);
    return item;
  });
  const run =
    json['config'] === undefined || json['config'] === null ? {} : object(json['config'], 'config');
  const strings = (key: string) => texts(run[key], `config.${key}`);
  const keys = (key: string) => Object.keys(optionalObject(run[key], `config.${key}`));
  return {
    diffIds,
    config: {
      architecture: actual.architecture,
      user: optionalText(run['User'], 'config.User'),
      env: strings('Env'),
      entrypoint: strings('Entrypoint'),
      command: strings('Cmd'),
      workingDir: optionalText(run['WorkingDir'], 'config.WorkingDir'),
      exposedPorts: keys('ExposedPorts'),
      volumes: keys('Volumes'),
      stopSignal: optionalText(run['StopSignal'], 'config.StopSignal'),
      labels: parseLabels(run['Labels']),
    },
  };
}

function parseLabels(value: unknown): Record<string, string> {
  const entries = Object.entries(optionalObject(value, 'config.Labels'));
  return Object.fromEntries(
    entries.map(([key, label]) => [key, text(label, `config.Labels["${key.slice(0, 100)}"]`)]),
  );
}

/** The platform of this machine in Go's names, which images use. */
export function hostPlatform(): Platform {
  const architectures: Record<string, string> = {
    x64: 'amd64',
    arm64: 'arm64',
    riscv64: 'riscv64',
  };
  return { os: 'linux', architecture: architectures[process.arch] ?? process.arch };
}

function showPlatform(platform: Platform): string {
  return `${platform.os}/${platform.architecture}`.slice(0, 100);
}

function wrongPlatform(there: string, wanted: Platform): ImageError {
  return new ImageError(
    'WrongPlatform',
    `no matching manifest for ${showPlatform(wanted)}: the image is for ${there}`,
  );
}

function malformed(message: string): ImageError {
  return new ImageError('Malformed', `image is malformed: ${message}`);
}

function tooLarge(message: string): ImageError {
  return new ImageError('TooLarge', `image is too large: ${message}`);
}

function parseObject(bytes: Uint8Array, what: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    throw malformed(`its ${what} is not JSON`);
  }
  return object(json, what);
}

function object(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw malformed(`${path} is not an object`);
  }
  return value as Record<string, unknown>;
}

function optionalObject(value: unknown, path: string): Record<string, unknown> {
  return value === undefined || value === null ? {} : object(value, path);
}

function list(value: unknown, path: string, itemsMax: number): unknown[] {
  if (!Array.isArray(value)) throw malformed(`${path} is not a list`);
  if (value.length > itemsMax) {
    throw tooLarge(`${path} has ${value.length} items, at most ${itemsMax} are allowed`);
  }
  return value;
}

function text(value: unknown, path: string): string {
  if (typeof value !== 'string') throw malformed(`${path} is not a string`);
  if (value.includes('\0')) throw malformed(`${path} contains a NUL character`);
  return value;
}

function optionalText(value: unknown, path: string): string {
  return value === undefined || value === null ? '' : text(value, path);
}

function texts(value: unknown, path: string): string[] {
  if (value === undefined || value === null) return [];
  return list(value, path, LIST_ITEMS_MAX).map((item, i) => text(item, `${path}[${i}]`));
}

function descriptor(value: unknown, path: string): Descriptor {
  const json = object(value, path);
  const { digest, size } = json;
  if (!isDigest(digest)) throw malformed(`${path}.digest is not a digest`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw malformed(`${path}.size is not a size`);
  }
  return { mediaType: text(json['mediaType'], `${path}.mediaType`).slice(0, 200), digest, size };
}
