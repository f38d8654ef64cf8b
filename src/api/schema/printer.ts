import type { KubeObject, ListMeta } from '../object.ts';
import { age, get, name } from './printers/cells.ts';
import type { Printer } from './printers/cells.ts';
import { CORE_PRINTERS } from './printers/core.ts';
import { GROUP_PRINTERS } from './printers/groups.ts';
import type { PrinterColumn, ResourceRow } from './schema.ts';

export type IncludeObject = 'None' | 'Metadata' | 'Object';

/** `metav1.Table`. */
export interface Table {
  kind: 'Table';
  apiVersion: 'meta.k8s.io/v1';
  metadata: ListMeta;
  columnDefinitions: PrinterColumn[];
  rows: TableRow[];
}

export interface TableRow {
  cells: unknown[];
  object?: unknown;
}

const printers: Record<string, Printer> = { ...CORE_PRINTERS, ...GROUP_PRINTERS };

/** Name and creation time, where Kubernetes has no printer of the kind. */
const printOther: Printer = (object) => [
  name(object),
  get(object, 'metadata.creationTimestamp') ?? null,
];

/** The cells of one object, one for each of the row's columns. `nowMs` is the server's time. */
export function printCells(row: ResourceRow, object: KubeObject, nowMs: number): unknown[] {
  const printer = printers[row.group ? `${row.resource}.${row.group}` : row.resource];
  if (printer) return printer(object, nowMs);
  if (row.columns.at(-1)?.name === 'Age') return [name(object), age(object, nowMs)];
  return printOther(object, nowMs);
}

/** One row of a table: in lists and, alone in its table, in watch events. */
export function tableRow(
  row: ResourceRow,
  object: KubeObject,
  nowMs: number,
  includeObject: IncludeObject = 'Metadata',
): TableRow {
  const cells = printCells(row, object, nowMs);
  if (includeObject === 'None') return { cells };
  if (includeObject === 'Object') return { cells, object };
  return { cells, object: partialMetadata(object) };
}

/** `PartialObjectMetadata`, by which kubectl knows what a row stands for. */
export function partialMetadata(object: KubeObject): object {
  return {
    kind: 'PartialObjectMetadata',
    apiVersion: 'meta.k8s.io/v1',
    metadata: object.metadata,
  };
}

/** The answer to a list or get that asks `as=Table`. */
export function toTable(
  row: ResourceRow,
  objects: readonly KubeObject[],
  options: { nowMs: number; includeObject?: IncludeObject; metadata?: ListMeta },
): Table {
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: options.metadata ?? {},
    columnDefinitions: row.columns,
    rows: objects.map((object) => tableRow(row, object, options.nowMs, options.includeObject)),
  };
}
