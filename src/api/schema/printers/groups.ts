import { humanDuration } from '../../time.ts';
import {
  age,
  condition,
  containerImages,
  containerNames,
  get,
  labelsText,
  list,
  name,
  NONE,
  number,
  record,
  selectorText,
  since,
  strings,
  text,
  UNKNOWN,
  UNSET,
  workloadCells,
} from './cells.ts';
import type { Fields, Printer } from './cells.ts';

const LIST_SHOWN = 3;

/** At most three, then how many more. */
function some(items: string[], absent: string): string {
  if (items.length === 0) return absent;
  const shown = items.slice(0, LIST_SHOWN).join(',');
  return items.length > LIST_SHOWN ? `${shown} + ${items.length - LIST_SHOWN} more...` : shown;
}

const printReplicaSet: Printer = (set, nowMs) => [
  name(set),
  number(set, 'spec.replicas'),
  number(set, 'status.replicas'),
  number(set, 'status.readyReplicas'),
  age(set, nowMs),
  ...workloadCells(set),
];

const printDaemonSet: Printer = (set, nowMs) => [
  name(set),
  number(set, 'status.desiredNumberScheduled'),
  number(set, 'status.currentNumberScheduled'),
  number(set, 'status.numberReady'),
  number(set, 'status.updatedNumberScheduled'),
  number(set, 'status.numberAvailable'),
  labelsText(get(set, 'spec.template.spec.nodeSelector')),
  age(set, nowMs),
  ...workloadCells(set),
];

const printDeployment: Printer = (deployment, nowMs) => [
  name(deployment),
  `${number(deployment, 'status.readyReplicas')}/${number(deployment, 'spec.replicas')}`,
  number(deployment, 'status.updatedReplicas'),
  number(deployment, 'status.availableReplicas'),
  age(deployment, nowMs),
  ...workloadCells(deployment),
];

const printJob: Printer = (job, nowMs) => [
  name(job),
  jobStatus(job),
  jobCompletions(job),
  jobDuration(job, nowMs),
  age(job, nowMs),
  ...workloadCells(job),
];

function jobStatus(job: Fields): string {
  const holds = (type: string) => condition(job, type)?.['status'] === 'True';
  if (holds('Complete')) return 'Complete';
  if (holds('Failed')) return 'Failed';
  if (get(job, 'metadata.deletionTimestamp') !== undefined) return 'Terminating';
  if (holds('Suspended')) return 'Suspended';
  if (holds('FailureTarget')) return 'FailureTarget';
  return holds('SuccessCriteriaMet') ? 'SuccessCriteriaMet' : 'Running';
}

function jobCompletions(job: Fields): string {
  const succeeded = number(job, 'status.succeeded');
  const completions = get(job, 'spec.completions');
  if (completions !== undefined) return `${succeeded}/${String(completions)}`;
  const parallelism = number(job, 'spec.parallelism');
  return parallelism > 1 ? `${succeeded}/1 of ${parallelism}` : `${succeeded}/1`;
}

function jobDuration(job: Fields, nowMs: number): string {
  const start = Date.parse(text(job, 'status.startTime'));
  if (Number.isNaN(start)) return '';
  const end = Date.parse(text(job, 'status.completionTime'));
  return humanDuration((Number.isNaN(end) ? nowMs : end) - start);
}

const printCronJob: Printer = (job, nowMs) => {
  const podSpec = get(job, 'spec.jobTemplate.spec.template.spec');
  return [
    name(job),
    text(job, 'spec.schedule'),
    text(job, 'spec.timeZone', NONE),
    get(job, 'spec.suspend') === true,
    list(job, 'status.active').length,
    since(get(job, 'status.lastScheduleTime'), nowMs, NONE),
    age(job, nowMs),
    containerNames(podSpec),
    containerImages(podSpec),
    selectorText(get(job, 'spec.jobTemplate.spec.selector')),
  ];
};

const printAutoscaler: Printer = (autoscaler, nowMs) => [
  name(autoscaler),
  `${text(autoscaler, 'spec.scaleTargetRef.kind')}/${text(autoscaler, 'spec.scaleTargetRef.name')}`,
  autoscalerTargets(autoscaler),
  text(autoscaler, 'spec.minReplicas', UNSET),
  text(autoscaler, 'spec.maxReplicas'),
  number(autoscaler, 'status.currentReplicas'),
  age(autoscaler, nowMs),
];

/** Two targets are shown, each `cpu: 12%/80%`. */
const TARGETS_SHOWN = 2;

