import type { AuthorizationAttributes, UserInfo } from '../../../api/auth.ts';
import type { KubeObject } from '../../../api/object.ts';
import { StatusError, badRequest } from '../../../api/status.ts';
import { RESERVED_PREFIXES, tenantGroup } from '../../../api/tenancy.ts';
import { AUTHENTICATED_GROUP } from '../../../auth/authenticators.ts';
import { ruleAllows } from '../../../auth/rbac.ts';
import type { PolicyRule } from '../../../auth/rbac.ts';
import { parseServiceAccountUser } from '../../../auth/service-account-tokens.ts';
import type { ResourceContext } from '../../context.ts';
import { impersonatedGroups } from '../../server/authentication.ts';
import { confined, confinementOf } from '../../tenancy/confinement.ts';
import { inTenant } from '../../tenancy/named-user.ts';
import { attributesFor } from './attributes.ts';
import type { AccessReviewSpec } from './attributes.ts';

const RBAC_GROUP = 'rbac.authorization.k8s.io';
const ROLES_TOLD_MAX = 20;

/**
 * Whether somebody may do something, and why: what each authorizer says, asked in the order in which
 * requests are decided, about the user that impersonation would make. Operators ask about everybody,
 * people of a tenant about those of their own.
 */
export function explainAccess(context: ResourceContext, request: KubeObject) {
  const { server, user: asker } = context;
  const spec = (request.spec ?? {}) as AccessReviewSpec;
  const user = named(context, spec);
  const attributes = attributesFor(spec, user);
  const { decision, reason } = server.authorizer.authorize(attributes);
  const forTenant = asker.tenant !== undefined;
  const steps = server.authorizer.explain?.(attributes, { forTenant }) ?? [];
  const allowed = decision === 'allow';
  const isFinal = steps.at(-1)?.decision === 'deny';
  const roles = allowed || isFinal ? [] : rolesThatAllow(context, attributes);
  return {
    allowed,
    // As the last step has it: the plain reason may name what the asker is not to know.
    reason: steps.at(-1)?.reason ?? reason,
    user: {
      username: user.name,
      groups: user.groups,
      ...(user.tenant ? { tenant: user.tenant } : {}),
    },
    steps,
    ...(allowed ? {} : { missing: isFinal ? NO_ROLE_HELPS : whatIsMissing(attributes, roles) }),
    ...(roles.length > 0 ? { clusterRoles: roles } : {}),
  };
}

const NO_ROLE_HELPS = 'no role or binding can grant this';

function whatIsMissing({ namespace, verb, ...what }: AuthorizationAttributes, roles: string[]) {
  const where = namespace ? `in namespace ${JSON.stringify(namespace)}, or ` : '';
  const target = what.isResourceRequest ? 'this resource' : 'this path';
  const such = roles.length > 0 ? `, as ${roles.map((role) => `"${role}"`).join(', ')}` : '';
  return `a binding ${where}of the whole cluster, to a role that allows ${verb} of ${target}${such}`;
}

/** @throws StatusError 403 for somebody who can be of no tenant, or of another than the asker's */
function named({ server, user: asker }: ResourceContext, spec: AccessReviewSpec): UserInfo {
  const { user: name = '', uid = '', groups = [], extra = {} } = spec;
  if (!name && groups.length === 0) {
    throw badRequest('at least one of user or group must be specified');
  }
  const account = parseServiceAccountUser(name);
  if (asker.tenant !== undefined) {
    const ofNamespace = account && server.tenants.ofNamespace(account.namespace);
    const isForeign = account ? ofNamespace !== asker.tenant : isReserved(name);
    const isOwn = (group: string) => isOwnGroup(group, asker.tenant as string, account);
    if (isForeign || !groups.every(isOwn)) {
      const message = 'the user or one of the groups is not of your tenant';
      throw new StatusError('Forbidden', message, { details: {} });
    }
  }
  const all = impersonatedGroups(name, account, groups);
  return inTenant({ name, uid, groups: all, extra }, asker, server.tenants);
}

const isReserved = (name: string) => RESERVED_PREFIXES.some((prefix) => name.startsWith(prefix));

function isOwnGroup(
  group: string,
  tenant: string,
  account: { namespace: string } | undefined,
): boolean {
  const own = tenantGroup(tenant);
  if (group === own || group.startsWith(`${own}:`) || group === AUTHENTICATED_GROUP) return true;
  const ofAccounts = account
    ? ['system:serviceaccounts', `system:serviceaccounts:${account.namespace}`]
    : [];
  return ofAccounts.includes(group) || !isReserved(group);
}

/** ClusterRoles that the asker sees and whose binding would do. */
function rolesThatAllow(context: ResourceContext, attributes: AuthorizationAttributes): string[] {
  const { server } = context;
  const row = server.schema.byResource(RBAC_GROUP, 'v1', 'clusterroles');
  if (!row) return [];
  const confinement = confinementOf(context, row);
  const names: string[] = [];
  for (const entry of server.store.list(`${RBAC_GROUP}/clusterroles`).entries) {
    // Those are for the system's own parts.
    if (entry.key.name.startsWith('system:')) continue;
    const role = confined(confinement, entry)?.object;
    const rules = (role?.rules ?? []) as PolicyRule[];
    if (rules.some((rule) => ruleAllows(rule, attributes))) names.push(entry.key.name);
    if (names.length === ROLES_TOLD_MAX) break;
  }
  return names;
}
