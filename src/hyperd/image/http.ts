import { lookup as resolveName } from 'node:dns';
import { Agent as HttpAgent, request as requestHttp } from 'node:http';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import { BlockList, isIP } from 'node:net';
import type { LookupFunction } from 'node:net';
import { networkInterfaces } from 'node:os';
import { Transform } from 'node:stream';
import type { Readable } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import type { HostTls } from './registries.ts';

/**
 * A small HTTP client for registries: time limits on every step, certificates per host, and no
 * way for a registry to send the node to itself.
 */
export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  url: URL;
  headers?: Record<string, string>;
  /** A function makes a stream of it, anew for each attempt; its length is in the headers. */
  body?: string | Uint8Array | (() => Readable) | undefined;
  tls: HostTls | undefined;
  /** Whether addresses of the node itself may be reached. */
  allowLocal: boolean;
  signal?: AbortSignal | undefined;
}

export interface HttpResponse {
  status: number;
  headers: IncomingMessage['headers'];
  /** Chunks of the body. Rejects when the server stalls. Must be read to the end or destroyed. */
  body: AsyncIterable<Buffer>;
  destroy(): void;
}

export interface HttpClient {
  send(request: HttpRequest): Promise<HttpResponse>;
  close(): void;
}

/** The request was not answered, or not to the end. Trying again may help. */
export class HttpError extends Error {
  override name = 'HttpError';
  readonly transient: boolean;
  constructor(message: string, options: { cause?: unknown; transient?: boolean } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.transient = options.transient ?? true;
  }
}

/** Until the first byte of the answer. */
export const HEADERS_TIMEOUT_MS = 30_000;
/** Between two pieces of a body. */
export const STALL_TIMEOUT_MS = 30_000;
const SOCKETS_PER_HOST_MAX = 16;
const SOCKET_IDLE_TIMEOUT_MS = 15_000;
const AGENTS_MAX = 64;

/** Loopback, link-local (where clouds keep their metadata service) and unspecified. */
const LOCAL_ADDRESSES = (() => {
  const list = new BlockList();
  list.addSubnet('127.0.0.0', 8, 'ipv4');
  list.addSubnet('0.0.0.0', 8, 'ipv4');
  list.addSubnet('169.254.0.0', 16, 'ipv4');
  list.addAddress('::1', 'ipv6');
  list.addAddress('::', 'ipv6');
  list.addSubnet('fe80::', 10, 'ipv6');
  return list;
})();

/** Whether the address is the node's own: loopback, link-local or unspecified. */
export function isLocalAddress(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && LOCAL_ADDRESSES.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

/**
 * Whether an address leads to this node: one that always does, or one that an interface has now.
 * What listens there is kept from pods by the node's packet filter; a pull must not be a way round.
 */
export function isNodeAddress(address: string, interfaces = networkInterfaces()): boolean {
  if (isLocalAddress(address)) return true;
  const family = isIP(address);
  if (family === 0) return false;
  const own = new BlockList();
  for (const { address: each } of Object.values(interfaces).flatMap((list) => list ?? [])) {
    own.addAddress(each, isIP(each) === 6 ? 'ipv6' : 'ipv4');
  }
  return own.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

const lookupElsewhere: LookupFunction = (hostname, options, callback) => {
  resolveName(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) {
      callback(error, [], 0);
      return;
    }
    if (addresses.some(({ address }) => isNodeAddress(address))) {
      callback(localError(hostname), [], 0);
      return;
    }
    const first = addresses[0];
    if (options.all) callback(null, addresses);
    else callback(null, first?.address ?? '', first?.family ?? 4);
  });
};

function localError(host: string): HttpError {
  return new HttpError(
    `"${host}" is an address of this node, which only the node's registries configuration may name`,
    { transient: false },
  );
}

export function createHttpClient(options: { clock: Clock }): HttpClient {
  const agents = new Map<HostTls | string, HttpAgent | HttpsAgent>();
  const agentOptions = {
    keepAlive: true,
    maxSockets: SOCKETS_PER_HOST_MAX,
    timeout: SOCKET_IDLE_TIMEOUT_MS,
  };
  const agentFor = (request: HttpRequest): HttpAgent | HttpsAgent => {
    const isTls = request.url.protocol === 'https:';
    // A socket that was opened under one rule must not serve the other.
    const key = isTls && request.tls ? request.tls : `${request.url.protocol}${request.allowLocal}`;
    let agent = agents.get(key);
    if (agent) return agent;
    if (agents.size >= AGENTS_MAX) {
      const [oldest] = agents;
      oldest?.[1].destroy();
      if (oldest) agents.delete(oldest[0]);
    }
    agent = isTls
      ? new HttpsAgent({ ...agentOptions, ...tlsOptions(request.tls) })
      : new HttpAgent(agentOptions);
    agents.set(key, agent);
    return agent;
  };
  return {
    send: (request) => send(request, agentFor(request), options.clock),
    close() {
      for (const agent of agents.values()) agent.destroy();
      agents.clear();
    },
  };
}

