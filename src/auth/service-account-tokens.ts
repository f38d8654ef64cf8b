import { createHash, createPrivateKey, createPublicKey } from 'node:crypto';
import type { UserInfo } from '../api/auth.ts';
import type { ObjectMeta } from '../api/object.ts';
import { StatusError } from '../api/status.ts';
import type { Clock } from '../base/clock.ts';
import type { Random } from '../base/random.ts';

/** Names of the claims and their shapes: kubernetes/pkg/serviceaccount/claims.go. */
export interface ObjectIdentity {
  name: string;
  uid: string;
}

export interface TokenBinding {
  namespace: string;
  serviceAccount: ObjectIdentity;
  /** At most one of pod and secret; a token bound to a pod may name its node as well. */
  pod?: ObjectIdentity;
  secret?: ObjectIdentity;
  node?: ObjectIdentity;
}

export interface TokenRequestFields extends TokenBinding {
  /** Empty: the API server. */
  audiences: string[];
  expirationSeconds: number;
}

export interface IssuedToken {
  token: string;
  expirationMs: number;
}

export interface VerifiedToken extends TokenBinding {
  user: UserInfo;
  /** What the token's audiences and the wanted ones have in common. */
  audiences: string[];
  expirationMs: number;
}

/** The newest metadata of an object, or undefined where it does not exist. */
export type BoundObjectLookup = (
  resource: 'serviceaccounts' | 'pods' | 'secrets' | 'nodes',
  namespace: string,
  name: string,
) => ObjectMeta | undefined;

export interface ServiceAccountTokens {
  readonly issuer: string;
  issue(request: TokenRequestFields): Promise<IssuedToken>;
  /**
   * Whose token it is. Signature, issuer, times, audience, and that account, pod, secret and
   * node still exist with the uids that the token names.
   *
   * @returns undefined when it is not one of this issuer's tokens at all
   * @throws StatusError Unauthorized when it is, but is not valid (any more)
   */
  verify(token: string, audiences?: string[]): Promise<VerifiedToken | undefined>;
  /** `/openid/v1/jwks` */
  jwks(): { keys: Record<string, string>[] };
  /** `/.well-known/openid-configuration` */
  openidConfiguration(): Record<string, unknown>;
}

export const SERVICE_ACCOUNT_ISSUER = 'https://kubernetes.default.svc.cluster.local';
export const SERVICE_ACCOUNT_USER_PREFIX = 'system:serviceaccount:';
/** Kubernetes' limits of TokenRequest: ten minutes to 2^32 seconds. */
export const TOKEN_EXPIRATION_SECONDS_MIN = 600;
export const TOKEN_EXPIRATION_SECONDS_MAX = 2 ** 32;

/** A token carries a few hundred bytes of claims; more is an attack on the parser. */
const TOKEN_LIMIT_BYTES = 16 << 10;
const ALGORITHM = 'ES256';
/** A pod that is being deleted may use its token this much longer, as in Kubernetes. */
const DELETED_POD_GRACE_MS = 60_000;
/** Signatures that were found good, so that a busy client costs one verification. */
const VERIFIED_CACHE_LENGTH = 4096;

interface Claims {
  iss: string;
  sub: string;
  aud: string[];
  exp: number;
  nbf: number;
  iat: number;
  jti: string;
  'kubernetes.io': {
    namespace: string;
    serviceaccount: ObjectIdentity;
    pod?: ObjectIdentity;
    secret?: ObjectIdentity;
    node?: ObjectIdentity;
  };
}

export interface ServiceAccountTokenOptions {
  /** PEM, ECDSA P-256. */
  privateKey: string;
  lookup: BoundObjectLookup;
  clock: Clock;
  random: Random;
  /** @default SERVICE_ACCOUNT_ISSUER */
  issuer?: string;
  /** Where the key set is served. @default the issuer's address */
  jwksUri?: string;
  /** Audiences by which the API server itself goes. @default the issuer and "hypernetes" */
  apiAudiences?: string[];
}

/** Service account tokens: JWTs signed with ES256, with Kubernetes' claims. */
export function createServiceAccountTokens(
  options: ServiceAccountTokenOptions,
): ServiceAccountTokens {
  const issuer = options.issuer ?? SERVICE_ACCOUNT_ISSUER;
  const apiAudiences = options.apiAudiences ?? [issuer, 'hypernetes'];
  const privateKey = createPrivateKey(options.privateKey);
  const publicKey = createPublicKey(privateKey);
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const keyId = createHash('sha256').update(spki).digest('base64url');
  // Loaded with the first token: the library would be a large part of the server's start time.
  const library = () => import('jose');
  const verified = new Map<string, Claims>();

  const checkSignature = async (token: string): Promise<Claims> => {
    const known = verified.get(token);
    if (known) return known;
    const { compactVerify } = await library();
    const result = await compactVerify(token, publicKey, { algorithms: [ALGORITHM] });
    const claims = JSON.parse(Buffer.from(result.payload).toString('utf8')) as Claims;
    if (verified.size >= VERIFIED_CACHE_LENGTH) verified.delete(verified.keys().next().value ?? '');
    verified.set(token, claims);
    return claims;
  };

  return {
    issuer,

    async issue(request) {
      const { SignJWT } = await library();
      const issuedAt = Math.floor(options.clock.nowMs() / 1000);
      const expiration = issuedAt + request.expirationSeconds;
      const subject = serviceAccountUser(request.namespace, request.serviceAccount.name);
      const token = await new SignJWT({ 'kubernetes.io': privateClaims(request) })
        .setProtectedHeader({ alg: ALGORITHM, kid: keyId })
        .setIssuer(issuer)
        .setSubject(subject)
        .setAudience(request.audiences.length ? request.audiences : apiAudiences.slice(0, 1))
        .setIssuedAt(issuedAt)
        .setNotBefore(issuedAt)
        .setExpirationTime(expiration)
        .setJti(options.random.uuid())
        .sign(privateKey);
      return { token, expirationMs: expiration * 1000 };
    },

    async verify(token, audiences) {
      if (peekIssuer(token) !== issuer) return undefined;
      try {
        const claims = await checkSignature(token);
        const wanted = audiences?.length ? audiences : apiAudiences;
        return checkClaims(claims, wanted, options);
      } catch (cause) {
        if (cause instanceof StatusError) throw cause;
        throw new StatusError('Unauthorized', 'Unauthorized', { cause });
      }
    },

    jwks() {
      const { kty, crv, x, y } = publicKey.export({ format: 'jwk' }) as Record<string, string>;
      const key = { use: 'sig', kty, kid: keyId, crv, alg: ALGORITHM, x, y };
      return { keys: [key as Record<string, string>] };
    },

    openidConfiguration() {
      return {
        issuer,
        jwks_uri: options.jwksUri ?? `${issuer}/openid/v1/jwks`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: [ALGORITHM],
      };
    },
  };
}

