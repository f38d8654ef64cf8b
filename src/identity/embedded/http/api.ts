import { accessRulesAllow } from '../../../auth/access-rules.ts';
import { describeError } from '../../../base/log.ts';
import type { Log } from '../../../base/log.ts';
import { badRequest, forbidden, KeystoneError, unauthorized } from '../errors.ts';
import type { EmbeddedIdentity } from '../service.ts';
import { ASSIGNMENT_ROUTES } from './assignment-routes.ts';
import { AUTH_ROUTES } from './auth-routes.ts';
import { CATALOG_ROUTES } from './catalog-routes.ts';
import { CREDENTIAL_ROUTES } from './credential-routes.ts';
import { DOMAIN_ROUTES } from './domain-routes.ts';
import { GRANT_ROUTES } from './grant-routes.ts';
import { GROUP_ROUTES } from './group-routes.ts';
import { PROJECT_ROUTES } from './project-routes.ts';
import { ROLE_ROUTES } from './role-routes.ts';
import { USER_ROUTES } from './user-routes.ts';
import type { Call, IdentityRequest, IdentityResponse, Reply, Route } from './call.ts';
import { policyOf } from './policy.ts';
import { versionReply } from './versions.ts';

/** Where the API is mounted on its port. */
export const IDENTITY_PREFIX = '/identity';

/** Larger than anything a client has to say. */
export const BODY_BYTES_MAX = 256 << 10;
const BODY_DEPTH_MAX = 16;
const PATH_LENGTH_MAX = 1024;

/** What the catalogue calls this API, for access rules. */
const SERVICE_TYPE = 'identity';

const ROUTES: Route[] = [
  ...AUTH_ROUTES,
  ...DOMAIN_ROUTES,
  ...PROJECT_ROUTES,
  ...USER_ROUTES,
  ...GROUP_ROUTES,
  ...ROLE_ROUTES,
  ...GRANT_ROUTES,
  ...ASSIGNMENT_ROUTES,
  ...CREDENTIAL_ROUTES,
  ...CATALOG_ROUTES,
];

export interface IdentityApiOptions {
  identity: EmbeddedIdentity;
  log: Log;
  /** Where clients reach it, for links: `https://host:port/identity/v3`. */
  baseUrl: string;
}

export type IdentityApi = (request: IdentityRequest) => Promise<IdentityResponse>;

/** Whether a path is for this API. */
export function isIdentityPath(path: string): boolean {
  return path === IDENTITY_PREFIX || path.startsWith(`${IDENTITY_PREFIX}/`);
}

/**
 * Keystone's v3 API over the embedded service. It never throws: every error is answered in
 * Keystone's shape, and those that are not the caller's are logged and answered with 500.
 */
export function createIdentityApi({ identity, log, baseUrl }: IdentityApiOptions): IdentityApi {
  return async (request) => {
    const head = request.method === 'HEAD';
    try {
      const reply = await answer(identity, baseUrl, request);
      return render(reply, head);
    } catch (error) {
      if (error instanceof KeystoneError) return render(errorReply(error, baseUrl), head);
      log.error('identity request failed', {
        method: request.method,
        path: request.path.slice(0, PATH_LENGTH_MAX),
        error: describeError(error),
      });
      const text = 'An unexpected error prevented the server from fulfilling your request.';
      const unexpected = new KeystoneError(500, 'Internal Server Error', text);
      return render(errorReply(unexpected, baseUrl), head);
    }
  };
}

async function answer(
  identity: EmbeddedIdentity,
  baseUrl: string,
  request: IdentityRequest,
): Promise<Reply> {
  if (request.path.length > PATH_LENGTH_MAX) throw badRequest('The path is too long.');
  const path = request.path.slice(IDENTITY_PREFIX.length).replace(/\/+$/, '');
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  const version = method === 'GET' ? versionReply(path, baseUrl) : undefined;
  if (version) return version;
  const { route, params } = findRoute(method, path);
  const headers = singleHeaders(request.headers);
  const caller = route.open ? undefined : authorize(identity, headers, method, path);
  const call = {
    identity,
    baseUrl,
    params,
    query: request.query,
    headers,
    body: readJson(request),
    caller,
    policy: caller && policyOf(identity.state, caller.session),
    action: route.action,
    source: request.source,
  };
  return route.handle(call as Call);
}

