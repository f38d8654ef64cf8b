import type { KubeObject } from '../api/object.ts';
import { OPERATOR_READERS_GROUP, OPERATORS_GROUP } from '../api/tenancy.ts';
import { BOOTSTRAP_NODES_GROUP } from './bootstrap-tokens.ts';
import { MASTERS_GROUP } from './pki.ts';
import type { PolicyRule, Subject } from './rbac.ts';

/**
 * The roles and bindings a new cluster starts with: Kubernetes' own (bootstrappolicy), those of
 * this system's components, and those of joining nodes. The server creates what is missing at
 * each start and leaves what exists alone, unless an object's annotation
 * `rbac.authorization.kubernetes.io/autoupdate` says that it may be brought up to date.
 */
const RBAC_API_VERSION = 'rbac.authorization.k8s.io/v1';
const RBAC_GROUP = 'rbac.authorization.k8s.io';
const AUTOUPDATE_ANNOTATION = 'rbac.authorization.kubernetes.io/autoupdate';

const READ = 'get list watch';
const WRITE = 'create delete deletecollection patch update';
const READ_WRITE = `${READ} ${WRITE}`;

/** `apiGroups` and `resources` separated by spaces; `core` stands for the empty group. */
function rule(apiGroups: string, resources: string, verbs: string, names?: string): PolicyRule {
  return {
    apiGroups: apiGroups.split(' ').map((group) => (group === 'core' ? '' : group)),
    resources: resources.split(' '),
    verbs: verbs.split(' '),
    ...(names ? { resourceNames: names.split(' ') } : {}),
  };
}

function pathRule(urls: string, verbs = 'get'): PolicyRule {
  return { nonResourceURLs: urls.split(' '), verbs: verbs.split(' ') };
}

function metadata(name: string, namespace?: string, labels: Record<string, string> = {}) {
  return {
    name,
    ...(namespace ? { namespace } : {}),
    labels: { 'kubernetes.io/bootstrapping': 'rbac-defaults', ...labels },
    annotations: { [AUTOUPDATE_ANNOTATION]: 'true' },
  };
}

function clusterRole(
  name: string,
  rules: PolicyRule[],
  options: { labels?: Record<string, string>; aggregate?: string } = {},
): KubeObject {
  return {
    apiVersion: RBAC_API_VERSION,
    kind: 'ClusterRole',
    metadata: metadata(name, undefined, options.labels),
    ...(options.aggregate
      ? {
          aggregationRule: {
            clusterRoleSelectors: [
              { matchLabels: { [aggregateLabel(options.aggregate)]: 'true' } },
            ],
          },
        }
      : {}),
    rules,
  };
}

const aggregateLabel = (to: string) => `${RBAC_GROUP}/aggregate-to-${to}`;

function role(namespace: string, name: string, rules: PolicyRule[]): KubeObject {
  return {
    apiVersion: RBAC_API_VERSION,
    kind: 'Role',
    metadata: metadata(name, namespace),
    rules,
  };
}

/** What every person of a tenant sees outside of namespaces; the tenant's scope narrows it further. */
const TENANT_READER_RULES = [
  rule('core', 'namespaces nodes', READ),
  rule('hypernetes.io', 'tenants', READ),
  rule('hypernetes.io', 'tenants/status tenants/usage', 'get'),
  rule('storage.k8s.io', 'storageclasses csidrivers volumeattributesclasses', READ),
  rule('node.k8s.io', 'runtimeclasses', READ),
  rule('scheduling.k8s.io', 'priorityclasses', READ),
  rule('networking.k8s.io', 'ingressclasses', READ),
  rule('rbac.authorization.k8s.io', 'clusterroles', READ),
];

const user = (name: string): Subject => ({ kind: 'User', apiGroup: RBAC_GROUP, name });
const group = (name: string): Subject => ({ kind: 'Group', apiGroup: RBAC_GROUP, name });
const account = (namespace: string, name: string): Subject => ({
  kind: 'ServiceAccount',
  name,
  namespace,
});

function clusterBinding(name: string, roleName: string, ...subjects: Subject[]): KubeObject {
  return {
    apiVersion: RBAC_API_VERSION,
    kind: 'ClusterRoleBinding',
    metadata: metadata(name),
    roleRef: { apiGroup: RBAC_GROUP, kind: 'ClusterRole', name: roleName },
    subjects,
  };
}

