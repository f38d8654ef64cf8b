import type { KubeObject } from '../../object.ts';
import {
  dns1035Label,
  dns1123Label,
  dns1123Subdomain,
  labelValue,
  pathSegment,
  qualifiedName,
} from '../../names.ts';
import type { ResourceRow } from '../schema.ts';
import { fields, items, text, texts } from './report.ts';
import type { Report } from './report.ts';

/** Sum of the lengths of keys and values. */
export const ANNOTATIONS_BYTES_MAX = 256 * 1024;

type NameGrammar = (name: string) => string[];

/** Kinds whose names are not DNS subdomains. */
const NAME_GRAMMARS: Record<string, NameGrammar> = {
  namespaces: dns1123Label,
  services: dns1035Label,
  'statefulsets.apps': dns1123Label,
  'runtimeclasses.node.k8s.io': dns1123Label,
  'clusterrolebindings.rbac.authorization.k8s.io': pathSegment,
  'clusterroles.rbac.authorization.k8s.io': pathSegment,
  'rolebindings.rbac.authorization.k8s.io': pathSegment,
  'roles.rbac.authorization.k8s.io': pathSegment,
};

/** Name, namespace, labels, annotations, owners and finalizers of an object. */
export function checkObjectMeta(row: ResourceRow, object: KubeObject, report: Report): void {
  const metadata = object.metadata;
  const at = report.at('metadata');
  const grammar = NAME_GRAMMARS[row.group ? `${row.resource}.${row.group}` : row.resource];
  const check = grammar ?? dns1123Subdomain;
  const { name, generateName } = metadata;
  if (generateName) {
    // The random part makes a name of what ends in a dash.
    const masked = generateName.replace(/-$/, 'a');
    at.at('generateName').invalidAll(generateName, check(masked));
  }
  if (name) at.at('name').invalidAll(name, check(name));
  else if (!generateName) at.at('name').required('name or generateName is required');
  if (row.namespaced) {
    if (!metadata.namespace) at.at('namespace').required();
    else at.at('namespace').invalidAll(metadata.namespace, dns1123Label(metadata.namespace));
  } else if (metadata.namespace) at.at('namespace').forbidden('not allowed on this type');
  checkLabels(metadata.labels, at.at('labels'));
  checkAnnotations(metadata.annotations, at.at('annotations'));
  checkOwners(metadata.ownerReferences, at.at('ownerReferences'));
  checkFinalizers(metadata.finalizers, at.at('finalizers'));
}

/** What may not change: identity, and new finalizers on an object that is being deleted. */
export function checkMetaUpdate(object: KubeObject, old: KubeObject, report: Report): void {
  const at = report.at('metadata');
  for (const field of ['name', 'namespace', 'uid'] as const) {
    const value = object.metadata[field];
    if (value !== old.metadata[field]) at.at(field).invalid(value ?? '', 'field is immutable');
  }
  if (!old.metadata.deletionTimestamp) return;
  const before = new Set(old.metadata.finalizers);
  const added = (object.metadata.finalizers ?? []).filter((finalizer) => !before.has(finalizer));
  if (added.length === 0) return;
  const list = added.map((finalizer) => JSON.stringify(finalizer)).join(', ');
  at.at('finalizers').forbidden(
    `no new finalizers can be added if the object is being deleted, found new finalizers []string{${list}}`,
  );
}

export function checkLabels(labels: unknown, report: Report): void {
  for (const [key, value] of Object.entries(fields(labels))) {
    report.invalidAll(key, qualifiedName(key));
    report.invalidAll(value, labelValue(String(value)));
  }
}

export function checkAnnotations(annotations: unknown, report: Report): void {
  let size = 0;
  for (const [key, value] of Object.entries(fields(annotations))) {
    report.invalidAll(key, qualifiedName(key.toLowerCase()));
    size += Buffer.byteLength(key) + Buffer.byteLength(String(value));
  }
  if (size > ANNOTATIONS_BYTES_MAX) report.tooLong(ANNOTATIONS_BYTES_MAX);
}

function checkOwners(references: unknown, report: Report): void {
  const controllers: string[] = [];
  for (const owner of items(references)) {
    const wanted = [
      ['apiVersion', 'version'],
      ['kind', 'kind'],
      ['name', 'name'],
      ['uid', 'uid'],
    ] as const;
    for (const [field, word] of wanted) {
      if (text(owner[field]) === '') report.at(field).invalid('', `${word} must not be empty`);
    }
    if (owner['controller'] === true) controllers.push(text(owner['name']));
  }
  const [first, second] = controllers;
  if (second === undefined) return;
  report.invalid(
    references,
    `Only one reference can have Controller set to true. Found "true" in references for ${first} and ${second}`,
  );
}

function checkFinalizers(finalizers: unknown, report: Report): void {
  const list = texts(finalizers);
  for (const finalizer of list) report.invalidAll(finalizer, qualifiedName(finalizer));
  if (list.includes('orphan') && list.includes('foregroundDeletion')) {
    report.invalid(list, 'finalizer orphan and foregroundDeletion cannot be both set');
  }
}
