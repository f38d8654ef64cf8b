import type { KubeObject } from '../../api/object.ts';
import type { ResourceRow } from '../../api/schema/schema.ts';
import { StatusError } from '../../api/status.ts';
import { printCells } from '../../api/schema/printer.ts';
import type { ApiReply } from '../server/exchange.ts';
import { encodeJson, jsonReply, valueReply } from './reply.ts';
import type { Representation } from './negotiate.ts';

/** How much of an object a table's row carries. */
export type IncludeObject = 'None' | 'Metadata' | 'Object';

const INCLUDES = new Set<string>(['None', 'Metadata', 'Object']);

/** What the query asks of a table. @throws StatusError 400 */
export function includeObjectOf(query: URLSearchParams): IncludeObject {
  const value = query.get('includeObject') || 'Metadata';
  if (INCLUDES.has(value)) return value as IncludeObject;
  const wanted = [...INCLUDES].join(', ');
  const message = `the query parameter "includeObject" is "${value}", it has to be in ${wanted}`;
  throw new StatusError('BadRequest', message);
}

/** `PartialObjectMetadata`, by which kubectl knows what a row stands for. */
export function metadataOnly(object: KubeObject, metaVersion: string): KubeObject {
  const apiVersion = `meta.k8s.io/${metaVersion}`;
  return { kind: 'PartialObjectMetadata', apiVersion, metadata: object.metadata };
}

/** A table without its rows and its metadata. */
export function tableHead(row: ResourceRow, metaVersion: string) {
  return {
    kind: 'Table',
    apiVersion: `meta.k8s.io/${metaVersion}`,
    columnDefinitions: row.columns,
  };
}

export interface TableRow {
  cells: unknown[];
  object?: KubeObject;
}

/** One row for each object, with as much of it as the client asked for. */
export function tableRows(
  row: ResourceRow,
  objects: KubeObject[],
  options: { includeObject: IncludeObject; metaVersion: string; nowMs: number },
): TableRow[] {
  return objects.map((object) => {
    const cells = printCells(row, object, options.nowMs);
    if (options.includeObject === 'None') return { cells };
    if (options.includeObject === 'Object') return { cells, object };
    return { cells, object: metadataOnly(object, options.metaVersion) };
  });
}

/** One object, shown as the client wants it. `bytes` saves encoding one that is stored. */
export function objectReply(
  status: number,
  row: ResourceRow,
  object: KubeObject,
  representation: Representation,
  options: { includeObject: IncludeObject; nowMs: number; bytes?: Uint8Array },
): ApiReply {
  const { shape, metaVersion, encoding } = representation;
  if (shape === 'object' && encoding === 'json') {
    const reply = jsonReply(status, null);
    return { ...reply, body: options.bytes ?? encodeJson(object) };
  }
  if (shape === 'object') return valueReply(status, object, representation);
  if (shape === 'metadata') {
    return valueReply(status, metadataOnly(object, metaVersion), representation);
  }
  const metadata = { resourceVersion: object.metadata.resourceVersion };
  const rows = tableRows(row, [object], { ...options, metaVersion });
  return valueReply(status, { ...tableHead(row, metaVersion), metadata, rows }, representation);
}
