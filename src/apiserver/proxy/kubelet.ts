import { request as httpsRequest } from 'node:https';
import type { RequestOptions } from 'node:https';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { checkServerIdentity, connect } from 'node:tls';
import type { ConnectionOptions, PeerCertificate, TLSSocket } from 'node:tls';
import { isIP } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import { NODE_USER_PREFIX } from '../../auth/pki.ts';
import { StatusError } from '../../api/status.ts';
import type { Status } from '../../api/status.ts';
import type { KubeletConnector, NodeAddress } from '../context.ts';
import type { ApiServerLimits } from '../limits.ts';
import { EMPTY } from '../server/exchange.ts';
import type { ApiExchange, ApiReply } from '../server/exchange.ts';
import { protocolsWithoutToken } from '../server/authentication.ts';
import { createShares } from '../server/shares.ts';
import { splice } from './splice.ts';

export interface KubeletTls {
  /** The client certificate that kubelets accept, and its key. PEM. */
  cert: string;
  key: string;
  /** Signs the kubelets' serving certificates. PEM. */
  ca: string;
}

/** Request headers that a kubelet has a use for. The client's credentials are not among them. */
const FORWARDED_HEADERS = [
  'accept',
  'accept-encoding',
  'content-type',
  'upgrade',
  'sec-websocket-key',
  'sec-websocket-version',
  'sec-websocket-protocol',
  'sec-websocket-extensions',
  'x-stream-protocol-version',
];
const ERROR_BODY_BYTES_MAX = 16 * 1024;
/** Of one hop only, or the server's own to set. */
const DROPPED_HEADERS = new Set(['connection', 'keep-alive', 'transfer-encoding', 'date']);

export function createKubeletConnector(options: {
  tls: KubeletTls;
  limits: ApiServerLimits;
  clock: Clock;
  log: Log;
  closing: AbortSignal;
}): KubeletConnector {
  const { limits, closing } = options;
  const streams = createShares(limits.proxyStreams, limits.proxyStreamsPerTenant);
  return {
    async proxy(node, exchange, path, query, user) {
      const finish = streams.take(user);
      if (!finish) {
        const message = 'Too many streams to nodes, please try again later.';
        throw new StatusError('TooManyRequests', message, { details: { retryAfterSeconds: 5 } });
      }
      try {
        const target = query ? `${path}?${query}` : path;
        if (exchange.upgradable) return await upgrade(options, node, exchange, target, finish);
        const signal = AbortSignal.any([exchange.signal, closing]);
        return await forward(options, node, exchange, target, signal, finish);
      } catch (error) {
        finish();
        throw error;
      }
    },
  };
}

type Options = Parameters<typeof createKubeletConnector>[0];

/**
 * TLS as the API server towards a node. The certificate must be the cluster's, and be of the very
 * node: one node must not be able to stand in for another.
 */
function tlsOptions({ tls }: Options, node: NodeAddress): ConnectionOptions {
  return {
    host: node.host,
    port: node.port,
    cert: tls.cert,
    key: tls.key,
    ca: tls.ca,
    ...(isIP(node.name) ? {} : { servername: node.name }),
    checkServerIdentity: (_host: string, certificate: PeerCertificate) =>
      checkNodeIdentity(node, certificate),
    ALPNProtocols: ['http/1.1'],
  };
}

/**
 * The address is what the node itself has told, so a certificate that fits it alone could be that
 * of whoever has this address, another node or the API server: the subject names the node.
 */
function checkNodeIdentity(node: NodeAddress, certificate: PeerCertificate): Error | undefined {
  const wanted = `${NODE_USER_PREFIX}${node.name}`;
  if (certificate.subject?.CN !== wanted) {
    return new Error(`its certificate is that of "${certificate.subject?.CN}", not "${wanted}"`);
  }
  return checkServerIdentity(node.name, certificate) && checkServerIdentity(node.host, certificate);
}

function headersFor(exchange: ApiExchange): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const name of FORWARDED_HEADERS) {
    const value = exchange.headers[name];
    if (value === undefined) continue;
    const safe = name === 'sec-websocket-protocol' ? protocolsWithoutToken(value) : value;
    if (safe) headers[name] = safe;
  }
  return headers;
}

/** A plain request: the answer is streamed as fast as the client reads. */
async function forward(
  options: Options,
  node: NodeAddress,
  exchange: ApiExchange,
  target: string,
  signal: AbortSignal,
  finish: () => void,
): Promise<ApiReply> {
  const response = await send(options, node, exchange, target, signal);
  // Not the body's reader: a body that nobody begins to read never ends.
  response.once('close', finish);
  const status = response.statusCode ?? 502;
  const contentType = response.headers['content-type'] ?? 'application/octet-stream';
  if (status >= 400) throw await kubeletError(response, status, contentType);
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(response.headers)) {
    if (value !== undefined && !DROPPED_HEADERS.has(name)) headers[name] = value;
  }
  return { status, headers, body: bodyOf(response) };
}

