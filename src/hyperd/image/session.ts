import { createHash } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { basicAuthorization, parseChallenges, parseToken, tokenRequest } from './auth.ts';
import type { Challenge } from './auth.ts';
import { HttpError, readAll } from './http.ts';
import type { HttpClient, HttpRequest, HttpResponse } from './http.ts';
import { hostConfig, IDENTITY_TOKEN_USER } from './registries.ts';
import type { Endpoint, RegistriesConfig } from './registries.ts';
import { BusyError } from './retry.ts';
import { ImageError } from './store.ts';
import type { RegistryCredential } from './store.ts';

/**
 * Requests to one repository under one credential: answers challenges, keeps tokens, follows
 * redirects, and never lets a credential or token go to another host.
 */
export interface Session {
  readonly context: SessionContext;
  /** Whether an answer has been given to the credential, or to a token for it. */
  readonly hasUsedCredential: boolean;
  /** @throws HttpError, ImageError Unauthorized */
  get(url: URL, headers: Record<string, string>, signal?: AbortSignal): Promise<HttpResponse>;
  /** Another host gets no credential. @throws as `get` */
  send(request: SessionRequest): Promise<HttpResponse>;
}

export type SessionRequest = Pick<HttpRequest, 'method' | 'url' | 'headers' | 'body' | 'signal'>;

export interface SessionContext {
  config: RegistriesConfig;
  http: HttpClient;
  /** By endpoint, repository and credential. */
  tokens: Map<string, CachedToken>;
  clock: Clock;
  random: Random;
  log: Log;
}

export interface CachedToken {
  authorization: string;
  expiresAtMs: number;
}

const REDIRECTS_MAX = 5;
const TOKENS_MAX = 1000;
/** A token is not used for the last part of its life: it has to survive the way. */
const TOKEN_MARGIN_MS = 5_000;
const TOKEN_BODY_BYTES_MAX = 64 << 10;
const ERROR_BODY_BYTES_MAX = 16 << 10;
const ERROR_TEXT_CHARS_MAX = 300;
const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308]);
const BUSY_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);

export function createSession(
  context: SessionContext,
  endpoint: Endpoint,
  repository: string,
  credential: RegistryCredential | undefined,
  actions: 'pull' | 'pull,push' = 'pull',
): Session {
  const scope = `repository:${repository}:${actions}`;
  const secret = credential ? `${credential.username}\0${credential.password}` : '';
  const tokenKey = createHash('sha256')
    .update(JSON.stringify([endpoint.base.href, scope, secret]))
    .digest('hex');
  const send: Send = (request) => sendFollowing(context, endpoint, request);
  const authorize = createAuthorizer({ context, endpoint, credential, scope, tokenKey, send });
  let hasUsedCredential = false;
  const sendAuthorized = async (request: SessionRequest): Promise<HttpResponse> => {
    const { url, headers = {}, signal } = request;
    if (url.origin !== endpoint.base.origin) return send(request);
    const attempt = (authorization: string | undefined) => {
      if (authorization && credential) hasUsedCredential = true;
      return send({ ...request, headers: authorization ? { ...headers, authorization } : headers });
    };
    const cached = context.tokens.get(tokenKey);
    const isFresh = cached !== undefined && cached.expiresAtMs > context.clock.monotonicMs();
    const response = await attempt(isFresh ? cached.authorization : undefined);
    if (response.status !== 401) return response;
    context.tokens.delete(tokenKey);
    let authorization: string | undefined;
    try {
      authorization = await authorize(response.headers['www-authenticate'], signal);
    } catch (error) {
      response.destroy();
      throw error;
    }
    if (authorization === undefined) return response;
    response.destroy();
    return attempt(authorization);
  };
  return {
    context,
    get hasUsedCredential() {
      return hasUsedCredential;
    },
    get: (url, headers, signal) => sendAuthorized({ method: 'GET', url, headers, signal }),
    send: sendAuthorized,
  };
}

type Send = (request: Omit<HttpRequest, 'tls' | 'allowLocal'>) => Promise<HttpResponse>;

