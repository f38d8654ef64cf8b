import type { KubeList, KubeObject, WatchEvent } from '../api/object.ts';
import type { Status } from '../api/status.ts';
import { StatusError } from '../api/status.ts';
import { apiVersionOf, pathOf } from './resources.ts';
import type { Resource } from './resources.ts';
import type { ApiRequest, ApiResponse, Transport } from './transport.ts';

export interface ObjectKey {
  /** Absent or empty for cluster-scoped resources. */
  namespace?: string;
  name: string;
}

export interface SelectOptions {
  /** Absent: all namespaces. */
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  signal?: AbortSignal;
}

export interface ListOptions extends SelectOptions {
  limit?: number;
  continue?: string;
  resourceVersion?: string;
}

export interface WatchOptions extends SelectOptions {
  resourceVersion?: string;
  timeoutSeconds?: number;
}

export interface DeleteOptions {
  /** Preconditions: the deletion fails with Conflict when they do not hold. */
  uid?: string;
  resourceVersion?: string;
  propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
  gracePeriodSeconds?: number;
  signal?: AbortSignal;
}

export type PatchType = 'merge' | 'strategic-merge' | 'json';

export interface WriteOptions {
  signal?: AbortSignal;
  subresource?: string;
}

/**
 * The Kubernetes API as typed calls. Every call throws `StatusError` for an answer that is an
 * error, and whatever the transport throws where there is no answer.
 */
export interface Client {
  get<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    options?: WriteOptions,
  ): Promise<T>;
  /** One page. */
  list<T extends KubeObject>(resource: Resource<T>, options?: ListOptions): Promise<KubeList<T>>;
  /** All pages as one list, exact at its resourceVersion. */
  listAll<T extends KubeObject>(
    resource: Resource<T>,
    options?: SelectOptions,
  ): Promise<KubeList<T>>;
  create<T extends KubeObject>(
    resource: Resource<T>,
    object: T,
    options?: WriteOptions,
  ): Promise<T>;
  update<T extends KubeObject>(
    resource: Resource<T>,
    object: T,
    options?: WriteOptions,
  ): Promise<T>;
  updateStatus<T extends KubeObject>(resource: Resource<T>, object: T): Promise<T>;
  patch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    type: PatchType,
    body: unknown,
    options?: WriteOptions,
  ): Promise<T>;
  delete(resource: Resource, key: ObjectKey, options?: DeleteOptions): Promise<void>;
  deleteCollection(
    resource: Resource,
    options: SelectOptions & Pick<DeleteOptions, 'propagationPolicy' | 'gracePeriodSeconds'>,
  ): Promise<void>;
  /**
   * Changes after `resourceVersion`, bookmarks included, until the server ends the watch or the
   * signal aborts. Throws the StatusError of an ERROR event.
   */
  watch<T extends KubeObject>(
    resource: Resource<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>>;
  /** POSTs to a subresource such as `binding`, `eviction`, `token`. */
  post<R>(resource: Resource, key: ObjectKey, subresource: string, body: unknown): Promise<R>;
  /** Any GET that answers with JSON: discovery, `/version`. */
  raw<R>(path: string, signal?: AbortSignal): Promise<R>;
}

/** A list of everything of the largest clusters stays below; an endless answer does not. */
const BODY_LIMIT_BYTES = 512 << 20;
/** One event carries one object, and objects are at most a few MiB. */
const EVENT_LIMIT_BYTES = 16 << 20;
const PAGE_LENGTH = 500;
/** How often a paged list is begun again because its snapshot is no longer kept. */
const LIST_RESTART_LIMIT = 3;

const PATCH_CONTENT_TYPE: Record<PatchType, string> = {
  merge: 'application/merge-patch+json',
  'strategic-merge': 'application/strategic-merge-patch+json',
  json: 'application/json-patch+json',
};

