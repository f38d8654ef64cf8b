import type { IncomingMessage, ServerResponse } from 'node:http';
import { drained } from '../../api/hyperstream.ts';
import { StatusError, badRequest } from '../../api/status.ts';
import { describeError } from '../../base/log.ts';

/** Reading of requests, which throws `StatusError` on what makes no sense, and writing of answers. */

/** A pod's volumes come inline; see LIMITS.volumeFileBytes, times base64. */
export const BODY_BYTES_MAX = 32 << 20;

export async function readBody(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) {
      const limit = `the limit is ${BODY_BYTES_MAX} bytes`;
      throw new StatusError('RequestEntityTooLarge', `Request body is too large: ${limit}`);
    }
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}

export function parseJson<T>(body: Buffer): T {
  try {
    return JSON.parse(body.toString('utf8')) as T;
  } catch (error) {
    throw badRequest(`Request body is not JSON: ${describeError(error)}`);
  }
}

/** Undefined where the parameter is missing. */
export function wholeNumber(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  const value = Number(text);
  if (text === '' || !Number.isSafeInteger(value) || value < 0) {
    throw badRequest(`Query parameter "${name}" must be a whole number, is "${text}"`);
  }
  return value;
}

export function pathSegment(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw badRequest(`Path segment "${text}" is not percent-encoded text`);
  }
}

export function sendJson(response: ServerResponse, code: number, value: unknown): void {
  const text = value === undefined ? '' : JSON.stringify(value);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  response.writeHead(code, headers).end(text);
}

/** Begins an answer of one JSON object a line. */
export function openLines(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': LINES_MEDIA });
  response.flushHeaders();
}

/** One JSON object a line. */
export const LINES_MEDIA = 'application/x-ndjson';

/** Resolves when more may be written. */
export async function send(response: ServerResponse, chunk: string | Uint8Array): Promise<void> {
  if (!response.write(chunk)) await drained(response);
}
