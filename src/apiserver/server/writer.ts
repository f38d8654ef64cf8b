import { once } from 'node:events';
import { createGzip, constants, gzip } from 'node:zlib';
import { promisify } from 'node:util';
import type { Clock } from '../../base/clock.ts';
import type { ApiServerLimits } from '../limits.ts';
import { EMPTY } from './exchange.ts';
import type { ApiReply } from './exchange.ts';

/** What HTTP/1.1's and HTTP/2's responses have in common. */
export interface ResponseSink {
  writeHead(status: number, headers: Record<string, string | string[]>): unknown;
  write(chunk: Uint8Array): boolean;
  end(chunk?: Uint8Array): unknown;
  destroy(error?: Error): unknown;
  on(event: string, listener: (...args: never[]) => void): unknown;
  once(event: string, listener: (...args: never[]) => void): unknown;
  removeListener(event: string, listener: (...args: never[]) => void): unknown;
  readonly destroyed?: boolean;
}

const compress = promisify(gzip);
/** Fast rather than small: lists are compressed while a client waits. */
const GZIP_LEVEL = 1;
/** Chunks of streamed bodies: small enough to let other requests in between. */
const CHUNK_BYTES = 64 * 1024;

export interface WriteOptions {
  acceptEncoding: string | undefined;
  headOnly: boolean;
  limits: ApiServerLimits;
  clock: Clock;
  signal: AbortSignal;
}

/**
 * Writes a reply with back-pressure. A client that takes nothing for `replyStallTimeoutMs` is cut
 * off. The body's iterator is always ended.
 */
export async function writeReply(
  sink: ResponseSink,
  reply: ApiReply,
  options: WriteOptions,
): Promise<void> {
  const takesGzip = /\bgzip\b/.test(options.acceptEncoding ?? '');
  const body = options.headOnly ? EMPTY : reply.body;
  if (body instanceof Uint8Array) {
    const shouldCompress = takesGzip && body.length > options.limits.gzipThresholdBytes;
    const bytes = shouldCompress ? await compress(body, { level: GZIP_LEVEL }) : body;
    const headers = { ...reply.headers, 'content-length': String(bytes.length) };
    sink.writeHead(reply.status, shouldCompress ? gzipHeaders(headers) : headers);
    sink.end(bytes);
    return;
  }
  const shouldCompress = takesGzip && reply.compressible === true;
  sink.writeHead(reply.status, shouldCompress ? gzipHeaders(reply.headers) : reply.headers);
  await pump(sink, shouldCompress ? gzipped(body) : body, options);
}

function gzipHeaders<T extends object>(headers: T): T & Record<string, string> {
  return { ...headers, 'content-encoding': 'gzip', vary: 'Accept-Encoding' };
}

async function* gzipped(body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const stream = createGzip({
    level: GZIP_LEVEL,
    chunkSize: CHUNK_BYTES,
    flush: constants.Z_NO_FLUSH,
  });
  const feeding = (async () => {
    try {
      for await (const chunk of body) {
        if (!stream.write(chunk)) await once(stream, 'drain');
      }
      stream.end();
    } catch (error) {
      stream.destroy(error as Error);
    }
  })();
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
  } finally {
    stream.destroy();
    await feeding;
  }
}

async function pump(
  sink: ResponseSink,
  body: AsyncIterable<Uint8Array>,
  options: WriteOptions,
): Promise<void> {
  try {
    for await (const chunk of body) {
      if (options.signal.aborted || sink.destroyed) return;
      if (!sink.write(chunk)) await drained(sink, options);
    }
    sink.end();
  } catch (error) {
    // The head is out: breaking the connection is the only way left to say that this failed.
    sink.destroy();
    throw error;
  }
}

/** @throws when the client stalls; returns when it reads on or is gone */
function drained(sink: ResponseSink, options: WriteOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const finish = (error?: Error) => {
      timer.cancel();
      sink.removeListener('drain', done);
      sink.removeListener('close', done);
      if (error) reject(error);
      else resolve();
    };
    const done = () => finish();
    const timer = options.clock.after(options.limits.replyStallTimeoutMs, () => {
      finish(new StalledClientError());
    });
    sink.once('drain', done);
    sink.once('close', done);
  });
}

export class StalledClientError extends Error {
  override name = 'StalledClientError';
  constructor() {
    super('The client reads nothing of its answer');
  }
}
