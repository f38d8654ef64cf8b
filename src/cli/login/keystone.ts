import { systemClock } from '../../base/clock.ts';
import { systemRandom } from '../../base/random.ts';
import { createKeystoneHttp } from '../../identity/keystone/http.ts';
import type { KeystoneRequest } from '../../identity/keystone/http.ts';
import { parseKeystoneUrl } from '../../identity/keystone/options.ts';
import { fields, list, parseToken } from '../../identity/keystone/parse.ts';
import type { Fields, RawToken } from '../../identity/keystone/parse.ts';
import { UsageError } from '../errors.ts';

/** Keystone, or the embedded identity service, as a person's client speaks to it. */
export interface Keystone {
  /** With its version. */
  readonly url: string;
  authenticate(proof: Proof, scope?: WantedScope): Promise<IssuedToken>;
  /** What the token's own bearer may know of it. */
  inspect(token: string): Promise<IssuedToken>;
  /** At once, and what was made from it. One that is not valid any more is fine. */
  revoke(token: string): Promise<void>;
  /** @throws KeystoneRefusal for an answer of 4xx */
  ask(token: string, request: Omit<KeystoneRequest, 'headers'>): Promise<Fields>;
  close(): void;
}

/** Users are told by id, or by name and domain; a credential is known by its id. */
export type Proof =
  | { kind: 'password'; user: UserRef; password: string }
  | { kind: 'token'; token: string }
  | { kind: 'credential'; id: string; secret: string };

export type DomainRef = { id: string } | { name: string };
export type UserRef = { id: string } | { name: string; domain: DomainRef };

export type WantedScope = { kind: 'system' } | { kind: 'project'; id: string };

export interface IssuedToken extends RawToken {
  value: string;
  /** By this machine's clock. */
  localExpiresAtMs: number;
  catalog: unknown[];
}

/** Keystone understood and said no. */
export class KeystoneRefusal extends UsageError {
  override name = 'KeystoneRefusal';
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** A password is hashed on a server that may be busy. */
const TIMEOUT_MS = 20_000;
const LIST_LIMIT_BYTES = 64 << 20;
const TOKEN_HEADER = /^[\x21-\x7e]{1,4096}$/;

export function openKeystone(address: string, caCert: string | undefined): Keystone {
  const clock = systemClock;
  const url = parseKeystoneUrl(address);
  const http = createKeystoneHttp({
    ...{ url, caCert, timeoutMs: TIMEOUT_MS, clock, random: systemRandom },
  });

  const call = async (request: KeystoneRequest) => {
    const answer = await http.call({ limitBytes: LIST_LIMIT_BYTES, ...request });
    if (answer.status < 400) return answer;
    throw new KeystoneRefusal(
      answer.status,
      `The identity service refuses: ${answer.message} (${answer.status})`,
    );
  };
  const issued = (value: unknown, body: unknown, sentAtMs: number): IssuedToken => {
    if (typeof value !== 'string' || !TOKEN_HEADER.test(value)) {
      throw new UsageError(`Cannot use the answer of "${url.origin}": it holds no token.`);
    }
    const token = parseToken(body);
    const catalog = fields(fields(body, '')['token'], 'token')['catalog'] ?? [];
    return {
      ...token,
      value,
      localExpiresAtMs: token.expiresAtMs,
      catalog: list(catalog, 'token.catalog'),
      // The two clocks may differ: what counts is how long it lives from now on.
      ...(sentAtMs > 0 && {
        localExpiresAtMs: sentAtMs + (token.expiresAtMs - token.issuedAtMs),
      }),
    };
  };

  return {
    url: url.href,

    async authenticate(proof, scope) {
      const sentAtMs = clock.nowMs();
      const answer = await call({
        method: 'POST',
        path: '/auth/tokens',
        body: { auth: { identity: identityOf(proof), scope: scopeOf(scope) } },
      });
      return issued(answer.headers['x-subject-token'], answer.body, sentAtMs);
    },

    async inspect(token) {
      const headers = { 'x-auth-token': token, 'x-subject-token': token };
      const { body } = await call({ method: 'GET', path: '/auth/tokens', headers });
      return issued(token, body, 0);
    },

    async revoke(token) {
      const headers = { 'x-auth-token': token, 'x-subject-token': token };
      try {
        await call({ method: 'DELETE', path: '/auth/tokens', headers });
      } catch (error) {
        const isGone = error instanceof KeystoneRefusal && [401, 404].includes(error.status);
        if (!isGone) throw error;
      }
    },

    async ask(token, request) {
      const { body } = await call({ ...request, headers: { 'x-auth-token': token } });
      return body === undefined ? {} : fields(body, '');
    },

    close: () => http.close(),
  };
}

function identityOf(proof: Proof): unknown {
  switch (proof.kind) {
    case 'password': {
      const user = { ...proof.user, password: proof.password };
      return { methods: ['password'], password: { user } };
    }
    case 'token':
      return { methods: ['token'], token: { id: proof.token } };
    case 'credential': {
      const { id, secret } = proof;
      return { methods: ['application_credential'], application_credential: { id, secret } };
    }
  }
}

function scopeOf(scope: WantedScope | undefined): unknown {
  if (!scope) return undefined;
  return scope.kind === 'system' ? { system: { all: true } } : { project: { id: scope.id } };
}
