import type {
  AuthorizationAttributes,
  AuthorizationDecision,
  AuthorizationStep,
  UserInfo,
} from '../api/auth.ts';
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
  const rulesOf = (user: UserInfo, scope: Scope): PolicyRule[] => {
    const role = roleOf(user);
    if (!role) return [];
    return rbac.rulesOfRole({ kind: 'ClusterRole', name: SCOPES[scope][role] }, '') ?? [];
  };

  /** Where the role's rules allow a request, if they do. */
  const grantOf = (attributes: AuthorizationAttributes): Scope | undefined => {
    const { user } = attributes;
    if (user.tenant === undefined || !attributes.isResourceRequest) return undefined;
    const grants = (scope: Scope) =>
      rulesOf(user, scope).some((rule) => ruleAllows(rule, attributes));
    if (grants('cluster')) return 'cluster';
    return reachesNamespaces(attributes) && grants('namespaces') ? 'namespaces' : undefined;
  };

  const allow = ({ user }: AuthorizationAttributes): AuthorizationDecision => {
    const reason = `allowed as ${roleOf(user)} of tenant ${JSON.stringify(user.tenant)}`;
    return { decision: 'allow', reason };
  };

  const explainRole = (attributes: AuthorizationAttributes): AuthorizationStep => {
    const { user } = attributes;
    const role = roleOf(user);
    const step = { authorizer: 'tenant role', decision: 'no-opinion', reason: '' } as const;
    if (user.tenant === undefined) return { ...step, reason: 'the user is of no tenant' };
    if (!role) return { ...step, reason: 'none of the user’s groups is a role in its tenant' };
    const scope = grantOf(attributes);
    const { decision, reason } = allow(attributes);
    if (scope) {
      return { ...step, decision, reason: `${reason} by ClusterRole "${SCOPES[scope][role]}"` };
    }
    const names = Object.values(SCOPES).map((each) => `"${each[role]}"`);
    return { ...step, reason: `not granted to a ${role} by ClusterRoles ${names.join(' and ')}` };
  };

  return {
    ...rbac,

    authorize: (attributes) =>
      grantOf(attributes) ? allow(attributes) : rbac.authorize(attributes),

    explain(attributes, options) {
      const step = explainRole(attributes);
      return step.decision === 'allow' ? [step] : [step, ...rbac.explain(attributes, options)];
    },

    rulesFor(user, namespace) {
      const { rules, missing } = rbac.rulesFor(user, namespace);
      if (user.tenant === undefined) return { rules, missing };
      const own = [...rulesOf(user, 'cluster'), ...(namespace ? rulesOf(user, 'namespaces') : [])];
      return { rules: [...own, ...rules], missing };
    },
  };
}

type Scope = 'namespaces' | 'cluster';

/** The ClusterRoles of the roles in a tenant. */
const SCOPES: Record<Scope, Record<TenantRole, string>> = {
  namespaces: NAMESPACE_ROLES,
  cluster: TENANT_CLUSTER_ROLES,
};

/** One namespace, or a look at all of them, which the store confines to the tenant's. */
function reachesNamespaces({ namespace, verb }: AuthorizationAttributes): boolean {
  return namespace !== '' || verb === 'list' || verb === 'watch';
}

function roleOf(user: UserInfo): TenantRole | undefined {
  const { tenant, groups } = user;
  if (tenant === undefined) return undefined;
  return TENANT_ROLES.find((role) => groups.includes(tenantRoleGroup(tenant, role)));
}
