import type { KubeObject } from '../../api/object.ts';
import type { ResourceRow, SchemaTable } from '../../api/schema/schema.ts';
import type { Entry, Key } from '../../store/store.ts';
import { encodeJson } from '../codec/reply.ts';
import { convert } from './conversion.ts';

/** `v1`, `apps/v1`. */
export function apiVersionOf(row: ResourceRow): string {
  return row.group ? `${row.group}/${row.version}` : row.version;
}

/** The row in whose version a kind is stored; the row itself for nearly all. */
function storageRow(schema: SchemaTable, row: ResourceRow): ResourceRow {
  if (row.storageVersion === apiVersionOf(row)) return row;
  return schema.byKind(row.storageVersion, row.kind) ?? row;
}

/** The store's name of a resource, the same for every version of it. */
export function storeResource(schema: SchemaTable, row: ResourceRow): string {
  const stored = storageRow(schema, row);
  return stored.group ? `${stored.group}/${stored.resource}` : stored.resource;
}

export function keyOf(schema: SchemaTable, row: ResourceRow, namespace: string, name: string): Key {
  const resource = storeResource(schema, row);
  return { resource, namespace: row.namespaced ? namespace : '', name };
}

interface View {
  object: KubeObject;
  bytes: Uint8Array | undefined;
}

/** What an entry looks like in versions it is not stored in, by the version. */
const views = new WeakMap<Entry, Map<string, View>>();

function viewOf(row: ResourceRow, entry: Entry): View {
  let byVersion = views.get(entry);
  if (!byVersion) views.set(entry, (byVersion = new Map()));
  const version = apiVersionOf(row);
  let view = byVersion.get(version);
  if (!view) {
    view = { object: convert(entry.object, version), bytes: undefined };
    byVersion.set(version, view);
  }
  return view;
}

function isStored(row: ResourceRow, entry: Entry): boolean {
  return entry.object.apiVersion === apiVersionOf(row);
}

/** The entry's object in the row's version. Immutable. */
export function objectOf(row: ResourceRow, entry: Entry): KubeObject {
  return isStored(row, entry) ? entry.object : viewOf(row, entry).object;
}

/** The same as JSON, encoded at most once. */
export function bytesOf(row: ResourceRow, entry: Entry): Uint8Array {
  if (isStored(row, entry)) return entry.bytes;
  const view = viewOf(row, entry);
  view.bytes ??= encodeJson(view.object);
  return view.bytes;
}

export function toStorage(schema: SchemaTable, row: ResourceRow, object: KubeObject): KubeObject {
  return convert(object, apiVersionOf(storageRow(schema, row)));
}

const PLAIN = { enumerable: true, writable: true, configurable: true };

/** A copy that may be changed. The values of the object model are JSON values. */
export function cloneObject<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(cloneObject) as T;
  const copy: Record<string, unknown> = {};
  for (const key of Object.keys(value)) {
    const cloned = cloneObject((value as Record<string, unknown>)[key]);
    // A ConfigMap may have this key: assigned plainly, it would change the copy's prototype.
    if (key === '__proto__') Object.defineProperty(copy, key, { ...PLAIN, value: cloned });
    else copy[key] = cloned;
  }
  return copy as T;
}
