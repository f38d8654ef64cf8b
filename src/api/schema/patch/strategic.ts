import { badRequest } from '../../status.ts';
import type { SchemaTable, TypeNode } from '../schema.ts';
import { normalizeOrder } from './order.ts';

/**
 * Strategic merge patch: a merge patch that knows which lists are sets and maps, from the
 * `patchStrategy` and `patchMergeKey` of the table, and obeys the directives that kubectl writes:
 *
 *   $patch: replace | delete | merge       in a map, or in an element of a merged list
 *   $retainKeys: [names]                   clears the other keys of the map
 *   $setElementOrder/LIST: [...]           order of a merged list
 *   $deleteFromPrimitiveList/LIST: [...]   values to take out of a merged list of scalars
 *
 * Semantics: apimachinery, `strategicpatch.StrategicMergeMapPatch`.
 */
const DIRECTIVE = '$patch';
const RETAIN_KEYS = '$retainKeys';
const ELEMENT_ORDER = '$setElementOrder/';
const DELETE_FROM_LIST = '$deleteFromPrimitiveList/';

type Fields = Record<string, unknown>;

/** Returns the merged object; both arguments are left alone. Throws 400 for a malformed patch. */
export function applyStrategicMergePatch(
  table: SchemaTable,
  typeName: string,
  original: Fields,
  patch: unknown,
): Fields {
  if (!isFields(patch)) throw badRequest('error decoding patch: a patch is an object');
  return mergeMap(table, { ref: typeName }, original, patch);
}

/** The node of a field under a node; undefined below parts that have no schema. */
function fieldNode(table: SchemaTable, node: TypeNode | undefined, name: string) {
  if (node?.ref) return table.type(node.ref)?.fields[name];
  return node?.values;
}

function mergeMap(
  table: SchemaTable,
  node: TypeNode | undefined,
  original: Fields,
  patch: Fields,
): Fields {
  const directive = patch[DIRECTIVE];
  if (directive === 'replace') return dropDirectives(without(patch, DIRECTIVE)) as Fields;
  if (directive === 'delete') return {};
  if (directive !== undefined && directive !== 'merge') throw badDirective(directive);
  const result = retainKeys(original, patch);
  const ordered = new Set<string>();
  for (const key of Object.keys(patch)) {
    if (key.startsWith(ELEMENT_ORDER)) {
      ordered.add(mergeOrdered(table, node, result, patch, key));
    }
  }
  for (const key of Object.keys(patch)) {
    if (key === DIRECTIVE || key === RETAIN_KEYS || key.startsWith(ELEMENT_ORDER)) continue;
    if (key.startsWith(DELETE_FROM_LIST)) deleteFromList(result, key, patch[key]);
    else if (!ordered.has(key)) {
      const merged = mergeField(table, fieldNode(table, node, key), result[key], patch[key]);
      if (merged === undefined) delete result[key];
      else result[key] = merged;
    }
  }
  return result;
}

function mergeField(
  table: SchemaTable,
  node: TypeNode | undefined,
  original: unknown,
  patch: unknown,
): unknown {
  if (patch === null) return undefined;
  const strategies = (node?.patchStrategy ?? '').split(',');
  if (isFields(patch) && isFields(original) && !strategies.includes('replace')) {
    return mergeMap(table, node, original, patch);
  }
  if (Array.isArray(patch) && Array.isArray(original) && strategies.includes('merge')) {
    return mergeList(table, node, original, patch);
  }
  return dropDirectives(patch);
}

function mergeList(
  table: SchemaTable,
  node: TypeNode | undefined,
  original: unknown[],
  patch: unknown[],
): unknown[] {
  if (patch.length === 0) return original;
  if (!node?.items?.ref) {
    const merged = [...new Set([...original, ...patch])];
    return normalizeOrder(merged, patch, original, undefined);
  }
  const mergeKey = node.patchMergeKey;
  if (!mergeKey) throw badRequest('cannot merge lists of objects without a merge key');
  const { kept, items } = obeyElementDirectives(original, patch, mergeKey);
  const merged = [...kept];
  const indexes = new Map(merged.map((item, index) => [(item as Fields)?.[mergeKey], index]));
  for (const item of items) {
    const key = item[mergeKey];
    const index = indexes.get(key);
    if (index === undefined) {
      indexes.set(key, merged.push(dropDirectives(item)) - 1);
    } else {
      merged[index] = mergeMap(table, node.items, merged[index] as Fields, item);
    }
  }
  return normalizeOrder(merged, items, kept, mergeKey);
}

