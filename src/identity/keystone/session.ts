import { IdentityForbiddenError, IdentityUnavailableError } from '../../api/identity.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { KeystoneAnswer, KeystoneHttp, KeystoneRequest } from './http.ts';
import type { KeystoneCredentials } from './options.ts';
import { parseToken } from './parse.ts';

/** Keystone, asked as the service user. */
export interface KeystoneSession {
  /**
   * Asks with the service user's token, which is renewed before it expires, and once more when
   * Keystone does not accept it (it was revoked, or Keystone has new keys).
   *
   * @throws IdentityForbiddenError when Keystone refuses the service user itself
   */
  request(request: KeystoneRequest): Promise<KeystoneAnswer>;
  /** Asks something that the whole of Keystone has a part in. Rejects when it is away. */
  probe(): Promise<void>;
  /** Keystone's clock, by ours. Exact to about a second; right only after the first request. */
  keystoneNowMs(): number;
}

export interface SessionOptions {
  http: KeystoneHttp;
  credentials: KeystoneCredentials;
  clock: Clock;
  log: Log;
}

interface ServiceToken {
  value: string;
  issuedAtMs: number;
  renewAtMs: number;
  expiresAtMs: number;
}

/** Renewed when this part of its life is over; what remains bridges a short outage. */
const RENEW_FRACTION = 0.75;
/** A service user that was refused is not tried more often: accounts are locked by failures. */
const REFUSED_PAUSE_MS = 15_000;
/** A token that is not accepted though it is newer is not replaced: the next one would not be. */
const LOGIN_PAUSE_MS = 1_000;
/** Clocks that differ by more are told of once. */
export const CLOCK_SKEW_NOTICE_MS = 2_000;
const TOKEN_HEADER = /^[\x21-\x7e]{1,4096}$/;

export function createSession(options: SessionOptions): KeystoneSession {
  const { http, credentials, clock, log } = options;
  let current: ServiceToken | undefined;
  let pending: Promise<ServiceToken> | undefined;
  let refusal: { untilMs: number; error: IdentityForbiddenError } | undefined;
  /** Keystone's clock minus our monotonic one, so that setting our clock changes nothing. */
  let offsetMs: number | undefined;
  let noticedSkewMs = 0;

  const noteClock = (issuedAtMs: number, sentAtMs: number): void => {
    const receivedAtMs = clock.monotonicMs();
    offsetMs = issuedAtMs - (sentAtMs + receivedAtMs) / 2;
    const skewMs = Math.round(issuedAtMs - clock.nowMs());
    // Tokens carry whole seconds, and the answer took its time.
    const uncertainMs = 1_000 + (receivedAtMs - sentAtMs);
    if (Math.abs(skewMs - noticedSkewMs) < CLOCK_SKEW_NOTICE_MS + uncertainMs) return;
    noticedSkewMs = skewMs;
    log.warn("Keystone's clock and this machine's differ; set one of them", { skewMs });
  };

  const logIn = async (): Promise<ServiceToken> => {
    const sentAtMs = clock.monotonicMs();
    const answer = await http.call({
      method: 'POST',
      path: '/auth/tokens',
      query: { nocatalog: '' },
      body: { auth: authOf(credentials) },
      // One token more is nothing that changes.
      isRepeatable: true,
    });
    if (answer.status >= 400) {
      const error = new IdentityForbiddenError(
        `Cannot log in to Keystone as ${nameOf(credentials)}: ${answer.status}: ${answer.message}`,
      );
      refusal = { untilMs: clock.monotonicMs() + REFUSED_PAUSE_MS, error };
      throw error;
    }
    const value = answer.headers['x-subject-token'];
    if (typeof value !== 'string' || !TOKEN_HEADER.test(value)) {
      throw new IdentityUnavailableError('Cannot log in to Keystone: its answer holds no token');
    }
    const token = parseToken(answer.body);
    noteClock(token.issuedAtMs, sentAtMs);
    const lifeMs = token.expiresAtMs - token.issuedAtMs;
    if (lifeMs <= 0) {
      throw new IdentityUnavailableError('Cannot log in to Keystone: its token is over at once');
    }
    refusal = undefined;
    current = {
      value,
      issuedAtMs: clock.monotonicMs(),
      renewAtMs: sentAtMs + lifeMs * RENEW_FRACTION,
      expiresAtMs: sentAtMs + lifeMs,
    };
    return current;
  };

  const renew = (): Promise<ServiceToken> => {
    if (refusal && clock.monotonicMs() < refusal.untilMs) return Promise.reject(refusal.error);
    pending ??= logIn().finally(() => (pending = undefined));
    return pending;
  };

  const serviceToken = async (): Promise<ServiceToken> => {
    const nowMs = clock.monotonicMs();
    if (!current || nowMs >= current.expiresAtMs) return renew();
    if (nowMs >= current.renewAtMs && !pending) {
      renew().catch((error: unknown) => log.warn('cannot renew the service token', { error }));
    }
    return current;
  };

  const send = (request: KeystoneRequest, token: ServiceToken) =>
    http.call({ ...request, headers: { ...request.headers, 'x-auth-token': token.value } });

  return {
    async request(request) {
      const token = await serviceToken();
      const answer = await send(request, token);
      if (answer.status !== 401) return answer;
      // Another request may have renewed it meanwhile.
      if (current === token && clock.monotonicMs() - token.issuedAtMs >= LOGIN_PAUSE_MS) {
        current = undefined;
      }
      const next = await serviceToken();
      const second = next === token ? answer : await send(request, next);
      if (second.status !== 401) return second;
      throw new IdentityForbiddenError(
        `Cannot ask Keystone as ${nameOf(credentials)}: 401: ${second.message}`,
      );
    },

    async probe() {
      const token = current;
      if (!token || clock.monotonicMs() >= token.expiresAtMs) {
        await renew();
        return;
      }
      const headers = { 'x-subject-token': token.value };
      const request = { path: '/auth/tokens', query: { nocatalog: '' }, headers };
      const answer = await send({ method: 'GET', ...request }, token);
      if (answer.status === 200) return;
      if (current === token) current = undefined;
      await renew();
    },

    keystoneNowMs: () => (offsetMs === undefined ? clock.nowMs() : clock.monotonicMs() + offsetMs),
  };
}

function nameOf(credentials: KeystoneCredentials): string {
  return credentials.kind === 'password'
    ? `service user "${credentials.username}"`
    : `application credential "${credentials.id}"`;
}

function authOf(credentials: KeystoneCredentials): Record<string, unknown> {
  if (credentials.kind === 'applicationCredential') {
    const { id, secret } = credentials;
    const identity = {
      methods: ['application_credential'],
      application_credential: { id, secret },
    };
    return { identity };
  }
  const { username, userDomain, password, scope } = credentials;
  const user = { name: username, domain: { name: userDomain }, password };
  return {
    identity: { methods: ['password'], password: { user } },
    scope:
      scope.kind === 'system'
        ? { system: { all: true } }
        : { project: { name: scope.project, domain: { name: scope.domain } } },
  };
}
