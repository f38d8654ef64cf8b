import {
  age,
  containerImages,
  containerNames,
  get,
  labelsText,
  list,
  name,
  NONE,
  number,
  record,
  since,
  strings,
  text,
  UNKNOWN,
  UNSET,
  workloadCells,
} from './cells.ts';
import type { Fields, Printer } from './cells.ts';
import { printPod } from './pod.ts';

const ROLE_PREFIX = 'node-role.kubernetes.io/';
const ROLE_LABEL = 'kubernetes.io/role';
const ACCESS_MODES: Record<string, string> = {
  ReadWriteOnce: 'RWO',
  ReadOnlyMany: 'ROX',
  ReadWriteMany: 'RWX',
  ReadWriteOncePod: 'RWOP',
};
const LEGACY_CLASS = 'volume.beta.kubernetes.io/storage-class';

const printNode: Printer = (node, nowMs) => [
  name(node),
  nodeStatus(node),
  nodeRoles(node),
  age(node, nowMs),
  text(node, 'status.nodeInfo.kubeletVersion'),
  nodeAddress(node, 'InternalIP'),
  nodeAddress(node, 'ExternalIP'),
  text(node, 'status.nodeInfo.osImage', UNKNOWN),
  text(node, 'status.nodeInfo.kernelVersion', UNKNOWN),
  text(node, 'status.nodeInfo.containerRuntimeVersion', UNKNOWN),
];

function nodeStatus(node: Fields): string {
  const ready = list(node, 'status.conditions').find((entry) => entry['type'] === 'Ready');
  const status = !ready ? 'Unknown' : ready['status'] === 'True' ? 'Ready' : 'NotReady';
  return get(node, 'spec.unschedulable') === true ? `${status},SchedulingDisabled` : status;
}

function nodeRoles(node: Fields): string {
  const roles = new Set<string>();
  for (const [key, value] of Object.entries(record(node, 'metadata.labels'))) {
    if (key.startsWith(ROLE_PREFIX)) {
      if (key.length > ROLE_PREFIX.length) roles.add(key.slice(ROLE_PREFIX.length));
    } else if (key === ROLE_LABEL && value !== '') roles.add(String(value));
  }
  return roles.size === 0 ? NONE : [...roles].sort().join(',');
}

function nodeAddress(node: Fields, type: string): string {
  const found = list(node, 'status.addresses').find((address) => address['type'] === type);
  return text(found, 'address', NONE);
}

const printService: Printer = (service, nowMs) => [
  name(service),
  text(service, 'spec.type'),
  text(service, 'spec.clusterIP', NONE),
  externalAddress(service),
  servicePorts(list(service, 'spec.ports')),
  age(service, nowMs),
  labelsText(get(service, 'spec.selector')),
];

function externalAddress(service: Fields): string {
  const external = strings(service, 'spec.externalIPs');
  const type = text(service, 'spec.type');
  if (type === 'ExternalName') return text(service, 'spec.externalName');
  if (type !== 'LoadBalancer') return external.length === 0 ? NONE : external.join(',');
  const ingress = list(service, 'status.loadBalancer.ingress').map(
    (entry) => text(entry, 'ip') || text(entry, 'hostname'),
  );
  const all = [...ingress.filter(Boolean), ...external];
  return all.length === 0 ? '<pending>' : all.join(',');
}

function servicePorts(ports: Fields[]): string {
  if (ports.length === 0) return NONE;
  return ports
    .map((port) => {
      const node = number(port, 'nodePort');
      return `${text(port, 'port')}${node > 0 ? `:${node}` : ''}/${text(port, 'protocol')}`;
    })
    .join(',');
}

const printEvent: Printer = (event, nowMs) => {
  const object = (event['involvedObject'] ?? event['regarding'] ?? {}) as Fields;
  const count =
    number(event, 'series.count') || number(event, 'count') || number(event, 'deprecatedCount');
  const created = get(event, 'metadata.creationTimestamp');
  const micro = get(event, 'eventTime');
  const first = event['firstTimestamp'] ?? event['deprecatedFirstTimestamp'] ?? micro ?? created;
  const seriesEnd = get(event, 'series.lastObservedTime');
  const last =
    seriesEnd ?? event['lastTimestamp'] ?? event['deprecatedLastTimestamp'] ?? micro ?? first;
  const kind = text(object, 'kind').toLowerCase();
  const component = text(event, 'source.component') || text(event, 'deprecatedSource.component');
  const host = text(event, 'source.host') || text(event, 'deprecatedSource.host');
  const source =
    component || text(event, 'reportingComponent') || text(event, 'reportingController');
  return [
    since(last, nowMs),
    text(event, 'type'),
    text(event, 'reason'),
    object['name'] ? `${kind}/${text(object, 'name')}` : kind,
    text(object, 'fieldPath'),
    [source, host].filter(Boolean).join(', '),
    (text(event, 'message') || text(event, 'note')).trim(),
    since(first, nowMs),
    String(count || 1),
    name(event),
  ];
};

const printEndpoints: Printer = (endpoints, nowMs) => [
  name(endpoints),
  endpointList(endpoints),
  age(endpoints, nowMs),
];

