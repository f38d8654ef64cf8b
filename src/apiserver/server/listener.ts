import { createSecureServer } from 'node:http2';
import type {
  Http2SecureServer,
  Http2ServerRequest,
  Http2ServerResponse,
  ServerHttp2Session,
} from 'node:http2';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { peerIdentity } from '../../auth/authenticators.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import type { ApiServerLimits } from '../limits.ts';
import type { ApiExchange, ApiReply } from './exchange.ts';
import { StalledClientError, writeReply } from './writer.ts';
import type { ResponseSink } from './writer.ts';

export interface TlsMaterial {
  key: string;
  cert: string;
  /** Certificates of the authorities that sign clients, PEM. */
  clientCa: string;
}

export interface ListenerOptions {
  host: string;
  port: number;
  tls: TlsMaterial;
  limits: ApiServerLimits;
  clock: Clock;
  log: Log;
  handle: (exchange: ApiExchange) => Promise<ApiReply>;
}

export interface Listener {
  address: AddressInfo;
  connectionCount(): number;
  /** Ends every connection, running streams too. */
  close(): Promise<void>;
}

type AnyRequest = IncomingMessage | Http2ServerRequest;
type AnyResponse = ServerResponse | Http2ServerResponse;

/** How often connections are looked at whose headers do not come; Node's default is 30 s. */
const HEADERS_CHECK_INTERVAL_MAX_MS = 5_000;
/** Bytes of unread streams and of headers that one HTTP/2 connection may hold, in MiB. */
const SESSION_MEMORY_MIB = 32;

/** HTTP/2, HTTP/1.1 and upgrades on one TLS port. */
export async function listen(options: ListenerOptions): Promise<Listener> {
  const { limits } = options;
  const server = createSecureServer({
    allowHTTP1: true,
    key: options.tls.key,
    cert: options.tls.cert,
    ca: options.tls.clientCa,
    requestCert: true,
    // A wrong certificate is answered with 401, which says more than a broken handshake.
    rejectUnauthorized: false,
    minVersion: 'TLSv1.2',
    handshakeTimeout: limits.tlsHandshakeTimeoutMs,
    maxSessionMemory: SESSION_MEMORY_MIB,
    settings: {
      maxConcurrentStreams: limits.streamsPerConnection,
      maxHeaderListSize: limits.requestHeaderBytes,
    },
    maxHeaderSize: limits.requestHeaderBytes,
    connectionsCheckingInterval: Math.min(
      HEADERS_CHECK_INTERVAL_MAX_MS,
      limits.requestHeadersTimeoutMs,
    ),
  } as Parameters<typeof createSecureServer>[0]);
  const sockets = new Set<Socket>();
  configureServer(server, options, sockets);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  server.on('error', (error) => {
    options.log.error('The listener failed', { error });
  });
  return {
    address: server.address() as AddressInfo,
    connectionCount: () => sockets.size,
    close: () => closeServer(server, sockets),
  };
}

interface Http1Timeouts {
  headersTimeout: number;
  requestTimeout: number;
  keepAliveTimeout: number;
}

