import { readFileSync } from 'node:fs';
import { columnsOf } from './columns.ts';
import { NAMES } from './names.ts';
import type {
  ObjectType,
  ProtobufMessage,
  ResourceRow,
  SchemaTable,
  SubresourceRow,
  TypeNode,
} from './schema.ts';

interface TypeFacts {
  fields: Record<string, number>;
  required?: string[];
  mapType?: 'atomic' | 'granular';
  unions?: { discriminator: string; fields: string[] }[];
  kinds?: [string, string, string][];
  message?: string;
}

interface Facts {
  kubernetes: string;
  nodes: TypeNode[];
  types: Record<string, TypeFacts>;
  messages: Record<string, ProtobufMessage>;
  resources: {
    group: string;
    version: string;
    kind: string;
    resource: string;
    namespaced: boolean;
    verbs: string[];
    type: string;
    subresources: SubresourceRow[];
  }[];
}

const META = 'io.k8s.apimachinery.pkg.apis.meta.v1.';

let builtin: SchemaTable | undefined;

/** The table of every built-in kind. Read once; the same value each time. */
export function builtinTable(): SchemaTable {
  builtin ??= tableOf(readFacts());
  return builtin;
}

/** `''`, `v1` → `v1`; `apps`, `v1` → `apps/v1`. */
export function apiVersionOf(group: string, version: string): string {
  return group ? `${group}/${version}` : version;
}

/** Whether a kind, in whichever version, lives in namespaces; false for unknown ones. */
export function isNamespacedIn(table: SchemaTable): (group: string, resource: string) => boolean {
  return (group, resource) =>
    table.rows().some((row) => row.group === group && row.resource === resource && row.namespaced);
}

/** A further table over `base`: the added rows and types are found first. */
export function extendTable(
  base: SchemaTable,
  rows: ResourceRow[],
  types: ObjectType[],
): SchemaTable {
  const index = indexRows(rows);
  const added = new Map(types.map((type) => [type.name, type]));
  const kinds = kindsOf(types);
  return {
    rows: () => [...base.rows(), ...rows],
    byResource: (group, version, resource) =>
      index.resources.get(`${group}/${version}/${resource}`) ??
      base.byResource(group, version, resource),
    byKind: (apiVersion, kind) =>
      index.kinds.get(`${apiVersion}/${kind}`) ?? base.byKind(apiVersion, kind),
    type: (name) => added.get(name) ?? base.type(name),
    typeNames: () => [...new Set([...base.typeNames(), ...added.keys()])].sort(),
    typeOfKind: (apiVersion, kind) =>
      kinds.get(`${apiVersion}/${kind}`) ?? base.typeOfKind(apiVersion, kind),
    message: (name) => base.message(name),
  };
}

function readFacts(): Facts {
  const file = new URL('./generated/facts.json', import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')) as Facts;
}

function tableOf(facts: Facts): SchemaTable {
  const rows = facts.resources.map(rowOf);
  const index = indexRows(rows);
  const types = new Map<string, ObjectType>();
  const messages = bare(facts.messages);
  const typeFacts = bare(facts.types);
  const names = Object.keys(typeFacts).sort();
  let kinds: Map<string, string> | undefined;
  const type = (name: string): ObjectType | undefined => {
    const known = types.get(name);
    const found = known ? undefined : typeFacts[name];
    if (!found) return known;
    const made = objectType(name, found, facts.nodes);
    types.set(name, made);
    return made;
  };
  return {
    rows: () => rows,
    byResource: (group, version, resource) =>
      index.resources.get(`${group}/${version}/${resource}`),
    byKind: (apiVersion, kind) => index.kinds.get(`${apiVersion}/${kind}`),
    type,
    typeNames: () => names,
    typeOfKind: (apiVersion, kind) => {
      kinds ??= kindsOf(names.map((name) => ({ name, kinds: typeFacts[name]?.kinds ?? [] })));
      const shared = kinds.get(`v1/${kind}`);
      // DeleteOptions and its like are members of every group.
      return kinds.get(`${apiVersion}/${kind}`) ?? (shared?.startsWith(META) ? shared : undefined);
    },
    message: (name) => messages[name],
  };
}

function objectType(name: string, facts: TypeFacts, nodes: TypeNode[]): ObjectType {
  // Without a prototype, a client's field called "constructor" is as unknown as any other.
  const fields: Record<string, TypeNode> = Object.create(null);
  for (const field of Object.keys(facts.fields)) {
    const node = nodes[facts.fields[field] ?? -1];
    if (node) fields[field] = node;
  }
  const type: ObjectType = { name, fields, required: facts.required ?? [] };
  if (facts.mapType) type.mapType = facts.mapType;
  if (facts.unions) type.unions = facts.unions;
  if (facts.kinds) type.kinds = facts.kinds;
  if (facts.message) type.message = facts.message;
  return type;
}

function rowOf(facts: Facts['resources'][number]): ResourceRow {
  const key = facts.group ? `${facts.resource}.${facts.group}` : facts.resource;
  const names = NAMES[key] ?? {};
  return {
    ...facts,
    singular: facts.kind.toLowerCase(),
    shortNames: names.shortNames ?? [],
    categories: names.categories ?? [],
    columns: columnsOf(facts.group, facts.resource),
    storageVersion: names.storage
      ? apiVersionOf(names.storage.group, names.storage.version)
      : apiVersionOf(facts.group, facts.version),
  };
}

function indexRows(rows: ResourceRow[]) {
  const resources = new Map<string, ResourceRow>();
  const kinds = new Map<string, ResourceRow>();
  for (const row of rows) {
    resources.set(`${row.group}/${row.version}/${row.resource}`, row);
    kinds.set(`${apiVersionOf(row.group, row.version)}/${row.kind}`, row);
  }
  return { resources, kinds };
}

function kindsOf(types: { name: string; kinds?: [string, string, string][] }[]) {
  const kinds = new Map<string, string>();
  for (const { name, kinds: own } of types) {
    for (const [group, version, kind] of own ?? []) {
      kinds.set(`${apiVersionOf(group, version)}/${kind}`, name);
    }
  }
  return kinds;
}

function bare<T>(record: Record<string, T>): Record<string, T> {
  return Object.assign(Object.create(null) as Record<string, T>, record);
}
