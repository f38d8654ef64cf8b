import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../../base/clock.ts';
import type { Clock } from '../../../base/clock.ts';
import { silentLog } from '../../../base/log.ts';
import { openImageStore } from '../index.ts';
import type { ImageStoreOptions, NodeImageStore } from '../index.ts';
import { emptyRegistriesConfig } from '../registries.ts';
import type { HostConfig, RegistriesConfig } from '../registries.ts';

/**
 * A registry for tests: what is put into `documents` is served, and an interceptor may answer
 * before that, badly.
 */
export interface Upstream {
  /** `127.0.0.1:port` */
  host: string;
  origin: string;
  /** Bodies by path, with their content type. */
  documents: Map<string, { body: Buffer; contentType?: string }>;
  /** Requests so far. */
  requests: { method: string; url: string; headers: IncomingMessage['headers'] }[];
  /** Answers a request and returns true, or leaves it. */
  intercept: (request: IncomingMessage, response: ServerResponse) => boolean;
  count(pattern: RegExp): number;
  close(): Promise<void>;
}

export async function startUpstream(): Promise<Upstream> {
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request;
    upstream.requests.push({ method, url, headers });
    if (upstream.intercept(request, response)) return;
    const document = upstream.documents.get(url.split('?', 1)[0] as string);
    if (!document) {
      response.writeHead(404, { 'content-type': 'application/json' });
      response.end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
      return;
    }
    serveDocument(request, response, document);
  });
  const upstream: Upstream = {
    host: '',
    origin: '',
    documents: new Map(),
    requests: [],
    intercept: () => false,
    count: (pattern) => upstream.requests.filter(({ url }) => pattern.test(url)).length,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  upstream.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  upstream.origin = `http://${upstream.host}`;
  return upstream;
}

/** As registries do it: whole, or from an offset on. */
export function serveDocument(
  request: IncomingMessage,
  response: ServerResponse,
  document: { body: Buffer; contentType?: string },
): void {
  const { body, contentType = 'application/octet-stream' } = document;
  const start = Number(/^bytes=([0-9]+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const headers: Record<string, string> = {
    'content-type': contentType,
    'content-length': String(body.length - start),
  };
  if (start > 0) headers['content-range'] = `bytes ${start}-${body.length - 1}/${body.length}`;
  response.writeHead(start > 0 ? 206 : 200, headers);
  response.end(body.subarray(start));
}

/** What `buildImage` gives, as far as it matters here. */
export interface UpstreamImage {
  digest: string;
  manifest: Buffer;
  mediaType: string;
  blobs: Map<string, Buffer>;
}

export function publish(
  upstream: Upstream,
  repository: string,
  tag: string,
  image: UpstreamImage,
): void {
  const manifest = { body: image.manifest, contentType: image.mediaType };
  upstream.documents.set(`/v2/${repository}/manifests/${tag}`, manifest);
  upstream.documents.set(`/v2/${repository}/manifests/${image.digest}`, manifest);
  for (const [digest, body] of image.blobs) {
    upstream.documents.set(`/v2/${repository}/blobs/${digest}`, { body });
  }
}

/** Time that passes at once where the code waits between attempts. */
const hastyClock: Clock = {
  ...systemClock,
  sleep: (_delayMs, signal) =>
    signal?.aborted ? Promise.reject(signal.reason) : Promise.resolve(),
};

/** A configuration in which the given registries are spoken to without TLS. */
export function plainRegistries(
  hosts: string[],
  configs: Record<string, Partial<HostConfig>> = {},
): RegistriesConfig {
  const config = emptyRegistriesConfig();
  for (const host of hosts) {
    config.mirrors.set(host, { endpoints: [new URL(`http://${host}/v2`)] });
  }
  for (const [host, entry] of Object.entries(configs)) {
    config.hosts.set(host, { credential: entry.credential, tls: entry.tls });
  }
  return config;
}

export interface TestStore {
  store: NodeImageStore;
  directory: string;
  close(): Promise<void>;
}

/** A store in a directory of its own, which `close` removes. */
export async function openTestStore(
  options: Partial<ImageStoreOptions> & { registries: RegistriesConfig },
): Promise<TestStore> {
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'image-test-')));
  const store = await openImageStore({
    directory,
    clock: hastyClock,
    log: silentLog,
    platform: { os: 'linux', architecture: 'amd64' },
    ...options,
  });
  return {
    store,
    directory,
    async close() {
      await store.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
