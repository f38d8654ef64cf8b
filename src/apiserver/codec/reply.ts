import { stringify } from 'yaml';
import { StatusError } from '../../api/status.ts';
import type { Status } from '../../api/status.ts';
import type { ApiReply, ReplyBody } from '../server/exchange.ts';
import type { Representation } from './negotiate.ts';

const encoder = new TextEncoder();

/** Answers differ by user and change at any time. */
const COMMON_HEADERS = { 'cache-control': 'no-cache, private' };

export function jsonReply(status: number, value: unknown): ApiReply {
  return bytesReply(status, encodeJson(value), 'application/json');
}

export function bytesReply(status: number, body: ReplyBody, contentType: string): ApiReply {
  return { status, headers: { ...COMMON_HEADERS, 'content-type': contentType }, body };
}

export function textReply(status: number, text: string): ApiReply {
  const headers = { 'content-type': 'text/plain; charset=utf-8' };
  const shield = { 'x-content-type-options': 'nosniff' };
  return {
    status,
    headers: { ...COMMON_HEADERS, ...headers, ...shield },
    body: encoder.encode(text),
  };
}

/** A value in the encoding the client asked for. */
export function valueReply(status: number, value: unknown, as: Representation): ApiReply {
  if (as.encoding === 'json') return jsonReply(status, value);
  return bytesReply(status, encoder.encode(toYaml(value)), 'application/yaml');
}

/** A `Status` with the error's own code. */
export function statusReply(error: StatusError): ApiReply {
  const reply = jsonReply(error.code, error.toStatus());
  const retryAfter = error.details?.retryAfterSeconds;
  if (retryAfter !== undefined) reply.headers['retry-after'] = String(retryAfter);
  if (error.code === 401) reply.headers['www-authenticate'] = 'Bearer realm="kubernetes"';
  return reply;
}

/** What a request that leaves no object behind is answered with. */
export function successStatus(details: Status['details']): Status {
  return {
    apiVersion: 'v1',
    kind: 'Status',
    metadata: {},
    status: 'Success',
    ...(details ? { details } : {}),
    code: 200,
  };
}

export function encodeJson(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value), 'utf8');
}

function toYaml(value: unknown): string {
  return stringify(value, { aliasDuplicateObjects: false, lineWidth: 0 });
}

/** An RFC 7234 warning as Kubernetes' clients print it. */
export function warningHeader(text: string): string {
  const safe = text.replace(/[^\x20-\x7e]/g, '?').replace(/(["\\])/g, '\\$1');
  return `299 - "${safe}"`;
}