function findRoute(method: string, path: string) {
  const segments = path.split('/').slice(2).map(decodeSegment);
  const known = path.startsWith('/v3/');
  const fitting = ROUTES.flatMap((route) => {
    const params = known ? match(route.path, segments) : undefined;
    return params ? [{ route, params }] : [];
  });
  const found = fitting.find(({ route }) => route.method === method);
  if (found) return found;
  if (fitting.length > 0) {
    const text = `The method ${method.slice(0, 16)} is not allowed for this resource.`;
    throw new KeystoneError(405, 'Method Not Allowed', text);
  }
  throw new KeystoneError(404, 'Not Found', 'The resource could not be found.');
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw badRequest('The path is not valid percent-encoding.');
  }
}

function match(pattern: string, segments: string[]): Record<string, string> | undefined {
  const parts = pattern.split('/').slice(1);
  if (parts.length !== segments.length) return undefined;
  const params: Record<string, string> = {};
  for (const [i, part] of parts.entries()) {
    const segment = segments[i] ?? '';
    if (part.startsWith('{')) {
      if (segment === '') return undefined;
      params[part.slice(1, -1)] = segment;
    } else if (part !== segment) return undefined;
  }
  return params;
}

/** Of a header given twice none counts: nobody can say which one another party has read. */
function singleHeaders(headers: IdentityRequest['headers']): Record<string, string | undefined> {
  const single: Record<string, string | undefined> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value === 'string') single[name] = value;
  }
  return single;
}

function authorize(
  identity: EmbeddedIdentity,
  headers: Record<string, string | undefined>,
  method: string,
  path: string,
) {
  const token = headers['x-auth-token'];
  const caller = token === undefined ? undefined : identity.validate(token);
  if (!caller) throw unauthorized();
  const rules = caller.session.credential?.accessRules;
  if (rules && !accessRulesAllow(rules, SERVICE_TYPE, method, path)) {
    throw forbidden('The access rules of the application credential do not allow this request.');
  }
  return caller;
}

function readJson(request: IdentityRequest): unknown {
  if (request.body.length > BODY_BYTES_MAX) {
    const text = `The body is longer than ${BODY_BYTES_MAX} bytes.`;
    throw new KeystoneError(413, 'Request Entity Too Large', text);
  }
  if (request.body.length === 0) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(request.body));
  } catch {
    throw badRequest('Expecting to find valid JSON in the body.');
  }
  if (tooDeep(value, BODY_DEPTH_MAX)) {
    throw badRequest(`The body is nested deeper than ${BODY_DEPTH_MAX} levels.`);
  }
  return value;
}

function tooDeep(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => tooDeep(inner, levels - 1));
}

function errorReply(error: KeystoneError, baseUrl: string): Reply {
  const { code, message, title } = error;
  const headers: Record<string, string> = {};
  if (code === 401) headers['WWW-Authenticate'] = `Keystone uri="${baseUrl.replace(/\/v3$/, '')}"`;
  if (code === 503) headers['Retry-After'] = '2';
  return { status: code, headers, body: { error: { code, message, title } } };
}

function render(reply: Reply, head: boolean): IdentityResponse {
  const headers: Record<string, string> = {
    Vary: 'X-Auth-Token',
    'Cache-Control': 'no-store',
    ...reply.headers,
  };
  if (reply.body === undefined) return { status: reply.status, headers, body: '' };
  headers['Content-Type'] = 'application/json';
  return { status: reply.status, headers, body: head ? '' : JSON.stringify(reply.body) };
}
