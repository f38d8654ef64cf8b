import type { UserInfo } from '../../api/auth.ts';
import { badRequest } from '../../api/status.ts';
import { parseServiceAccountUser } from '../../auth/service-account-tokens.ts';
import type { TenantDirectory } from './directory.ts';

const TENANT_GROUP = /^tenant:([^:]+)/;

/**
 * A user that somebody else names, for impersonation or a review, in the tenant it would have: a
 * service account that of its namespace, others that of their groups `tenant:…`. Whoever names them
 * is confined to a tenant takes them with them into it.
 *
 * @throws StatusError 400 for groups of two tenants: nobody is in both
 */
export function inTenant(user: UserInfo, namedBy: UserInfo, tenants: TenantDirectory): UserInfo {
  const tenant = namedBy.tenant ?? ownTenant(user, tenants);
  return tenant ? { ...user, tenant } : user;
}

function ownTenant(user: UserInfo, tenants: TenantDirectory): string | undefined {
  const account = parseServiceAccountUser(user.name);
  if (account) return tenants.ofNamespace(account.namespace) || undefined;
  const named = new Set(user.groups.flatMap((group) => TENANT_GROUP.exec(group)?.[1] ?? []));
  if (named.size > 1) {
    throw badRequest(`a user is of one tenant, not of ${[...named].sort().join(' and ')}`);
  }
  return [...named][0];
}