function tlsOptions(tls: HostTls | undefined) {
  return {
    minVersion: 'TLSv1.2' as const,
    ca: tls?.ca,
    cert: tls?.cert,
    key: tls?.key,
    rejectUnauthorized: !(tls?.insecureSkipVerify ?? false),
  };
}

function send(
  request: HttpRequest,
  agent: HttpAgent | HttpsAgent,
  clock: Clock,
): Promise<HttpResponse> {
  const { url, signal } = request;
  const address = url.hostname.replace(/^\[|\]$/g, '');
  if (!request.allowLocal && isNodeAddress(address)) return Promise.reject(localError(url.host));
  if (signal?.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const outgoing = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, {
      method: request.method,
      headers: { 'user-agent': 'hypernetes', ...request.headers },
      agent,
      ...(request.allowLocal ? {} : { lookup: lookupElsewhere }),
    });
    const watch = () =>
      clock.after(HEADERS_TIMEOUT_MS, () =>
        outgoing.destroy(new HttpError(`no answer within ${HEADERS_TIMEOUT_MS / 1000} s`)),
      );
    let timer = watch();
    const abort = () => outgoing.destroy(signal?.reason as Error);
    signal?.addEventListener('abort', abort, { once: true });
    outgoing.on('close', () => {
      timer.cancel();
      signal?.removeEventListener('abort', abort);
    });
    outgoing.on('error', (error) => reject(signal?.aborted ? signal.reason : toHttpError(error)));
    outgoing.on('response', (incoming) => {
      timer.cancel();
      resolve({
        status: incoming.statusCode ?? 0,
        headers: incoming.headers,
        body: readBody(incoming, clock, signal),
        destroy: () => incoming.destroy(),
      });
    });
    const { body } = request;
    if (typeof body !== 'function') {
      outgoing.end(body);
      return;
    }
    // As long as the server takes something it need not answer.
    sendStream(body(), outgoing, () => {
      timer.cancel();
      if (!outgoing.destroyed) timer = watch();
    });
  });
}

function sendStream(body: Readable, outgoing: ClientRequest, onChunk: () => void): void {
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      onChunk();
      done(null, chunk);
    },
  });
  body.on('error', (error) => outgoing.destroy(error));
  outgoing.on('close', () => body.destroy());
  body.pipe(counted).pipe(outgoing);
}

async function* readBody(
  incoming: IncomingMessage,
  clock: Clock,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  const watch = () =>
    clock.after(STALL_TIMEOUT_MS, () =>
      incoming.destroy(new HttpError(`no data for ${STALL_TIMEOUT_MS / 1000} s`)),
    );
  let timer = watch();
  try {
    for await (const chunk of incoming) {
      timer.cancel();
      yield chunk as Buffer;
      timer = watch();
    }
  } catch (error) {
    throw signal?.aborted ? signal.reason : toHttpError(error);
  } finally {
    timer.cancel();
    incoming.destroy();
  }
}

/** As container runtimes say it, who say it as Go does. */
const NETWORK_ERRORS: Record<string, string> = {
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'temporary failure in name resolution',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset by peer',
  EHOSTUNREACH: 'no route to host',
  ENETUNREACH: 'network is unreachable',
  ETIMEDOUT: 'connection timed out',
};

interface NetworkError extends NodeJS.ErrnoException {
  hostname?: string;
  address?: string;
  port?: number;
}

function networkWords(error: NetworkError): string {
  const { code = '', message, hostname, address, port } = error;
  const words = NETWORK_ERRORS[code];
  if (words === undefined) return message || code;
  if (hostname !== undefined) return `lookup ${hostname}: ${words}`;
  const peer = address?.includes(':') ? `[${address}]` : address;
  return address === undefined ? words : `dial tcp ${peer}:${port}: ${words}`;
}

/** What the network says, in words; certificates that do not fit will not fit later either. */
function toHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  const { code = '' } = error as NodeJS.ErrnoException;
  if (error instanceof AggregateError) {
    const [first = error] = error.errors as Error[];
    return new HttpError(networkWords(first), { cause: error });
  }
  const isCertificate =
    /CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME|ERR_SSL|ERR_TLS/.test(code) || code === 'EPROTO';
  const words = networkWords(error as NetworkError);
  return new HttpError(words, { cause: error, transient: !isCertificate });
}

/** Reads a whole body of at most `bytesMax`; undefined where it is larger. */
export async function readAll(
  response: HttpResponse,
  bytesMax: number,
): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response.body) {
    bytes += chunk.length;
    if (bytes > bytesMax) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
