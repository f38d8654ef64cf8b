import type { PrinterColumn } from './schema.ts';

/**
 * The columns of `kubectl get`, as Kubernetes' printers define them. `+` in front marks a column
 * of `-o wide`, `#` an integer, `?` a boolean, `@` a time that kubectl prints as it is given.
 */
const WORKLOAD = ['+Containers', '+Images', '+Selector'];
const REPLICAS = ['Name', '#Desired', '#Current', '#Ready', 'Age', ...WORKLOAD];
const BINDING = ['Name', 'Role', 'Age', '+Users', '+Groups', '+ServiceAccounts'];
const EVENT = [
  'Last Seen',
  'Type',
  'Reason',
  'Object',
  '+Subobject',
  '+Source',
  'Message',
  '+First Seen',
  '+Count',
  '+Name',
];
const HPA = ['Name', 'Reference', 'Targets', 'MinPods', 'MaxPods', '#Replicas', 'Age'];
const WEBHOOKS = ['Name', '#Webhooks', 'Age'];
const NAME_AND_AGE = ['Name', 'Age'];
const DEFAULT = ['Name', '@Created At'];

const COLUMNS: Record<string, string[]> = {
  componentstatuses: ['Name', 'Status', 'Message', 'Error'],
  configmaps: ['Name', '#Data', 'Age'],
  endpoints: ['Name', 'Endpoints', 'Age'],
  events: EVENT,
  namespaces: ['Name', 'Status', 'Age'],
  nodes: [
    'Name',
    'Status',
    'Roles',
    'Age',
    'Version',
    '+Internal-IP',
    '+External-IP',
    '+OS-Image',
    '+Kernel-Version',
    '+Container-Runtime',
  ],
  persistentvolumeclaims: [
    'Name',
    'Status',
    'Volume',
    'Capacity',
    'Access Modes',
    'StorageClass',
    'VolumeAttributesClass',
    'Age',
    '+VolumeMode',
  ],
  persistentvolumes: [
    'Name',
    'Capacity',
    'Access Modes',
    'Reclaim Policy',
    'Status',
    'Claim',
    'StorageClass',
    'VolumeAttributesClass',
    'Reason',
    'Age',
    '+VolumeMode',
  ],
  pods: [
    'Name',
    'Ready',
    'Status',
    'Restarts',
    'Age',
    '+IP',
    '+Node',
    '+Nominated Node',
    '+Readiness Gates',
  ],
  podtemplates: ['Name', 'Containers', 'Images', 'Pod Labels'],
  replicationcontrollers: REPLICAS,
  resourcequotas: ['Name', 'Request', 'Limit', 'Age'],
  secrets: ['Name', 'Type', '#Data', 'Age'],
  serviceaccounts: ['Name', '#Secrets', 'Age'],
  services: ['Name', 'Type', 'Cluster-IP', 'External-IP', 'Port(s)', 'Age', '+Selector'],
  'mutatingwebhookconfigurations.admissionregistration.k8s.io': WEBHOOKS,
  'validatingadmissionpolicies.admissionregistration.k8s.io': [
    'Name',
    '#Validations',
    'ParamKind',
    'Age',
  ],
  'validatingadmissionpolicybindings.admissionregistration.k8s.io': [
    'Name',
    'PolicyName',
    'ParamRef',
    'Age',
  ],
  'tenants.hypernetes.io': [
    'Name',
    'Status',
    '#Namespaces',
    'Age',
    '+Parent',
    '+Project',
    '+Quota',
  ],
  'validatingwebhookconfigurations.admissionregistration.k8s.io': WEBHOOKS,
  'apiservices.apiregistration.k8s.io': ['Name', 'Service', 'Available', 'Age'],
  'controllerrevisions.apps': ['Name', 'Controller', '#Revision', 'Age'],
  'daemonsets.apps': [
    'Name',
    '#Desired',
    '#Current',
    '#Ready',
    '#Up-to-date',
    '#Available',
    'Node Selector',
    'Age',
    ...WORKLOAD,
  ],
  'deployments.apps': ['Name', 'Ready', '#Up-to-date', '#Available', 'Age', ...WORKLOAD],
  'replicasets.apps': REPLICAS,
  'statefulsets.apps': ['Name', 'Ready', 'Age', '+Containers', '+Images'],
  'horizontalpodautoscalers.autoscaling': HPA,
  'scales.autoscaling': ['Name', '#Desired', '#Available', 'Age'],
  'cronjobs.batch': [
    'Name',
    'Schedule',
    'Timezone',
    '?Suspend',
    '#Active',
    'Last Schedule',
    'Age',
    ...WORKLOAD,
  ],
  'jobs.batch': ['Name', 'Status', 'Completions', 'Duration', 'Age', ...WORKLOAD],
  'certificatesigningrequests.certificates.k8s.io': [
    'Name',
    'Age',
    'SignerName',
    'Requestor',
    'RequestedDuration',
    'Condition',
  ],
  'leases.coordination.k8s.io': ['Name', 'Holder', 'Age'],
  'endpointslices.discovery.k8s.io': ['Name', 'AddressType', 'Ports', 'Endpoints', 'Age'],
  'events.events.k8s.io': EVENT,
  'flowschemas.flowcontrol.apiserver.k8s.io': [
    'Name',
    'PriorityLevel',
    '#MatchingPrecedence',
    'DistinguisherMethod',
    'Age',
    'MissingPL',
  ],
  'prioritylevelconfigurations.flowcontrol.apiserver.k8s.io': [
    'Name',
    'Type',
    'NominalConcurrencyShares',
    'Queues',
    'HandSize',
    'QueueLengthLimit',
    'Age',
  ],
  'ingressclasses.networking.k8s.io': ['Name', 'Controller', 'Parameters', 'Age'],
  'ingresses.networking.k8s.io': ['Name', 'Class', 'Hosts', 'Address', 'Ports', 'Age'],
  'ipaddresses.networking.k8s.io': ['Name', 'ParentRef', 'Age'],
  'networkpolicies.networking.k8s.io': ['Name', 'Pod-Selector', 'Age'],
  'servicecidrs.networking.k8s.io': ['Name', 'CIDRs', 'Age'],
  'runtimeclasses.node.k8s.io': ['Name', 'Handler', 'Age'],
  'poddisruptionbudgets.policy': [
    'Name',
    'Min Available',
    'Max Unavailable',
    '#Allowed Disruptions',
    'Age',
  ],
  'clusterrolebindings.rbac.authorization.k8s.io': BINDING,
  'rolebindings.rbac.authorization.k8s.io': BINDING,
  'deviceclasses.resource.k8s.io': NAME_AND_AGE,
  'resourceclaims.resource.k8s.io': ['Name', 'State', 'Age'],
  'resourceclaimtemplates.resource.k8s.io': NAME_AND_AGE,
  'resourceslices.resource.k8s.io': ['Name', 'Node', 'Driver', 'Pool', 'Age'],
  'priorityclasses.scheduling.k8s.io': [
    'Name',
    '#Value',
    '?Global-Default',
    'Age',
    'PreemptionPolicy',
  ],
  'csidrivers.storage.k8s.io': [
    'Name',
    '?AttachRequired',
    '?PodInfoOnMount',
    '?StorageCapacity',
    'TokenRequests',
    '?RequiresRepublish',
    'Modes',
    'Age',
  ],
  'csinodes.storage.k8s.io': ['Name', '#Drivers', 'Age'],
  'csistoragecapacities.storage.k8s.io': ['Name', 'StorageClassName', 'Capacity'],
  'storageclasses.storage.k8s.io': [
    'Name',
    'Provisioner',
    'ReclaimPolicy',
    'VolumeBindingMode',
    'AllowVolumeExpansion',
    'Age',
  ],
  'volumeattachments.storage.k8s.io': ['Name', 'Attacher', 'PV', 'Node', 'Attached', 'Age'],
  'volumeattributesclasses.storage.k8s.io': ['Name', 'DriverName', 'Age'],
};

const MARKED_TYPES: Record<string, PrinterColumn['type']> = {
  '#': 'integer',
  '?': 'boolean',
  '@': 'date',
};

/** The columns of a built-in resource; name and creation time where Kubernetes has no printer. */
export function columnsOf(group: string, resource: string): PrinterColumn[] {
  const rows = COLUMNS[group ? `${resource}.${group}` : resource] ?? DEFAULT;
  return rows.map((row) => {
    const wide = row.startsWith('+');
    const marked = wide ? row.slice(1) : row;
    const type = MARKED_TYPES[marked.charAt(0)];
    const name = type ? marked.slice(1) : marked;
    return {
      name,
      type: type ?? 'string',
      format: name === 'Name' && !wide ? 'name' : '',
      description: '',
      priority: wide ? 1 : 0,
    };
  });
}
