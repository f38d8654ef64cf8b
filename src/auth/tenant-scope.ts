import type { AuthorizationAttributes, AuthorizationDecision, Authorizer } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { notFound, qualifiedResource } from '../api/status.ts';
import { TENANT_LABEL } from '../api/tenancy.ts';

/**
 * The boundary of a tenant, asked before every other authorizer. What lies outside is denied, and
 * nothing that RBAC grants can undo it. The denial has no reason of its own: it reads the same
 * for what does not exist as for what is another's.
 */
export interface TenantScopeOptions {
  /** The tenant of a namespace; '' for one of the cluster's own, undefined when there is none. */
  tenantOfNamespace: (namespace: string) => string | undefined;
  isSuspended: (tenant: string) => boolean;
  /** Whether a tenant is another one itself or above it. */
  isWithin: (ancestor: string, tenant: string) => boolean;
  /** False for kinds that are cluster-scoped and for those that are not known. */
  isNamespaced: (group: string, resource: string) => boolean;
  /** Whether tenants see nodes, without what tells of other tenants. */
  nodes: 'hidden' | 'sanitised';
}

/**
 * What a tenant sees of a cluster-scoped kind: its `own` objects alone; all of them, being `shared`
 * by everybody; all of them `sanitised`; or only the answer to a question about `self`.
 * Kinds that are not in the table are hidden.
 */
export type ClusterVisibility = 'own' | 'shared' | 'sanitised' | 'self';

/** By `resource.group`. A kind that is made for tenants later becomes a row. */
const CLUSTER_VISIBILITY: Record<string, ClusterVisibility> = {
  namespaces: 'own',
  'tenants.hypernetes.io': 'own',
  'storageclasses.storage.k8s.io': 'shared',
  'csidrivers.storage.k8s.io': 'shared',
  'volumeattributesclasses.storage.k8s.io': 'shared',
  'runtimeclasses.node.k8s.io': 'shared',
  'priorityclasses.scheduling.k8s.io': 'shared',
  'ingressclasses.networking.k8s.io': 'shared',
  'clusterroles.rbac.authorization.k8s.io': 'shared',
  nodes: 'sanitised',
  'selfsubjectreviews.authentication.k8s.io': 'self',
  'selfsubjectaccessreviews.authorization.k8s.io': 'self',
  'selfsubjectrulesreviews.authorization.k8s.io': 'self',
  'accessexplanations.hypernetes.io': 'self',
};

const TENANT_GROUP = 'hypernetes.io';

const READ_VERBS = new Set(['get', 'list', 'watch']);
/** Verbs with which RBAC asks for rights over an object without touching it. */
const RIGHTS_VERBS = new Set(['bind', 'use']);

const VISIBLE_VERBS: Record<ClusterVisibility, (verb: string) => boolean> = {
  // Collections are deleted one by one: there is no such call for namespaces or tenants.
  own: (verb) => verb !== 'deletecollection' && verb !== 'impersonate',
  shared: (verb) => READ_VERBS.has(verb) || RIGHTS_VERBS.has(verb),
  sanitised: (verb) => READ_VERBS.has(verb),
  self: (verb) => verb === 'create',
};

/** Subresources of cluster-scoped kinds that tenants reach, as `resource.group/subresource`. */
const CLUSTER_SUBRESOURCES = new Set([
  'namespaces/status',
  'tenants.hypernetes.io/status',
  'tenants.hypernetes.io/usage',
  'tenants.hypernetes.io/audit',
]);

/** What a cluster-scoped kind is to tenants; undefined when it is hidden from them. */
export function clusterVisibility(group: string, resource: string): ClusterVisibility | undefined {
  return CLUSTER_VISIBILITY[qualifiedResource(group, resource)];
}

/** Paths that tell of the API itself and of nobody. */
const OPEN_PATHS = ['/api', '/apis', '/openapi', '/version', '/healthz', '/livez', '/readyz'];

function isOpenPath(path: string): boolean {
  return OPEN_PATHS.some((open) => path === open || path.startsWith(`${open}/`));
}

/** Connections into a pod change it, with whichever HTTP method they are opened. */
const CONNECTING = new Set(['exec', 'attach', 'portforward', 'proxy']);

const NO_OPINION: AuthorizationDecision = { decision: 'no-opinion', reason: '' };
const OUTSIDE: AuthorizationDecision = { decision: 'deny', reason: '' };

