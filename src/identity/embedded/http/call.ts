import type { Authenticated } from '../authenticate.ts';
import { badRequest, notAuthorized, notFound } from '../errors.ts';
import type { EmbeddedIdentity } from '../service.ts';
import type { Policy } from './policy.ts';

/** A request, as whoever listens hands it over. */
export interface IdentityRequest {
  method: string;
  /** With its prefix: `/identity/v3/auth/tokens`. */
  path: string;
  query: URLSearchParams;
  /** Names in lower case. */
  headers: Record<string, string | string[] | undefined>;
  /** At most `BODY_BYTES_MAX`; empty where there is none. */
  body: Uint8Array;
  /** The caller's address, so that one caller cannot keep all others from logging in. */
  source?: string;
}

export interface IdentityResponse {
  status: number;
  headers: Record<string, string>;
  /** UTF-8 JSON, or empty. */
  body: string;
}

/** One request on its way through a route. */
export interface Call {
  identity: EmbeddedIdentity;
  /** Where clients reach the API: `https://host:port/identity/v3`. */
  baseUrl: string;
  params: Record<string, string>;
  query: URLSearchParams;
  headers: Record<string, string | undefined>;
  /** Parsed; undefined where there is none. */
  body: unknown;
  /** Absent only on routes that need no token. */
  caller: Authenticated;
  policy: Policy;
  /** Of the route. */
  action: string;
  source: string | undefined;
}

export interface Reply {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
}

export interface Route {
  method: string;
  /** Below `/v3`; `{name}` stands for one segment. */
  path: string;
  /** Whether it is for callers without a token. */
  open?: boolean;
  /** In Keystone's words, for refusals: `identity:list_users`. */
  action: string;
  handle: (call: Call) => Reply | Promise<Reply>;
}

export const NO_CONTENT: Reply = { status: 204 };

export const param = (call: Call, name: string): string => call.params[name] ?? '';

/**
 * The record that a path names, if the caller may see it. Otherwise the answer is the same whether
 * it exists or not: 404 to those whose role reaches over several, 403 to all others.
 */
export function visible<T>(
  call: Call,
  kind: string,
  id: string,
  record: T | undefined,
  mayRead: (record: T) => boolean,
): T {
  if (record !== undefined && mayRead(record)) return record;
  const { systemReader, domainId } = call.policy;
  if (systemReader || domainId !== undefined) throw notFound(kind, id);
  throw notAuthorized(call.action);
}

/** @throws KeystoneError 403 */
export function allow(call: Call, allowed: boolean): void {
  if (!allowed) throw notAuthorized(call.action);
}

/** A list, in the shape that all of Keystone's have. */
export function listReply(call: Call, name: string, items: unknown[], path = `/${name}`): Reply {
  const links = { next: null, self: call.baseUrl + path, previous: null };
  return { status: 200, body: { links, [name]: items } };
}

/** Keystone's reading of a flag in a query: present and not an explicit no. */
export function queryFlag(call: Call, name: string): boolean | undefined {
  const value = call.query.get(name);
  if (value === null) return undefined;
  if (['', '1', 'true', 'yes', 'on'].includes(value.toLowerCase())) return true;
  if (['0', 'false', 'no', 'off'].includes(value.toLowerCase())) return false;
  throw badRequest(`Invalid input for query parameter '${name}': it is neither true nor false.`);
}

/** Keeps what equals every filter that the query has. */
export function filtered<T>(
  call: Call,
  items: T[],
  filters: Record<string, (item: T) => string | boolean | undefined>,
): T[] {
  let kept = items;
  for (const [name, valueOf] of Object.entries(filters)) {
    const wanted = name === 'enabled' ? queryFlag(call, name) : call.query.get(name);
    if (wanted === undefined || wanted === null) continue;
    kept = kept.filter((item) => (valueOf(item) ?? '') === wanted);
  }
  return kept;
}