function binding(namespace: string, roleName: string, ...subjects: Subject[]): KubeObject {
  return {
    apiVersion: RBAC_API_VERSION,
    kind: 'RoleBinding',
    metadata: metadata(roleName, namespace),
    roleRef: { apiGroup: RBAC_GROUP, kind: 'Role', name: roleName },
    subjects,
  };
}

const VIEW_CORE =
  'configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods ' +
  'replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status';
const VIEW_CORE_STATUS =
  'bindings events limitranges namespaces/status pods/log pods/status ' +
  'replicationcontrollers/status resourcequotas resourcequotas/status';
const APPS =
  'deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale ' +
  'daemonsets';
const APPS_STATUS =
  'controllerrevisions daemonsets/status deployments/status replicasets/status statefulsets/status';

const VIEW_RULES: PolicyRule[] = [
  rule('core', VIEW_CORE, READ),
  rule('core', VIEW_CORE_STATUS, READ),
  rule('core', 'namespaces', READ),
  rule('discovery.k8s.io', 'endpointslices', READ),
  rule('apps', `${APPS_STATUS} ${APPS}`, READ),
  rule('autoscaling', 'horizontalpodautoscalers horizontalpodautoscalers/status', READ),
  rule('batch', 'cronjobs cronjobs/status jobs jobs/status', READ),
  rule('networking.k8s.io', 'ingresses ingresses/status networkpolicies', READ),
  rule('policy', 'poddisruptionbudgets poddisruptionbudgets/status', READ),
];

const EDIT_RULES: PolicyRule[] = [
  rule('core', 'pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy', READ),
  rule('core', 'serviceaccounts', 'impersonate'),
  rule('core', 'pods pods/attach pods/exec pods/portforward pods/proxy', WRITE),
  rule('core', 'pods/eviction', 'create'),
  rule('core', 'pods/resize', 'get patch update'),
  rule(
    'core',
    'configmaps events persistentvolumeclaims replicationcontrollers ' +
      'replicationcontrollers/scale secrets serviceaccounts services services/proxy',
    WRITE,
  ),
  rule('core', 'serviceaccounts/token', 'create'),
  rule('apps', `${APPS} deployments/rollback`, WRITE),
  rule('autoscaling', 'horizontalpodautoscalers', WRITE),
  rule('batch', 'cronjobs jobs', WRITE),
  rule('networking.k8s.io', 'ingresses networkpolicies', WRITE),
  rule('policy', 'poddisruptionbudgets', WRITE),
  rule('coordination.k8s.io', 'leases', READ_WRITE),
];

const ADMIN_RULES: PolicyRule[] = [
  rule('authorization.k8s.io', 'localsubjectaccessreviews', 'create'),
  rule(RBAC_GROUP, 'roles rolebindings', READ_WRITE),
];

const EVENT_RULES = [
  rule('core', 'events', 'create patch update'),
  rule('events.k8s.io', 'events', 'create patch update'),
];

/** Roles for people. `admin`, `edit` and `view` are filled by aggregation; here is its result. */
const userRoles: KubeObject[] = [
  clusterRole('cluster-admin', [rule('*', '*', '*'), pathRule('*', '*')]),
  clusterRole('admin', [...EDIT_RULES, ...VIEW_RULES, ...ADMIN_RULES], { aggregate: 'admin' }),
  clusterRole('edit', [...EDIT_RULES, ...VIEW_RULES], {
    aggregate: 'edit',
    labels: { [aggregateLabel('admin')]: 'true' },
  }),
  clusterRole('view', VIEW_RULES, {
    aggregate: 'view',
    labels: { [aggregateLabel('edit')]: 'true' },
  }),
  clusterRole('system:aggregate-to-admin', ADMIN_RULES, {
    labels: { [aggregateLabel('admin')]: 'true' },
  }),
  clusterRole('system:aggregate-to-edit', EDIT_RULES, {
    labels: { [aggregateLabel('edit')]: 'true' },
  }),
  clusterRole('system:aggregate-to-view', VIEW_RULES, {
    labels: { [aggregateLabel('view')]: 'true' },
  }),
];

