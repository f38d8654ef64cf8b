import { createHash } from 'node:crypto';
import { PATCH_TYPES } from './patch/patch.ts';
import type { ObjectType, ResourceRow, SchemaTable, TypeNode } from './schema.ts';
import { apiVersionOf } from './table.ts';

/**
 * OpenAPI v3, one document per group version, made from the table when it is first asked for.
 * Descriptions are not among the facts, so documents have none.
 */
type Json = Record<string, unknown>;

const META = 'io.k8s.apimachinery.pkg.apis.meta.v1';
const REF = '#/components/schemas/';

/** Nodes that stand for named types whose JSON is not an object of fields. */
const LEAF_NAMES: Record<string, string> = {
  quantity: 'io.k8s.apimachinery.pkg.api.resource.Quantity',
  'int-or-string': 'io.k8s.apimachinery.pkg.util.intstr.IntOrString',
  'date-time': `${META}.Time`,
  'micro-time': `${META}.MicroTime`,
  duration: `${META}.Duration`,
  'fields-v1': `${META}.FieldsV1`,
  'raw-extension': 'io.k8s.apimachinery.pkg.runtime.RawExtension',
};
const LEAF_SCHEMAS: Record<string, Json> = {
  quantity: { oneOf: [{ type: 'string' }, { type: 'number' }] },
  'int-or-string': { format: 'int-or-string', oneOf: [{ type: 'integer' }, { type: 'string' }] },
  'date-time': { type: 'string', format: 'date-time' },
  'micro-time': { type: 'string', format: 'date-time' },
  duration: { type: 'string' },
  'fields-v1': { type: 'object' },
  'raw-extension': { type: 'object' },
};

export interface OpenApiDocument {
  /** JSON, encoded once. */
  bytes: Uint8Array;
  /** Of the bytes: the `hash` of the document's URL, and its ETag. */
  hash: string;
}

const documents = new WeakMap<SchemaTable, Map<string, OpenApiDocument>>();

/** `GET /openapi/v3`: path of every group version → URL that changes with the content. */
export function openApiV3Index(table: SchemaTable): object {
  const paths: Record<string, { serverRelativeURL: string }> = {};
  for (const groupVersion of groupVersionsOf(table)) {
    const document = openApiV3Document(table, groupVersion);
    const path = rootOf(groupVersion).slice(1);
    paths[path] = { serverRelativeURL: `/openapi/v3/${path}?hash=${document?.hash ?? ''}` };
  }
  return { paths };
}

/** `GET /openapi/v3/apis/apps/v1` by group version (`v1`, `apps/v1`); undefined if unknown. */
export function openApiV3Document(
  table: SchemaTable,
  groupVersion: string,
): OpenApiDocument | undefined {
  let known = documents.get(table);
  if (!known) {
    known = new Map();
    documents.set(table, known);
  }
  const cached = known.get(groupVersion);
  if (cached) return cached;
  const rows = table.rows().filter((row) => apiVersionOf(row.group, row.version) === groupVersion);
  if (rows.length === 0) return undefined;
  const bytes = Buffer.from(JSON.stringify(buildDocument(table, rows)));
  const hash = createHash('sha512').update(bytes).digest('hex').toUpperCase();
  const document = { bytes, hash };
  known.set(groupVersion, document);
  return document;
}

function groupVersionsOf(table: SchemaTable): string[] {
  return [...new Set(table.rows().map((row) => apiVersionOf(row.group, row.version)))].sort();
}

function rootOf(groupVersion: string): string {
  return groupVersion.includes('/') ? `/apis/${groupVersion}` : `/api/${groupVersion}`;
}

