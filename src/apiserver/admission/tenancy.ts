import { StatusError } from '../../api/status.ts';
import { TENANT_LABEL, ownsNamespaceName } from '../../api/tenancy.ts';
import type { Tenant, TenantAllowed } from '../../api/tenancy.ts';
import { TENANT_DEPTH_MAX, TENANTS_RESOURCE } from '../tenancy/directory.ts';
import { forbidden } from './chain.ts';
import type { AdmissionPlugin, AdmissionRequest, ObjectAdmissionRequest } from './chain.ts';

/**
 * Whose a namespace is: that of the tenant whose user makes it, or the one that an operator names;
 * for ever. Names of different tenants cannot be the same, so none can find out another's.
 */
export const namespaceTenant: AdmissionPlugin = {
  name: 'NamespaceTenant',
  resources: ['namespaces'],
  operations: ['CREATE', 'UPDATE'],
  subresources: ['status', 'finalize'],
  mutate(request) {
    const { object, operation, user } = request;
    if (operation !== 'CREATE' || user.tenant === undefined) return;
    const labels = object.metadata.labels ?? {};
    const claimed = labels[TENANT_LABEL];
    if (claimed !== undefined && claimed !== user.tenant) {
      throw forbidden(request, `the label ${TENANT_LABEL} has to be "${user.tenant}"`);
    }
    object.metadata.labels = { ...labels, [TENANT_LABEL]: user.tenant };
  },
  validate(request) {
    const { object, oldObject, operation } = request;
    if (!object) return;
    const tenant = object.metadata.labels?.[TENANT_LABEL];
    if (operation === 'UPDATE') {
      if (tenant === oldObject?.metadata.labels?.[TENANT_LABEL]) return;
      throw forbidden(request, `the label ${TENANT_LABEL} cannot be changed`);
    }
    if (tenant === undefined) refuseTenantsName(request);
    else checkNamespaceOf(request, tenant);
  },
};

/** The cluster's own namespaces keep out of the names that tenants have. */
function refuseTenantsName(request: AdmissionRequest): void {
  const owner = request.server.tenants.ownerOfName(request.name)?.metadata.name;
  if (owner === undefined) return;
  const why = `the name is one of the tenant "${owner}": give the namespace the label ${TENANT_LABEL}`;
  throw forbidden(request, why);
}

function checkNamespaceOf(request: AdmissionRequest, name: string): void {
  const { tenants } = request.server;
  const tenant = tenants.get(name);
  if (!tenant) throw forbidden(request, `there is no tenant "${name}"`);
  if (tenant.metadata.deletionTimestamp) {
    throw forbidden(request, `the tenant "${name}" is being deleted`);
  }
  if (!ownsNamespaceName(name, request.name)) {
    throw forbidden(request, `namespaces of the tenant are called "${name}" or "${name}-…"`);
  }
  const owner = tenants.ownerOfName(request.name)?.metadata.name ?? name;
  if (owner === name) return;
  throw forbidden(request, `the name is one of the sub-tenant "${owner}"`);
}

/** A tenant's place among the others. What it may have of its parent's is `tenantGrants`'. */
export const tenantPlace: AdmissionPlugin = {
  name: 'TenantPlace',
  resources: ['tenants.hypernetes.io'],
  operations: ['CREATE', 'UPDATE', 'DELETE'],
  mutate(request) {
    const { object, operation, user } = request;
    if (operation !== 'CREATE' || user.tenant === undefined) return;
    const spec = (object as Tenant).spec;
    if (spec.parent === undefined) (object as Tenant).spec = { ...spec, parent: user.tenant };
  },
  validate(request) {
    if (request.operation === 'DELETE') return refuseOwnDeletion(request);
    const { object, oldObject } = request as ObjectAdmissionRequest;
    const tenant = object as Tenant;
    if (oldObject) checkFixed(request, tenant, oldObject as Tenant);
    else checkPlace(request, tenant);
  },
};

/** A tenant's own people manage the tenants below it; it itself is managed from above. */
function refuseOwnDeletion(request: AdmissionRequest): void {
  if (request.user.tenant !== request.name) return;
  throw forbidden(request, 'a tenant is deleted by the operator, or from the tenant above');
}

function checkFixed(request: AdmissionRequest, tenant: Tenant, old: Tenant): void {
  if (request.user.tenant !== undefined && tenant.spec.projectID !== old.spec.projectID) {
    throw forbidden(request, 'spec.projectID is chosen by the operator alone');
  }
  const before = old.status?.projectID ?? old.spec.projectID;
  if (before && tenant.spec.projectID !== before) {
    throw forbidden(request, `spec.projectID is "${before}" and cannot be changed`);
  }
  if (request.user.tenant !== request.name) return;
  // Everything in the spec but what concerns its own people is given from above.
  const given = ({ displayName: _, members: __, ...rest }: Tenant['spec']) => JSON.stringify(rest);
  if (given(tenant.spec) === given(old.spec)) return;
  throw forbidden(request, 'the tenant may change displayName and members of itself, nothing else');
}

