import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import { openContentStore, storageError } from '../image/content.ts';
import type { ContentStore } from '../image/content.ts';
import { isRepository } from '../image/reference.ts';
import { ImageError } from '../image/store.ts';
import { createBlobRoutes } from './blobs.ts';
import { RegistryError } from './errors.ts';
import { answerJson } from './exchange.ts';
import type { Exchange } from './exchange.ts';
import { createManifestRoutes } from './manifests.ts';
import { openRepositories } from './repositories.ts';
import type { Repositories } from './repositories.ts';
import { UPLOAD_LIMITS } from './upload-sessions.ts';
import type { UploadLimits } from './upload-sessions.ts';
import { createUploadRoutes } from './uploads.ts';

export { authenticateBasic, authenticateCertificate } from './authenticate.ts';

/**
 * The registry inside hyperd: the OCI distribution API, push and pull, on a directory.
 */
export interface Registry {
  /** For a server that somebody else runs. Without authentication. */
  handler: (request: IncomingMessage, response: ServerResponse) => void;
  /** Serves on an address of its own. May be called again for another one. */
  listen(options: ListenOptions): Promise<Listener>;
  /** Removes blobs that no manifest needs, once they are old enough for no push to miss them. */
  collectGarbage(): Promise<number>;
  /** Ends all listeners and uploads. */
  close(): Promise<void>;
}

export interface RegistryOptions {
  /** Everything lies below it; made where it is missing. One registry at a time. */
  directory: string;
  clock: Clock;
  log: Log;
  /** @default systemRandom */
  random?: Random;
  limits?: Partial<UploadLimits>;
}

export interface ListenOptions {
  host: string;
  /** 0 for any that is free. */
  port: number;
  /**
   * PEM. With `clientCa` clients are asked for a certificate; `authenticate` decides what it is
   * worth, and may take a password in its place.
   */
  tls?: { cert: string; key: string; clientCa?: string };
  /** @default everybody may do everything */
  authenticate?: Authenticate;
}

/** Who asks; undefined for nobody known, which is answered with a challenge. */
export type Authenticate = (request: IncomingMessage) => Promise<Principal | undefined>;

export interface Principal {
  name: string;
  allows(action: 'pull' | 'push', repository: string): boolean;
}

export interface Listener {
  host: string;
  port: number;
  close(): Promise<void>;
}

const HEADERS_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_TIMEOUT_MS = 15_000;
const CONNECTIONS_MAX = 512;
/** A push has this long from its first blob to its manifest. */
const UNUSED_BLOB_AGE_MAX_MS = 24 * 3600 * 1000;

const EVERYBODY: Principal = { name: 'anonymous', allows: () => true };

export async function createRegistry(options: RegistryOptions): Promise<Registry> {
  const { directory, clock, log } = options;
  const content = await openContentStore(directory);
  // Uploads do not outlive the process: their clients see an unknown one and begin again.
  await content.expireIngests(Infinity);
  const repositories = await openRepositories(join(directory, 'repositories'));
  const routes = {
    blobs: createBlobRoutes(content, repositories),
    manifests: createManifestRoutes(content, repositories, clock),
    uploads: createUploadRoutes({
      content,
      repositories,
      limits: { ...UPLOAD_LIMITS, ...options.limits },
      clock,
      random: options.random ?? systemRandom,
    }),
  };
  const listeners = new Set<Listener>();
  const serve =
    (authenticate: Authenticate) => (request: IncomingMessage, response: ServerResponse) => {
      response.on('error', () => {});
      dispatch(routes, authenticate, request, response).catch((error: unknown) => {
        answerError(request, response, error, log);
      });
    };
  const handler = serve(() => Promise.resolve(EVERYBODY));
  return {
    handler,
    async listen(address) {
      const listener = await listen(
        address,
        address.authenticate ? serve(address.authenticate) : handler,
      );
      listeners.add(listener);
      return { ...listener, close: () => (listeners.delete(listener), listener.close()) };
    },
    collectGarbage: () => collectGarbage(content, repositories, clock),
    async close() {
      await Promise.all([...listeners].map((listener) => listener.close()));
      await routes.uploads.close();
    },
  };
}

