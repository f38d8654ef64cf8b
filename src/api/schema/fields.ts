import type { KubeObject } from '../object.ts';
import { badRequest } from '../status.ts';
import type { FieldRequirement } from '../selectors.ts';
import type { ResourceRow } from './schema.ts';

/** Fields that a selector may name beside `metadata.name` and `metadata.namespace`. */
const EVENT_FIELDS = [
  'involvedObject.kind',
  'involvedObject.namespace',
  'involvedObject.name',
  'involvedObject.uid',
  'involvedObject.apiVersion',
  'involvedObject.resourceVersion',
  'involvedObject.fieldPath',
  'reason',
  'reportingComponent',
  'source',
  'type',
];

const SELECTABLE: Record<string, string[]> = {
  events: EVENT_FIELDS,
  'events.events.k8s.io': EVENT_FIELDS.map((field) => field.replace('involvedObject', 'regarding')),
  namespaces: ['status.phase'],
  nodes: ['spec.unschedulable'],
  pods: [
    'spec.nodeName',
    'spec.restartPolicy',
    'spec.schedulerName',
    'spec.serviceAccountName',
    'spec.hostNetwork',
    'status.phase',
    'status.podIP',
    'status.nominatedNodeName',
  ],
  replicationcontrollers: ['status.replicas'],
  'replicasets.apps': ['status.replicas'],
  secrets: ['type'],
  services: ['spec.clusterIP', 'spec.type'],
  'jobs.batch': ['status.successful'],
  'certificatesigningrequests.certificates.k8s.io': ['spec.signerName'],
  'customresourcedefinitions.apiextensions.k8s.io': [],
  'resourceslices.resource.k8s.io': ['spec.nodeName', 'spec.driver'],
};

/** Where a selectable field's value lies when it is not at the path of its own name. */
const PATHS: Record<string, string[]> = {
  'jobs.batch status.successful': ['status', 'succeeded'],
  'events source': ['source', 'component'],
  'events.events.k8s.io source': ['deprecatedSource', 'component'],
  'events.events.k8s.io reportingComponent': ['reportingController'],
};

/** What Kubernetes prints for a field that is absent. */
const ABSENT: Record<string, string> = {
  'spec.unschedulable': 'false',
  'spec.hostNetwork': 'false',
  'status.replicas': '0',
  'status.successful': '0',
};

function keyOf(row: ResourceRow): string {
  return row.group ? `${row.resource}.${row.group}` : row.resource;
}

/** Names of the fields that a selector over this resource may use. */
export function selectableFields(row: ResourceRow): string[] {
  const common = row.namespaced ? ['metadata.name', 'metadata.namespace'] : ['metadata.name'];
  return [...common, ...(SELECTABLE[keyOf(row)] ?? [])];
}

/** Throws 400 for a requirement on a field that the resource does not let be selected. */
export function checkFieldSelector(row: ResourceRow, requirements: FieldRequirement[]): void {
  const allowed = selectableFields(row);
  for (const { field } of requirements) {
    if (allowed.includes(field) || field === 'metadata.namespace') continue;
    // Kinds without fields of their own share one sentence.
    throw badRequest(
      SELECTABLE[keyOf(row)]
        ? `field label not supported: ${field}`
        : `"${field}" is not a known field selector: only "metadata.name", "metadata.namespace"`,
    );
  }
}

/** Value of one selectable field, empty when it is absent. */
export function fieldValue(row: ResourceRow, object: KubeObject, field: string): string {
  const path = PATHS[`${keyOf(row)} ${field}`] ?? field.split('.');
  let value: unknown = object;
  for (const name of path) {
    value =
      typeof value === 'object' && value !== null
        ? (value as Record<string, unknown>)[name]
        : undefined;
  }
  return value === undefined || value === null ? (ABSENT[field] ?? '') : String(value);
}

/** Whether an object fulfils every requirement. */
export function matchesFieldSelector(
  row: ResourceRow,
  object: KubeObject,
  requirements: readonly FieldRequirement[],
): boolean {
  return requirements.every(
    ({ field, operator, value }) =>
      (fieldValue(row, object, field) === value) === (operator === '='),
  );
}
