import type { KubeObject } from '../../api/object.ts';
import type { ResourceRow, SchemaTable } from '../../api/schema/schema.ts';
import type { StatusCause } from '../../api/status.ts';

export function printCells(row: ResourceRow, object: KubeObject, _nowMs: number): unknown[] {
  return row.columns.map((column) => (column.name === 'Name' ? object.metadata.name : ''));
}
export function applyDefaults(_row: ResourceRow, object: KubeObject): KubeObject {
  return object;
}
export function validateObject(
  _row: ResourceRow,
  _object: KubeObject,
  _old: KubeObject | undefined,
): StatusCause[] {
  return [];
}
export function patchObject(
  _schema: SchemaTable,
  _row: ResourceRow,
  object: KubeObject,
  _type: PatchType,
  patch: unknown,
): KubeObject {
  return { ...object, ...(patch as object) };
}
export type PatchType = 'json' | 'merge' | 'strategic';