async function listen(
  options: ListenOptions,
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Listener> {
  const { tls } = options;
  const server: Server = tls
    ? createTlsServer(
        {
          cert: tls.cert,
          key: tls.key,
          minVersion: 'TLSv1.2',
          ca: tls.clientCa,
          requestCert: tls.clientCa !== undefined,
          rejectUnauthorized: false,
        },
        handler,
      )
    : createServer(handler);
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.keepAliveTimeout = KEEP_ALIVE_TIMEOUT_MS;
  // A large blob takes its time; a body that stalls is ended by who reads it.
  server.requestTimeout = 0;
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
  const { port } = server.address() as AddressInfo;
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { host: options.host, port, close };
}

interface Routes {
  blobs: ReturnType<typeof createBlobRoutes>;
  manifests: ReturnType<typeof createManifestRoutes>;
  uploads: ReturnType<typeof createUploadRoutes>;
}

type Action = 'pull' | 'push';
type Method = {
  action: Action;
  run: (routes: Routes, exchange: Exchange, principal: Principal) => Promise<void> | void;
};

const reader =
  (principal: Principal) =>
  (repository: string): boolean =>
    principal.allows('pull', repository);

/** By what follows the repository's name in the path. */
const ROUTES: { path: RegExp; methods: Record<string, Method> }[] = [
  {
    path: /^(.+)\/blobs\/uploads\/?()$/,
    methods: {
      POST: {
        action: 'push',
        run: ({ uploads }, exchange, principal) => uploads.begin(exchange, reader(principal)),
      },
    },
  },
  {
    path: /^(.+)\/blobs\/uploads\/([a-z0-9-]+)$/,
    methods: {
      GET: { action: 'push', run: ({ uploads }, exchange) => uploads.status(exchange) },
      PATCH: { action: 'push', run: ({ uploads }, exchange) => uploads.append(exchange) },
      PUT: { action: 'push', run: ({ uploads }, exchange) => uploads.finish(exchange) },
      DELETE: { action: 'push', run: ({ uploads }, exchange) => uploads.cancel(exchange) },
    },
  },
  {
    path: /^(.+)\/blobs\/([^/]+)$/,
    methods: {
      GET: { action: 'pull', run: ({ blobs }, exchange) => blobs.read(exchange) },
      HEAD: { action: 'pull', run: ({ blobs }, exchange) => blobs.read(exchange) },
      DELETE: { action: 'push', run: ({ blobs }, exchange) => blobs.remove(exchange) },
    },
  },
  {
    path: /^(.+)\/manifests\/([^/]+)$/,
    methods: {
      GET: { action: 'pull', run: ({ manifests }, exchange) => manifests.read(exchange) },
      HEAD: { action: 'pull', run: ({ manifests }, exchange) => manifests.read(exchange) },
      PUT: { action: 'push', run: ({ manifests }, exchange) => manifests.write(exchange) },
      DELETE: { action: 'push', run: ({ manifests }, exchange) => manifests.remove(exchange) },
    },
  },
  {
    path: /^(.+)\/tags\/list()$/,
    methods: {
      GET: { action: 'pull', run: ({ manifests }, exchange) => manifests.tags(exchange) },
    },
  },
  {
    path: /^(.+)\/referrers\/([^/]+)$/,
    methods: {
      GET: { action: 'pull', run: ({ manifests }, exchange) => manifests.referrers(exchange) },
    },
  },
];

async function dispatch(
  routes: Routes,
  authenticate: Authenticate,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  response.setHeader('docker-distribution-api-version', 'registry/2.0');
  const url = URL.parse(request.url ?? '', 'http://registry');
  if (!url) throw new RegistryError('NAME_INVALID', 'the path is not valid');
  // Only browsers send it: no page has a business with the registry of the machine it is shown on.
  if (request.headers.origin !== undefined) {
    throw new RegistryError('DENIED', 'requests of web pages are not answered');
  }
  const principal = await authenticate(request);
  if (!principal) {
    const challenge = { 'www-authenticate': 'Basic realm="hypernetes"' };
    throw new RegistryError('UNAUTHORIZED', 'authentication required', challenge);
  }
  const method = request.method ?? '';
  const exchange: Exchange = { request, response, url, method, repository: '', name: '' };
  if (url.pathname === '/v2/' || url.pathname === '/v2') {
    answerJson(exchange, {});
    return;
  }
  if (url.pathname === '/v2/_catalog' && method === 'GET') {
    routes.manifests.catalog(exchange, reader(principal));
    return;
  }
  const path = decodePath(url.pathname);
  const found = path.startsWith('/v2/') ? match(path.slice('/v2/'.length)) : undefined;
  if (!found) throw new RegistryError('NAME_UNKNOWN', 'the path is unknown');
  const handler = found.methods[method];
  if (!handler) {
    const allow = Object.keys(found.methods).join(', ');
    throw new RegistryError('UNSUPPORTED', `the method ${method} is not supported here`, { allow });
  }
  if (!isRepository(found.repository)) {
    throw new RegistryError('NAME_INVALID', 'the name of the repository is not valid');
  }
  if (!principal.allows(handler.action, found.repository)) {
    throw new RegistryError('DENIED', `"${principal.name}" may not ${handler.action} here`);
  }
  exchange.repository = found.repository;
  exchange.name = found.name;
  await handler.run(routes, exchange, principal);
}

function decodePath(pathname: string): string {
  try {
    return decodeURIComponent(pathname);
  } catch {
    throw new RegistryError('NAME_INVALID', 'the path is not valid');
  }
}

function match(path: string) {
  for (const { path: pattern, methods } of ROUTES) {
    const parts = pattern.exec(path);
    if (parts) return { methods, repository: parts[1] as string, name: parts[2] as string };
  }
  return undefined;
}

function answerError(
  request: IncomingMessage,
  response: ServerResponse,
  thrown: unknown,
  log: Log,
): void {
  const error = toRegistryError(storageError(thrown));
  if (error.code === 'UNKNOWN' && !request.destroyed) {
    log.error('request failed', { method: request.method, error: thrown });
  }
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const body = JSON.stringify({
    errors: [{ code: error.code, message: error.message, detail: null }],
  });
  // What is left of the request's body is not worth reading.
  const close: Record<string, string> = request.complete ? {} : { connection: 'close' };
  response.writeHead(error.status, {
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    ...close,
    ...error.headers,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function toRegistryError(error: unknown): RegistryError {
  if (error instanceof RegistryError) return error;
  if (error instanceof ImageError && error.reason === 'NoSpace') {
    return new RegistryError('STORAGE_FULL', error.message);
  }
  return new RegistryError('UNKNOWN', 'the registry failed');
}

/** Two steps: repositories let go of old blobs without a manifest, then what nobody has is removed. */
async function collectGarbage(
  content: ContentStore,
  repositories: Repositories,
  clock: Clock,
): Promise<number> {
  const olderThanMs = clock.nowMs() - UNUSED_BLOB_AGE_MAX_MS;
  for (const name of repositories.names()) {
    await repositories.change(name, (repository) => {
      const used = new Set(
        Object.values(repository.manifests).flatMap(({ references }) => references),
      );
      for (const [digest, { linkedAtMs }] of Object.entries(repository.blobs)) {
        if (linkedAtMs < olderThanMs && !used.has(digest)) delete repository.blobs[digest];
      }
    });
  }
  let bytes = 0;
  for (const blob of await content.list()) {
    // Asked for each: a push may begin to need a blob meanwhile.
    if (blob.storedAtMs >= olderThanMs || isKept(repositories, blob.digest)) continue;
    await content.remove(blob.digest);
    bytes += blob.bytes;
  }
  return bytes;
}

function isKept(repositories: Repositories, digest: string): boolean {
  return repositories.all().some(({ blobs, manifests }) => blobs[digest] || manifests[digest]);
}