/** The document of these rows and of all types that they refer to, before it is encoded. */
export function buildDocument(table: SchemaTable, rows: readonly ResourceRow[]): Json {
  const paths: Json = {};
  const wanted = new Set<string>([`${META}.DeleteOptions`, `${META}.Status`]);
  for (const row of rows) {
    addPaths(paths, table, row, wanted);
    const list = listType(table, row);
    if (list) wanted.add(list);
  }
  return {
    openapi: '3.0.0',
    info: { title: 'Kubernetes', version: 'unversioned' },
    paths,
    components: { schemas: schemasOf(table, wanted) },
  };
}

function listType(table: SchemaTable, row: ResourceRow): string | undefined {
  return table.typeOfKind(apiVersionOf(row.group, row.version), `${row.kind}List`);
}

const QUERY = {
  list: {
    allowWatchBookmarks: 'boolean',
    continue: 'string',
    fieldSelector: 'string',
    labelSelector: 'string',
    limit: 'integer',
    resourceVersion: 'string',
    resourceVersionMatch: 'string',
    sendInitialEvents: 'boolean',
    timeoutSeconds: 'integer',
    watch: 'boolean',
  },
  get: {},
  create: { dryRun: 'string', fieldManager: 'string', fieldValidation: 'string' },
  update: { dryRun: 'string', fieldManager: 'string', fieldValidation: 'string' },
  patch: { dryRun: 'string', fieldManager: 'string', fieldValidation: 'string', force: 'boolean' },
  delete: {
    dryRun: 'string',
    gracePeriodSeconds: 'integer',
    orphanDependents: 'boolean',
    propagationPolicy: 'string',
  },
  deletecollection: { dryRun: 'string', fieldSelector: 'string', labelSelector: 'string' },
} as const;

interface Target {
  group: string;
  version: string;
  kind: string;
}

const COLLECTION_METHODS = { list: 'get', create: 'post', deletecollection: 'delete' } as const;
const ITEM_METHODS = { get: 'get', update: 'put', patch: 'patch', delete: 'delete' } as const;

function addPaths(paths: Json, table: SchemaTable, row: ResourceRow, wanted: Set<string>): void {
  const root = rootOf(apiVersionOf(row.group, row.version));
  const base = row.namespaced
    ? `${root}/namespaces/{namespace}/${row.resource}`
    : `${root}/${row.resource}`;
  const has = (verb: string) => row.verbs.includes(verb);
  const collection = operations(table, row, row, COLLECTION_METHODS, has, wanted);
  if (collection) paths[base] = collection;
  if (row.namespaced && has('list')) {
    const everywhere = operations(table, row, row, { list: 'get' }, has, wanted);
    if (everywhere) paths[`${root}/${row.resource}`] = everywhere;
  }
  const item = operations(table, row, row, ITEM_METHODS, has, wanted);
  if (item) paths[`${base}/{name}`] = item;
  for (const subresource of row.subresources) {
    const methods = { get: 'get', create: 'post', update: 'put', patch: 'patch', delete: 'delete' };
    const present = (verb: string) => subresource.verbs.includes(verb);
    const entry = operations(table, row, subresource, methods, present, wanted);
    if (entry) paths[`${base}/{name}/${subresource.name}`] = entry;
  }
}

const ACTIONS: Record<string, string> = { create: 'post', update: 'put' };

function operations(
  table: SchemaTable,
  row: ResourceRow,
  target: Target,
  methods: Record<string, string>,
  has: (verb: string) => boolean,
  wanted: Set<string>,
): Json | undefined {
  const entry: Json = {};
  const type = table.typeOfKind(apiVersionOf(target.group, target.version), target.kind);
  if (type) wanted.add(type);
  for (const [verb, method] of Object.entries(methods)) {
    if (!has(verb)) continue;
    const result = verb === 'list' ? listType(table, row) : type;
    entry[method] = {
      ...bodyOf(verb, type),
      parameters: parametersOf(verb),
      responses: { 200: { description: 'OK', ...contentOf(result, ['application/json']) } },
      'x-kubernetes-action': ACTIONS[verb] ?? verb,
      'x-kubernetes-group-version-kind': {
        group: target.group,
        version: target.version,
        kind: target.kind,
      },
    };
  }
  return Object.keys(entry).length === 0 ? undefined : entry;
}

