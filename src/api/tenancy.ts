import type { UserInfo } from './auth.ts';
import type { KubeObject } from './object.ts';

/*
 * Tenants, in the words that all parts share. A tenant is a project of the identity service and
 * owns namespaces; what is in them belongs to it. The rules are in docs/tenancy.md.
 */

export const TENANT_API_VERSION = 'hypernetes.io/v1';

/** On namespaces: whose it is. Set by admission, never changed. */
export const TENANT_LABEL = 'hypernetes.io/tenant';

/** Beneath every tenant's name: `acme` owns the namespaces `acme` and `acme-…`. */
export const TENANT_NAME_LENGTH_MAX = 40;

export type TenantRole = 'admin' | 'member' | 'reader';

/** From most to least. A role includes those after it. */
export const TENANT_ROLES: readonly TenantRole[] = ['admin', 'member', 'reader'];

/** The ClusterRole whose rules a role has in all namespaces of its tenant. */
export const NAMESPACE_ROLES: Record<TenantRole, string> = {
  admin: 'admin',
  member: 'edit',
  reader: 'view',
};

/** The ClusterRole with what a role may do outside of namespaces, within its tenant. */
export const TENANT_CLUSTER_ROLES: Record<TenantRole, string> = {
  admin: 'hypernetes:tenant-admin',
  member: 'hypernetes:tenant-member',
  reader: 'hypernetes:tenant-reader',
};

/** Everybody of a tenant, its service accounts included, is in the group `tenant:<name>`. */
export const tenantGroup = (tenant: string): string => `tenant:${tenant}`;
/** `tenant:<name>:<role>` */
export const tenantRoleGroup = (tenant: string, role: TenantRole): string =>
  `tenant:${tenant}:${role}`;

/** Operators: people with a role on the whole system, who belong to no tenant. */
export const OPERATORS_GROUP = 'hypernetes:operators';
/** People who may look at everything but secrets; operators are among them. */
export const OPERATOR_READERS_GROUP = 'hypernetes:operator-readers';

/** Prefixes of names and groups that no identity service may hand out. */
export const RESERVED_PREFIXES = ['system:', 'tenant:', 'hypernetes:'] as const;

/** The tenant that a request is confined to; undefined for operators, components and nodes. */
export function tenantOf(user: UserInfo): string | undefined {
  return user.tenant;
}

/** Whether a namespace of this name is the tenant's to have. */
export function ownsNamespaceName(tenant: string, namespace: string): boolean {
  return namespace === tenant || namespace.startsWith(`${tenant}-`);
}

export interface Tenant extends KubeObject {
  spec: TenantSpec;
  status?: TenantStatus;
}

export interface TenantSpec {
  /** Shown to people. */
  displayName?: string;
  /** The tenant whose sub-tenant it is; its name is then `<parent>-…`. Never changed. */
  parent?: string;
  /** The project of the identity service. Made where it is empty; never changed after that. */
  projectID?: string;
  /** Everything stops and nothing is lost; what is written is refused, what is read is not. */
  suspended?: boolean;
  quota?: { hard?: Record<string, string> };
  members?: TenantMember[];
  defaults?: TenantDefaults;
  /** Cluster-wide classes and kernels that the tenant may use. */
  allowed?: TenantAllowed;
}

export interface TenantMember {
  kind: 'User' | 'Group';
  name: string;
  /** Name of the identity service's domain. @default Default */
  domain?: string;
  role: TenantRole;
}

export interface TenantDefaults {
  /** Name of the network that its pods are on. */
  network?: string;
  /** RuntimeClass of pods that name none. */
  runtimeClassName?: string;
  /** Requests of containers that have none. */
  resources?: { cpu?: string; memory?: string };
  /** Level of the Pod Security Standards that new namespaces enforce. */
  podSecurity?: 'privileged' | 'baseline' | 'restricted';
}

/** A list that is absent allows all; only of kernels it allows none. */
export interface TenantAllowed {
  storageClasses?: string[];
  runtimeClasses?: string[];
  priorityClasses?: string[];
  /** Kernels that pods may ask for by annotation. */
  kernels?: string[];
}

/** Holds a Tenant until nothing of what it owns is left. */
export const TENANT_FINALIZER = 'hypernetes.io/tenant';

/** Of the condition `IdentitySynced` of a tenant whose project has been disabled. */
export const PROJECT_DISABLED = 'ProjectDisabled';

/** On pods: since when their tenant is suspended. Written by the API server alone. */
export const SUSPENDED_ANNOTATION = 'hypernetes.io/suspended';

/** Whether the tenant itself is suspended, by the operator or by its project's being disabled. */
export function isStopped({ spec, status }: Tenant): boolean {
  if (spec.suspended === true) return true;
  return Boolean(status?.conditions?.some(({ reason }) => reason === PROJECT_DISABLED));
}

export type TenantPhase = 'Pending' | 'Active' | 'Suspended' | 'Terminating';

export interface TenantStatus {
  phase?: TenantPhase;
  projectID?: string;
  namespaceCount?: number;
  quota?: { hard?: Record<string, string>; used?: Record<string, string> };
  /** Role assignments that were made for `spec.members`, and are the tenant's to take back. */
  members?: TenantMember[];
  conditions?: {
    type: string;
    status: 'True' | 'False' | 'Unknown';
    reason: string;
    message: string;
    lastTransitionTime: string;
    observedGeneration?: number;
  }[];
}
