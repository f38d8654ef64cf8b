import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import type { Clock } from '../../base/clock.ts';
import { basicAuthorization } from '../image/auth.ts';
import { sha256 } from '../image/digest.ts';
import type { Digest } from '../image/digest.ts';
import { createHttpClient, readAll } from '../image/http.ts';
import type { HttpClient, HttpRequest, HttpResponse } from '../image/http.ts';
import { hostPlatform, MEDIA_TYPE } from '../image/manifest.ts';
import type { Descriptor, Platform } from '../image/manifest.ts';
import type { HostTls } from '../image/registries.ts';
import type { RegistryCredential } from '../image/store.ts';
import { writeTar } from '../image/tar-write.ts';
import type { TarMember } from '../image/tar-write.ts';

/**
 * Makes images from files, without a container engine, and pushes them. For demonstrations,
 * tests and benchmarks: layers are held in memory.
 */
export interface ImageSpec {
  layers: TarMember[][];
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
/** Files at which `membersFromDirectory` gives up. */
const MEMBERS_MAX = 100_000;

const COMPRESSIONS = {
  gzip: { mediaType: MEDIA_TYPE.ociLayerGzip, compress: (tar: Buffer) => gzipSync(tar, { level: 6 }) },
  zstd: { mediaType: MEDIA_TYPE.ociLayerZstd, compress: (tar: Buffer) => zstdCompressSync(tar) },
  none: { mediaType: MEDIA_TYPE.ociLayer, compress: (tar: Buffer) => tar },
};

/** The same input gives the same digests. */
export function buildImage(spec: ImageSpec): BuiltImage {
  const compression = COMPRESSIONS[spec.compression ?? 'gzip'];
  const blobs = new Map<Digest, Buffer>();
  const add = (mediaType: string, bytes: Buffer): Descriptor => {
    const digest = sha256(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const diffIds: Digest[] = [];
  let total = 0;
  const layers = spec.layers.map((members) => {
    const tar = writeTar(members);
    total += tar.length;
    if (total > IMAGE_BYTES_MAX) {
      throw new RangeError(`Cannot build an image: its layers have more than ${IMAGE_BYTES_MAX} bytes`);
    }
    diffIds.push(sha256(tar));
    return add(compression.mediaType, compression.compress(tar));
  });
  const config = add(MEDIA_TYPE.ociConfig, Buffer.from(JSON.stringify(encodeConfig(spec, diffIds))));
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

/**
 * The files below `directory` as members of a layer, owned by root, in a fixed order.
 * Sockets and devices are left out.
 */
export async function membersFromDirectory(directory: string): Promise<TarMember[]> {
  const members: TarMember[] = [];
  const visit = async (path: string): Promise<void> => {
    for (const name of (await readdir(join(directory, path))).sort()) {
      const member = await readMember(directory, path === '' ? name : `${path}/${name}`);
      if (!member) continue;
      members.push(member);
      if (members.length > MEMBERS_MAX) {
        throw new RangeError(`Cannot make a layer of ${directory}: it has more than ${MEMBERS_MAX} files`);
      }
      if (member.type === 'directory') await visit(member.path);
    }
  };
  await visit('');
  return members;
}

async function readMember(directory: string, path: string): Promise<TarMember | undefined> {
  const full = join(directory, path);
  const info = await lstat(full);
  const mode = info.mode & 0o7777;
  if (info.isDirectory()) return { path, type: 'directory', mode };
  if (info.isSymbolicLink()) {
    return { path, type: 'symlink', mode: 0o777, linkName: await readlink(full) };
  }
  return info.isFile() ? { path, type: 'file', mode, content: await readFile(full) } : undefined;
}

export interface PushTarget {
  /** `http://127.0.0.1:5000` */
  registry: string;
  repository: string;
  tag: string;
  credential?: RegistryCredential;
  tls?: HostTls;
  clock: Clock;
  signal?: AbortSignal;
}

/** What a registry answered that is not what a push expects. */
export class PushError extends Error {
  override name = 'PushError';
}

/**
 * Pushes to any registry that takes basic authentication or none. Blobs that are there already
 * are not sent again. @throws PushError, HttpError
 */
export async function pushImage(image: BuiltImage, target: PushTarget): Promise<void> {
  const http = createHttpClient({ clock: target.clock });
  try {
    const send = createSender(http, target);
    const path = `/v2/${target.repository}`;
    for (const [digest, bytes] of image.blobs) {
      const head = await send('HEAD', `${path}/blobs/${digest}`, [200, 404]);
      if (head.status === 200) continue;
      const begun = await send('POST', `${path}/blobs/uploads/`, [202]);
      const location = new URL(begun.headers.location ?? '', target.registry);
      location.searchParams.set('digest', digest);
      await send('PUT', location.href, [201], bytes, 'application/octet-stream');
    }
    await send('PUT', `${path}/manifests/${target.tag}`, [201], image.manifest, image.mediaType);
  } finally {
    http.close();
  }
}

function createSender(http: HttpClient, target: PushTarget) {
  return async (
    method: HttpRequest['method'],
    path: string,
    expected: number[],
    body?: Uint8Array,
    contentType?: string,
  ): Promise<HttpResponse> => {
    const url = new URL(path, target.registry);
    const headers: Record<string, string> = { 'content-length': String(body?.length ?? 0) };
    if (contentType !== undefined) headers['content-type'] = contentType;
    const isHome = url.origin === new URL(target.registry).origin;
    if (target.credential && isHome) headers['authorization'] = basicAuthorization(target.credential);
    const { tls, signal } = target;
    const response = await http.send({ method, url, headers, body, tls, allowLocal: true, signal });
    const answer = (await readAll(response, 64 << 10))?.toString('utf8') ?? '';
    if (expected.includes(response.status)) return response;
    const text = answer.slice(0, 300);
    throw new PushError(`Cannot push to ${url.host}: ${method} ${url.pathname}: status ${response.status}: ${text}`);
  };
}