function autoscalerTargets(autoscaler: Fields): string {
  const cpu = get(autoscaler, 'spec.targetCPUUtilizationPercentage');
  if (cpu !== undefined) {
    const now = text(autoscaler, 'status.currentCPUUtilizationPercentage');
    return `cpu: ${now === '' ? UNKNOWN : `${now}%`}/${String(cpu)}%`;
  }
  const metrics = list(autoscaler, 'spec.metrics');
  const current = list(autoscaler, 'status.currentMetrics');
  const shown = metrics.map((metric, index) => metricText(metric, current[index]));
  if (shown.length === 0) return NONE;
  const rest = shown.length - TARGETS_SHOWN;
  return shown.slice(0, TARGETS_SHOWN).join(', ') + (rest > 0 ? ` + ${rest} more...` : '');
}

const METRIC_FIELDS: Record<string, string> = {
  Resource: 'resource',
  ContainerResource: 'containerResource',
  Pods: 'pods',
  Object: 'object',
  External: 'external',
};

function metricText(metric: Fields, current: Fields | undefined): string {
  const field = METRIC_FIELDS[text(metric, 'type')] ?? '';
  const source = record(metric, field);
  const target = record(source, 'target');
  const now = record(record(current, field), 'current');
  const label =
    field === 'resource' || field === 'containerResource' ? `${text(source, 'name')}: ` : '';
  const utilization = target['averageUtilization'];
  if (utilization !== undefined) {
    const percent = now['averageUtilization'];
    return `${label}${percent === undefined ? UNKNOWN : `${String(percent)}%`}/${String(utilization)}%`;
  }
  const average = target['averageValue'];
  const key = average === undefined ? 'value' : 'averageValue';
  const suffix =
    average !== undefined && (field === 'object' || field === 'external') ? ' (avg)' : '';
  return `${label}${text(now, key, UNKNOWN)}/${text(target, key)}${suffix}`;
}

const printRequest: Printer = (request, nowMs) => {
  const seconds = get(request, 'spec.expirationSeconds');
  return [
    name(request),
    age(request, nowMs),
    text(request, 'spec.signerName', NONE),
    text(request, 'spec.username'),
    typeof seconds === 'number' ? humanDuration(seconds * 1000) : NONE,
    requestCondition(request),
  ];
};

function requestCondition(request: Fields): string {
  const has = (type: string) => condition(request, type) !== undefined;
  const words = has('Denied') ? ['Denied'] : has('Approved') ? ['Approved'] : ['Pending'];
  if (has('Failed')) words.push('Failed');
  if (text(request, 'status.certificate') !== '') words.push('Issued');
  return words.join(',');
}

const printSlice: Printer = (slice, nowMs) => [
  name(slice),
  text(slice, 'addressType'),
  some(
    list(slice, 'ports').map((port) => text(port, 'port', '*')),
    UNSET,
  ),
  some(
    list(slice, 'endpoints').flatMap((endpoint) => strings(endpoint, 'addresses')),
    UNSET,
  ),
  age(slice, nowMs),
];

const printIngress: Printer = (ingress, nowMs) => {
  const hosts = list(ingress, 'spec.rules')
    .map((rule) => text(rule, 'host'))
    .filter(Boolean);
  const addresses = list(ingress, 'status.loadBalancer.ingress').map(
    (entry) => text(entry, 'ip') || text(entry, 'hostname'),
  );
  return [
    name(ingress),
    text(ingress, 'spec.ingressClassName', NONE),
    some(hosts, '*'),
    addresses.filter(Boolean).join(','),
    list(ingress, 'spec.tls').length > 0 ? '80, 443' : '80',
    age(ingress, nowMs),
  ];
};

function parametersText(ingressClass: Fields): string {
  const parameters = get(ingressClass, 'spec.parameters');
  if (parameters === undefined) return NONE;
  const group = text(parameters, 'apiGroup');
  return `${text(parameters, 'kind')}${group ? `.${group}` : ''}/${text(parameters, 'name')}`;
}

const printBinding: Printer = (binding, nowMs) => {
  const subjects = list(binding, 'subjects');
  const named = (kind: string) => subjects.filter((subject) => subject['kind'] === kind);
  const account = (subject: Fields) => `${text(subject, 'namespace')}/${text(subject, 'name')}`;
  return [
    name(binding),
    `${text(binding, 'roleRef.kind')}/${text(binding, 'roleRef.name')}`,
    age(binding, nowMs),
    named('User').map(subjectName).join(', '),
    named('Group').map(subjectName).join(', '),
    named('ServiceAccount').map(account).join(', '),
  ];
};

function subjectName(subject: Fields): string {
  return text(subject, 'name');
}

const DEFAULT_CLASS = 'storageclass.kubernetes.io/is-default-class';

const printStorageClass: Printer = (storageClass, nowMs) => [
  record(storageClass, 'metadata.annotations')[DEFAULT_CLASS] === 'true'
    ? `${name(storageClass)} (default)`
    : name(storageClass),
  text(storageClass, 'provisioner'),
  text(storageClass, 'reclaimPolicy', 'Delete'),
  text(storageClass, 'volumeBindingMode', UNSET),
  text(storageClass, 'allowVolumeExpansion', 'false'),
  age(storageClass, nowMs),
];

