import { POD_TENANT_ANNOTATION, SUSPENDED_ANNOTATION, TENANT_LABEL } from '../../api/tenancy.ts';
import type { TenantDefaults } from '../../api/tenancy.ts';
import type { AdmissionPlugin, AdmissionRequest } from './chain.ts';

/** What a tenant's objects get that do not say: from the nearest tenant above that does. */

const POD_SECURITY_LABEL = 'pod-security.kubernetes.io/enforce';

function defaultOf<K extends keyof TenantDefaults>(
  { server, namespace, object }: AdmissionRequest,
  field: K,
): TenantDefaults[K] | undefined {
  const tenant = namespace
    ? server.tenants.ofNamespace(namespace)
    : object?.metadata.labels?.[TENANT_LABEL];
  if (!tenant) return undefined;
  const tenants = server.tenants.ancestors(tenant);
  return tenants.find(({ spec }) => spec.defaults?.[field] !== undefined)?.spec.defaults?.[field];
}

/** New namespaces enforce a level of the Pod Security Standards. */
export const tenantPodSecurity: AdmissionPlugin = {
  name: 'TenantPodSecurity',
  resources: ['namespaces'],
  operations: ['CREATE'],
  mutate(request) {
    const { metadata } = request.object;
    const level = defaultOf(request, 'podSecurity');
    if (level === undefined || metadata.labels?.[POD_SECURITY_LABEL] !== undefined) return;
    metadata.labels = { ...metadata.labels, [POD_SECURITY_LABEL]: level };
  },
};

export const tenantRuntimeClass: AdmissionPlugin = {
  name: 'TenantRuntimeClass',
  resources: ['pods'],
  operations: ['CREATE'],
  mutate(request) {
    const spec = (request.object.spec ??= {}) as { runtimeClassName?: string };
    if (spec.runtimeClassName) return;
    const name = defaultOf(request, 'runtimeClassName');
    if (name) spec.runtimeClassName = name;
  },
};

interface Container {
  resources?: { requests?: Record<string, string>; limits?: Record<string, string> };
}

/** Requests of containers that have none. A namespace's own limits and defaults come first. */
export const tenantRequests: AdmissionPlugin = {
  name: 'TenantRequests',
  resources: ['pods'],
  operations: ['CREATE'],
  mutate(request) {
    const defaults = defaultOf(request, 'resources');
    if (!defaults) return;
    const spec = (request.object.spec ?? {}) as Record<string, Container[] | undefined>;
    for (const container of [...(spec.initContainers ?? []), ...(spec.containers ?? [])]) {
      const { requests, limits } = container.resources ?? {};
      // What is limited and not requested asks for its limit.
      const wanted = { ...defaults, ...limits, ...requests };
      container.resources = { ...container.resources, requests: wanted };
    }
  },
};

/** Pods say whose they are, for their node; nobody else writes that. */
export const podTenant: AdmissionPlugin = {
  name: 'PodTenant',
  resources: ['pods'],
  operations: ['CREATE', 'UPDATE'],
  subresources: ['status', 'binding'],
  mutate({ server, namespace, object: { metadata } }) {
    const tenant = server.tenants.ofNamespace(namespace);
    const { [POD_TENANT_ANNOTATION]: given, ...others } = metadata.annotations ?? {};
    if (given === tenant) return;
    metadata.annotations = tenant ? { ...others, [POD_TENANT_ANNOTATION]: tenant } : others;
  },
};

/**
 * Pods of suspended tenants say so, from when they are made; no others do, whoever writes it. The
 * time is the one of the first write after the suspension.
 */
export const tenantSuspension: AdmissionPlugin = {
  name: 'TenantSuspension',
  resources: ['pods'],
  operations: ['CREATE', 'UPDATE'],
  subresources: ['status', 'binding'],
  mutate({ server, namespace, object, oldObject }) {
    const { metadata } = object;
    const { [SUSPENDED_ANNOTATION]: given, ...annotations } = metadata.annotations ?? {};
    const tenant = server.tenants.ofNamespace(namespace);
    const isSuspended = Boolean(tenant) && server.tenants.isSuspended(tenant as string);
    if (!isSuspended && given === undefined) return;
    const since = oldObject?.metadata.annotations?.[SUSPENDED_ANNOTATION];
    if (isSuspended) {
      annotations[SUSPENDED_ANNOTATION] = since ?? new Date(server.clock.nowMs()).toISOString();
    }
    metadata.annotations = annotations;
  },
};