function checkPlace(request: AdmissionRequest, tenant: Tenant): void {
  const { server, user, name } = request;
  const { parent } = tenant.spec;
  if (user.tenant !== undefined) {
    if (parent === undefined || !server.tenants.isWithin(user.tenant, parent)) {
      throw forbidden(request, `spec.parent has to be "${user.tenant}" or a tenant below it`);
    }
    if (tenant.spec.projectID) {
      throw forbidden(request, 'spec.projectID is chosen by the operator alone');
    }
  }
  if (parent === undefined) return refuseOverlap(request);
  const above = server.tenants.get(parent);
  if (!above) throw forbidden(request, `there is no tenant "${parent}"`);
  if (above.metadata.deletionTimestamp) {
    throw forbidden(request, `the tenant "${parent}" is being deleted`);
  }
  if (server.tenants.ancestors(parent).length >= TENANT_DEPTH_MAX) {
    throw forbidden(request, `tenants are no deeper than ${TENANT_DEPTH_MAX} levels`);
  }
  const owner = server.tenants.ownerOfName(name)?.metadata.name;
  if (owner !== parent) throw forbidden(request, `the name is one of the tenant "${owner}"`);
  if (hasNamespaces(request))
    throw forbidden(request, `the tenant "${parent}" has namespaces of that name`);
}

/** Whether there are namespaces that would become the new tenant's by their names. */
function hasNamespaces({ server, name }: AdmissionRequest): boolean {
  if (server.store.get({ resource: 'namespaces', namespace: '', name })) return true;
  const after = { namespace: '', name: `${name}-` };
  const [next] = server.store.list('namespaces', { after, limit: 1 }).entries;
  return next?.key.name.startsWith(`${name}-`) ?? false;
}

/** `acme` and `acme-web` would both own `acme-web-1`, were they not parent and child. */
function refuseOverlap(request: AdmissionRequest): void {
  const { server, name } = request;
  const other = server.tenants.ownerOfName(name)?.metadata.name ?? tenantBelow(request);
  if (other !== undefined) {
    throw forbidden(request, `the names of its namespaces would be those of the tenant "${other}"`);
  }
  if (hasNamespaces(request)) {
    throw forbidden(request, `there are namespaces called "${name}" or "${name}-…" already`);
  }
}

function tenantBelow({ server, name }: AdmissionRequest): string | undefined {
  const after = { namespace: '', name: `${name}-` };
  const [next] = server.store.list(TENANTS_RESOURCE, { after, limit: 1 }).entries;
  return next?.key.name.startsWith(`${name}-`) ? next.key.name : undefined;
}

const SYSTEM_CLASS_PREFIX = 'system-';

interface ClassUse {
  kind: keyof TenantAllowed;
  field: string;
  name: string | undefined;
}

/** What objects of a tenant's namespaces may name of what belongs to the whole cluster. */
export const tenantUse: AdmissionPlugin = {
  name: 'TenantUse',
  resources: ['pods', 'persistentvolumeclaims', 'services'],
  operations: ['CREATE', 'UPDATE'],
  mutate(request) {
    // The system places pods itself; what people name, they could find out about.
    if (request.user.tenant !== undefined) refusePlaces(request);
  },
  validate(request) {
    const { server, namespace, object } = request;
    const tenant = server.tenants.ofNamespace(namespace);
    if (!tenant || !object) return;
    if (request.operation === 'CREATE' && object.kind === 'Pod') refuseEnding(request, tenant);
    for (const { kind, field, name } of classesOf(object)) {
      const names = server.tenants.allowedNames(tenant, kind);
      // Pods of the system go before everybody's: not a tenant's to have unless it is given them.
      const isOpen = kind !== 'priorityClasses' || !name?.startsWith(SYSTEM_CLASS_PREFIX);
      if (!name || (names ? names.includes(name) : isOpen)) continue;
      throw forbidden(request, `${field}: the tenant may not use "${name}"`);
    }
  },
};

/** What a tenant that goes has is stopped first: controllers must not make it anew. */
function refuseEnding(request: AdmissionRequest, tenant: string): void {
  const isEnding = request.server.tenants.get(tenant)?.metadata.deletionTimestamp !== undefined;
  if (!isEnding) return;
  const message = `the tenant ${JSON.stringify(tenant)} is being deleted`;
  // As for a namespace that goes: controllers then stop trying.
  const causes = [{ reason: 'NamespaceTerminating', message, field: 'metadata.namespace' }];
  const error = forbidden(request, message);
  throw new StatusError('Forbidden', error.message, { details: { ...error.details, causes } });
}

function classesOf({ kind, spec }: ObjectAdmissionRequest['object']): ClassUse[] {
  const fields = (spec ?? {}) as Record<string, string | undefined>;
  const use = (of: keyof TenantAllowed, field: string): ClassUse => ({
    kind: of,
    field: `spec.${field}`,
    name: fields[field],
  });
  if (kind === 'PersistentVolumeClaim') return [use('storageClasses', 'storageClassName')];
  if (kind !== 'Pod') return [];
  return [use('runtimeClasses', 'runtimeClassName'), use('priorityClasses', 'priorityClassName')];
}

function refusePlaces(request: ObjectAdmissionRequest): void {
  const { object, oldObject } = request;
  const spec = (object.spec ?? {}) as PlaceSpec;
  const old = (oldObject?.spec ?? {}) as PlaceSpec;
  if (object.kind === 'Pod' && spec.nodeName && spec.nodeName !== old.nodeName) {
    throw forbidden(request, 'spec.nodeName: tenants do not choose nodes');
  }
  const known = new Set(old.ports?.map(({ nodePort }) => nodePort));
  const chosen = spec.ports?.find(({ nodePort }) => nodePort && !known.has(nodePort));
  if (object.kind === 'Service' && chosen) {
    throw forbidden(request, 'spec.ports: tenants do not choose node ports');
  }
  // Packets to such an address, whosever it is, would be the tenant's.
  const had = new Set(old.externalIPs);
  if (object.kind === 'Service' && spec.externalIPs?.some((address) => !had.has(address))) {
    throw forbidden(request, 'spec.externalIPs: tenants do not choose addresses of nodes');
  }
}

interface PlaceSpec {
  nodeName?: string;
  externalIPs?: string[];
  ports?: { nodePort?: number }[];
}
