import { TENANT_FINALIZER } from '../../api/tenancy.ts';
import type { Tenant } from '../../api/tenancy.ts';
import { qualifiedResource } from '../../api/status.ts';
import { storeResource } from '../registry/resource.ts';
import { TENANTS_RESOURCE } from '../tenancy/directory.ts';
import type { AdmissionPlugin, AdmissionRequest } from './chain.ts';
import { forbidden } from './chain.ts';

/** So many kinds are named; that there are more is told. */
const NAMED_MAX = 5;

/**
 * A tenant goes when nothing is left that is its: whoever takes its finalizer away, the store is
 * looked through first. Writes of its users are refused before, so nothing comes after the look.
 */
export const tenantDeletion: AdmissionPlugin = {
  name: 'TenantDeletion',
  resources: ['tenants.hypernetes.io'],
  operations: ['CREATE', 'UPDATE'],
  mutate({ object }) {
    const { metadata } = object;
    const finalizers = metadata.finalizers ?? [];
    if (metadata.deletionTimestamp || finalizers.includes(TENANT_FINALIZER)) return;
    metadata.finalizers = [...finalizers, TENANT_FINALIZER];
  },
  validate(request) {
    const { object, oldObject, user } = request;
    const isHeld = (tenant: AdmissionRequest['object']) =>
      tenant?.metadata.finalizers?.includes(TENANT_FINALIZER) === true;
    if (!isHeld(oldObject) || isHeld(object)) return;
    if (user.tenant !== undefined) {
      throw forbidden(request, `the finalizer ${TENANT_FINALIZER} is the system's to remove`);
    }
    const left = remains(request);
    if (left.length === 0) return;
    const more = left.length > NAMED_MAX ? ` and ${left.length - NAMED_MAX} more kinds` : '';
    const list = `${left.slice(0, NAMED_MAX).join(', ')}${more}`;
    throw forbidden(request, `the tenant still has ${list}`);
  },
};

function remains({ server, name }: AdmissionRequest): string[] {
  const { store, schema } = server;
  const left: string[] = [];
  const seen = new Set<string>([TENANTS_RESOURCE]);
  for (const row of schema.rows()) {
    const resource = storeResource(schema, row);
    if (seen.has(resource)) continue;
    seen.add(resource);
    const { entries, remainingCount } = store.list(resource, { partition: name, limit: 1 });
    const count = entries.length + remainingCount;
    if (count > 0) left.push(`${count} ${qualifiedResource(row.group, row.resource)}`);
  }
  const below = store
    .list(TENANTS_RESOURCE)
    .entries.filter(({ object }) => (object as Tenant).spec.parent === name);
  if (below.length > 0) left.push(`${below.length} sub-tenants`);
  return left;
}
