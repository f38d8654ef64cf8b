import { connect } from 'node:http2';
import type { ClientHttp2Session } from 'node:http2';
import { request as requestHttps } from 'node:https';
import { connect as connectTls } from 'node:tls';
import { systemClock } from '../../../src/base/clock.ts';
import type { KeyPair } from '../../../src/auth/pki.ts';

/** What somebody shows to be let in; nothing at all is the anonymous user. */
export interface Credential {
  token?: string;
  pair?: KeyPair;
}

export interface Request {
  method?: string;
  /** With its query, sent as it stands here. */
  path: string;
  body?: unknown;
  headers?: Record<string, string | string[]>;
  /** @default application/json; a PATCH is a merge patch */
  type?: string;
  /** @default http2 */
  via?: 'http1' | 'http2' | 'websocket';
  /** Enough of an endless answer. @default its end, or `ANSWER_TIMEOUT_MS` */
  until?: (text: string) => boolean;
}

export interface Answer {
  /** 0: the connection was cut without an answer. */
  status: number;
  headers: Record<string, string>;
  text: string;
  tookMs: number;
}

export interface AttackClient {
  send(credential: Credential, request: Request): Promise<Answer>;
  /** Bytes as they are, on a connection of their own, and all that comes back. */
  raw(credential: Credential, bytes: string): Promise<Answer>;
  close(): void;
}

/** How long an answer is listened to that does not end. */
const ANSWER_TIMEOUT_MS = 5_000;

const MERGE_PATCH = 'application/merge-patch+json';

export function createAttackClient(port: number, ca: string): AttackClient {
  const sessions = new Map<string, ClientHttp2Session>();
  const sessionOf = ({ pair }: Credential): ClientHttp2Session => {
    const key = pair?.cert ?? '';
    const known = sessions.get(key);
    if (known && !known.closed && !known.destroyed) return known;
    const session = connect(`https://127.0.0.1:${port}`, { ca, ...pair });
    session.on('error', () => {});
    sessions.set(key, session);
    return session;
  };
  return {
    send(credential, request) {
      if (request.via === undefined || request.via === 'http2') {
        return overHttp2(sessionOf(credential), credential, request);
      }
      return overHttp1(port, ca, credential, request);
    },
    raw: (credential, bytes) => overTls(port, ca, credential, bytes),
    close() {
      for (const session of sessions.values()) session.destroy();
    },
  };
}

function headersOf(credential: Credential, { method, body, headers, type }: Request) {
  const contentType = type ?? (method === 'PATCH' ? MERGE_PATCH : 'application/json');
  return {
    accept: 'application/json',
    ...(body === undefined ? {} : { 'content-type': contentType }),
    ...(credential.token === undefined ? {} : { authorization: `Bearer ${credential.token}` }),
    ...headers,
  };
}

function bytesOf({ body }: Request): string | undefined {
  return body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
}

/** Gathers an answer until it ends, is enough, or lasts too long. */
function gather(until: Request['until']) {
  const startMs = performance.now();
  const answer: Answer = { status: 0, headers: {}, text: '', tookMs: 0 };
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const done = () => {
    timer.cancel();
    resolve({ ...answer, tookMs: performance.now() - startMs });
  };
  const timer = systemClock.after(ANSWER_TIMEOUT_MS, done);
  return {
    ...{ promise, done },
    begin(status: number, headers: Record<string, unknown>) {
      answer.status = status;
      for (const [name, value] of Object.entries(headers)) answer.headers[name] = String(value);
    },
    take(chunk: Uint8Array) {
      answer.text += Buffer.from(chunk).toString('utf8');
      if (until?.(answer.text)) done();
    },
  };
}

async function overHttp2(
  session: ClientHttp2Session,
  credential: Credential,
  request: Request,
): Promise<Answer> {
  const { method = 'GET', path } = request;
  const answer = gather(request.until);
  const headers = { ':method': method, ':path': path, ...headersOf(credential, request) };
  const stream = session.request(headers);
  stream.on('response', (got) => answer.begin(Number(got[':status']), got));
  stream.on('data', answer.take);
  for (const event of ['end', 'error', 'close']) stream.on(event, answer.done);
  stream.end(bytesOf(request));
  const got = await answer.promise;
  stream.close();
  return got;
}

const UPGRADE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
};

async function overHttp1(
  port: number,
  ca: string,
  credential: Credential,
  request: Request,
): Promise<Answer> {
  const { method = 'GET', path, via } = request;
  const answer = gather(request.until);
  const sent = requestHttps({
    ...{ host: '127.0.0.1', port, ca, method, path, agent: false, ...credential.pair },
    headers: { ...(via === 'websocket' ? UPGRADE : {}), ...headersOf(credential, request) },
  });
  sent.on('response', (got) => {
    answer.begin(got.statusCode ?? 0, got.headers);
    got.on('data', answer.take);
    for (const event of ['end', 'error', 'close']) got.on(event, answer.done);
  });
  sent.on('upgrade', (got, socket, head) => {
    answer.begin(got.statusCode ?? 0, got.headers);
    answer.take(head);
    socket.on('data', answer.take);
    for (const event of ['end', 'error', 'close']) socket.on(event, answer.done);
  });
  sent.on('error', answer.done);
  sent.end(bytesOf(request));
  const got = await answer.promise;
  sent.destroy();
  return got;
}

async function overTls(
  port: number,
  ca: string,
  { pair, token }: Credential,
  bytes: string,
): Promise<Answer> {
  const answer = gather(undefined);
  const options = { host: '127.0.0.1', port, ca, ALPNProtocols: ['http/1.1'], ...pair };
  const socket = connectTls(options, () => {
    socket.write(bytes.replaceAll('TOKEN', token ?? ''));
  });
  socket.on('data', answer.take);
  for (const event of ['end', 'error', 'close']) socket.on(event, answer.done);
  const got = await answer.promise;
  socket.destroy();
  return { ...got, status: Number(/^HTTP\/1\.1 (\d+)/.exec(got.text)?.[1] ?? 0) };
}
