import type { AuthorizationAttributes, UserInfo } from '../api/auth.ts';
import {
  NAMESPACE_ROLES,
  TENANT_CLUSTER_ROLES,
  TENANT_ROLES,
  tenantRoleGroup,
} from '../api/tenancy.ts';
import type { TenantRole } from '../api/tenancy.ts';
import { ruleAllows } from './rbac.ts';
import type { PolicyRule, Rbac } from './rbac.ts';

/**
 * RBAC, and beside it what a person's role in their tenant grants: in every namespace of the tenant
 * the rules of one ClusterRole, outside of namespaces those of another. The operator changes what
 * a role may do by changing those ClusterRoles. Which namespaces are the tenant's is not decided
 * here: the tenant's scope has been asked before.
 */
export function withTenantRoles(rbac: Rbac): Rbac {
  const rulesOf = (user: UserInfo, scope: 'namespaces' | 'cluster'): PolicyRule[] => {
    const role = roleOf(user);
    if (!role) return [];
    const names = scope === 'namespaces' ? NAMESPACE_ROLES : TENANT_CLUSTER_ROLES;
    return rbac.rulesOfRole({ kind: 'ClusterRole', name: names[role] }, '') ?? [];
  };

  return {
    ...rbac,

    authorize(attributes) {
      const { user } = attributes;
      if (user.tenant !== undefined && attributes.isResourceRequest) {
        const granted =
          rulesOf(user, 'cluster').some((rule) => ruleAllows(rule, attributes)) ||
          (reachesNamespaces(attributes) &&
            rulesOf(user, 'namespaces').some((rule) => ruleAllows(rule, attributes)));
        if (granted) {
          const reason = `allowed as ${roleOf(user)} of tenant ${JSON.stringify(user.tenant)}`;
          return { decision: 'allow', reason };
        }
      }
      return rbac.authorize(attributes);
    },

    rulesFor(user, namespace) {
      const { rules, missing } = rbac.rulesFor(user, namespace);
      if (user.tenant === undefined) return { rules, missing };
      const own = [...rulesOf(user, 'cluster'), ...(namespace ? rulesOf(user, 'namespaces') : [])];
      return { rules: [...own, ...rules], missing };
    },
  };
}

/** One namespace, or a look at all of them, which the store confines to the tenant's. */
function reachesNamespaces({ namespace, verb }: AuthorizationAttributes): boolean {
  return namespace !== '' || verb === 'list' || verb === 'watch';
}

function roleOf(user: UserInfo): TenantRole | undefined {
  const { tenant, groups } = user;
  if (tenant === undefined) return undefined;
  return TENANT_ROLES.find((role) => groups.includes(tenantRoleGroup(tenant, role)));
}