function parametersOf(verb: string): Json[] {
  const query = QUERY[verb as keyof typeof QUERY] ?? {};
  return Object.entries(query).map(([name, type]) => ({
    name,
    in: 'query',
    schema: { type, uniqueItems: true },
  }));
}

function bodyOf(verb: string, type: string | undefined): Json {
  if (verb === 'create' || verb === 'update') {
    return { requestBody: { required: true, ...contentOf(type, ['*/*']) } };
  }
  if (verb === 'patch') {
    const patch = contentOf(`${META}.Patch`, Object.values(PATCH_TYPES));
    return { requestBody: { required: true, ...patch } };
  }
  const deletes = verb === 'delete' || verb === 'deletecollection';
  return deletes ? { requestBody: contentOf(`${META}.DeleteOptions`, ['*/*']) } : {};
}

function contentOf(type: string | undefined, mediaTypes: readonly string[]): Json {
  const schema = type ? { $ref: REF + type } : { type: 'string' };
  return { content: Object.fromEntries(mediaTypes.map((mediaType) => [mediaType, { schema }])) };
}

/** The schemas named, and all that they refer to. */
function schemasOf(table: SchemaTable, roots: Set<string>): Json {
  const schemas: Json = { [`${META}.Patch`]: { type: 'object' } };
  const queue = [...roots].sort();
  const seen = new Set(queue);
  const refer = (name: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    queue.push(name);
  };
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    const leaf = Object.keys(LEAF_NAMES).find((format) => LEAF_NAMES[format] === name);
    const type = table.type(name);
    if (leaf) schemas[name] = LEAF_SCHEMAS[leaf];
    else if (type) schemas[name] = objectSchema(type, refer);
  }
  return Object.fromEntries(Object.entries(schemas).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function objectSchema(type: ObjectType, refer: (name: string) => void): Json {
  const properties: Json = {};
  for (const [field, node] of Object.entries(type.fields))
    properties[field] = nodeSchema(node, refer);
  return {
    type: 'object',
    properties,
    ...(type.required.length > 0 ? { required: type.required } : {}),
    ...(type.mapType ? { 'x-kubernetes-map-type': type.mapType } : {}),
    ...(type.kinds
      ? {
          'x-kubernetes-group-version-kind': type.kinds.map(([group, version, kind]) => {
            return { group, version, kind };
          }),
        }
      : {}),
  };
}

function nodeSchema(node: TypeNode, refer: (name: string) => void): Json {
  return {
    ...shapeOf(node, refer),
    ...(node.default === undefined ? {} : { default: node.default }),
    ...(node.enum ? { enum: node.enum } : {}),
    ...(node.listType ? { 'x-kubernetes-list-type': node.listType } : {}),
    ...(node.listMapKeys ? { 'x-kubernetes-list-map-keys': node.listMapKeys } : {}),
    ...(node.mapType ? { 'x-kubernetes-map-type': node.mapType } : {}),
    ...(node.patchStrategy ? { 'x-kubernetes-patch-strategy': node.patchStrategy } : {}),
    ...(node.patchMergeKey ? { 'x-kubernetes-patch-merge-key': node.patchMergeKey } : {}),
  };
}

function shapeOf(node: TypeNode, refer: (name: string) => void): Json {
  const target = node.ref ?? LEAF_NAMES[node.format ?? ''];
  if (target) {
    refer(target);
    // A reference may have no siblings in OpenAPI 3.0; a default is one.
    return { allOf: [{ $ref: REF + target }] };
  }
  if (node.items) return { type: 'array', items: nodeSchema(node.items, refer) };
  if (node.values) return { type: 'object', additionalProperties: nodeSchema(node.values, refer) };
  if (node.any) return node.format ? {} : { type: 'object' };
  return { type: node.scalar, ...(node.format ? { format: node.format } : {}) };
}
