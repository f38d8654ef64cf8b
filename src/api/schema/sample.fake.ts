import type { Random } from '../../base/random.ts';
import type { ProtobufMessage, ResourceRow, SchemaTable, TypeNode } from './schema.ts';
import { apiVersionOf } from './table.ts';

/** How deep samples go: deeper parts are left out, so that every sample ends. */
const DEPTH_MAX = 9;
const WORDS = ['a', 'web', 'x-1', 'node', 'Z', 'é', 'a.b/c', '10', 'true'];

/** Valid values of any type, in canonical form and without empty or zero values. */
export interface Sampler {
  object(row: ResourceRow): Record<string, unknown>;
  value(typeName: string): Record<string, unknown>;
}

/** With `protobufOnly`, fields that have no protobuf number are left out; lists have 2 elements. */
export function sampler(
  table: SchemaTable,
  random: Random,
  options: { protobufOnly?: boolean; density?: number; listLength?: number } = {},
): Sampler {
  const density = options.density ?? 0.3;
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random.next() * list.length)] as T;
  const integer = () => 1 + Math.floor(random.next() * 1000);

  const fieldsOf = (typeName: string): Set<string> | undefined => {
    const message = table.type(typeName)?.message;
    return options.protobufOnly && message ? numbered(table, table.message(message)) : undefined;
  };

  const ofType = (typeName: string, depth: number): Record<string, unknown> => {
    const type = table.type(typeName);
    const out: Record<string, unknown> = {};
    const known = fieldsOf(typeName);
    for (const [field, node] of Object.entries(type?.fields ?? {})) {
      if (type?.kinds && (field === 'apiVersion' || field === 'kind')) continue;
      if (known && !known.has(field)) continue;
      const required = type?.required.includes(field) || field === 'metadata';
      if (required || (depth < DEPTH_MAX && random.next() < density)) {
        out[field] = ofNode(node, depth + 1);
      }
    }
    return out;
  };

  const ofNode = (node: TypeNode, depth: number): unknown => {
    if (node.ref) return ofType(node.ref, depth);
    const { items } = node;
    if (items) {
      return Array.from({ length: options.listLength ?? 2 }, () => ofItem(node, items, depth));
    }
    if (node.values) return { [pick(WORDS)]: ofNode(node.values, depth) };
    if (node.any) return { sample: [integer(), { nested: pick(WORDS) }] };
    if (node.scalar === 'boolean') return true;
    if (node.scalar === 'integer') return integer();
    if (node.scalar === 'number') return integer() + 0.5;
    return ofFormat(node.format);
  };

  /** An element carries its merge key, without which no list of its kind can be merged. */
  const ofItem = (list: TypeNode, items: TypeNode, depth: number): unknown => {
    const item = ofNode(items, depth);
    const key = list.patchMergeKey;
    const keyNode = key === undefined ? undefined : table.type(items.ref ?? '')?.fields[key];
    if (key !== undefined && keyNode)
      (item as Record<string, unknown>)[key] ??= ofNode(keyNode, depth);
    return item;
  };

  const ofFormat = (format: string | undefined): unknown => {
    switch (format) {
      case 'quantity':
        return pick(['1', '500m', '1Gi', '3e6', '1500Mi', '7n', '2k']);
      case 'int-or-string':
        return random.next() < 0.5 ? integer() : pick(['25%', 'http', '7']);
      case 'date-time':
        return new Date(integer() * 1e9).toISOString().replace(/\.\d+Z$/, 'Z');
      case 'micro-time':
        return new Date(integer() * 1e9).toISOString().replace(/\.\d+Z$/, '.123456Z');
      case 'byte':
        return Buffer.from(random.bytes(1 + (integer() % 7))).toString('base64');
      case 'duration':
        return '1m30s';
      default:
        return pick(WORDS);
    }
  };

  return {
    value: (typeName) => ofType(typeName, 0),
    object: (row) => ({
      apiVersion: apiVersionOf(row.group, row.version),
      kind: row.kind,
      ...ofType(row.type, 0),
    }),
  };
}

/** Names of the fields of a message, with those of the messages embedded in it. */
function numbered(table: SchemaTable, message: ProtobufMessage | undefined): Set<string> {
  const names = new Set<string>();
  for (const [name, [, type]] of Object.entries(message ?? {})) {
    if (!type.startsWith('inline ')) names.add(name);
    else for (const inner of numbered(table, table.message(type.slice(7)))) names.add(inner);
  }
  return names;
}
