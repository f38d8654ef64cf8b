import type { TypeNode } from '../../src/api/schema/schema.ts';
import type { TypeFacts } from './facts.ts';

/** The part of an OpenAPI v3 schema that Kubernetes publishes. */
export interface OpenApiSchema {
  type?: string;
  format?: string;
  $ref?: string;
  allOf?: OpenApiSchema[];
  oneOf?: OpenApiSchema[];
  properties?: Record<string, OpenApiSchema>;
  required?: string[];
  items?: OpenApiSchema;
  additionalProperties?: OpenApiSchema;
  default?: unknown;
  enum?: string[];
  'x-kubernetes-list-type'?: TypeNode['listType'];
  'x-kubernetes-list-map-keys'?: string[];
  'x-kubernetes-map-type'?: TypeNode['mapType'];
  'x-kubernetes-patch-strategy'?: string;
  'x-kubernetes-patch-merge-key'?: string;
  'x-kubernetes-unions'?: {
    discriminator?: string;
    'fields-to-discriminateBy': Record<string, string>;
  }[];
  'x-kubernetes-group-version-kind'?: { group: string; version: string; kind: string }[];
}

const REF_PREFIX = '#/components/schemas/';
const META = 'io.k8s.apimachinery.pkg.apis.meta.v1';
const EXTENSIONS = 'io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1';

/** Types whose JSON is not an object of fields: the node that stands for each. */
const LEAVES: Record<string, TypeNode> = {
  'io.k8s.apimachinery.pkg.api.resource.Quantity': { scalar: 'string', format: 'quantity' },
  'io.k8s.apimachinery.pkg.util.intstr.IntOrString': { scalar: 'string', format: 'int-or-string' },
  [`${META}.Time`]: { scalar: 'string', format: 'date-time' },
  [`${META}.MicroTime`]: { scalar: 'string', format: 'micro-time' },
  [`${META}.Duration`]: { scalar: 'string', format: 'duration' },
  [`${META}.FieldsV1`]: { any: true, format: 'fields-v1' },
  'io.k8s.apimachinery.pkg.runtime.RawExtension': { any: true, format: 'raw-extension' },
  [`${EXTENSIONS}.JSON`]: { any: true, format: 'json' },
  [`${EXTENSIONS}.JSONSchemaPropsOrArray`]: { any: true, format: 'json-schema-or-array' },
  [`${EXTENSIONS}.JSONSchemaPropsOrBool`]: { any: true, format: 'json-schema-or-bool' },
  [`${EXTENSIONS}.JSONSchemaPropsOrStringArray`]: {
    any: true,
    format: 'json-schema-or-string-array',
  },
};

export function isLeaf(typeName: string): boolean {
  return typeName in LEAVES;
}

/** Turns one property's schema into a type node. Throws on a construct it does not know. */
function typeNode(schema: OpenApiSchema): TypeNode {
  const node: TypeNode = { ...baseNode(schema) };
  if (schema.default !== undefined) node.default = schema.default;
  if (schema.enum) node.enum = schema.enum;
  if (schema['x-kubernetes-list-type']) node.listType = schema['x-kubernetes-list-type'];
  if (schema['x-kubernetes-list-map-keys']) node.listMapKeys = schema['x-kubernetes-list-map-keys'];
  if (schema['x-kubernetes-map-type']) node.mapType = schema['x-kubernetes-map-type'];
  const strategy = schema['x-kubernetes-patch-strategy'];
  if (strategy) node.patchStrategy = strategy;
  const mergeKey = schema['x-kubernetes-patch-merge-key'];
  if (mergeKey) node.patchMergeKey = mergeKey;
  return node;
}

function baseNode(schema: OpenApiSchema): TypeNode {
  const target = schema.$ref ?? schema.allOf?.[0]?.$ref;
  if (target) {
    const name = target.slice(REF_PREFIX.length);
    return LEAVES[name] ?? { ref: name };
  }
  if (schema.items) return { items: typeNode(schema.items) };
  if (schema.additionalProperties) return { values: typeNode(schema.additionalProperties) };
  if (schema.type === 'object') return { any: true };
  const scalar = schema.type;
  if (scalar !== 'string' && scalar !== 'integer' && scalar !== 'number' && scalar !== 'boolean') {
    throw new Error(`cannot read schema ${JSON.stringify(schema)}: type is "${scalar}"`);
  }
  return schema.format ? { scalar, format: schema.format } : { scalar };
}

/** Facts of one object type; `intern` gives the index of a node, the same for equal nodes. */
export function typeFacts(schema: OpenApiSchema, intern: (node: TypeNode) => number): TypeFacts {
  const fields: Record<string, number> = {};
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    fields[name] = intern(typeNode(property));
  }
  const facts: TypeFacts = { fields };
  if (schema.required) facts.required = [...schema.required].sort();
  const mapType = schema['x-kubernetes-map-type'];
  if (mapType) facts.mapType = mapType;
  const unions = schema['x-kubernetes-unions'];
  if (unions) {
    facts.unions = unions.map((union) => ({
      discriminator: union.discriminator ?? '',
      fields: Object.keys(union['fields-to-discriminateBy']),
    }));
  }
  const kinds = schema['x-kubernetes-group-version-kind'];
  // Options and watch events list every group that exists; the core group stands for all of them.
  const own = kinds && kinds.length > 2 ? kinds.filter((kind) => kind.group === '') : kinds;
  if (own) facts.kinds = own.map(({ group, version, kind }) => [group, version, kind]);
  return facts;
}