function configureServer(
  server: Http2SecureServer,
  options: ListenerOptions,
  sockets: Set<Socket>,
): void {
  const { limits, log } = options;
  server.maxConnections = limits.connectionCount;
  Object.assign(server, {
    headersTimeout: limits.requestHeadersTimeoutMs,
    // The body has a timeout of its own, for both versions of HTTP.
    requestTimeout: 0,
    keepAliveTimeout: limits.connectionIdleTimeoutMs,
  } satisfies Http1Timeouts);
  const admit = admissionByAddress(limits.connectionsPerAddress);
  server.on('connection', (socket: Socket) => {
    // A client may reset at any time, and most of all before TLS has taken over.
    socket.on('error', () => {});
    if (!admit(socket)) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', (_error, socket: TLSSocket) => socket.destroy());
  server.on('sessionError', (_error, session?: ServerHttp2Session) => session?.destroy());
  server.on('session', (session: ServerHttp2Session) => limitIdleSession(session, limits));
  server.on(
    'clientError' as 'unknownProtocol',
    ((error: NodeJS.ErrnoException, socket: Duplex) => {
      refuseMalformed(error, socket);
    }) as never,
  );
  server.on('request', (request, response) => {
    serve(request, response, options).catch((error) => {
      if (error instanceof StalledClientError) return;
      // A client that has read enough closes its stream: nothing that anybody should look into.
      const level = response.destroyed ? 'debug' : 'warn';
      log[level]('Cannot finish an answer', { error: describeError(error), path: request.url });
    });
  });
  server.on(
    'upgrade' as 'request',
    ((request: IncomingMessage, socket: Duplex, head: Buffer) => {
      serveUpgrade(request, socket, head, options).catch((error) => {
        log.warn('Cannot answer an upgrade', { error: describeError(error), path: request.url });
        socket.destroy();
      });
    }) as never,
  );
}

/** Keeps one machine, or one pod, from taking all connections before anybody knows who it is. */
function admissionByAddress(countMax: number): (socket: Socket) => boolean {
  const counts = new Map<string, number>();
  return (socket) => {
    const address = socket.remoteAddress ?? '';
    const count = counts.get(address) ?? 0;
    if (count >= countMax) return false;
    counts.set(address, count + 1);
    socket.once('close', () => {
      const left = (counts.get(address) ?? 1) - 1;
      if (left > 0) counts.set(address, left);
      else counts.delete(address);
    });
    return true;
  };
}

function limitIdleSession(session: ServerHttp2Session, limits: ApiServerLimits): void {
  let openStreams = 0;
  session.on('stream', (stream) => {
    openStreams += 1;
    stream.on('error', () => {});
    stream.once('close', () => {
      openStreams -= 1;
    });
  });
  session.on('error', () => {});
  session.setTimeout(limits.connectionIdleTimeoutMs, () => {
    if (openStreams === 0) session.close();
  });
}

function refuseMalformed(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const lines: Record<string, string> = {
    HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
    ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  };
  const line = lines[error.code ?? ''] ?? '400 Bad Request';
  socket.end(`HTTP/1.1 ${line}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

async function serve(
  request: AnyRequest,
  response: AnyResponse,
  options: ListenerOptions,
): Promise<void> {
  const closed = new AbortController();
  response.on('close', () => closed.abort());
  response.on('error', () => closed.abort());
  const exchange = exchangeOf(request, closed.signal, false, options.clock);
  const reply = await options.handle(exchange);
  if (response.destroyed) {
    await discard(reply);
    return;
  }
  const headers = { ...reply.headers };
  const bodyUnread = !request.complete && hasBody(request);
  if (bodyUnread && request.httpVersionMajor === 1) headers.connection = 'close';
  await writeReply(
    response as unknown as ResponseSink,
    { ...reply, headers },
    {
      acceptEncoding: exchange.headers['accept-encoding'],
      headOnly: request.method === 'HEAD',
      limits: options.limits,
      clock: options.clock,
      signal: closed.signal,
    },
  );
  if (bodyUnread) request.resume();
}

function hasBody(request: AnyRequest): boolean {
  return request.method !== 'GET' && request.method !== 'HEAD';
}

/** Ends what a reply holds when nobody is there to read it. */
async function discard(reply: ApiReply): Promise<void> {
  if (reply.body instanceof Uint8Array) return;
  await reply.body[Symbol.asyncIterator]().return?.();
}

async function serveUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  options: ListenerOptions,
): Promise<void> {
  const closed = new AbortController();
  socket.on('error', () => closed.abort());
  socket.on('close', () => closed.abort());
  const reply = await options.handle(exchangeOf(request, closed.signal, true, options.clock));
  if (reply.takeOver) {
    reply.takeOver(socket, head);
    return;
  }
  await writeRefusal(socket, reply, options, closed.signal);
}

/** An upgrade that is refused gets an ordinary answer, after which the connection ends. */
async function writeRefusal(
  socket: Duplex,
  reply: ApiReply,
  options: ListenerOptions,
  signal: AbortSignal,
): Promise<void> {
  const sink = Object.assign(socket, {
    writeHead(status: number, headers: Record<string, string | string[]>) {
      const lines = [
        `HTTP/1.1 ${status} ${status === 200 ? 'OK' : 'Refused'}`,
        'Connection: close',
      ];
      for (const [name, value] of Object.entries(headers)) {
        for (const one of [value].flat()) lines.push(`${name}: ${one}`);
      }
      socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    },
  });
  const { limits, clock } = options;
  const write = { acceptEncoding: undefined, headOnly: false, limits, clock, signal };
  await writeReply(sink as unknown as ResponseSink, reply, write);
}

function exchangeOf(
  request: AnyRequest,
  signal: AbortSignal,
  upgradable: boolean,
  clock: Clock,
): ApiExchange {
  const url = request.url ?? '/';
  const mark = url.indexOf('?');
  const rawQuery = mark < 0 ? '' : url.slice(mark + 1);
  const socket = request.socket as TLSSocket;
  const headers: ApiExchange['headers'] = {};
  for (const [name, value] of Object.entries(request.headers)) {
    headers[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return {
    method: request.method ?? 'GET',
    path: mark < 0 ? url : url.slice(0, mark),
    rawQuery,
    query: new URLSearchParams(rawQuery),
    headers,
    body: request,
    signal,
    ...clientCertificateOf(connectionOf(request), socket, clock),
    user: undefined,
    remoteAddress: socket.remoteAddress ?? '',
    upgradable,
  };
}

/** What stays the same over a connection: an HTTP/2 request's socket is a new proxy each time. */
function connectionOf(request: AnyRequest): object {
  const session = 'stream' in request ? request.stream.session : undefined;
  return session ?? request.socket;
}

interface Peer {
  /** Undefined where the certificate names nobody, or several. */
  identity: ApiExchange['clientCertificate'];
  validFromMs: number;
  validToMs: number;
}

/** Parsed once a connection; a null is a client without a certificate. */
const peers = new WeakMap<object, Peer | null>();

type CertificateFields = Pick<ApiExchange, 'clientCertificate' | 'clientCertificateError'>;

/**
 * Whom the client's certificate names. Its dates are looked at again on every request, since a
 * connection can outlive the certificate it was opened with.
 */
function clientCertificateOf(
  connection: object,
  socket: TLSSocket,
  clock: Clock,
): CertificateFields {
  const none = { clientCertificate: undefined, clientCertificateError: undefined };
  let peer = peers.get(connection);
  if (peer === undefined) {
    peer = readPeer(socket);
    peers.set(connection, peer);
  }
  if (peer === null) return none;
  if (!peer.identity) {
    return { ...none, clientCertificateError: 'The certificate does not have one common name' };
  }
  if (!socket.authorized) {
    return { ...none, clientCertificateError: String(socket.authorizationError) };
  }
  const nowMs = clock.nowMs();
  if (nowMs < peer.validFromMs || nowMs > peer.validToMs) {
    return { ...none, clientCertificateError: 'The certificate is not valid at this time' };
  }
  return { ...none, clientCertificate: peer.identity };
}

function readPeer(socket: TLSSocket): Peer | null {
  const certificate = socket.getPeerCertificate?.();
  if (!certificate?.subject) return null;
  return {
    identity: peerIdentity(certificate),
    validFromMs: Date.parse(certificate.valid_from),
    validToMs: Date.parse(certificate.valid_to),
  };
}

async function closeServer(server: Http2SecureServer, sockets: Set<Socket>): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  for (const socket of sockets) socket.destroy();
  await closed;
}
