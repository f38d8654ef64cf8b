import { StatusError } from '../../api/status.ts';
import { CompactedError, FutureRevisionError } from '../../store/store.ts';
import type { Entry, ListResult } from '../../store/store.ts';
import { encodeJson, valueReply } from '../codec/reply.ts';
import type { Representation } from '../codec/negotiate.ts';
import { negotiate } from '../codec/negotiate.ts';
import { metadataOnly, tableHead, tableRows, includeObjectOf } from '../codec/represent.ts';
import type { ResourceContext } from '../context.ts';
import type { ApiReply } from '../server/exchange.ts';
import { confinedSelection, confinementOf } from '../tenancy/confinement.ts';
import type { Confinement } from '../tenancy/confinement.ts';
import { encodeContinue } from './continue.ts';
import { parseListOptions } from './list-options.ts';
import type { ListOptions } from './list-options.ts';
import { apiVersionOf, bytesOf, objectOf, storeResource } from './resource.ts';
import { selectionOf } from './selection.ts';
import type { Predicate } from './selection.ts';

/** How many entries are looked at between two looks at the limit, when a selector filters. */
const SCAN_COUNT = 2_000;
/** Pieces of a list are joined to chunks of about this size before they are written. */
const CHUNK_BYTES = 128 * 1024;
/** Objects that are turned into rows before other requests get their turn. */
const TABLE_BATCH_COUNT = 200;

export interface Selected {
  entries: Entry[];
  revision: number;
  continueToken: string | undefined;
  remainingItemCount: number | undefined;
}

/** GET of a collection. */
export async function handleList(context: ResourceContext): Promise<ApiReply> {
  const { exchange } = context;
  const representation = negotiate(exchange.headers.accept);
  const selected = await select(context, parseListOptions(exchange.query, false));
  return listReply(context, selected, representation);
}

/**
 * The entries that the options ask for, exact at one revision.
 *
 * @throws StatusError 410 with a fresh token when a page's revision is no longer known, 504 when
 *   a revision is asked for that was not given out yet
 */
export async function select(context: ResourceContext, options: ListOptions): Promise<Selected> {
  const { server, row, info } = context;
  const resource = storeResource(server.schema, row);
  const confinement = confinementOf(context, row);
  const { partition, view } = confinement;
  const predicate = confinedSelection(confinement, selectionOf(row, options, info.name));
  const atRevision = await settleRevision(context, options);
  const namespace = row.namespaced && info.namespace ? info.namespace : undefined;
  const after = options.continue?.after;
  const page = {
    ...(namespace === undefined ? {} : { namespace }),
    ...(partition === undefined ? {} : { partition }),
    ...(atRevision === undefined ? {} : { atRevision }),
    ...(after ? { after } : {}),
  };
  try {
    if (!predicate) {
      const limit = options.limit > 0 ? { limit: options.limit } : {};
      return shown(paged(server.store.list(resource, { ...page, ...limit }), atRevision), view);
    }
    return shown(scan(context, resource, page, predicate, options.limit), view);
  } catch (error) {
    if (error instanceof CompactedError && after) throw expiredToken(after);
    throw error;
  }
}

function shown(selected: Selected, view: Confinement['view']): Selected {
  return view ? { ...selected, entries: selected.entries.map(view) } : selected;
}

/** @returns the revision at which to list, undefined for the newest */
async function settleRevision(
  context: ResourceContext,
  options: ListOptions,
): Promise<number | undefined> {
  const { store } = context.server;
  if (options.continue) {
    return options.continue.revision > 0 ? options.continue.revision : undefined;
  }
  const wanted = options.resourceVersion;
  if (wanted === undefined) {
    await store.barrier();
    return undefined;
  }
  if (wanted > store.revision) throw new FutureRevisionError(wanted, store.revision);
  // Old clients page from a revision without saying how it is meant: exactly.
  const isExact = options.match === 'Exact' || (!options.match && options.limit > 0);
  return isExact && wanted > 0 ? wanted : undefined;
}

function paged(result: ListResult, atRevision: number | undefined): Selected {
  const revision = atRevision ?? result.revision;
  const { entries, remainingCount } = result;
  const last = entries[entries.length - 1];
  if (remainingCount === 0 || !last) {
    return { entries, revision, continueToken: undefined, remainingItemCount: undefined };
  }
  const continueToken = encodeContinue({ revision, after: last.key });
  return { entries, revision, continueToken, remainingItemCount: remainingCount };
}

/** A filtered list: how many more match is not known without looking, so it is not said. */
function scan(
  context: ResourceContext,
  resource: string,
  page: Parameters<ResourceContext['server']['store']['list']>[1] & object,
  predicate: Predicate,
  limit: number,
): Selected {
  const { store } = context.server;
  const entries: Entry[] = [];
  let after = page.after;
  let atRevision = page.atRevision;
  let revision = 0;
  for (;;) {
    const result = store.list(resource, {
      ...page,
      limit: SCAN_COUNT,
      ...(after ? { after } : {}),
      ...(atRevision === undefined ? {} : { atRevision }),
    });
    revision = atRevision ?? result.revision;
    for (const entry of result.entries) {
      if (!predicate(entry)) continue;
      const last = entries[entries.length - 1];
      if (limit > 0 && entries.length === limit && last) {
        const continueToken = encodeContinue({ revision, after: last.key });
        return { entries, revision, continueToken, remainingItemCount: undefined };
      }
      entries.push(entry);
    }
    const last = result.entries[result.entries.length - 1];
    if (result.remainingCount === 0 || !last) break;
    after = last.key;
    atRevision = revision;
  }
  return { entries, revision, continueToken: undefined, remainingItemCount: undefined };
}

