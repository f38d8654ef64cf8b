import type { KubeObject } from '../object.ts';
import { age, get, name } from './printers/cells.ts';
import type { Printer } from './printers/cells.ts';
import { CORE_PRINTERS } from './printers/core.ts';
import { GROUP_PRINTERS } from './printers/groups.ts';
import { OWN_PRINTERS } from './printers/own.ts';
import type { ResourceRow } from './schema.ts';

const printers: Record<string, Printer> = {
  ...CORE_PRINTERS,
  ...GROUP_PRINTERS,
  ...OWN_PRINTERS,
};

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