/** Answers a challenge with what to send next; undefined where there is nothing to offer. */
function createAuthorizer(options: {
  context: SessionContext;
  endpoint: Endpoint;
  credential: RegistryCredential | undefined;
  scope: string;
  tokenKey: string;
  send: Send;
}) {
  const { context, endpoint, credential, scope, tokenKey, send } = options;
  const fetchToken = async (challenge: Challenge, signal: AbortSignal | undefined) => {
    const request = tokenRequest(challenge, scope, credential);
    if (!request)
      throw unauthorized('the registry asks for a token without saying where to get it');
    if (endpoint.base.protocol === 'https:' && request.url.protocol !== 'https:') {
      throw unauthorized(`the token server ${request.url.origin} is not reached by TLS`);
    }
    const response = await send({ ...request, signal });
    await expectStatus(response, [200], 'token');
    const body = await readAll(response, TOKEN_BODY_BYTES_MAX);
    const token = body && parseToken(body.toString('utf8'));
    if (!token) throw unauthorized('the token server gave no token');
    return {
      authorization: `Bearer ${token.value}`,
      expiresAtMs: context.clock.monotonicMs() + token.lifetimeMs - TOKEN_MARGIN_MS,
    };
  };

  return async (
    header: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<string | undefined> => {
    const challenges = parseChallenges(header);
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer) {
      const token = await fetchToken(bearer, signal);
      remember(context.tokens, tokenKey, token);
      return token.authorization;
    }
    const isBasic = challenges.some(({ scheme }) => scheme === 'basic');
    const usable = credential !== undefined && credential.username !== IDENTITY_TOKEN_USER;
    if (!isBasic || !usable) return undefined;
    const authorization = basicAuthorization(credential);
    remember(context.tokens, tokenKey, { authorization, expiresAtMs: Infinity });
    return authorization;
  };
}

function remember(tokens: Map<string, CachedToken>, key: string, token: CachedToken): void {
  tokens.delete(key);
  for (const oldest of tokens.keys()) {
    if (tokens.size < TOKENS_MAX) break;
    tokens.delete(oldest);
  }
  tokens.set(key, token);
}

/** Sends a request and follows redirects. What authorizes it goes to the first host alone. */
async function sendFollowing(
  context: SessionContext,
  endpoint: Endpoint,
  request: Omit<HttpRequest, 'tls' | 'allowLocal'>,
): Promise<HttpResponse> {
  const { origin } = request.url;
  let { url } = request;
  for (let redirects = 0; ; redirects++) {
    const { authorization, ...others } = request.headers ?? {};
    const keeps = authorization !== undefined && url.origin === origin;
    const host = url.host === endpoint.base.host ? endpoint.host : hostConfig(context.config, url);
    const response = await context.http.send({
      ...request,
      url,
      headers: keeps ? { ...others, authorization } : others,
      tls: host?.tls,
      // A registry that the operator did not name must not send the node to itself.
      allowLocal: endpoint.isConfigured || host !== undefined,
    });
    if (!REDIRECT_STATUS.has(response.status)) return response;
    response.destroy();
    const { location } = response.headers;
    const next = location ? URL.parse(location, url) : null;
    if (!next || (next.protocol !== 'https:' && next.protocol !== 'http:')) {
      throw new HttpError(`${url.host} redirects to nowhere`, { transient: false });
    }
    if (url.protocol === 'https:' && next.protocol === 'http:') {
      throw new HttpError(`${url.host} redirects to ${next.host} without TLS`, {
        transient: false,
      });
    }
    if (request.method !== 'GET' || redirects === REDIRECTS_MAX) {
      throw new HttpError(`${url.host} redirects too often`, { transient: false });
    }
    url = next;
  }
}

/**
 * Turns every other status into an error; the body of a good answer stays unread.
 * @param what is asked for, as messages name it
 * @throws ImageError NotFound, Unauthorized; HttpError
 */
export async function expectStatus(
  response: HttpResponse,
  expected: number[],
  what: string,
): Promise<void> {
  const { status } = response;
  if (expected.includes(status)) return;
  const detail = (await errorDetail(response)) || (status === 401 ? 'unauthorized' : '');
  const said = detail === '' ? '' : `: ${detail}`;
  if (status === 404) throw new ImageError('NotFound', `${what}: not found`);
  if (status === 401 || status === 403) {
    throw unauthorized(
      `${what}: pull access denied, repository does not exist or may require authorization${said}`,
    );
  }
  const message = `${what}: unexpected status ${status}${said}`;
  if (!BUSY_STATUS.has(status)) throw new HttpError(message, { transient: false });
  const seconds = Number(response.headers['retry-after'] ?? 0);
  throw new BusyError(message, Number.isFinite(seconds) ? Math.max(0, seconds) * 1000 : 0);
}

function unauthorized(message: string): ImageError {
  return new ImageError('Unauthorized', message);
}

/**
 * What the distribution API's error document says, cut and made printable. Codes are written as
 * other clients write them: `UNAUTHORIZED` as "unauthorized".
 */
async function errorDetail(response: HttpResponse): Promise<string> {
  try {
    const body = await readAll(response, ERROR_BODY_BYTES_MAX);
    const json = JSON.parse(body?.toString('utf8') ?? '{}') as {
      errors?: { code?: unknown; message?: unknown }[];
    };
    const first = json.errors?.[0];
    const code = typeof first?.code === 'string' && first.code.toLowerCase().replaceAll('_', ' ');
    const text = [code, first?.message].filter((part) => typeof part === 'string').join(': ');
    return text.replace(/[^\x20-\x7e]/g, '?').slice(0, ERROR_TEXT_CHARS_MAX);
  } catch {
    return '';
  }
}