/** Three addresses are shown, then how many more there are. */
const ENDPOINTS_SHOWN = 3;

function endpointList(endpoints: Fields): string {
  const all = list(endpoints, 'subsets').flatMap((subset) => {
    const addresses = list(subset, 'addresses').map((address) => text(address, 'ip'));
    const ports = list(subset, 'ports').map((port) => text(port, 'port'));
    if (ports.length === 0) return addresses;
    return ports.flatMap((port) =>
      addresses.map((ip) => `${ip.includes(':') ? `[${ip}]` : ip}:${port}`),
    );
  });
  if (all.length === 0) return NONE;
  const shown = all.slice(0, ENDPOINTS_SHOWN).join(',');
  return all.length > ENDPOINTS_SHOWN
    ? `${shown} + ${all.length - ENDPOINTS_SHOWN} more...`
    : shown;
}

function accessModes(value: unknown, path: string): string {
  return [...new Set(strings(value, path))].map((mode) => ACCESS_MODES[mode] ?? mode).join(',');
}

function terminatingOr(object: Fields, status: string): string {
  return get(object, 'metadata.deletionTimestamp') === undefined ? status : 'Terminating';
}

const printVolume: Printer = (volume, nowMs) => {
  const claim = record(volume, 'spec.claimRef');
  return [
    name(volume),
    text(volume, 'spec.capacity.storage'),
    accessModes(volume, 'spec.accessModes'),
    text(volume, 'spec.persistentVolumeReclaimPolicy'),
    terminatingOr(volume, text(volume, 'status.phase')),
    claim['name'] ? `${text(claim, 'namespace')}/${text(claim, 'name')}` : '',
    annotation(volume, LEGACY_CLASS) || text(volume, 'spec.storageClassName'),
    text(volume, 'spec.volumeAttributesClassName', UNSET),
    text(volume, 'status.reason'),
    age(volume, nowMs),
    text(volume, 'spec.volumeMode', UNSET),
  ];
};

const printClaim: Printer = (claim, nowMs) => {
  const bound = text(claim, 'spec.volumeName') !== '';
  return [
    name(claim),
    terminatingOr(claim, text(claim, 'status.phase')),
    text(claim, 'spec.volumeName'),
    bound ? text(claim, 'status.capacity.storage') : '',
    bound ? accessModes(claim, 'status.accessModes') : '',
    annotation(claim, LEGACY_CLASS) || text(claim, 'spec.storageClassName'),
    text(claim, 'spec.volumeAttributesClassName', UNSET),
    age(claim, nowMs),
    text(claim, 'spec.volumeMode', UNSET),
  ];
};

function annotation(object: Fields, key: string): string {
  const value = record(object, 'metadata.annotations')[key];
  return typeof value === 'string' ? value : '';
}

const printQuota: Printer = (quota, nowMs) => {
  const used = record(quota, 'status.used');
  const requests: string[] = [];
  const limits: string[] = [];
  for (const [resource, hard] of Object.entries(record(quota, 'status.hard')).sort()) {
    const shown = `${resource}: ${String(used[resource] ?? '0')}/${String(hard)}`;
    (resource.startsWith('limits.') ? limits : requests).push(shown);
  }
  return [name(quota), requests.join(', '), limits.join(', '), age(quota, nowMs)];
};

export const CORE_PRINTERS: Record<string, Printer> = {
  componentstatuses: (status) => {
    const healthy = list(status, 'conditions').find((entry) => entry['type'] === 'Healthy');
    const word = healthy?.['status'] === 'True' ? 'Healthy' : 'Unhealthy';
    return [name(status), word, text(healthy, 'message'), text(healthy, 'error')];
  },
  configmaps: (map, nowMs) => [
    name(map),
    Object.keys(record(map, 'data')).length + Object.keys(record(map, 'binaryData')).length,
    age(map, nowMs),
  ],
  endpoints: printEndpoints,
  events: printEvent,
  'events.events.k8s.io': printEvent,
  namespaces: (namespace, nowMs) => [
    name(namespace),
    text(namespace, 'status.phase'),
    age(namespace, nowMs),
  ],
  nodes: printNode,
  persistentvolumeclaims: printClaim,
  persistentvolumes: printVolume,
  pods: printPod,
  podtemplates: (template) => [
    name(template),
    containerNames(get(template, 'template.spec')),
    containerImages(get(template, 'template.spec')),
    labelsText(get(template, 'template.metadata.labels')),
  ],
  replicationcontrollers: (controller, nowMs) => [
    name(controller),
    number(controller, 'spec.replicas'),
    number(controller, 'status.replicas'),
    number(controller, 'status.readyReplicas'),
    age(controller, nowMs),
    ...workloadCells(controller).slice(0, 2),
    labelsText(get(controller, 'spec.selector')),
  ],
  resourcequotas: printQuota,
  secrets: (secret, nowMs) => [
    name(secret),
    text(secret, 'type'),
    Object.keys(record(secret, 'data')).length,
    age(secret, nowMs),
  ],
  serviceaccounts: (account, nowMs) => [
    name(account),
    list(account, 'secrets').length,
    age(account, nowMs),
  ],
  services: printService,
};