function privateClaims(binding: TokenBinding): Claims['kubernetes.io'] {
  const { namespace, serviceAccount, pod, secret, node } = binding;
  const identity = ({ name, uid }: ObjectIdentity) => ({ name, uid });
  return {
    namespace,
    serviceaccount: identity(serviceAccount),
    ...(pod ? { pod: identity(pod) } : {}),
    ...(secret ? { secret: identity(secret) } : {}),
    ...(node ? { node: identity(node) } : {}),
  };
}

function serviceAccountUser(namespace: string, name: string): string {
  return `${SERVICE_ACCOUNT_USER_PREFIX}${namespace}:${name}`;
}

const SERVICE_ACCOUNT_USER = /^system:serviceaccount:([^:]+):([^:]+)$/;

/** The service account that a user name is of; undefined for other users. */
export function parseServiceAccountUser(
  user: string,
): { namespace: string; name: string } | undefined {
  const [, namespace, name] = SERVICE_ACCOUNT_USER.exec(user) ?? [];
  return namespace && name ? { namespace, name } : undefined;
}

/** The groups every service account of a namespace is in. */
function serviceAccountGroups(namespace: string): string[] {
  return ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'];
}

/** The issuer that a token claims, unverified; only to tell whose authenticator it is for. */
function peekIssuer(token: string): string | undefined {
  if (token.length > TOKEN_LIMIT_BYTES) return undefined;
  const parts = token.split('.');
  if (parts.length !== 3) return undefined;
  try {
    const payload: unknown = JSON.parse(Buffer.from(parts[1] ?? '', 'base64url').toString('utf8'));
    return (payload as { iss?: string } | null)?.iss;
  } catch {
    return undefined;
  }
}

function checkClaims(
  claims: Claims,
  wantedAudiences: string[],
  { clock, lookup }: ServiceAccountTokenOptions,
): VerifiedToken {
  const nowMs = clock.nowMs();
  if (claims.exp * 1000 <= nowMs) throw unauthorized('token has expired');
  if (claims.nbf * 1000 > nowMs) throw unauthorized('token is not valid yet');
  const audiences = claims.aud.filter((audience) => wantedAudiences.includes(audience));
  if (!audiences.length) throw unauthorized('token is for another audience');
  const { namespace, serviceaccount, pod, secret, node } = claims['kubernetes.io'];
  const subject = serviceAccountUser(namespace, serviceaccount.name);
  if (claims.sub !== subject) throw unauthorized('token contradicts itself about its subject');
  const alive = (
    resource: Parameters<BoundObjectLookup>[0],
    identity: ObjectIdentity,
    graceMs = 0,
  ): void => {
    const meta = lookup(resource, resource === 'nodes' ? '' : namespace, identity.name);
    if (meta?.uid !== identity.uid) throw unauthorized(`its ${resource} object is gone`);
    const deletedMs = meta.deletionTimestamp ? Date.parse(meta.deletionTimestamp) : Infinity;
    if (nowMs > deletedMs + graceMs) throw unauthorized(`its ${resource} object is being deleted`);
  };
  alive('serviceaccounts', serviceaccount);
  if (pod) alive('pods', pod, DELETED_POD_GRACE_MS);
  if (secret) alive('secrets', secret);
  if (node && !pod) alive('nodes', node);
  return {
    namespace,
    serviceAccount: serviceaccount,
    pod,
    secret,
    node,
    audiences,
    expirationMs: claims.exp * 1000,
    user: {
      name: subject,
      uid: serviceaccount.uid,
      groups: serviceAccountGroups(namespace),
      extra: extraOf(claims),
    },
  };
}

/** Keys as Kubernetes publishes them to admission and audit. */
function extraOf(claims: Claims): Record<string, string[]> {
  const { pod, node } = claims['kubernetes.io'];
  const prefix = 'authentication.kubernetes.io';
  return {
    [`${prefix}/credential-id`]: [`JTI=${claims.jti}`],
    ...(pod ? { [`${prefix}/pod-name`]: [pod.name], [`${prefix}/pod-uid`]: [pod.uid] } : {}),
    ...(node ? { [`${prefix}/node-name`]: [node.name], [`${prefix}/node-uid`]: [node.uid] } : {}),
  };
}

/** Clients learn only that they are not let in; the log gets the reason as the cause. */
function unauthorized(why: string): StatusError {
  return new StatusError('Unauthorized', 'Unauthorized', { cause: new Error(why) });
}