/** Carries out `$patch` in list elements; gives what is left of the list and of the patch. */
function obeyElementDirectives(
  original: unknown[],
  patch: unknown[],
  mergeKey: string,
): { kept: unknown[]; items: Fields[] } {
  const items: Fields[] = [];
  const deleted = new Set<unknown>();
  let replaced = false;
  for (const item of patch) {
    if (!isFields(item)) throw badRequest('the elements of a merged list must all be objects');
    const directive = item[DIRECTIVE];
    if (directive === 'replace') replaced = true;
    const rest = without(item, DIRECTIVE);
    if (directive === 'delete') {
      requireMergeKey(item, mergeKey);
      deleted.add(item[mergeKey]);
    } else if (directive === undefined || directive === 'merge') {
      requireMergeKey(item, mergeKey);
      items.push(rest);
    } else if (directive !== 'replace') throw badDirective(directive);
    else if (Object.hasOwn(rest, mergeKey)) items.push(rest);
  }
  if (replaced) return { kept: [], items };
  const kept = original.filter((item) => !deleted.has((item as Fields)?.[mergeKey]));
  return { kept, items };
}

function requireMergeKey(item: Fields, mergeKey: string): void {
  if (Object.hasOwn(item, mergeKey)) return;
  const shown = JSON.stringify(item).slice(0, 256);
  throw badRequest(`map: ${shown} does not contain declared merge key: ${mergeKey}`);
}

/** Merges a list and then puts it into the order that the patch asks for. Returns its name. */
function mergeOrdered(
  table: SchemaTable,
  node: TypeNode | undefined,
  result: Fields,
  patch: Fields,
  key: string,
): string {
  const name = key.slice(ELEMENT_ORDER.length);
  const order = patch[key];
  if (!Array.isArray(order)) throw badRequest(`${key} must be a list`);
  const listNode = fieldNode(table, node, name);
  const mergeKey = listNode?.patchMergeKey;
  const given = patch[name];
  if (given === null) {
    delete result[name];
    return name;
  }
  const original = Array.isArray(result[name]) ? (result[name] as unknown[]) : undefined;
  const items = Array.isArray(given) ? given : undefined;
  if (items) checkOrderCovers(items, order, mergeKey, key);
  if (!original && !items) return name;
  const merged = items ? mergeField(table, listNode, original ?? [], items) : original;
  result[name] = normalizeOrder(merged as unknown[], order, original ?? [], mergeKey);
  return name;
}

/** Every element that stays in the list must have its place in the order. */
function checkOrderCovers(
  items: unknown[],
  order: unknown[],
  mergeKey: string | undefined,
  key: string,
): void {
  const identity = (item: unknown) => (mergeKey ? (item as Fields)?.[mergeKey] : item);
  const known = new Set(order.map(identity));
  for (const item of items) {
    const directive = isFields(item) ? item[DIRECTIVE] : undefined;
    if (directive !== undefined && directive !== 'merge') continue;
    if (known.has(identity(item))) continue;
    const shown = JSON.stringify(identity(item) ?? null).slice(0, 128);
    throw badRequest(`the order in patch list: ${key} does not contain ${shown}`);
  }
}

function deleteFromList(result: Fields, key: string, values: unknown): void {
  const name = key.slice(DELETE_FROM_LIST.length);
  if (!Array.isArray(values)) throw badRequest(`${key} must be a list`);
  const list = result[name];
  if (!Array.isArray(list)) return;
  const gone = new Set<unknown>(values);
  result[name] = list.filter((value) => !gone.has(value));
}

function retainKeys(original: Fields, patch: Fields): Fields {
  const retained = patch[RETAIN_KEYS];
  if (retained === undefined) return { ...original };
  if (!Array.isArray(retained)) throw badRequest(`${RETAIN_KEYS} must be a list`);
  const names = new Set<unknown>(retained);
  for (const key of Object.keys(patch)) {
    if (key.startsWith('$') || names.has(key) || patch[key] === null) continue;
    throw badRequest(`${RETAIN_KEYS} does not contain all fields present in the patch: ${key}`);
  }
  return Object.fromEntries(Object.entries(original).filter(([key]) => names.has(key)));
}

/** A value as it is stored when there is nothing to merge it with. */
function dropDirectives(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.filter((item) => !isInstruction(item)).map((item) => dropDirectives(item));
  }
  if (!isFields(value)) return value;
  const out: Fields = {};
  for (const key of Object.keys(value)) {
    const directive = key === DIRECTIVE || key === RETAIN_KEYS;
    if (directive || key.startsWith(ELEMENT_ORDER) || key.startsWith(DELETE_FROM_LIST)) continue;
    if (value[key] !== null) out[key] = dropDirectives(value[key]);
  }
  return out;
}

/** An element that deletes, or `- $patch: replace` alone, says what to do and is no element. */
function isInstruction(item: unknown): boolean {
  if (!isFields(item) || item[DIRECTIVE] === undefined) return false;
  return item[DIRECTIVE] === 'delete' || Object.keys(item).length === 1;
}

function without(fields: Fields, key: string): Fields {
  const { [key]: _dropped, ...rest } = fields;
  return rest;
}

function badDirective(directive: unknown) {
  return badRequest(`unknown patch type found: ${String(directive).slice(0, 64)}`);
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
