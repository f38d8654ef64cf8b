import type { KubeObject } from '../../api/object.ts';
import type { ResourceRow } from '../../api/schema/schema.ts';
import type { StatusError } from '../../api/status.ts';
import type { Entry, StoreEvent, StoreEventType } from '../../store/store.ts';
import type { Representation } from '../codec/negotiate.ts';
import { encodeJson } from '../codec/reply.ts';
import { metadataOnly, tableHead, tableRows } from '../codec/represent.ts';
import type { IncludeObject } from '../codec/represent.ts';
import { apiVersionOf, bytesOf, objectOf } from '../registry/resource.ts';
import type { LineCache } from './line-cache.ts';

/** Writes the lines of a watch. Lines are shared by all watchers of one representation. */
export interface WatchEncoder {
  entry(type: StoreEventType, entry: Entry): Uint8Array;
  /** DELETED, for an object that no longer matches: its previous state at the event's revision. */
  departure(event: StoreEvent): Uint8Array;
  bookmark(revision: number): Uint8Array;
  error(error: StatusError): Uint8Array;
}

const LINE_END = Buffer.from('}\n');

export function createWatchEncoder(
  row: ResourceRow,
  representation: Representation,
  lines: LineCache,
  options: { includeObject: IncludeObject; nowMs: () => number },
): WatchEncoder {
  const { shape, metaVersion } = representation;
  const shapeKey = [apiVersionOf(row), shape, metaVersion, options.includeObject].join(' ');
  const represent = (object: KubeObject): Uint8Array => {
    if (shape === 'metadata') return encodeJson(metadataOnly(object, metaVersion));
    const { includeObject } = options;
    const rows = tableRows(row, [object], { includeObject, metaVersion, nowMs: options.nowMs() });
    const metadata = { resourceVersion: object.metadata.resourceVersion };
    return encodeJson({ ...tableHead(row, metaVersion), metadata, rows });
  };
  const shared = (owner: object, type: string, make: () => Uint8Array): Uint8Array =>
    lines.get(owner, `${type} ${shapeKey}`, () => lineOf(type, make()));
  return {
    entry: (type, entry) =>
      shared(entry, type, () =>
        shape === 'object' ? bytesOf(row, entry) : represent(objectOf(row, entry)),
      ),
    departure: (event) =>
      shared(event, 'DELETED', () => {
        const previous = objectOf(row, event.previous ?? event.entry);
        const resourceVersion = String(event.revision);
        const object = { ...previous, metadata: { ...previous.metadata, resourceVersion } };
        return shape === 'object' ? encodeJson(object) : represent(object);
      }),
    bookmark: (revision) => lineOf('BOOKMARK', bookmarkObject(row, representation, revision)),
    error: (error) => lineOf('ERROR', encodeJson(error.toStatus())),
  };
}

function bookmarkObject(
  row: ResourceRow,
  representation: Representation,
  revision: number,
): Uint8Array {
  const metadata = { resourceVersion: String(revision), creationTimestamp: null };
  const { shape, metaVersion } = representation;
  if (shape === 'metadata') {
    const apiVersion = `meta.k8s.io/${metaVersion}`;
    return encodeJson({ kind: 'PartialObjectMetadata', apiVersion, metadata });
  }
  if (shape === 'table') {
    const listMetadata = { resourceVersion: String(revision) };
    return encodeJson({ ...tableHead(row, metaVersion), metadata: listMetadata, rows: [] });
  }
  return encodeJson({ kind: row.kind, apiVersion: apiVersionOf(row), metadata });
}

function lineOf(type: string, object: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`{"type":"${type}","object":`), object, LINE_END]);
}