const DISCOVERY_PATHS =
  '/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/';

const everybodyRoles: KubeObject[] = [
  clusterRole('system:discovery', [pathRule(DISCOVERY_PATHS)]),
  clusterRole('system:basic-user', [
    rule('authorization.k8s.io', 'selfsubjectaccessreviews selfsubjectrulesreviews', 'create'),
    rule('authentication.k8s.io', 'selfsubjectreviews', 'create'),
  ]),
  clusterRole('system:public-info-viewer', [
    pathRule('/healthz /livez /readyz /version /version/'),
  ]),
  clusterRole('system:monitoring', [
    pathRule('/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*'),
  ]),
  clusterRole('system:service-account-issuer-discovery', [
    pathRule(
      '/.well-known/openid-configuration /.well-known/openid-configuration/ ' +
        '/openid/v1/jwks /openid/v1/jwks/',
    ),
  ]),
  clusterRole('system:auth-delegator', [
    rule('authentication.k8s.io', 'tokenreviews', 'create'),
    rule('authorization.k8s.io', 'subjectaccessreviews', 'create'),
  ]),
];

const nodeRoles: KubeObject[] = [
  // Empty in effect: the Node authorizer decides what a node may do. Nobody is bound to it.
  clusterRole('system:node', [
    rule('authentication.k8s.io', 'tokenreviews', 'create'),
    rule('authorization.k8s.io', 'localsubjectaccessreviews subjectaccessreviews', 'create'),
    rule('core', 'services', READ),
    rule('core', 'nodes', `create ${READ}`),
    rule('core', 'nodes nodes/status', 'patch update'),
    rule('core', 'events', 'create patch update'),
    rule('core', 'pods', READ),
    rule('core', 'pods', 'create delete'),
    rule('core', 'pods/status', 'patch update'),
    rule('core', 'pods/eviction', 'create'),
    rule('core', 'configmaps secrets', READ),
    rule('core', 'persistentvolumeclaims persistentvolumes', 'get'),
    rule('certificates.k8s.io', 'certificatesigningrequests', `create ${READ}`),
    rule('coordination.k8s.io', 'leases', 'create delete get patch update'),
    rule('core', 'serviceaccounts/token', 'create'),
    rule('storage.k8s.io', 'csidrivers', READ),
    rule('storage.k8s.io', 'csinodes', 'create delete get patch update'),
    rule('storage.k8s.io', 'volumeattachments', 'get'),
    rule('node.k8s.io', 'runtimeclasses', READ),
  ]),
  clusterRole('system:node-bootstrapper', [
    rule('certificates.k8s.io', 'certificatesigningrequests', `create ${READ}`),
  ]),
  // A machine that joins looks whether its name is taken.
  clusterRole('hypernetes:tenant-admin', [
    ...TENANT_READER_RULES,
    rule('core', 'namespaces', WRITE),
    rule('hypernetes.io', 'tenants', 'create delete patch update'),
    rule('hypernetes.io', 'tenants/audit', 'get'),
    rule('hypernetes.io', 'accessexplanations', 'create'),
  ]),
  clusterRole('hypernetes:tenant-member', [
    ...TENANT_READER_RULES,
    rule('core', 'namespaces', 'create delete'),
  ]),
  clusterRole('hypernetes:tenant-reader', TENANT_READER_RULES),
  clusterRole('hypernetes:get-nodes', [rule('core', 'nodes', 'get')]),
  clusterRole('system:node-proxier', [
    rule('core', 'endpoints services', 'list watch'),
    rule('core', 'nodes', READ),
    ...EVENT_RULES,
    rule('discovery.k8s.io', 'endpointslices', 'list watch'),
  ]),
  clusterRole('system:kubelet-api-admin', [
    rule('core', 'nodes', READ),
    rule('core', 'nodes', 'proxy'),
    rule('core', 'nodes/log nodes/metrics nodes/proxy nodes/stats', '*'),
  ]),
  clusterRole('system:certificates.k8s.io:certificatesigningrequests:nodeclient', [
    rule('certificates.k8s.io', 'certificatesigningrequests/nodeclient', 'create'),
  ]),
  clusterRole('system:certificates.k8s.io:certificatesigningrequests:selfnodeclient', [
    rule('certificates.k8s.io', 'certificatesigningrequests/selfnodeclient', 'create'),
  ]),
  ...[
    ['kube-apiserver-client-approver', 'approve', 'kube-apiserver-client'],
    ['kube-apiserver-client-kubelet-approver', 'approve', 'kube-apiserver-client-kubelet'],
    ['kubelet-serving-approver', 'approve', 'kubelet-serving'],
    ['legacy-unknown-approver', 'approve', 'legacy-unknown'],
  ].map(([name = '', verb = '', signer = '']) =>
    clusterRole(`system:certificates.k8s.io:${name}`, [
      rule('certificates.k8s.io', 'signers', verb, `kubernetes.io/${signer}`),
    ]),
  ),
];

