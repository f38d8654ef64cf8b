import { createHash } from 'node:crypto';
import { buildDocument } from './openapi.ts';
import type { OpenApiDocument } from './openapi.ts';
import { encodeOpenApiV2 } from './openapi-v2-protobuf.ts';
import type { SchemaTable } from './schema.ts';

/**
 * OpenAPI v2, one document for all groups: what clients read that are older than v3, and newer
 * ones for a kind that v3 does not name. Rewritten from v3, so the two cannot disagree.
 */
type Json = Record<string, unknown>;

export interface OpenApiV2Documents {
  json: OpenApiDocument;
  /** The same in gnostic's protobuf messages. */
  protobuf: OpenApiDocument;
}

/**
 * Media types of the protobuf form. Clients ask for a name that is none by the grammar of media
 * types, and refuse to read an answer of that name: the `@` becomes a dot.
 */
export const OPENAPI_V2_PROTOBUF = {
  asked: 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf',
  answered: 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf',
};

const documents = new WeakMap<SchemaTable, OpenApiV2Documents>();

/** `GET /openapi/v2`; encoded when first asked for. */
export function openApiV2Documents(table: SchemaTable): OpenApiV2Documents {
  const known = documents.get(table);
  if (known) return known;
  const document = toV2(buildDocument(table, table.rows()));
  const made = {
    json: encoded(Buffer.from(JSON.stringify(document))),
    protobuf: encoded(encodeOpenApiV2(document)),
  };
  documents.set(table, made);
  return made;
}

function encoded(bytes: Uint8Array): OpenApiDocument {
  return { bytes, hash: createHash('sha512').update(bytes).digest('hex').toUpperCase() };
}

function toV2(document: Json): Json {
  const { schemas } = document['components'] as { schemas: Record<string, Json> };
  const paths = document['paths'] as Record<string, Record<string, Json>>;
  return {
    swagger: '2.0',
    info: document['info'],
    paths: mapValues(paths, (item) => mapValues(item, operationToV2)),
    definitions: mapValues(schemas, schemaToV2),
  };
}

function operationToV2(operation: Json): Json {
  const { requestBody, responses, parameters, ...rest } = operation;
  const body = contentOf(requestBody as Json | undefined);
  const query = (parameters as Json[]).map(({ name, in: place, schema }) => {
    return { name, in: place, ...(schema as Json) };
  });
  const bodies = body.schema ? [{ name: 'body', in: 'body', schema: body.schema }] : [];
  return {
    ...rest,
    ...(body.schema ? { consumes: body.mediaTypes } : {}),
    produces: ['application/json'],
    parameters: [...bodies, ...query],
    responses: mapValues(responses as Record<string, Json>, (response) => {
      const { schema } = contentOf(response);
      return { description: response['description'], ...(schema ? { schema } : {}) };
    }),
  };
}

function contentOf(holder: Json | undefined): { mediaTypes: string[]; schema: Json | undefined } {
  const content = (holder?.['content'] ?? {}) as Record<string, { schema: Json }>;
  const schema = Object.values(content)[0]?.schema;
  return { mediaTypes: Object.keys(content), schema: schema && schemaToV2(schema) };
}

/** Without defaults and enums: Kubernetes' own v2 document has neither. */
function schemaToV2(schema: Json): Json {
  const { allOf, oneOf, default: _default, enum: _enum, ...rest } = schema;
  const result: Json = { ...rest };
  const reference = (allOf as Json[] | undefined)?.[0]?.['$ref'] ?? rest['$ref'];
  if (reference) result['$ref'] = (reference as string).replace(V3_REF, V2_REF);
  // Of several types a v2 schema can only name the widest.
  if (oneOf) result['type'] = 'string';
  for (const key of ['items', 'additionalProperties']) {
    if (rest[key]) result[key] = schemaToV2(rest[key] as Json);
  }
  if (rest['properties']) {
    result['properties'] = mapValues(rest['properties'] as Record<string, Json>, schemaToV2);
  }
  return result;
}

const V3_REF = '#/components/schemas/';
const V2_REF = '#/definitions/';

function mapValues<A, B>(object: Record<string, A>, map: (value: A) => B): Record<string, B> {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, map(value)]));
}
