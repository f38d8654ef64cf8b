import { parseServiceAccountUser } from '../../auth/service-account-tokens.ts';
import { ANONYMOUS_USER, AUTHENTICATED_GROUP } from '../../auth/authenticators.ts';
import type { Authenticator, Authorizer, UserInfo } from '../../api/auth.ts';
import { StatusError, badRequest } from '../../api/status.ts';
import { forbiddenByAuthorizer, isAllowed } from './authorization.ts';
import type { ApiExchange } from './exchange.ts';

const HEADER_VALUES_MAX = 128;

/**
 * Who asks. No credentials at all make the anonymous user; wrong ones are 401, never anonymous.
 */
export async function authenticate(
  exchange: ApiExchange,
  authenticators: readonly Authenticator[],
): Promise<UserInfo> {
  if (exchange.user) return exchange.user;
  const bearerToken = readBearerToken(exchange);
  const clientCertificate = exchange.clientCertificate;
  if (!bearerToken && !clientCertificate) {
    if (exchange.clientCertificateError || exchange.headers.authorization) throw unauthorized();
    return ANONYMOUS_USER;
  }
  const { method, path } = exchange;
  for (const authenticator of authenticators) {
    const found = await authenticator.authenticate({
      ...{ method, path },
      ...(bearerToken ? { bearerToken } : {}),
      ...(clientCertificate ? { clientCertificate } : {}),
    });
    if (found) return withGroup(found.user, AUTHENTICATED_GROUP);
  }
  throw unauthorized();
}

export function unauthorized(): StatusError {
  return new StatusError('Unauthorized', 'Unauthorized');
}

/** Websocket clients in browsers cannot set headers: they put the token into a subprotocol. */
const TOKEN_PROTOCOL_PREFIX = 'base64url.bearer.authorization.k8s.io.';

function readBearerToken(exchange: ApiExchange): string | undefined {
  const header = exchange.headers.authorization;
  if (header) return /^bearer +(\S+)\s*$/i.exec(header)?.[1];
  if (!exchange.upgradable) return undefined;
  const protocols = (exchange.headers['sec-websocket-protocol'] ?? '').split(',');
  const carrier = protocols.find((one) => one.trim().startsWith(TOKEN_PROTOCOL_PREFIX));
  if (!carrier) return undefined;
  const encoded = carrier.trim().slice(TOKEN_PROTOCOL_PREFIX.length);
  return Buffer.from(encoded, 'base64url').toString('utf8');
}

/** The user's protocols without the one that carries a token: that one must go no further. */
export function protocolsWithoutToken(protocols: string): string {
  const list = protocols.split(',').map((one) => one.trim());
  return list.filter((one) => one && !one.startsWith(TOKEN_PROTOCOL_PREFIX)).join(', ');
}

function withGroup(user: UserInfo, group: string): UserInfo {
  return user.groups.includes(group) ? user : { ...user, groups: [...user.groups, group] };
}

const EXTRA_PREFIX = 'impersonate-extra-';

/**
 * The user that `Impersonate-*` headers ask to act as, after each of its parts was authorized
 * with the verb `impersonate`; the user itself without such headers.
 */
export function impersonate(
  exchange: ApiExchange,
  user: UserInfo,
  authorizer: Authorizer,
): UserInfo {
  const name = exchange.headers['impersonate-user'];
  const uid = exchange.headers['impersonate-uid'] ?? '';
  const groups = readList(exchange.headers['impersonate-group']);
  const extra = readExtra(exchange.headers);
  if (!name) {
    if (!uid && groups.length === 0 && Object.keys(extra).length === 0) return user;
    throw badRequest('requested impersonation without a user: set the Impersonate-User header');
  }
  const check = (group: string, resource: string, value: string, more = {}) => {
    requireImpersonation(authorizer, user, { group, resource, name: value, ...more });
  };
  const account = parseServiceAccountUser(name);
  if (account) {
    check('', 'serviceaccounts', account.name, { namespace: account.namespace });
  } else check('', 'users', name);
  if (uid) check('authentication.k8s.io', 'uids', uid);
  for (const group of groups) check('', 'groups', group);
  for (const [key, values] of Object.entries(extra)) {
    for (const value of values) {
      check('authentication.k8s.io', 'userextras', value, { subresource: key });
    }
  }
  return { name, uid, groups: impersonatedGroups(name, account, groups), extra };
}

/** The groups of a user that is named: those that every such user has are among them. */
export function impersonatedGroups(
  name: string,
  account: { namespace: string } | undefined,
  groups: string[],
): string[] {
  const all = new Set(groups);
  if (account && groups.length === 0) {
    all.add('system:serviceaccounts').add(`system:serviceaccounts:${account.namespace}`);
  }
  if (name === ANONYMOUS_USER.name) all.add('system:unauthenticated');
  else if (!all.has('system:unauthenticated')) all.add(AUTHENTICATED_GROUP);
  return [...all];
}

interface ImpersonationTarget {
  group: string;
  resource: string;
  name: string;
  namespace?: string;
  subresource?: string;
}

function requireImpersonation(
  authorizer: Authorizer,
  user: UserInfo,
  target: ImpersonationTarget,
): void {
  const attributes = {
    user,
    verb: 'impersonate',
    isResourceRequest: true,
    version: 'v1',
    subresource: '',
    namespace: '',
    path: '',
    ...target,
  };
  const decision = authorizer.authorize(attributes);
  if (!isAllowed(decision)) throw forbiddenByAuthorizer(attributes, decision.reason);
}

function readList(header: string | undefined): string[] {
  if (!header) return [];
  const values = header.split(',', HEADER_VALUES_MAX).map((value) => value.trim());
  return values.filter((value) => value !== '');
}

function readExtra(headers: ApiExchange['headers']): Record<string, string[]> {
  const extra: Record<string, string[]> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (!name.startsWith(EXTRA_PREFIX)) continue;
    const key = name.slice(EXTRA_PREFIX.length);
    extra[safeDecode(key)] = readList(value);
  }
  return extra;
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