const printDriver: Printer = (driver, nowMs) => [
  name(driver),
  get(driver, 'spec.attachRequired') !== false,
  get(driver, 'spec.podInfoOnMount') === true,
  get(driver, 'spec.storageCapacity') === true,
  list(driver, 'spec.tokenRequests')
    .map((entry) => text(entry, 'audience'))
    .join(',') || UNSET,
  get(driver, 'spec.requiresRepublish') === true,
  strings(driver, 'spec.volumeLifecycleModes').join(',') || NONE,
  age(driver, nowMs),
];

const printPriorityLevel: Printer = (level, nowMs) => {
  const limited = record(level, 'spec.limited');
  const queuing = record(limited, 'limitResponse.queuing');
  const shares =
    get(limited, 'nominalConcurrencyShares') ?? get(level, 'spec.exempt.nominalConcurrencyShares');
  return [
    name(level),
    text(level, 'spec.type'),
    shares === undefined ? NONE : String(shares),
    text(queuing, 'queues', NONE),
    text(queuing, 'handSize', NONE),
    text(queuing, 'queueLengthLimit', NONE),
    age(level, nowMs),
  ];
};

const printFlowSchema: Printer = (schema, nowMs) => {
  const dangling = condition(schema, 'Dangling');
  const missing = dangling?.['status'];
  return [
    name(schema),
    text(schema, 'spec.priorityLevelConfiguration.name', NONE),
    number(schema, 'spec.matchingPrecedence'),
    text(schema, 'spec.distinguisherMethod.type', NONE),
    age(schema, nowMs),
    missing === undefined ? '?' : missing === 'True' ? 'True' : 'False',
  ];
};

function apiServiceAvailable(service: Fields): string {
  const available = condition(service, 'Available');
  if (!available) return 'Unknown';
  const status = text(available, 'status');
  return status === 'True' ? status : `${status} (${text(available, 'reason')})`;
}

function claimState(claim: Fields): string {
  const states: string[] = [];
  if (get(claim, 'metadata.deletionTimestamp') !== undefined) states.push('deleted');
  if (get(claim, 'status.allocation') === undefined) {
    if (states.length === 0) states.push('pending');
  } else {
    states.push('allocated');
    if (list(claim, 'status.reservedFor').length > 0) states.push('reserved');
  }
  return states.join(',');
}

function controllerOf(revision: Fields): string {
  const owner = list(revision, 'metadata.ownerReferences').find(
    (entry) => entry['controller'] === true,
  );
  if (!owner) return NONE;
  const apiVersion = text(owner, 'apiVersion');
  const group = apiVersion.includes('/') ? `.${apiVersion.slice(0, apiVersion.indexOf('/'))}` : '';
  return `${text(owner, 'kind').toLowerCase()}${group}/${text(owner, 'name')}`;
}

function reference(value: unknown, absent: string): string {
  if (value === undefined) return absent;
  const { apiVersion, kind } = value as Fields;
  return kind === undefined ? text(value, 'name', '*') : `${String(apiVersion)}/${String(kind)}`;
}

const webhooks: Printer = (object, nowMs) => [
  name(object),
  list(object, 'webhooks').length,
  age(object, nowMs),
];
const nameAndAge: Printer = (object, nowMs) => [name(object), age(object, nowMs)];

