import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { systemClock } from '../../base/clock.ts';
import type { Clock } from '../../base/clock.ts';
import { basicAuthorization } from '../image/auth.ts';
import { sha256 } from '../image/digest.ts';
import type { Digest } from '../image/digest.ts';
import { createHttpClient, isLocalAddress, readAll } from '../image/http.ts';
import type { HttpClient, HttpRequest, HttpResponse } from '../image/http.ts';
import { hostPlatform, MEDIA_TYPE } from '../image/manifest.ts';
import type { Descriptor, Platform } from '../image/manifest.ts';
import { parseReference } from '../image/reference.ts';
import type { HostTls } from '../image/registries.ts';
import type { RegistryCredential } from '../image/store.ts';
import { writeTar } from '../image/tar-write.ts';
import type { TarMember } from '../image/tar-write.ts';

/**
 * Makes images from files, without a container engine, and pushes them. For demonstrations,
 * tests and benchmarks: layers are held in memory.
 */
export interface ImageSpec {
  layers: LayerFile[][];
  config?: {
    user?: string;
    env?: string[];
    entrypoint?: string[];
    command?: string[];
    workingDir?: string;
    exposedPorts?: string[];
    stopSignal?: string;
    labels?: Record<string, string>;
  };
  /** @default that of this machine */
  platform?: Platform;
  /** @default 'gzip' */
  compression?: 'gzip' | 'zstd' | 'none';
}

/** One file of a layer: of `content`, `source`, `symlink`, `hardlink` and `directory` exactly one. */
export interface LayerFile {
  /** Relative to the image's root. Directories above it that no layer names are made. */
  path: string;
  content?: string | Uint8Array;
  /** A file of this machine. */
  source?: string;
  symlink?: string;
  /** Path in the image of the file that is linked to. */
  hardlink?: string;
  directory?: boolean;
  /** @default 0o755 for directories, 0o777 for symbolic links, 0o644 for files */
  mode?: number;
  uid?: number;
  gid?: number;
  /** Seconds since the epoch. @default 0 */
  mtimeSec?: number;
  xattrs?: Record<string, Uint8Array>;
}

export interface BuiltImage {
  /** Digest of the manifest. */
  digest: Digest;
  /** Digest of the configuration. */
  id: Digest;
  manifest: Buffer;
  mediaType: string;
  /** The configuration and the layers, by digest. */
  blobs: Map<Digest, Buffer>;
}

/** All layers together, as archives. */
const IMAGE_BYTES_MAX = 1 << 30;
/** Files at which `filesFromDirectory` gives up. */
const FILES_MAX = 100_000;
const ANSWER_BYTES_MAX = 64 << 10;

const COMPRESSIONS = {
  gzip: {
    mediaType: MEDIA_TYPE.ociLayerGzip,
    compress: (tar: Buffer) => gzipSync(tar, { level: 6 }),
  },
  zstd: { mediaType: MEDIA_TYPE.ociLayerZstd, compress: (tar: Buffer) => zstdCompressSync(tar) },
  none: { mediaType: MEDIA_TYPE.ociLayer, compress: (tar: Buffer) => tar },
};

/** The same input gives the same digests. */
export async function buildImage(spec: ImageSpec): Promise<BuiltImage> {
  const compression = COMPRESSIONS[spec.compression ?? 'gzip'];
  const blobs = new Map<Digest, Buffer>();
  const add = (mediaType: string, bytes: Buffer): Descriptor => {
    const digest = sha256(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const diffIds: Digest[] = [];
  let total = 0;
  const named = new Set<string>();
  const layers: Descriptor[] = [];
  for (const files of spec.layers) {
    const tar = writeTar(await toMembers(files, named));
    total += tar.length;
    if (total > IMAGE_BYTES_MAX) {
      throw new RangeError(
        `Cannot build an image: its layers have more than ${IMAGE_BYTES_MAX} bytes`,
      );
    }
    diffIds.push(sha256(tar));
    layers.push(add(compression.mediaType, compression.compress(tar)));
  }
  const config = add(
    MEDIA_TYPE.ociConfig,
    Buffer.from(JSON.stringify(encodeConfig(spec, diffIds))),
  );
  const manifest = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPE.ociManifest, config, layers }),
  );
  return {
    digest: sha256(manifest),
    id: config.digest,
    manifest,
    mediaType: MEDIA_TYPE.ociManifest,
    blobs,
  };
}

function encodeConfig(spec: ImageSpec, diffIds: Digest[]) {
  const { config = {} } = spec;
  const platform = spec.platform ?? hostPlatform();
  const ports = config.exposedPorts?.map((port) => [port, {}]);
  return {
    created: '1970-01-01T00:00:00Z',
    ...platform,
    config: {
      User: config.user,
      Env: config.env,
      Entrypoint: config.entrypoint,
      Cmd: config.command,
      WorkingDir: config.workingDir,
      ExposedPorts: ports && Object.fromEntries(ports),
      StopSignal: config.stopSignal,
      Labels: config.labels,
    },
    rootfs: { type: 'layers', diff_ids: diffIds },
    history: diffIds.map(() => ({ created: '1970-01-01T00:00:00Z', created_by: 'hypernetes' })),
  };
}

