/**
 * Makes the committed facts about Kubernetes' kinds from its OpenAPI v3 documents and a list of
 * protobuf field numbers:
 *
 *   node tools/schema/generate.ts --openapi DIR --protobuf FILE
 *
 * Writes `src/api/schema/generated/facts.json` and `src/api/types.generated.ts`; equal input gives
 * equal bytes. Only generally available versions (`v1`, `v2`) are taken.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { TypeNode } from '../../src/api/schema/schema.ts';
import type { Facts } from './facts.ts';
import { completeFields, messageName, reachableMessages } from './messages.ts';
import type { ProtobufFields } from './messages.ts';
import { resourcesOf } from './resources.ts';
import type { Paths } from './resources.ts';
import { SUPPLEMENT } from './supplement.ts';
import { isLeaf, typeFacts } from './types.ts';
import type { OpenApiSchema } from './types.ts';
import { typescriptOf } from './typescript.ts';

const KUBERNETES_VERSION = '1.35';
const DOCUMENT = /^(?:api|apis__(.+))__(v\d+)\.json$/;

interface Document {
  components: { schemas: Record<string, OpenApiSchema> };
  paths: Paths;
}

function readFacts(openapiFolder: string, protobufFile: string): Facts {
  const nodes: TypeNode[] = [];
  const indexes = new Map<string, number>();
  const intern = (node: TypeNode): number => {
    const key = JSON.stringify(node);
    const index = indexes.get(key) ?? nodes.push(node) - 1;
    indexes.set(key, index);
    return index;
  };
  const types: Facts['types'] = {};
  const documents: { group: string; version: string; paths: Paths }[] = [];
  for (const file of readdirSync(openapiFolder).sort()) {
    const match = DOCUMENT.exec(file);
    if (!match) continue;
    const document = JSON.parse(readFileSync(join(openapiFolder, file), 'utf8')) as Document;
    documents.push({ group: match[1] ?? '', version: match[2] ?? '', paths: document.paths });
    for (const [name, schema] of Object.entries(document.components.schemas)) {
      if (!isLeaf(name)) types[name] ??= typeFacts(schema, intern);
    }
  }
  const typeOfKind = new Map<string, string>();
  for (const [name, type] of Object.entries(types)) {
    for (const kind of type.kinds ?? []) typeOfKind.set(kind.join('/'), name);
  }
  const resources = documents.flatMap(({ group, version, paths }) =>
    resourcesOf(group, version, paths, (...kind) => typeOfKind.get(kind.join('/')) ?? ''),
  );
  const listed = JSON.parse(readFileSync(protobufFile, 'utf8')) as ProtobufFields;
  const messages = reachableMessages(types, completeFields(listed, SUPPLEMENT));
  for (const [name, type] of Object.entries(types)) {
    if (messages[messageName(name)]) type.message = messageName(name);
  }
  return { kubernetes: KUBERNETES_VERSION, nodes, types, messages, resources };
}

function main(): void {
  const { values } = parseArgs({
    options: { openapi: { type: 'string' }, protobuf: { type: 'string' } },
  });
  if (!values.openapi || !values.protobuf) {
    throw new Error(
      'cannot generate the schema table: --openapi DIR and --protobuf FILE are needed',
    );
  }
  const facts = readFacts(values.openapi, values.protobuf);
  const source = join(import.meta.dirname, '..', '..', 'src', 'api');
  writeFileSync(join(source, 'schema', 'generated', 'facts.json'), `${JSON.stringify(facts)}\n`);
  writeFileSync(join(source, 'types.generated.ts'), typescriptOf(facts));
}

main();
