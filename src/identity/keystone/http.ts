import * as http from 'node:http';
import * as https from 'node:https';
import type { IncomingMessage } from 'node:http';
import { IdentityUnavailableError } from '../../api/identity.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';

/** A question to Keystone. */
export interface KeystoneRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Below `/v3`, escaped. */
  path: string;
  query?: Record<string, string | undefined>;
  headers?: Record<string, string>;
  body?: unknown;
  /** Of the answer. @default ANSWER_LIMIT_BYTES */
  limitBytes?: number;
  /** All attempts together. */
  timeoutMs?: number;
  /** Doing it twice is as good as once. @default true for all but POST */
  isRepeatable?: boolean;
  signal?: AbortSignal;
}

export interface KeystoneAnswer {
  /** 2xx, or 4xx with an error in Keystone's words. */
  status: number;
  headers: http.IncomingHttpHeaders;
  /** Undefined where the answer has none. */
  body: unknown;
  /** What Keystone said, of 4xx. */
  message: string;
}

export interface KeystoneHttp {
  /** @throws IdentityUnavailableError for everything that is no proper answer of a Keystone */
  call(request: KeystoneRequest): Promise<KeystoneAnswer>;
  close(): void;
}

export interface KeystoneHttpOptions {
  url: URL;
  caCert?: string | undefined;
  timeoutMs: number;
  clock: Clock;
  random: Random;
}

const ANSWER_LIMIT_BYTES = 1 << 20;
const HEADER_LIMIT_BYTES = 32 << 10;
const CONNECTIONS_MAX = 16;
const ATTEMPTS_MAX = 3;
const BACKOFF_MS = 100;
const SHOWN_LENGTH_MAX = 200;

/** The connection broke: the next attempt may find another server behind the address. */
const CONNECTION_ERRORS = new Set([
  ...['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH'],
  ...['EAI_AGAIN', 'ENOTFOUND'],
]);
/** Nothing was sent, so that everything may be repeated. */
const UNSENT_ERRORS = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EAI_AGAIN']);
const TRANSIENT_STATUS = new Set([500, 502, 503, 504]);

/** A status that is not an answer to the question. */
class StatusFailure extends Error {
  readonly status: number;
  constructor(status: number, text: string) {
    super(text);
    this.status = status;
  }
}

/**
 * HTTP as one Keystone speaks it: JSON over kept connections, one address, no redirects; bounded
 * in time, size and connections. Whatever is not an answer in Keystone's form is "unavailable":
 * a proxy's 404 page must not pass for Keystone's word that a token is invalid.
 */
export function createKeystoneHttp(options: KeystoneHttpOptions): KeystoneHttp {
  const { url, clock, random } = options;
  const isTls = url.protocol === 'https:';
  const shape = { keepAlive: true, maxSockets: CONNECTIONS_MAX, scheduling: 'lifo' as const };
  const tls = { ca: options.caCert, minVersion: 'TLSv1.2' as const, rejectUnauthorized: true };
  const agent = isTls ? new https.Agent({ ...shape, ...tls }) : new http.Agent(shape);
  const target: http.RequestOptions = {
    agent,
    hostname: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port || (isTls ? 443 : 80),
    maxHeaderSize: HEADER_LIMIT_BYTES,
  };
  const ended = new AbortController();
  const send = isTls ? https.request : http.request;

  const attempt = async (request: KeystoneRequest, signal: AbortSignal) => {
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = send({
        ...target,
        method: request.method,
        path: pathOf(url, request),
        headers: headersOf(request, body),
        signal,
      });
      outgoing.on('error', reject);
      outgoing.on('response', resolve);
      outgoing.on('close', () => reject(new Error('the connection was closed without an answer')));
      outgoing.end(body);
    });
    return readAnswer(incoming, request.limitBytes ?? ANSWER_LIMIT_BYTES);
  };

  return {
    async call(request) {
      const isRepeatable = request.isRepeatable ?? request.method !== 'POST';
      const timeoutMs = request.timeoutMs ?? options.timeoutMs;
      const deadline = createDeadline(clock, timeoutMs, [ended.signal, request.signal]);
      let last: unknown;
      try {
        for (let count = 1; ; count += 1) {
          try {
            return await attempt(request, deadline.signal);
          } catch (error) {
            deadline.signal.throwIfAborted();
            last = error;
            if (count >= ATTEMPTS_MAX || !mayRepeat(error, isRepeatable)) throw error;
          }
          const backoffMs = BACKOFF_MS * 2 ** (count - 1) * (1 + random.next());
          await clock.sleep(backoffMs, deadline.signal);
        }
      } catch (error) {
        request.signal?.throwIfAborted();
        // Out of time between two attempts, the first one's failure says more.
        const why = last ?? (deadline.signal.aborted ? deadline.signal.reason : error);
        throw new IdentityUnavailableError(
          `Cannot ask Keystone at "${url.origin}" to ${request.method} "${request.path}"`,
          { cause: why },
        );
      } finally {
        deadline.cancel();
      }
    },
    close() {
      ended.abort(new Error('the identity provider is closed'));
      agent.destroy();
    },
  };
}

