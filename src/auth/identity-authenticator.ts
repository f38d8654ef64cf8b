import type { AuthenticatedUser, AuthenticationRequest, Authenticator } from '../api/auth.ts';
import { IdentityUnavailableError } from '../api/identity.ts';
import type { IdentityProject, IdentityProvider, IdentityToken } from '../api/identity.ts';
import { StatusError } from '../api/status.ts';
import {
  OPERATOR_READERS_GROUP,
  OPERATORS_GROUP,
  RESERVED_PREFIXES,
  TENANT_ROLES,
  tenantGroup,
  tenantRoleGroup,
} from '../api/tenancy.ts';

/** The catalogue's type of this service: what access rules of application credentials name. */
const KUBERNETES_SERVICE_TYPE = 'kubernetes';

export interface IdentityAuthenticatorOptions {
  provider: IdentityProvider;
  /**
   * The tenant of a project, made for it where tenants are made on first use; undefined when the
   * project is nobody's.
   */
  tenantOfProject: (project: IdentityProject) => Promise<string | undefined>;
}

/**
 * Tokens of the identity service. One that is scoped to a project acts in the project's tenant, with
 * the groups of its roles; one that is scoped to the system is an operator's.
 */
export function createIdentityAuthenticator(options: IdentityAuthenticatorOptions): Authenticator {
  const { provider } = options;
  return {
    async authenticate(request) {
      const { bearerToken, audiences } = request;
      // These tokens speak to the API server alone; a TokenReview for others must not accept them.
      if (!bearerToken || audiences?.length || !provider.recognises(bearerToken)) return undefined;
      const token = await validate(provider, bearerToken);
      checkAccessRules(token, request);
      return { user: await userOf(token, options) };
    },
  };
}

async function validate(provider: IdentityProvider, text: string): Promise<IdentityToken> {
  let token: IdentityToken | undefined;
  try {
    token = await provider.validate(text);
  } catch (error) {
    if (!(error instanceof IdentityUnavailableError)) throw error;
    const message = 'the identity service cannot be reached: the token cannot be checked now';
    throw new StatusError('ServiceUnavailable', message, { details: { retryAfterSeconds: 5 } });
  }
  if (!token) throw unauthorized('the token is invalid, expired or revoked');
  return token;
}

function unauthorized(message: string): StatusError {
  return new StatusError('Unauthorized', `Unauthorized: ${message}`);
}

async function userOf(
  token: IdentityToken,
  { tenantOfProject }: IdentityAuthenticatorOptions,
): Promise<AuthenticatedUser['user']> {
  const { user, scope, roles } = token;
  if (isReserved(user.name)) {
    throw unauthorized(
      `users whose names begin with ${RESERVED_PREFIXES.join(', ')} are the system's`,
    );
  }
  // The last `@` has to be ours, or two people of two domains could have one name.
  if (user.domain.name.includes('@')) {
    throw unauthorized('the name of the user\'s domain contains "@"');
  }
  const name = `${user.name}@${user.domain.name}`;
  const groups = token.groups
    .filter(({ domain }) => !domain.includes('@'))
    .map((group) => `${group.name}@${group.domain}`)
    .filter((group) => !isReserved(group));
  const extra = { 'hypernetes.io/roles': [...roles].sort() };
  if (scope.kind === 'system') {
    return { name, uid: user.id, groups: [...groups, ...systemGroups(roles)], extra };
  }
  if (scope.kind !== 'project') {
    throw unauthorized(`the token is ${describeScope(scope.kind)}: scope it to a project`);
  }
  const tenant = await tenantOfProject(scope.project);
  if (tenant === undefined) {
    throw unauthorized(`there is no tenant for the project ${JSON.stringify(scope.project.name)}`);
  }
  return {
    ...{ name, uid: user.id, tenant },
    groups: [...groups, ...tenantGroups(tenant, roles)],
    extra: { ...extra, 'hypernetes.io/project-id': [scope.project.id] },
  };
}

const describeScope = (kind: 'domain' | 'unscoped') =>
  kind === 'domain' ? 'scoped to a domain' : 'not scoped';

function isReserved(name: string): boolean {
  return RESERVED_PREFIXES.some((prefix) => name.startsWith(prefix));
}

function systemGroups(roles: string[]): string[] {
  if (roles.includes('admin')) return [OPERATORS_GROUP, OPERATOR_READERS_GROUP];
  return roles.includes('reader') ? [OPERATOR_READERS_GROUP] : [];
}

/** A role includes those below it, whether or not the service implies them. */
function tenantGroups(tenant: string, roles: string[]): string[] {
  const highest = TENANT_ROLES.findIndex((role) => roles.includes(role));
  const held = highest < 0 ? [] : TENANT_ROLES.slice(highest);
  return [tenantGroup(tenant), ...held.map((role) => tenantRoleGroup(tenant, role))];
}

/** An application credential may be good for some requests only. */
function checkAccessRules(token: IdentityToken, request: AuthenticationRequest): void {
  const { accessRules } = token;
  if (!accessRules) return;
  const { method = '', path = '' } = request;
  const permits = accessRules.some(
    (rule) =>
      rule.service === KUBERNETES_SERVICE_TYPE &&
      rule.method === method &&
      pathMatches(rule.path, path),
  );
  if (permits) return;
  throw new StatusError(
    'Forbidden',
    `forbidden: the application credential has no access rule for ${method} ${path}`,
  );
}

/** Keystone's patterns: `*` and `{name}` are one segment of a path, `**` any number of them. */
function pathMatches(pattern: string, path: string): boolean {
  const given = path.split('/');
  /** How many segments of the path the pattern so far may stand for. */
  let reached = new Set([0]);
  for (const segment of pattern.split('/')) {
    const next = new Set<number>();
    for (const at of reached) {
      if (segment === '**') for (let end = at; end <= given.length; end += 1) next.add(end);
      else if (fits(segment, given[at])) next.add(at + 1);
    }
    reached = next;
  }
  return reached.has(given.length);
}

function fits(segment: string, given: string | undefined): boolean {
  if (given === undefined) return false;
  return segment === '*' || /^\{[^}]*\}$/.test(segment) ? given !== '' : segment === given;
}
