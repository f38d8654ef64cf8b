import type { KubeObject } from '../api/object.ts';
import { TENANT_API_VERSION } from '../api/tenancy.ts';
import type { Tenant } from '../api/tenancy.ts';
import type {
  CertificateSigningRequest,
  ClusterRole,
  ConfigMap,
  CronJob,
  DaemonSet,
  Deployment,
  EndpointSlice,
  Endpoints,
  Job,
  Lease,
  Namespace,
  Node,
  PersistentVolumeClaim,
  Pod,
  PodDisruptionBudget,
  ReplicaSet,
  ResourceQuota,
  Secret,
  Service,
  ServiceAccount,
  StatefulSet,
  ControllerRevision,
} from '../api/types.generated.ts';

/** Where a kind is served. The type parameter is the shape of its objects. */
export interface Resource<T extends KubeObject = KubeObject> {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** Plural, lower case. */
  readonly resource: string;
  readonly kind: string;
  readonly namespaced: boolean;
  /** Ask for `PartialObjectMetadata` only: what follows every kind need not hold every object. */
  readonly metadataOnly?: boolean;
  /** Never set: carries the type. */
  readonly type?: T;
}

function define<T extends KubeObject>(
  apiVersion: string,
  resource: string,
  kind: string,
  namespaced = true,
): Resource<T> {
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  return { group, version, resource, kind, namespaced };
}

export const NAMESPACES = define<Namespace>('v1', 'namespaces', 'Namespace', false);
export const NODES = define<Node>('v1', 'nodes', 'Node', false);
export const PODS = define<Pod>('v1', 'pods', 'Pod');
export const SERVICES = define<Service>('v1', 'services', 'Service');
export const ENDPOINTS = define<Endpoints>('v1', 'endpoints', 'Endpoints');
export const SECRETS = define<Secret>('v1', 'secrets', 'Secret');
export const CONFIG_MAPS = define<ConfigMap>('v1', 'configmaps', 'ConfigMap');
export const PERSISTENT_VOLUME_CLAIMS = define<PersistentVolumeClaim>(
  'v1',
  'persistentvolumeclaims',
  'PersistentVolumeClaim',
);
export const RESOURCE_QUOTAS = define<ResourceQuota>('v1', 'resourcequotas', 'ResourceQuota');
export const SERVICE_ACCOUNTS = define<ServiceAccount>('v1', 'serviceaccounts', 'ServiceAccount');
export const EVENTS = define<KubeObject>('v1', 'events', 'Event');
export const DEPLOYMENTS = define<Deployment>('apps/v1', 'deployments', 'Deployment');
export const REPLICA_SETS = define<ReplicaSet>('apps/v1', 'replicasets', 'ReplicaSet');
export const STATEFUL_SETS = define<StatefulSet>('apps/v1', 'statefulsets', 'StatefulSet');
export const DAEMON_SETS = define<DaemonSet>('apps/v1', 'daemonsets', 'DaemonSet');
export const CONTROLLER_REVISIONS = define<ControllerRevision>(
  'apps/v1',
  'controllerrevisions',
  'ControllerRevision',
);
export const JOBS = define<Job>('batch/v1', 'jobs', 'Job');
export const CRON_JOBS = define<CronJob>('batch/v1', 'cronjobs', 'CronJob');
export const DISRUPTION_BUDGETS = define<PodDisruptionBudget>(
  'policy/v1',
  'poddisruptionbudgets',
  'PodDisruptionBudget',
);
export const LEASES = define<Lease>('coordination.k8s.io/v1', 'leases', 'Lease');
export const ENDPOINT_SLICES = define<EndpointSlice>(
  'discovery.k8s.io/v1',
  'endpointslices',
  'EndpointSlice',
);
export const CERTIFICATE_REQUESTS = define<CertificateSigningRequest>(
  'certificates.k8s.io/v1',
  'certificatesigningrequests',
  'CertificateSigningRequest',
  false,
);
export const CLUSTER_ROLES = define<ClusterRole>(
  'rbac.authorization.k8s.io/v1',
  'clusterroles',
  'ClusterRole',
  false,
);
export const TENANTS = define<Tenant>(TENANT_API_VERSION, 'tenants', 'Tenant', false);

export function apiVersionOf({ group, version }: Pick<Resource, 'group' | 'version'>): string {
  return group ? `${group}/${version}` : version;
}

/** The URL path of a collection, or with `name` of one object. */
export function pathOf(
  resource: Resource,
  namespace: string | undefined,
  name?: string,
  subresource?: string,
): string {
  const { group, version } = resource;
  const parts = group ? ['apis', group, version] : ['api', version];
  if (resource.namespaced && namespace) parts.push('namespaces', namespace);
  parts.push(resource.resource);
  if (name !== undefined) parts.push(name);
  if (subresource) parts.push(subresource);
  return `/${parts.map(encodeURIComponent).join('/')}`;
}

/** The same collection, of which only metadata is transferred and kept. */
export function metadataOf(resource: Resource): Resource {
  return { ...resource, type: undefined, metadataOnly: true };
}