export const GROUP_PRINTERS: Record<string, Printer> = {
  'mutatingwebhookconfigurations.admissionregistration.k8s.io': webhooks,
  'validatingwebhookconfigurations.admissionregistration.k8s.io': webhooks,
  'validatingadmissionpolicies.admissionregistration.k8s.io': (policy, nowMs) => [
    name(policy),
    list(policy, 'spec.validations').length,
    reference(get(policy, 'spec.paramKind'), UNSET),
    age(policy, nowMs),
  ],
  'validatingadmissionpolicybindings.admissionregistration.k8s.io': (binding, nowMs) => [
    name(binding),
    text(binding, 'spec.policyName'),
    reference(get(binding, 'spec.paramRef'), UNSET),
    age(binding, nowMs),
  ],
  'apiservices.apiregistration.k8s.io': (service, nowMs) => [
    name(service),
    get(service, 'spec.service') === undefined
      ? 'Local'
      : `${text(service, 'spec.service.namespace')}/${text(service, 'spec.service.name')}`,
    apiServiceAvailable(service),
    age(service, nowMs),
  ],
  'controllerrevisions.apps': (revision, nowMs) => [
    name(revision),
    controllerOf(revision),
    number(revision, 'revision'),
    age(revision, nowMs),
  ],
  'daemonsets.apps': printDaemonSet,
  'deployments.apps': printDeployment,
  'replicasets.apps': printReplicaSet,
  'statefulsets.apps': (set, nowMs) => [
    name(set),
    `${number(set, 'status.readyReplicas')}/${number(set, 'spec.replicas')}`,
    age(set, nowMs),
    ...workloadCells(set).slice(0, 2),
  ],
  'scales.autoscaling': (scale, nowMs) => [
    name(scale),
    number(scale, 'spec.replicas'),
    number(scale, 'status.replicas'),
    age(scale, nowMs),
  ],
  'horizontalpodautoscalers.autoscaling': printAutoscaler,
  'cronjobs.batch': printCronJob,
  'jobs.batch': printJob,
  'certificatesigningrequests.certificates.k8s.io': printRequest,
  'leases.coordination.k8s.io': (lease, nowMs) => [
    name(lease),
    text(lease, 'spec.holderIdentity'),
    age(lease, nowMs),
  ],
  'endpointslices.discovery.k8s.io': printSlice,
  'flowschemas.flowcontrol.apiserver.k8s.io': printFlowSchema,
  'prioritylevelconfigurations.flowcontrol.apiserver.k8s.io': printPriorityLevel,
  'ingressclasses.networking.k8s.io': (ingressClass, nowMs) => [
    name(ingressClass),
    text(ingressClass, 'spec.controller'),
    parametersText(ingressClass),
    age(ingressClass, nowMs),
  ],
  'ingresses.networking.k8s.io': printIngress,
  'ipaddresses.networking.k8s.io': (address, nowMs) => {
    const parent = record(address, 'spec.parentRef');
    const parts = [parent['group'], parent['resource'], parent['namespace'], parent['name']];
    return [name(address), parts.filter(Boolean).join('/'), age(address, nowMs)];
  },
  'networkpolicies.networking.k8s.io': (policy, nowMs) => [
    name(policy),
    selectorText(get(policy, 'spec.podSelector')),
    age(policy, nowMs),
  ],
  'servicecidrs.networking.k8s.io': (range, nowMs) => [
    name(range),
    strings(range, 'spec.cidrs').join(','),
    age(range, nowMs),
  ],
  'runtimeclasses.node.k8s.io': (runtimeClass, nowMs) => [
    name(runtimeClass),
    text(runtimeClass, 'handler'),
    age(runtimeClass, nowMs),
  ],
  'poddisruptionbudgets.policy': (budget, nowMs) => [
    name(budget),
    text(budget, 'spec.minAvailable', 'N/A'),
    text(budget, 'spec.maxUnavailable', 'N/A'),
    number(budget, 'status.disruptionsAllowed'),
    age(budget, nowMs),
  ],
  'clusterrolebindings.rbac.authorization.k8s.io': printBinding,
  'rolebindings.rbac.authorization.k8s.io': printBinding,
  'deviceclasses.resource.k8s.io': nameAndAge,
  'resourceclaims.resource.k8s.io': (claim, nowMs) => [
    name(claim),
    claimState(claim),
    age(claim, nowMs),
  ],
  'resourceclaimtemplates.resource.k8s.io': nameAndAge,
  'resourceslices.resource.k8s.io': (slice, nowMs) => [
    name(slice),
    text(slice, 'spec.nodeName', UNSET),
    text(slice, 'spec.driver'),
    text(slice, 'spec.pool.name'),
    age(slice, nowMs),
  ],
  'priorityclasses.scheduling.k8s.io': (priority, nowMs) => [
    name(priority),
    number(priority, 'value'),
    priority['globalDefault'] === true,
    age(priority, nowMs),
    text(priority, 'preemptionPolicy'),
  ],
  'csidrivers.storage.k8s.io': printDriver,
  'csinodes.storage.k8s.io': (node, nowMs) => [
    name(node),
    list(node, 'spec.drivers').length,
    age(node, nowMs),
  ],
  'csistoragecapacities.storage.k8s.io': (capacity) => [
    name(capacity),
    text(capacity, 'storageClassName'),
    text(capacity, 'capacity', UNSET),
  ],
  'storageclasses.storage.k8s.io': printStorageClass,
  'volumeattachments.storage.k8s.io': (attachment, nowMs) => [
    name(attachment),
    text(attachment, 'spec.attacher'),
    text(attachment, 'spec.source.persistentVolumeName'),
    text(attachment, 'spec.nodeName'),
    String(get(attachment, 'status.attached') === true),
    age(attachment, nowMs),
  ],
  'volumeattributesclasses.storage.k8s.io': (attributes, nowMs) => [
    name(attributes),
    text(attributes, 'driverName'),
    age(attributes, nowMs),
  ],
};