function createDeadline(clock: Clock, timeoutMs: number, outer: (AbortSignal | undefined)[]) {
  const controller = new AbortController();
  const timer = clock.after(timeoutMs, () =>
    controller.abort(new Error(`no answer in ${timeoutMs} ms`)),
  );
  const signals = outer.filter((signal) => signal !== undefined);
  const forward = () => controller.abort(signals.find(({ aborted }) => aborted)?.reason);
  for (const signal of signals) signal.addEventListener('abort', forward, { once: true });
  if (signals.some(({ aborted }) => aborted)) forward();
  return {
    signal: controller.signal,
    cancel() {
      timer.cancel();
      for (const signal of signals) signal.removeEventListener('abort', forward);
    },
  };
}

function pathOf(url: URL, request: KeystoneRequest): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(request.query ?? {})) {
    if (value !== undefined) query.append(name, value);
  }
  return `${url.pathname}${request.path}${query.size > 0 ? `?${query}` : ''}`;
}

function headersOf(request: KeystoneRequest, body: string | undefined): Record<string, string> {
  return {
    accept: 'application/json',
    'accept-encoding': 'identity',
    'cache-control': 'no-store',
    ...(body === undefined
      ? {}
      : {
          'content-type': 'application/json',
          'content-length': String(Buffer.byteLength(body)),
        }),
    ...request.headers,
  };
}

function mayRepeat(error: unknown, isRepeatable: boolean): boolean {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (UNSENT_ERRORS.has(code)) return true;
  if (!isRepeatable) return false;
  if (error instanceof StatusFailure) return TRANSIENT_STATUS.has(error.status);
  return CONNECTION_ERRORS.has(code);
}

async function readAnswer(incoming: IncomingMessage, limitBytes: number): Promise<KeystoneAnswer> {
  const status = incoming.statusCode ?? 0;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    size += chunk.length;
    // Leaving the loop closes the connection.
    if (size > limitBytes) throw new Error(`the answer is larger than ${limitBytes} bytes`);
    chunks.push(chunk);
  }
  const { headers } = incoming;
  if (status >= 300 && status < 400) {
    throw new StatusFailure(status, `it redirects (${status}), which is not followed`);
  }
  const text = decode(Buffer.concat(chunks));
  if (status >= 500 || status === 429 || status === 408) {
    throw new StatusFailure(status, `it answers ${status}: ${shown(text)}`);
  }
  const isEmpty = text.trim() === '';
  if (status >= 200 && status < 300) {
    return { status, headers, body: isEmpty ? undefined : parse(status, text), message: '' };
  }
  const body = parse(status, text) as { error?: { code?: unknown; message?: unknown } } | null;
  const { code, message } = body?.error ?? {};
  if (code !== status || typeof message !== 'string') {
    throw new StatusFailure(status, `it answers ${status}, not in Keystone's form: ${shown(text)}`);
  }
  return { status, headers, body, message: shown(message) };
}

function decode(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new Error('the answer is not UTF-8', { cause: error });
  }
}

function parse(status: number, text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new StatusFailure(
      status,
      `it answers ${status}, not in JSON: ${shown(text)} (${shown(describeError(error))})`,
    );
  }
}

/** One line of printable text. */
function shown(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ').slice(0, SHOWN_LENGTH_MAX);
}