const schedulerRole = clusterRole('system:kube-scheduler', [
  ...EVENT_RULES,
  rule('coordination.k8s.io', 'leases', `create ${READ} update patch`),
  rule('core', 'nodes', READ),
  rule('core', 'pods', `delete ${READ}`),
  rule('core', 'bindings pods/binding', 'create'),
  rule('core', 'pods/status', 'patch update'),
  rule('core', 'replicationcontrollers services namespaces', READ),
  rule('apps', 'replicasets statefulsets', READ),
  rule('policy', 'poddisruptionbudgets', READ),
  rule('core', 'persistentvolumeclaims persistentvolumes', `${READ} patch update`),
  rule('authentication.k8s.io', 'tokenreviews', 'create'),
  rule('authorization.k8s.io', 'subjectaccessreviews', 'create'),
  rule(
    'storage.k8s.io',
    'csidrivers csinodes csistoragecapacities storageclasses volumeattachments',
    READ,
  ),
  rule('scheduling.k8s.io', 'priorityclasses', READ),
  rule('resource.k8s.io', '*', READ),
]);

/**
 * One user for all controllers, where Kubernetes has a service account for each: they share one
 * process and its memory, so separate accounts would be separate in name only.
 */
const controllerManagerRole = clusterRole('system:kube-controller-manager', [
  ...EVENT_RULES,
  // Garbage collection and namespace deletion reach every kind, custom ones included.
  rule('*', '*', `${READ} delete deletecollection patch update`),
  rule(
    'core',
    'configmaps endpoints pods secrets serviceaccounts persistentvolumeclaims',
    'create',
  ),
  rule('core', 'serviceaccounts/token', 'create'),
  rule('core', 'namespaces/finalize', 'update'),
  rule('apps', 'controllerrevisions replicasets', 'create'),
  rule('batch', 'jobs', 'create'),
  rule('discovery.k8s.io', 'endpointslices', 'create'),
  rule('coordination.k8s.io', 'leases', 'create'),
  rule('authentication.k8s.io', 'tokenreviews', 'create'),
  rule('authorization.k8s.io', 'subjectaccessreviews', 'create'),
  rule('certificates.k8s.io', 'signers', 'approve sign'),
  rule(RBAC_GROUP, 'clusterroles', 'escalate'),
  pathRule('/api /api/* /apis /apis/*'),
]);

const storageRoles: KubeObject[] = [
  clusterRole('system:volume-scheduler', [
    rule('core', 'persistentvolumes', `${READ} patch update`),
    rule('core', 'persistentvolumeclaims', `${READ} patch update`),
    rule('storage.k8s.io', 'storageclasses', READ),
  ]),
  clusterRole('system:persistent-volume-provisioner', [
    rule('core', 'persistentvolumes', `create delete ${READ}`),
    rule('core', 'persistentvolumeclaims', `${READ} update`),
    rule('storage.k8s.io', 'storageclasses', READ),
    rule('core', 'events', 'watch create list patch update'),
  ]),
];

