import type { Usage } from '../../api/quota.ts';
import { TENANT_LABEL } from '../../api/tenancy.ts';
import type { Tenant } from '../../api/tenancy.ts';
import { VM_OVERHEAD_ANNOTATION, amountsFrom } from '../../api/tenant-quota.ts';
import { keyOf } from '../registry/resource.ts';
import type { Excess } from '../tenancy/quota-ledger.ts';
import type { AdmissionPlugin, AdmissionRequest } from './chain.ts';
import { forbidden } from './chain.ts';
import { missingAmounts } from './resource-quota.ts';

/** Kinds whose changes may use more; all others are counted when they are made. */
const MEASURED = new Set(['pods', 'services', 'persistentvolumeclaims']);

/**
 * Tenants' quotas, over all their namespaces and what they have given to sub-tenants. It is the last
 * of all: what it sets aside for a write is not refused by anybody afterwards.
 */
export const tenantQuota: AdmissionPlugin = {
  name: 'TenantQuota',
  operations: ['CREATE', 'UPDATE'],
  subresources: ['resize'],
  validate(request) {
    const { server, row, object, operation } = request;
    if (!object) return;
    const isTenant = row.resource === 'tenants' && row.group === 'hypernetes.io';
    if (isTenant) return checkTenant(request, object as Tenant);
    if (operation === 'UPDATE' && !(row.group === '' && MEASURED.has(row.resource))) return;
    const tenant = tenantOf(request);
    if (!tenant || !server.quotas.isLimited(tenant)) return;
    const names = limitNames(request, tenant);
    const missing = operation === 'CREATE' ? missingAmounts(object, names) : [];
    if (missing.length > 0) {
      throw forbidden(request, `failed tenant quota: must specify ${missing.join(',')}`);
    }
    const key = keyOf(server.schema, row, request.namespace, request.name);
    setAside(request, tenant, (write) => server.quotas.reserve(write, tenant, key, object));
  },
  settle({ server, write }) {
    if (write) server.quotas.settle(write);
  },
};

function tenantOf({ server, row, namespace, object }: AdmissionRequest): string | undefined {
  if (namespace) return server.tenants.ofNamespace(namespace);
  const isNamespace = row.group === '' && row.resource === 'namespaces';
  return isNamespace ? object?.metadata.labels?.[TENANT_LABEL] : undefined;
}

function limitNames({ server }: AdmissionRequest, tenant: string): string[] {
  const names = server.tenants
    .ancestors(tenant)
    .flatMap(({ spec }) => Object.keys(spec.quota?.hard ?? {}));
  return [...new Set(names)];
}

/** @param reserve as long as the write is under way; a rehearsal lets go at once */
function setAside(
  request: AdmissionRequest,
  tenant: string,
  reserve: (write: object) => Excess | undefined,
): void {
  const { write = {}, server } = request;
  const excess = reserve(write);
  if (!request.write) server.quotas.settle(write);
  if (excess) throw forbidden(request, describe(excess, tenant));
}

function describe(excess: Excess, tenant: string): string {
  const { requested, used, limited } = excess;
  const print = (amounts: Usage) =>
    Object.entries(amounts)
      .map(([name, amount]) => `${name}=${amount}`)
      .join(',');
  // What the tenant above has and uses is its own business.
  if (excess.tenant !== tenant) {
    return `exceeded quota of the tenant above: requested: ${print(requested)}`;
  }
  return (
    `exceeded tenant quota: requested: ${print(requested)}, ` +
    `used: ${print(used)}, limited: ${print(limited)}`
  );
}

function checkTenant(request: AdmissionRequest, tenant: Tenant): void {
  const { server, operation, oldObject, name } = request;
  const hard = tenant.spec.quota?.hard ?? {};
  const before = (oldObject as Tenant | undefined)?.spec.quota?.hard;
  const isSame = operation === 'UPDATE' && JSON.stringify(before ?? {}) === JSON.stringify(hard);
  if (isSame) return;
  const { parent } = tenant.spec;
  if (parent !== undefined) {
    setAside(request, parent, (write) => server.quotas.reserveTenant(write, tenant));
  }
  const used = server.quotas.measure(name, hard);
  const amounts = amountsFrom(used);
  for (const [limit, most] of amountsFrom(hard)) {
    if ((amounts.get(limit) ?? 0n) <= most) continue;
    const text = `spec.quota.hard[${limit}]: ${hard[limit]} is less than what is used`;
    request.warn(`${text}: ${used[limit]}; nothing more can be created until it fits`);
  }
}

const GRANTED = ['storageClasses', 'runtimeClasses', 'priorityClasses', 'kernels'] as const;

/**
 * What a tenant is given is part of what its parent has: it needs a limit wherever the parent has
 * one, and may use no class that the parent may not.
 */
export const tenantGrants: AdmissionPlugin = {
  name: 'TenantGrants',
  resources: ['tenants.hypernetes.io'],
  operations: ['CREATE', 'UPDATE'],
  validate(request) {
    const { server, object, oldObject } = request;
    const { spec } = object as Tenant;
    const { parent } = spec;
    if (parent === undefined) return;
    const given = ({ quota, allowed }: Tenant['spec']) => JSON.stringify([quota, allowed]);
    if (oldObject && given((oldObject as Tenant).spec) === given(spec)) return;
    const missing = limitNames(request, parent).filter(
      (name) => spec.quota?.hard?.[name] === undefined,
    );
    if (missing.length > 0) {
      const list = missing.sort().join(', ');
      throw forbidden(
        request,
        `spec.quota.hard: the tenant above has limits for ${list}: set them`,
      );
    }
    for (const kind of GRANTED) {
      const allowed = server.tenants.allowedNames(parent, kind);
      const excess = spec.allowed?.[kind]?.find((name) => allowed && !allowed.includes(name));
      if (excess === undefined) continue;
      const why = `the tenant above may not use ${JSON.stringify(excess)}`;
      throw forbidden(request, `spec.allowed.${kind}: ${why}`);
    }
  },
};

/** What the VM of a tenant's pod costs beside its containers is written down once, and counted. */
export const vmOverhead: AdmissionPlugin = {
  name: 'VMOverhead',
  resources: ['pods'],
  operations: ['CREATE', 'UPDATE'],
  subresources: ['status', 'binding', 'resize'],
  mutate({ server, namespace, object, oldObject, operation }) {
    const { [VM_OVERHEAD_ANNOTATION]: _, ...annotations } = object.metadata.annotations ?? {};
    const isTenants = Boolean(server.tenants.ofNamespace(namespace));
    const bytes = isTenants ? String(server.vmOverhead.bytes()) : undefined;
    const old = oldObject?.metadata.annotations?.[VM_OVERHEAD_ANNOTATION];
    const value = operation === 'CREATE' ? bytes : old;
    if (value !== undefined) annotations[VM_OVERHEAD_ANNOTATION] = value;
    if (object.metadata.annotations || value !== undefined) {
      object.metadata.annotations = annotations;
    }
  },
};