/** Adds the directories that nothing has named yet: `named` is kept from layer to layer. */
async function toMembers(files: LayerFile[], named: Set<string>): Promise<TarMember[]> {
  const members: TarMember[] = [];
  for (const file of files) {
    const parts = file.path.split('/').filter((part) => part !== '');
    for (let depth = 1; depth < parts.length; depth++) {
      const path = parts.slice(0, depth).join('/');
      if (!named.has(path)) members.push({ path, type: 'directory' });
      named.add(path);
    }
    named.add(parts.join('/'));
    members.push(await toMember(file, parts.join('/')));
  }
  return members;
}

async function toMember(file: LayerFile, path: string): Promise<TarMember> {
  const { mode, uid, gid, mtimeSec, xattrs } = file;
  const common = { path, uid, gid, mtimeSec, xattrs };
  if (file.directory) return { ...common, type: 'directory', mode };
  if (file.symlink !== undefined) {
    return { ...common, type: 'symlink', mode: mode ?? 0o777, linkName: file.symlink };
  }
  if (file.hardlink !== undefined)
    return { ...common, type: 'link', mode, linkName: file.hardlink };
  const content = file.source === undefined ? (file.content ?? '') : await readFile(file.source);
  return { ...common, type: 'file', mode, content: Buffer.from(content as Uint8Array) };
}

/**
 * The files below `directory` as a layer, owned by root, in a fixed order. Sockets and devices
 * are left out. @param at where they are in the image
 */
export async function filesFromDirectory(directory: string, at = ''): Promise<LayerFile[]> {
  const files: LayerFile[] = [];
  const visit = async (path: string): Promise<void> => {
    for (const name of (await readdir(join(directory, path))).sort()) {
      const inside = path === '' ? name : `${path}/${name}`;
      const file = await describeFile(
        join(directory, inside),
        at === '' ? inside : `${at}/${inside}`,
      );
      if (!file) continue;
      files.push(file);
      if (files.length > FILES_MAX) {
        throw new RangeError(
          `Cannot make a layer of ${directory}: it has more than ${FILES_MAX} files`,
        );
      }
      if (file.directory) await visit(inside);
    }
  };
  await visit('');
  return files;
}

async function describeFile(source: string, path: string): Promise<LayerFile | undefined> {
  const info = await lstat(source);
  const mode = info.mode & 0o7777;
  if (info.isDirectory()) return { path, directory: true, mode };
  if (info.isSymbolicLink()) return { path, symlink: await readlink(source) };
  return info.isFile() ? { path, source, mode } : undefined;
}

export interface PushOptions {
  /** Whether the registry is spoken to without TLS. @default true for this machine's own */
  plainHttp?: boolean;
  credential?: RegistryCredential;
  tls?: HostTls;
  /** @default systemClock */
  clock?: Clock;
  signal?: AbortSignal;
}

/** What a registry answered that is not what a push expects. */
export class PushError extends Error {
  override name = 'PushError';
}

/**
 * Pushes to any registry that takes basic authentication or none. Blobs that are there already
 * are not sent again.
 * @param reference with the registry: `localhost:5000/demo/busybox:1`
 * @throws PushError, HttpError; ImageError InvalidReference
 */
export async function pushImage(
  reference: string,
  image: BuiltImage,
  options: PushOptions = {},
): Promise<void> {
  const { registry, repository, tag } = parseReference(reference);
  const isLocal = isLocalAddress(
    registry.replace(/^localhost(?=:|$)/, '127.0.0.1').replace(/:[0-9]+$/, ''),
  );
  const base = new URL(`${(options.plainHttp ?? isLocal) ? 'http' : 'https'}://${registry}`);
  const http = createHttpClient({ clock: options.clock ?? systemClock });
  try {
    const send = createSender(http, base, options);
    const path = `/v2/${repository}`;
    for (const [digest, bytes] of image.blobs) {
      const head = await send('HEAD', `${path}/blobs/${digest}`, [200, 404]);
      if (head.status === 200) continue;
      const begun = await send('POST', `${path}/blobs/uploads/`, [202]);
      const location = new URL(begun.headers.location ?? '', base);
      location.searchParams.set('digest', digest);
      await send('PUT', location.href, [201], bytes, 'application/octet-stream');
    }
    await send('PUT', `${path}/manifests/${tag}`, [201], image.manifest, image.mediaType);
  } finally {
    http.close();
  }
}

function createSender(http: HttpClient, base: URL, options: PushOptions) {
  return async (
    method: HttpRequest['method'],
    path: string,
    expected: number[],
    body?: Uint8Array,
    contentType?: string,
  ): Promise<HttpResponse> => {
    const url = new URL(path, base);
    const headers: Record<string, string> = { 'content-length': String(body?.length ?? 0) };
    if (contentType !== undefined) headers['content-type'] = contentType;
    const { credential, tls, signal } = options;
    if (credential && url.origin === base.origin)
      headers['authorization'] = basicAuthorization(credential);
    const response = await http.send({ method, url, headers, body, tls, allowLocal: true, signal });
    const answer = (await readAll(response, ANSWER_BYTES_MAX))?.toString('utf8') ?? '';
    if (expected.includes(response.status)) return response;
    const text = answer.slice(0, 300);
    throw new PushError(
      `Cannot push to ${url.host}: ${method} ${url.pathname}: status ${response.status}: ${text}`,
    );
  };
}