const clusterBindings: KubeObject[] = [
  clusterBinding('cluster-admin', 'cluster-admin', group(MASTERS_GROUP)),
  clusterBinding('hypernetes:operators', 'cluster-admin', group(OPERATORS_GROUP)),
  clusterBinding('hypernetes:operator-readers', 'view', group(OPERATOR_READERS_GROUP)),
  clusterBinding(
    'hypernetes:operator-readers:tenants',
    'hypernetes:tenant-reader',
    group(OPERATOR_READERS_GROUP),
  ),
  clusterBinding('system:monitoring', 'system:monitoring', group('system:monitoring')),
  clusterBinding('system:discovery', 'system:discovery', group('system:authenticated')),
  clusterBinding('system:basic-user', 'system:basic-user', group('system:authenticated')),
  clusterBinding(
    'system:public-info-viewer',
    'system:public-info-viewer',
    group('system:authenticated'),
    group('system:unauthenticated'),
  ),
  clusterBinding(
    'system:service-account-issuer-discovery',
    'system:service-account-issuer-discovery',
    group('system:serviceaccounts'),
  ),
  clusterBinding('system:node-proxier', 'system:node-proxier', user('system:kube-proxy')),
  clusterBinding('system:kube-scheduler', 'system:kube-scheduler', user('system:kube-scheduler')),
  clusterBinding(
    'system:volume-scheduler',
    'system:volume-scheduler',
    user('system:kube-scheduler'),
  ),
  clusterBinding(
    'system:kube-controller-manager',
    'system:kube-controller-manager',
    user('system:kube-controller-manager'),
  ),
  clusterBinding(
    'hypernetes:node-bootstrapper',
    'system:node-bootstrapper',
    group(BOOTSTRAP_NODES_GROUP),
  ),
  clusterBinding('hypernetes:get-nodes', 'hypernetes:get-nodes', group(BOOTSTRAP_NODES_GROUP)),
  clusterBinding(
    'hypernetes:node-autoapprove-bootstrap',
    'system:certificates.k8s.io:certificatesigningrequests:nodeclient',
    group(BOOTSTRAP_NODES_GROUP),
  ),
  clusterBinding(
    'hypernetes:node-autoapprove-certificate-rotation',
    'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient',
    group('system:nodes'),
  ),
];

const AUTHENTICATION_READER = 'extension-apiserver-authentication-reader';

const namespacedRoles: KubeObject[] = [
  role('kube-system', AUTHENTICATION_READER, [
    rule('core', 'configmaps', READ, 'extension-apiserver-authentication'),
  ]),
  role('kube-system', 'system::leader-locking-kube-controller-manager', [
    rule('core', 'configmaps', 'watch'),
    rule('core', 'configmaps', 'get update', 'kube-controller-manager'),
  ]),
  role('kube-system', 'system::leader-locking-kube-scheduler', [
    rule('core', 'configmaps', 'watch'),
    rule('core', 'configmaps', 'get update', 'kube-scheduler'),
  ]),
  role('kube-system', 'system:controller:bootstrap-signer', [rule('core', 'secrets', READ)]),
  role('kube-system', 'system:controller:token-cleaner', [
    rule('core', 'secrets', `delete ${READ}`),
    rule('core', 'events', 'create patch update'),
  ]),
  role('kube-public', 'system:controller:bootstrap-signer', [
    rule('core', 'configmaps', READ),
    rule('core', 'configmaps', 'update', 'cluster-info'),
    rule('core', 'events', 'create patch update'),
  ]),
  binding(
    'kube-system',
    AUTHENTICATION_READER,
    user('system:kube-controller-manager'),
    user('system:kube-scheduler'),
  ),
  binding(
    'kube-system',
    'system::leader-locking-kube-controller-manager',
    user('system:kube-controller-manager'),
    account('kube-system', 'kube-controller-manager'),
  ),
  binding(
    'kube-system',
    'system::leader-locking-kube-scheduler',
    user('system:kube-scheduler'),
    account('kube-system', 'kube-scheduler'),
  ),
  binding(
    'kube-system',
    'system:controller:bootstrap-signer',
    account('kube-system', 'bootstrap-signer'),
  ),
  binding(
    'kube-system',
    'system:controller:token-cleaner',
    account('kube-system', 'token-cleaner'),
  ),
  binding(
    'kube-public',
    'system:controller:bootstrap-signer',
    account('kube-system', 'bootstrap-signer'),
  ),
];

/** Everything, in an order in which it can be created. Namespaces have to be there already. */
export function defaultRbacObjects(): KubeObject[] {
  return [
    ...userRoles,
    ...everybodyRoles,
    ...nodeRoles,
    schedulerRole,
    controllerManagerRole,
    ...storageRoles,
    ...clusterBindings,
    ...namespacedRoles,
  ];
}
