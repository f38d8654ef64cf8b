import { X509Certificate } from 'node:crypto';
import * as http2 from 'node:http2';
import * as https from 'node:https';
import type { Duplex } from 'node:stream';
import * as tls from 'node:tls';
import type { Clock, Timer } from '../base/clock.ts';
import { systemClock } from '../base/clock.ts';
import type { ApiRequest, ApiResponse, Transport } from './transport.ts';

export interface HttpsTransportOptions {
  /** `https://host:port` */
  server: string;
  /** PEM. The only CA that is trusted. */
  caCert: string;
  clientCert?: string;
  clientKey?: string;
  /** A token, or where the newest one comes from (tokens in files are rotated). */
  token?: string | (() => Promise<string>);
  /** @default 10 s */
  connectTimeoutMs?: number;
  clock?: Clock;
}

export interface HttpsTransport extends Transport {
  /**
   * Leaves HTTP by an `Upgrade` (HTTP/1.1, its own connection).
   * @throws Error with the answer's status and text when the server refuses
   */
  upgrade(request: UpgradeRequest): Promise<{ socket: Duplex; head: Buffer; protocol: string }>;
}

export interface UpgradeRequest extends Omit<ApiRequest, 'body'> {
  /** `websocket`, `SPDY/3.1`, … */
  protocol: string;
}

const CONNECT_TIMEOUT_MS = 10_000;
/** HTTP/2's default of 64 KiB would make every list wait for the round trip. */
const STREAM_WINDOW_BYTES = 1 << 20;
const SESSION_WINDOW_BYTES = 16 << 20;
/** A peer that vanished without a word is noticed within the sum of these. */
const PING_INTERVAL_MS = 30_000;
const PING_TIMEOUT_MS = 15_000;
const ERROR_TEXT_LIMIT_BYTES = 4096;

/**
 * The API over the network: one HTTP/2 connection for everything, opened with the first request
 * and again after it was lost. A GET whose connection broke before the answer began is sent a
 * second time; other requests only if the server cannot have seen them.
 */
export function createHttpsTransport(options: HttpsTransportOptions): HttpsTransport {
  const url = new URL(options.server);
  const clock = options.clock ?? systemClock;
  const credentials = { ca: options.caCert, cert: options.clientCert, key: options.clientKey };
  let current: Promise<http2.ClientHttp2Session> | undefined;
  let isClosed = false;

  const open = (): Promise<http2.ClientHttp2Session> => {
    if (isClosed) return Promise.reject(new Error('Cannot send request: the transport is closed'));
    if (current) return current;
    const opening = connectSession(url, credentials, options.connectTimeoutMs, clock);
    current = opening;
    const forget = () => {
      if (current === opening) current = undefined;
    };
    opening.then((session) => {
      session.on('close', forget);
      session.on('goaway', forget);
    }, forget);
    return opening;
  };

  const headersOf = async (request: ApiRequest | UpgradeRequest) => {
    const { token } = options;
    const value = typeof token === 'function' ? await token() : token;
    return { ...request.headers, ...(value ? { authorization: `Bearer ${value}` } : {}) };
  };

  return {
    async request(request) {
      const headers = await headersOf(request);
      for (let attempt = 0; ; attempt++) {
        request.signal?.throwIfAborted();
        const session = await open();
        try {
          return await sendOn(session, request, headers);
        } catch (error) {
          request.signal?.throwIfAborted();
          const mayRepeat = request.method === 'GET' || wasNotProcessed(error);
          if (attempt > 0 || !mayRepeat || isClosed) throw error;
        }
      }
    },

    async upgrade(request) {
      const headers = await headersOf(request);
      return upgradeTo(url, credentials, request, headers);
    },

    async close() {
      isClosed = true;
      const session = await current?.catch(() => undefined);
      session?.destroy();
    },
  };
}

interface Credentials {
  ca: string;
  cert?: string | undefined;
  key?: string | undefined;
}

function connectSession(
  url: URL,
  credentials: Credentials,
  timeoutMs = CONNECT_TIMEOUT_MS,
  clock: Clock,
): Promise<http2.ClientHttp2Session> {
  return new Promise((resolve, reject) => {
    const session = http2.connect(url.origin, {
      ...credentials,
      minVersion: 'TLSv1.2',
      settings: { initialWindowSize: STREAM_WINDOW_BYTES, enablePush: false },
    });
    const timer = clock.after(timeoutMs, () => {
      session.destroy(new Error(`Cannot connect to "${url.host}": no answer in ${timeoutMs} ms`));
    });
    session.once('connect', () => {
      timer.cancel();
      session.setLocalWindowSize(SESSION_WINDOW_BYTES);
      keepAlive(session, clock);
      resolve(session);
    });
    // After the connection stands, failures reach the streams; this listener keeps Node from
    // treating the session's own copy as unhandled.
    session.on('error', (error) => {
      timer.cancel();
      reject(new Error(`Cannot connect to "${url.host}"`, { cause: error }));
    });
    session.once('close', () => {
      timer.cancel();
      reject(new Error(`Cannot connect to "${url.host}": the connection was closed`));
    });
  });
}

function keepAlive(session: http2.ClientHttp2Session, clock: Clock): void {
  /** The next ping, or the limit of the one that is under way. */
  let timer: Timer;
  const schedule = (): void => {
    timer = clock.after(PING_INTERVAL_MS, () => {
      // Between its destruction and the event that tells of it, which cancels this.
      if (session.destroyed) return;
      timer = clock.after(PING_TIMEOUT_MS, () =>
        session.destroy(new Error('connection is dead: a ping was not answered')),
      );
      session.ping((error) => {
        timer.cancel();
        if (!error && !session.destroyed) schedule();
      });
    });
  };
  schedule();
  session.once('close', () => timer.cancel());
}

