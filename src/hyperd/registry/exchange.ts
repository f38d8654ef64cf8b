import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../base/clock.ts';
import { RegistryError } from './errors.ts';

/** One request and its answer, with what the path was parsed into. */
export interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  url: URL;
  method: string;
  /** Empty where the path has none. */
  repository: string;
  /** Tag, digest, or id of an upload, by the route. */
  name: string;
}

/** Between two pieces of a body. */
export const STALL_TIMEOUT_MS = 60_000;

/** The pieces of a request's body. Rejects when the client stalls or goes away. */
export async function* readBody(request: IncomingMessage, clock: Clock): AsyncGenerator<Buffer> {
  const watch = () =>
    clock.after(STALL_TIMEOUT_MS, () => request.destroy(new Error('The client sends no data')));
  let timer = watch();
  try {
    for await (const chunk of request) {
      timer.cancel();
      yield chunk as Buffer;
      timer = watch();
    }
  } finally {
    timer.cancel();
  }
}

/** @throws RegistryError SIZE_INVALID */
export async function readWholeBody(
  request: IncomingMessage,
  clock: Clock,
  bytesMax: number,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of readBody(request, clock)) {
    bytes += chunk.length;
    if (bytes > bytesMax) {
      throw new RegistryError('SIZE_INVALID', `the body is larger than ${bytesMax} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export function answer(
  exchange: Exchange,
  status: number,
  headers: Record<string, string> = {},
): void {
  exchange.response.writeHead(status, { 'content-length': '0', ...headers }).end();
}

export function answerJson(
  exchange: Exchange,
  value: unknown,
  headers: Record<string, string> = {},
): void {
  answerBytes(exchange, Buffer.from(JSON.stringify(value)), {
    'content-type': 'application/json',
    ...headers,
  });
}

export function answerBytes(
  exchange: Exchange,
  bytes: Uint8Array,
  headers: Record<string, string>,
): void {
  const { response, method } = exchange;
  response.writeHead(200, { ...headers, 'content-length': String(bytes.length) });
  response.end(method === 'HEAD' ? undefined : bytes);
}