function send(
  options: Options,
  node: NodeAddress,
  exchange: ApiExchange,
  target: string,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const { clock, limits } = options;
    const hasBody = exchange.method !== 'GET' && exchange.method !== 'HEAD';
    const headers = headersFor(exchange);
    const outgoing = httpsRequest({
      ...tlsOptions(options, node),
      agent: false,
      method: exchange.method,
      path: target,
      headers: { ...headers, host: `${node.name}:${node.port}` },
      signal,
    } as RequestOptions);
    const timer = clock.after(limits.kubeletConnectTimeoutMs, () => {
      outgoing.destroy(new Error(`no answer within ${limits.kubeletConnectTimeoutMs / 1000} s`));
    });
    outgoing.once('response', (response) => {
      timer.cancel();
      resolve(response);
    });
    outgoing.once('error', (error) => {
      timer.cancel();
      reject(unreachable(node, error));
    });
    if (hasBody) feed(exchange, outgoing).catch((error) => outgoing.destroy(error as Error));
    else outgoing.end();
  });
}

async function feed(exchange: ApiExchange, outgoing: ReturnType<typeof httpsRequest>) {
  for await (const chunk of exchange.body) {
    if (outgoing.write(chunk)) continue;
    await new Promise<void>((resolve) => {
      outgoing.once('drain', resolve);
      outgoing.once('close', resolve);
    });
  }
  outgoing.end();
}

async function* bodyOf(response: IncomingMessage): AsyncIterable<Uint8Array> {
  try {
    for await (const chunk of response) yield chunk as Uint8Array;
  } catch (error) {
    // The client's leaving ends the request to the kubelet, which is no failure.
    if ((error as Error).name !== 'AbortError') throw error;
  } finally {
    response.destroy();
  }
}

/** What went wrong at the kubelet, told in its own words. */
async function kubeletError(
  response: IncomingMessage,
  code: number,
  contentType: string,
): Promise<StatusError> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response) {
    chunks.push(chunk as Uint8Array);
    size += (chunk as Uint8Array).length;
    if (size > ERROR_BODY_BYTES_MAX) break;
  }
  const text = Buffer.concat(chunks).toString('utf8', 0, ERROR_BODY_BYTES_MAX).trim();
  if (contentType.startsWith('application/json')) {
    try {
      const status = JSON.parse(text) as Partial<Status>;
      if (status.kind === 'Status') return StatusError.from({ ...status, code });
    } catch {
      // Not a Status after all: the text says it.
    }
  }
  const reasons: Record<number, string> = {
    400: 'BadRequest',
    401: 'InternalError',
    403: 'Forbidden',
    404: 'NotFound',
    405: 'MethodNotAllowed',
    429: 'TooManyRequests',
    503: 'ServiceUnavailable',
  };
  const reason = reasons[code] ?? 'InternalError';
  return new StatusError(reason, text || `the kubelet answered with ${code}`);
}

function unreachable(node: NodeAddress, error: unknown): StatusError {
  const where = `${node.host}:${node.port}`;
  const message =
    `error dialing backend: cannot reach the kubelet of node "${node.name}" at ${where}: ` +
    describeError(error);
  return new StatusError('InternalError', message, { cause: error });
}

/**
 * A request that leaves HTTP: the connection to the kubelet is opened first, so that a failure is
 * still an ordinary answer; then the two are joined, and what the kubelet answers to the upgrade
 * goes to the client as it is.
 */
async function upgrade(
  options: Options,
  node: NodeAddress,
  exchange: ApiExchange,
  target: string,
  finish: () => void,
): Promise<ApiReply> {
  const upstream = await open(options, node);
  const lines = [`${exchange.method} ${target} HTTP/1.1`, `Host: ${node.name}:${node.port}`];
  lines.push('Connection: Upgrade');
  for (const [name, value] of Object.entries(headersFor(exchange))) {
    if (name !== 'accept-encoding') lines.push(`${name}: ${value}`);
  }
  upstream.write(`${lines.join('\r\n')}\r\n\r\n`);
  const takeOver = (socket: Duplex, head: Buffer) => {
    splice(socket, upstream, {
      head,
      clock: options.clock,
      closing: options.closing,
      firstAnswerTimeoutMs: options.limits.kubeletConnectTimeoutMs,
      onEnd: finish,
    });
  };
  return { status: 101, headers: {}, body: EMPTY, takeOver };
}

function open(options: Options, node: NodeAddress): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const { clock, limits } = options;
    const socket = connect({
      ...tlsOptions(options, node),
      allowHalfOpen: true,
    } as ConnectionOptions);
    const fail = (error: Error) => {
      timer.cancel();
      socket.destroy();
      reject(unreachable(node, error));
    };
    const timer = clock.after(limits.kubeletConnectTimeoutMs, () =>
      fail(new Error(`no connection within ${limits.kubeletConnectTimeoutMs / 1000} s`)),
    );
    socket.once('error', fail);
    socket.once('secureConnect', () => {
      timer.cancel();
      socket.removeListener('error', fail);
      resolve(socket);
    });
  });
}