/** `/path?a=b`, with absent values left out. */
function pathWithQuery({ path, query }: Pick<ApiRequest, 'path' | 'query'>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const item of [value].flat()) if (item !== undefined) parameters.append(name, item);
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
}

function sendOn(
  session: http2.ClientHttp2Session,
  request: ApiRequest,
  headers: Record<string, string>,
): Promise<ApiResponse> {
  return new Promise((resolve, reject) => {
    const stream = session.request(
      { ...headers, ':method': request.method, ':path': pathWithQuery(request) },
      { endStream: request.body === undefined, signal: request.signal },
    );
    stream.on('error', reject);
    stream.on('close', () => reject(new Error('connection was closed before the answer began')));
    stream.on('response', (answer) => {
      const plain: Record<string, string> = {};
      for (const [name, value] of Object.entries(answer)) {
        if (!name.startsWith(':') && value !== undefined) plain[name] = [value].flat().join(', ');
      }
      resolve({ status: Number(answer[':status']), headers: plain, body: stream });
    });
    if (request.body !== undefined) stream.end(request.body);
  });
}

/** Whether the server has certainly not acted on the request. */
function wasNotProcessed(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  const message = String((error as Error | undefined)?.message);
  return (
    code === 'ERR_HTTP2_INVALID_SESSION' ||
    code === 'ERR_HTTP2_GOAWAY_SESSION' ||
    message.includes('NGHTTP2_REFUSED_STREAM')
  );
}

function upgradeTo(
  url: URL,
  credentials: Credentials,
  request: UpgradeRequest,
  headers: Record<string, string>,
): Promise<{ socket: Duplex; head: Buffer; protocol: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = https.request({
      ...credentials,
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port || 443,
      method: request.method,
      path: pathWithQuery(request),
      headers: { ...headers, connection: 'Upgrade', upgrade: request.protocol },
      signal: request.signal,
      agent: false,
    });
    outgoing.on('error', reject);
    outgoing.on('upgrade', (response, socket, head) => {
      const protocol =
        response.headers['sec-websocket-protocol'] ?? response.headers['x-stream-protocol-version'];
      resolve({ socket, head, protocol: String(protocol ?? '') });
    });
    outgoing.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        if (text.length < ERROR_TEXT_LIMIT_BYTES) text += chunk;
      });
      response.on('end', () => {
        reject(new Error(`Cannot upgrade to ${request.protocol}: ${response.statusCode}: ${text}`));
      });
    });
    outgoing.end();
  });
}

/**
 * The CA of a server that is known only by the CA's fingerprint: for a machine that joins. The
 * chain that the server shows must contain that CA, and the server's own certificate must be
 * signed by it. Nothing secret is sent on this connection.
 *
 * @param caSha256 sha-256 of the CA certificate's DER, lower-case hexadecimal
 * @returns the CA as PEM; every further connection uses it in full
 */
export async function fetchPinnedCa(
  server: string,
  caSha256: string,
  options: FetchCaOptions = {},
): Promise<string> {
  const chain = await fetchChain(server, options);
  const ca = chain.find((certificate) => fingerprint(certificate) === caSha256);
  const { host } = new URL(server);
  if (!ca) throw new Error(`Cannot trust "${host}": its CA is not the one the token names`);
  return signerOf(chain, ca, host);
}

/**
 * The CA that a server shows, unverified: it is for somebody to compare its fingerprint before
 * anything is sent. The server's own certificate is signed by it.
 *
 * @returns PEM
 */
export async function fetchOfferedCa(
  server: string,
  options: FetchCaOptions = {},
): Promise<string> {
  const chain = await fetchChain(server, options);
  const ca = chain.find((certificate) => certificate.ca && certificate.checkIssued(certificate));
  const { host } = new URL(server);
  if (!ca) throw new Error(`"${host}" does not show its CA`);
  return signerOf(chain, ca, host);
}

export interface FetchCaOptions {
  timeoutMs?: number;
  clock?: Clock;
}

function signerOf([leaf]: X509Certificate[], ca: X509Certificate, host: string): string {
  if (leaf?.checkIssued(ca) && leaf.verify(ca.publicKey)) return ca.toString();
  throw new Error(`Cannot trust "${host}": its certificate is not signed by its CA`);
}

function fetchChain(server: string, options: FetchCaOptions): Promise<X509Certificate[]> {
  const url = new URL(server);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const timeoutMs = options.timeoutMs ?? CONNECT_TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host, port: Number(url.port) || 443, rejectUnauthorized: false });
    const timer = (options.clock ?? systemClock).after(timeoutMs, () => {
      socket.destroy(new Error(`Cannot connect to "${url.host}": no answer in ${timeoutMs} ms`));
    });
    socket.on('error', (error) => {
      timer.cancel();
      reject(error);
    });
    socket.on('secureConnect', () => {
      timer.cancel();
      const chain = peerChain(socket);
      socket.destroy();
      resolve(chain);
    });
  });
}

const CHAIN_LENGTH_LIMIT = 8;

function peerChain(socket: tls.TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = [];
  let next: tls.DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
  while (next?.raw && chain.length < CHAIN_LENGTH_LIMIT) {
    chain.push(new X509Certificate(next.raw));
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate;
  }
  return chain;
}

function fingerprint(certificate: X509Certificate): string {
  return certificate.fingerprint256.replaceAll(':', '').toLowerCase();
}