function expiredToken(after: { namespace: string; name: string }): StatusError {
  const message =
    'The provided continue parameter is too old to display a consistent list result. Start a new ' +
    'list without it, or go on with the continue token of this response: the rest of the list is ' +
    'then as of now, and may not fit to the pages before it.';
  return new StatusError('Expired', message, {
    continueToken: encodeContinue({ revision: -1, after }),
  });
}

export function listReply(
  context: ResourceContext,
  selected: Selected,
  representation: Representation,
): ApiReply {
  const { row } = context;
  const metadata = {
    resourceVersion: String(selected.revision),
    ...(selected.continueToken ? { continue: selected.continueToken } : {}),
    ...(selected.remainingItemCount ? { remainingItemCount: selected.remainingItemCount } : {}),
  };
  const head = { kind: `${row.kind}List`, apiVersion: apiVersionOf(row), metadata };
  if (representation.encoding === 'yaml') return yamlList(context, selected, representation, head);
  const pieces = piecesOf(context, selected, representation, head);
  const headers = { 'content-type': 'application/json', 'cache-control': 'no-cache, private' };
  const body = chunked(pieces, () => context.server.turns.yield(context.user));
  return { status: 200, headers, body: body.small ?? body.stream, compressible: true };
}

type ListHead = { kind: string; apiVersion: string; metadata: Record<string, unknown> };

function piecesOf(
  context: ResourceContext,
  selected: Selected,
  representation: Representation,
  head: ListHead,
): Iterable<Uint8Array> {
  const { row, exchange, server } = context;
  const { entries } = selected;
  if (representation.shape === 'object') {
    return joined(
      openList(head, 'items'),
      entries.map((entry) => () => bytesOf(row, entry)),
    );
  }
  if (representation.shape === 'metadata') {
    const apiVersion = `meta.k8s.io/${representation.metaVersion}`;
    const opening = openList({ ...head, kind: 'PartialObjectMetadataList', apiVersion }, 'items');
    const item = (entry: Entry) => () =>
      encodeJson(metadataOnly(objectOf(row, entry), representation.metaVersion));
    return joined(opening, entries.map(item));
  }
  const includeObject = includeObjectOf(exchange.query);
  const table = { ...tableHead(row, representation.metaVersion), metadata: head.metadata };
  const batches: (() => Uint8Array)[] = [];
  for (let i = 0; i < entries.length; i += TABLE_BATCH_COUNT) {
    batches.push(() => {
      const objects = entries.slice(i, i + TABLE_BATCH_COUNT).map((entry) => objectOf(row, entry));
      const rows = tableRows(row, objects, {
        includeObject,
        metaVersion: representation.metaVersion,
        nowMs: server.clock.nowMs(),
      });
      return encodeJson(rows).subarray(1, -1);
    });
  }
  return joined(openList(table, 'rows'), batches);
}

/** `{…head,"items":[` */
function openList(head: object, field: string): Uint8Array {
  return Buffer.from(`${JSON.stringify(head).slice(0, -1)},"${field}":[`, 'utf8');
}

const COMMA = Buffer.from(',');
const CLOSE = Buffer.from(']}\n');

function* joined(opening: Uint8Array, items: (() => Uint8Array)[]): Iterable<Uint8Array> {
  yield opening;
  let first = true;
  for (const item of items) {
    if (!first) yield COMMA;
    first = false;
    yield item();
  }
  yield CLOSE;
}

/** A list that fits into one chunk is sent in one piece; a longer one as a stream of chunks. */
function chunked(
  pieces: Iterable<Uint8Array>,
  pause: () => Promise<void>,
): { small?: Uint8Array; stream: AsyncIterable<Uint8Array> } {
  const chunks = chunksOf(pieces);
  const first = chunks.next();
  const second = chunks.next();
  const head = (first.value as Uint8Array | undefined) ?? new Uint8Array(0);
  if (second.done) return { small: head, stream: streamOf([], chunks, pause) };
  return { stream: streamOf([head, second.value as Uint8Array], chunks, pause) };
}

function* chunksOf(pieces: Iterable<Uint8Array>): Generator<Uint8Array, undefined> {
  let waiting: Uint8Array[] = [];
  let size = 0;
  for (const piece of pieces) {
    waiting.push(piece);
    size += piece.length;
    if (size < CHUNK_BYTES) continue;
    yield Buffer.concat(waiting, size);
    waiting = [];
    size = 0;
  }
  if (size > 0) yield Buffer.concat(waiting, size);
  return undefined;
}

async function* streamOf(
  first: Uint8Array[],
  rest: Iterable<Uint8Array>,
  pause: () => Promise<void>,
): AsyncIterable<Uint8Array> {
  yield* first;
  for (const chunk of rest) {
    yield chunk;
    // A fast reader would otherwise keep every other request waiting until the list is out.
    await pause();
  }
}

function yamlList(
  context: ResourceContext,
  selected: Selected,
  representation: Representation,
  head: ListHead,
): ApiReply {
  const parts = [...piecesOf(context, selected, { ...representation, encoding: 'json' }, head)];
  const text = Buffer.concat(parts).toString('utf8');
  return valueReply(200, JSON.parse(text), representation);
}
