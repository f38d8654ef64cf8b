import type { IncomingMessage } from 'node:http';
import { StatusError, badRequest } from '../../api/status.ts';
import { describeError } from '../../base/log.ts';

/** Reading of requests. Everything here throws `StatusError` on what makes no sense. */

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

export function required(query: URLSearchParams, name: string): string {
  const value = query.get(name);
  if (!value) throw badRequest(`Query parameter "${name}" is missing`);
  return value;
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