/** @param options.userAgent becomes the field manager of what is written */
export function createClient(transport: Transport, options: { userAgent: string }): Client {
  const send = async (request: ApiRequest, body?: unknown, type = 'application/json') => {
    const response = await transport.request({
      ...request,
      headers: {
        accept: 'application/json',
        ...request.headers,
        'user-agent': options.userAgent,
        ...(body === undefined ? {} : { 'content-type': type }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.status >= 300) throw await readError(response);
    return response;
  };
  const call = async <R>(request: ApiRequest, body?: unknown, type?: string): Promise<R> =>
    JSON.parse(await readText((await send(request, body, type)).body)) as R;

  const list = async <T extends KubeObject>(
    resource: Resource<T>,
    { namespace, signal, limit, ...query }: ListOptions = {},
  ): Promise<KubeList<T>> => {
    const result = await call<KubeList<T>>({
      method: 'GET',
      path: pathOf(resource, namespace),
      query: { ...query, limit: limit?.toString() },
      headers: acceptOf(resource, 'PartialObjectMetadataList'),
      signal,
    });
    const apiVersion = apiVersionOf(resource);
    // The items of a list carry neither; everyone who passes them on needs both.
    for (const item of result.items ?? []) {
      item.apiVersion ??= apiVersion;
      item.kind ??= resource.kind;
    }
    return { ...result, items: result.items ?? [] };
  };

  const client: Client = {
    get: (resource, { namespace, name }, { subresource, signal } = {}) =>
      call({
        method: 'GET',
        path: pathOf(resource, namespace, name, subresource),
        headers: acceptOf(resource, 'PartialObjectMetadata'),
        signal,
      }),
    list,
    listAll: (resource, select) => listAllPages((page) => list(resource, { ...select, ...page })),
    create: (resource, object, { signal } = {}) =>
      call({ method: 'POST', path: pathOf(resource, object.metadata.namespace), signal }, object),
    update: (resource, object, { subresource, signal } = {}) => {
      const { namespace, name } = object.metadata;
      const path = pathOf(resource, namespace, name ?? '', subresource);
      return call({ method: 'PUT', path, signal }, object);
    },
    updateStatus: (resource, object) => client.update(resource, object, { subresource: 'status' }),
    patch: (resource, { namespace, name }, type, body, { subresource, signal } = {}) => {
      const path = pathOf(resource, namespace, name, subresource);
      return call({ method: 'PATCH', path, signal }, body, PATCH_CONTENT_TYPE[type]);
    },
    async delete(resource, { namespace, name }, { signal, ...how } = {}) {
      const path = pathOf(resource, namespace, name);
      await call({ method: 'DELETE', path, signal }, deleteBody(how));
    },
    async deleteCollection(resource, { namespace, labelSelector, fieldSelector, signal, ...how }) {
      const query = { labelSelector, fieldSelector };
      const path = pathOf(resource, namespace);
      await call({ method: 'DELETE', path, query, signal }, deleteBody(how));
    },
    async *watch(resource, { namespace, signal, timeoutSeconds, ...query }) {
      const path = pathOf(resource, namespace);
      const flags = { watch: 'true', allowWatchBookmarks: 'true' };
      const timeout = timeoutSeconds?.toString();
      const request = { ...query, ...flags, timeoutSeconds: timeout };
      const response = await send({
        method: 'GET',
        path,
        query: request,
        headers: acceptOf(resource, 'PartialObjectMetadata'),
        signal,
      });
      yield* readWatch(response);
    },
    post: (resource, { namespace, name }, subresource, body) =>
      call({ method: 'POST', path: pathOf(resource, namespace, name, subresource) }, body),
    raw: (path, signal) => call({ method: 'GET', path, signal }),
  };
  return client;
}

function acceptOf(resource: Resource, kind: string): Record<string, string> | undefined {
  if (!resource.metadataOnly) return undefined;
  return { accept: `application/json;as=${kind};g=meta.k8s.io;v=v1,application/json` };
}

async function listAllPages<T>(
  listPage: (page: { limit: number; continue?: string }) => Promise<KubeList<T>>,
): Promise<KubeList<T>> {
  for (let restarts = 0; ; restarts++) {
    try {
      const first = await listPage({ limit: PAGE_LENGTH });
      const items = first.items;
      for (let next = first.metadata.continue; next;) {
        const page = await listPage({ limit: PAGE_LENGTH, continue: next });
        for (const item of page.items) items.push(item);
        next = page.metadata.continue;
      }
      return { ...first, metadata: { resourceVersion: first.metadata.resourceVersion }, items };
    } catch (error) {
      const isExpired = error instanceof StatusError && error.code === 410;
      if (!isExpired || restarts >= LIST_RESTART_LIMIT) throw error;
    }
  }
}

function deleteBody({ uid, resourceVersion, ...how }: Omit<DeleteOptions, 'signal'>): unknown {
  const hasPreconditions = uid !== undefined || resourceVersion !== undefined;
  return {
    apiVersion: 'v1',
    kind: 'DeleteOptions',
    ...how,
    ...(hasPreconditions ? { preconditions: { uid, resourceVersion } } : {}),
  };
}

async function readText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > BODY_LIMIT_BYTES) {
      throw new Error(`Cannot read answer: it is larger than ${BODY_LIMIT_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function readError(response: ApiResponse): Promise<StatusError> {
  const text = await readText(response.body);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  if ((parsed as { kind?: string } | undefined)?.kind === 'Status') {
    return StatusError.from(parsed as Status);
  }
  const message = text.slice(0, 500) || `answer with status ${response.status}`;
  return new StatusError('', message, { code: response.status });
}

async function* readWatch<T>(response: ApiResponse): AsyncIterable<WatchEvent<T>> {
  for await (const line of splitLines(response.body)) {
    const event = JSON.parse(line) as WatchEvent<T>;
    if (event.type === 'ERROR') throw StatusError.from(event.object as Partial<Status>);
    yield event;
  }
}

/** Splits bytes into lines without ever decoding half a character. */
async function* splitLines(body: AsyncIterable<Uint8Array>): AsyncIterable<string> {
  let pending: Buffer[] = [];
  let pendingSize = 0;
  for await (const chunk of body) {
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const line = Buffer.concat([...pending, rest.subarray(0, end)]).toString('utf8');
      pending = [];
      pendingSize = 0;
      rest = rest.subarray(end + 1);
      if (line.trim()) yield line;
    }
    pendingSize += rest.length;
    if (pendingSize > EVENT_LIMIT_BYTES) {
      throw new Error(`Cannot read watch event: it is larger than ${EVENT_LIMIT_BYTES} bytes`);
    }
    if (rest.length) pending.push(rest);
  }
}
