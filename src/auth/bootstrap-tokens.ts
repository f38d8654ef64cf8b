import { timingSafeEqual } from 'node:crypto';
import type { KubeObject } from '../api/object.ts';
import type { UserInfo } from '../api/auth.ts';
import { StatusError } from '../api/status.ts';
import type { Clock } from '../base/clock.ts';
import { rfc3339 } from '../base/clock.ts';
import type { Random } from '../base/random.ts';

/** Bootstrap tokens: Secrets by which a machine that is new may ask for a certificate. */
export const BOOTSTRAP_SECRET_TYPE = 'bootstrap.kubernetes.io/token';
export const BOOTSTRAP_SECRET_NAMESPACE = 'kube-system';
const BOOTSTRAP_USER_PREFIX = 'system:bootstrap:';
const BOOTSTRAP_GROUP = 'system:bootstrappers';
/** The group of tokens made for joining nodes; what it may do is in the default roles. */
export const BOOTSTRAP_NODES_GROUP = 'system:bootstrappers:hypernetes:nodes';

const ID_PATTERN = /^[a-z0-9]{6}$/;
const TOKEN_PATTERN = /^([a-z0-9]{6})\.([a-z0-9]{16})$/;
const JOIN_TOKEN_PATTERN = /^([0-9a-f]{64})::([a-z0-9]{6}\.[a-z0-9]{16})$/;
const GROUP_PATTERN = /^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$/;
const TOKEN_ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789';
const DEFAULT_LIFETIME_MS = 24 * 3600 * 1000;

export interface JoinToken {
  caSha256: string;
  /** `<id>.<secret>`: the bearer token. */
  bearerToken: string;
}

/**
 * Splits what `hypernetes node --token` takes: the CA's fingerprint and the bearer token.
 * @throws Error that names the wanted form but never the token
 */
export function parseJoinToken(text: string): JoinToken {
  const match = JOIN_TOKEN_PATTERN.exec(text.trim());
  if (!match) {
    throw new Error(
      'Cannot read join token: want "<sha-256 of the CA, 64 hex digits>::<id>.<secret>"',
    );
  }
  return { caSha256: match[1] ?? '', bearerToken: match[2] ?? '' };
}

export function formatJoinToken(caSha256: string, bearerToken: string): string {
  return `${caSha256}::${bearerToken}`;
}

/** Draws letters and digits without bias. */
function draw(random: Random, length: number): string {
  const fair = 256 - (256 % TOKEN_ALPHABET.length);
  let text = '';
  while (text.length < length) {
    for (const byte of random.bytes(length)) {
      if (byte < fair && text.length < length) text += TOKEN_ALPHABET[byte % TOKEN_ALPHABET.length];
    }
  }
  return text;
}

/** A new token for joining nodes and the Secret that makes it valid. */
export function createBootstrapToken(options: {
  clock: Clock;
  random: Random;
  description?: string;
  /** @default a day */
  lifetimeMs?: number;
}): { bearerToken: string; secret: KubeObject } {
  const id = draw(options.random, 6);
  const secret = draw(options.random, 16);
  const expirationMs = options.clock.nowMs() + (options.lifetimeMs ?? DEFAULT_LIFETIME_MS);
  const fields: Record<string, string> = {
    'token-id': id,
    'token-secret': secret,
    expiration: rfc3339(expirationMs),
    'usage-bootstrap-authentication': 'true',
    'auth-extra-groups': BOOTSTRAP_NODES_GROUP,
    ...(options.description ? { description: options.description } : {}),
  };
  const encoded = Object.entries(fields).map(([key, value]) => [
    key,
    Buffer.from(value).toString('base64'),
  ]);
  return {
    bearerToken: `${id}.${secret}`,
    secret: {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: `bootstrap-token-${id}`, namespace: BOOTSTRAP_SECRET_NAMESPACE },
      type: BOOTSTRAP_SECRET_TYPE,
      data: Object.fromEntries(encoded),
    },
  };
}

/** The Secret of a name in kube-system, or undefined. */
export type SecretLookup = (namespace: string, name: string) => KubeObject | undefined;

/**
 * Whose bootstrap token it is.
 *
 * @returns undefined when it does not have a bootstrap token's form
 * @throws StatusError Unauthorized when it has, but is unknown, wrong, expired or not for this use
 */
export function verifyBootstrapToken(
  token: string,
  lookup: SecretLookup,
  clock: Clock,
): UserInfo | undefined {
  const match = TOKEN_PATTERN.exec(token);
  if (!match) return undefined;
  const [, id = '', secret = ''] = match;
  const object = lookup(BOOTSTRAP_SECRET_NAMESPACE, `bootstrap-token-${id}`);
  const data = decodeData(object);
  // Compared even when there is no such Secret: an id must not be found by timing.
  const isSecretRight = equalsConstantTime(data['token-secret'] ?? '', secret);
  const failure = findFailure(object, data, id, clock.nowMs());
  if (failure || !isSecretRight) {
    const cause = new Error(`bootstrap token "${id}": ${failure ?? 'secret is wrong'}`);
    throw new StatusError('Unauthorized', 'Unauthorized', { cause });
  }
  const extraGroups = (data['auth-extra-groups'] ?? '').split(',').filter(Boolean);
  return {
    name: `${BOOTSTRAP_USER_PREFIX}${id}`,
    uid: '',
    groups: [BOOTSTRAP_GROUP, ...extraGroups, 'system:authenticated'],
    extra: {},
  };
}

function findFailure(
  object: KubeObject | undefined,
  data: Record<string, string>,
  id: string,
  nowMs: number,
): string | undefined {
  if (!object) return 'there is no such token';
  if (object.type !== BOOTSTRAP_SECRET_TYPE) return 'its Secret has another type';
  if (object.metadata.deletionTimestamp) return 'its Secret is being deleted';
  if (!ID_PATTERN.test(data['token-id'] ?? '') || data['token-id'] !== id) return 'ids differ';
  if (!data['token-secret']) return 'its Secret has no token-secret';
  if (data['usage-bootstrap-authentication'] !== 'true') return 'it is not for authentication';
  if (data.expiration !== undefined) {
    const expirationMs = Date.parse(data.expiration);
    if (Number.isNaN(expirationMs)) return 'its expiration is not a time';
    if (expirationMs <= nowMs) return 'it has expired';
  }
  const groups = (data['auth-extra-groups'] ?? '').split(',').filter(Boolean);
  if (!groups.every((group) => GROUP_PATTERN.test(group))) return 'a group of it is not allowed';
  return undefined;
}

function decodeData(object: KubeObject | undefined): Record<string, string> {
  const entries = Object.entries((object?.data ?? {}) as Record<string, string>);
  return Object.fromEntries(
    entries.map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
  );
}

function equalsConstantTime(expected: string, given: string): boolean {
  const padded = Buffer.alloc(Buffer.byteLength(given));
  padded.write(expected);
  const isSame = timingSafeEqual(padded, Buffer.from(given));
  return isSame && expected.length === given.length;
}
