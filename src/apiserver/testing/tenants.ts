import type { UserInfo } from '../../api/auth.ts';
import type { KubeObject } from '../../api/object.ts';
import { productTable } from '../../api/schema/own-kinds.ts';
import { isNamespacedIn } from '../../api/schema/table.ts';
import { tenantGroup, tenantRoleGroup } from '../../api/tenancy.ts';
import type { TenantRole, TenantSpec } from '../../api/tenancy.ts';
import { defaultRbacObjects } from '../../auth/default-roles.ts';
import { createRbac, createUnionAuthorizer } from '../../auth/rbac.ts';
import { withTenantRoles } from '../../auth/tenant-roles.ts';
import { createTenantScope } from '../../auth/tenant-scope.ts';
import { assert } from '../../base/assert.ts';
import type { Transport } from '../../client/transport.ts';
import type { Store } from '../../store/store.ts';
import type { ApiServerOptions } from '../server.ts';
import { createTenantDirectory } from '../tenancy/directory.ts';
import type { TenantDirectory } from '../tenancy/directory.ts';
import { startHarness } from './harness.ts';
import type { Harness } from './harness.ts';

/** A server whose boundary between tenants is in force, and people of tenants who use it. */
export interface TenantHarness extends Harness {
  /** Acts as somebody of the tenant. */
  as(tenant: string, role?: TenantRole): Transport;
  createTenant(name: string, spec?: TenantSpec): Promise<void>;
  tenants: TenantDirectory;
}

function tenantUser(tenant: string, role: TenantRole = 'admin'): UserInfo {
  const groups = [tenantGroup(tenant), tenantRoleGroup(tenant, role), 'system:authenticated'];
  return { name: `${role}@${tenant}`, uid: `${tenant}-${role}`, tenant, groups, extra: {} };
}

export function tenant(name: string, spec: TenantSpec = {}): KubeObject {
  return { apiVersion: 'hypernetes.io/v1', kind: 'Tenant', metadata: { name }, spec };
}

export async function startTenantHarness(
  nodes: 'hidden' | 'sanitised' = 'hidden',
  more: Partial<ApiServerOptions> = {},
): Promise<TenantHarness> {
  let tenants: TenantDirectory | undefined;
  const setUp = (store: Store) => {
    const schema = productTable();
    tenants = createTenantDirectory(store);
    const rbac = withTenantRoles(createRbac());
    const scope = createTenantScope({
      tenantOfNamespace: tenants.ofNamespace,
      isWithin: tenants.isWithin,
      isSuspended: tenants.isSuspended,
      isNamespaced: isNamespacedIn(schema),
      nodes,
    });
    const authorizer = createUnionAuthorizer([scope, rbac]);
    return { schema, tenants, rbac, authorizer, bootstrapObjects: defaultRbacObjects() };
  };
  const harness = await startHarness({ ...more, setUp });
  assert(tenants, 'the harness has set up what it was given');
  return {
    ...harness,
    tenants,
    as: (name, role) => harness.server.loopback(tenantUser(name, role)),
    async createTenant(name, spec) {
      await harness.want('POST', '/apis/hypernetes.io/v1/tenants', tenant(name, spec));
    },
  };
}
