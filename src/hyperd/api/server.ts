import { rm, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { once } from 'node:events';
import { dirname } from 'node:path';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { badRequest } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import type { Daemon } from '../daemon/daemon.ts';
import { toStatusError } from './errors.ts';
import { describeApi } from './openapi.ts';
import { readQuery } from './query.ts';
import { parseJson, readBody, sendJson } from './requests.ts';
import { createRouter, route } from './router.ts';
import type { RouteContext, Router } from './router.ts';
import { ROUTES } from './routes.ts';
import { serveUpgrade } from './upgrades.ts';

/**
 * hyperd's doors: HTTP/1.1 on a unix socket that only root may open, and, when asked, by TLS for
 * those who have a certificate. What is spoken is described in `api/hyperd.ts`. Who comes in may
 * do everything: hyperd has one kind of client.
 */
export interface HyperdServer {
  /** Of the TLS door; undefined where there is none. */
  readonly port: number | undefined;
  close(): Promise<void>;
}

export interface HyperdServerOptions {
  daemon: Daemon;
  /**
   * Its directory is this user's and nobody else may write there. Node.js cannot ask for a peer's
   * credentials (SO_PEERCRED); the kernel compares them with the socket's mode when it connects.
   */
  socketPath: string;
  tls?: TlsDoor | undefined;
  clock: Clock;
  log: Log;
}

/** Certificates in PEM. Whoever has one of `clientCa` may do everything. */
export interface TlsDoor {
  host: string;
  /** 0 for any that is free. */
  port: number;
  cert: string;
  key: string;
  clientCa: string;
}

/** Of the TLS door: nobody is known before the handshake is over. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 10_000;
const TLS_CONNECTIONS_MAX = 512;
/** Of the socket: read and write for its owner. */
const SOCKET_UMASK = 0o177;
const WRITABLE_BY_OTHERS = 0o022;

export async function serveHyperd(options: HyperdServerOptions): Promise<HyperdServer> {
  const { daemon, socketPath, tls, log } = options;
  const routes = [...ROUTES];
  routes.push(
    route('GET', '/openapi.json', { summary: 'This description' }, async () =>
      describeApi(routes, daemon.version),
    ),
  );
  const find = createRouter(routes);
  const streams = new Set<Duplex>();
  const servers: Server[] = [];
  const open = (server: Server) => {
    server.on('request', (request, response) => {
      void answer({ daemon, find }, request, response).catch((error) => {
        log.error('request failed', { path: request.url, error: describeError(error) });
        response.destroy();
      });
    });
    // Pulls and container starts take as long as they take.
    server.requestTimeout = 0;
    server.headersTimeout = HEADERS_TIMEOUT_MS;
    server.on('upgrade', (request, socket, head) => {
      streams.add(socket);
      socket.on('close', () => streams.delete(socket));
      void serveUpgrade({ ...options, find }, request, socket, head).catch((error) => {
        log.debug('stream ended', { path: request.url, error: describeError(error) });
        socket.destroy();
      });
    });
    servers.push(server);
    return server;
  };
  const close = async () => {
    for (const server of servers) {
      server.close();
      server.closeAllConnections();
    }
    for (const socket of streams) socket.destroy();
    await rm(socketPath, { force: true });
  };
  try {
    await listenOnSocket(open(createServer()), socketPath);
    const port = tls && (await listenWithTls(open(createTlsServer(tlsOptions(tls))), tls));
    return { port, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function tlsOptions({ cert, key, clientCa }: TlsDoor) {
  return {
    ...{ cert, key, ca: clientCa },
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3' as const,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  };
}

/** @throws Error where somebody else could put another socket in its place */
async function listenOnSocket(server: Server, path: string): Promise<void> {
  const directory = await stat(dirname(path));
  const isOwn = directory.uid === process.getuid?.();
  if (!isOwn || (directory.mode & WRITABLE_BY_OTHERS) !== 0) {
    const state = isOwn ? 'others may write there' : 'it belongs to somebody else';
    throw new Error(`Cannot serve on "${path}": of its directory, ${state}`);
  }
  await rm(path, { force: true });
  // The socket is made within the call: at no time it is anybody's.
  const umask = process.umask(SOCKET_UMASK);
  server.listen(path);
  process.umask(umask);
  await once(server, 'listening');
}

async function listenWithTls(server: Server, { host, port }: TlsDoor): Promise<number> {
  server.maxConnections = TLS_CONNECTIONS_MAX;
  server.listen({ host, port });
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function answer(
  { daemon, find }: { daemon: Daemon; find: Router },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort(new Error('The client went away')));
  const url = new URL(request.url ?? '/', 'http://hyperd');
  try {
    const match = find(request.method ?? 'GET', url.pathname);
    const { handle, query } = match.route;
    if (!handle) throw badRequest(`${url.pathname} is asked for with an upgrade`);
    const context: RouteContext = {
      ...{ daemon, request, response },
      query: readQuery(query, url.searchParams),
      signal: gone.signal,
      body: async <T>() => parseJson<T>(await readBody(request)),
    };
    const result = await handle(context, ...match.segments);
    if (!response.headersSent) sendJson(response, result === undefined ? 204 : 200, result);
  } catch (error) {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const status = toStatusError(error);
    sendJson(response, status.code, status.toStatus());
  }
}