export function createTenantScope(options: TenantScopeOptions): Required<Authorizer> {
  /** What keeps a request out; it says the same of what is another's and of what is not there. */
  const obstacle = (tenant: string, attributes: AuthorizationAttributes): string | undefined => {
    if (!attributes.isResourceRequest) {
      return isOpenPath(attributes.path) ? undefined : 'the path is not open to tenants';
    }
    const { group, resource, subresource, namespace, name, verb } = attributes;
    const visibility = clusterVisibility(group, resource);
    const isNamespaceItself = group === '' && resource === 'namespaces';
    const isOwn = (each: string) => options.tenantOfNamespace(each) === tenant;
    const notOwn = (each: string) => `the tenant has no namespace ${JSON.stringify(each)}`;
    if (namespace && !isNamespaceItself) return isOwn(namespace) ? undefined : notOwn(namespace);
    if (!visibility) {
      // Over all namespaces the store shows the tenant's alone.
      const isLook = verb === 'list' || verb === 'watch';
      const isShown = isLook && !subresource && options.isNamespaced(group, resource);
      return isShown ? undefined : 'the resource is hidden from tenants outside of a namespace';
    }
    if (visibility === 'sanitised' && options.nodes === 'hidden') return 'nodes are hidden';
    const full = `${qualifiedResource(group, resource)}/${subresource}`;
    if (subresource && !CLUSTER_SUBRESOURCES.has(full)) {
      return 'the subresource is hidden from tenants';
    }
    const target = isNamespaceItself ? name || namespace : '';
    if (target && !isOwn(target)) return notOwn(target);
    const isTenant = group === TENANT_GROUP && resource === 'tenants';
    if (isTenant && name && !options.isWithin(tenant, name)) {
      return `${JSON.stringify(name)} is neither the tenant itself nor below it`;
    }
    if (!VISIBLE_VERBS[visibility](verb)) return 'tenants may only look at this resource';
    return undefined;
  };

  const decide = (attributes: AuthorizationAttributes) => {
    const { tenant } = attributes.user;
    if (tenant === undefined) return { ...NO_OPINION, why: 'the user is confined to no tenant' };
    const outside = obstacle(tenant, attributes);
    if (outside !== undefined) {
      return { ...OUTSIDE, why: `outside of tenant ${JSON.stringify(tenant)}: ${outside}` };
    }
    if (changes(attributes) && options.isSuspended(tenant)) {
      const reason = `tenant ${JSON.stringify(tenant)} is suspended`;
      return { decision: 'deny', reason, why: reason } as const;
    }
    return { ...NO_OPINION, why: `inside of tenant ${JSON.stringify(tenant)}` };
  };

  return {
    authorize(attributes) {
      const { decision, reason } = decide(attributes);
      return { decision, reason };
    },

    explain(attributes) {
      const { decision, why } = decide(attributes);
      return [{ authorizer: 'tenant scope', decision, reason: why }];
    },
  };
}

function changes({ verb, isResourceRequest, ...target }: AuthorizationAttributes): boolean {
  if (!isResourceRequest) return false;
  if (clusterVisibility(target.group, target.resource) === 'self') return false;
  return !READ_VERBS.has(verb) || CONNECTING.has(target.subresource);
}

interface PartitionedKey {
  resource: string;
  namespace: string;
  name: string;
}

/** Cluster-scoped objects that are somebody's. */
const CLUSTER_PARTITIONS: Record<string, (object: KubeObject) => string | undefined> = {
  namespaces: (object) => object.metadata.labels?.[TENANT_LABEL],
  'hypernetes.io/tenants': (object) => object.metadata.name,
};

/**
 * Whose an object is, for the store: what is in a namespace is whose the namespace is.
 *
 * @param newest the state that a key will have once all that is being written is written
 * @throws StatusError 404 when there is no such namespace
 */
export function tenantPartition(
  key: PartitionedKey,
  object: KubeObject,
  newest: (key: PartitionedKey) => { partition: string } | undefined,
): string {
  if (!key.namespace) return CLUSTER_PARTITIONS[key.resource]?.(object) ?? '';
  const namespace = newest({ resource: 'namespaces', namespace: '', name: key.namespace });
  // It may be going at this moment: what is made in it then would be nobody's.
  if (!namespace) throw notFound('', 'namespaces', key.namespace);
  return namespace.partition;
}
