import { isDeepStrictEqual } from 'node:util';
import type { KubeObject, WatchEvent } from '../api/object.ts';
import { alreadyExists, badRequest, conflict, notFound, StatusError } from '../api/status.ts';
import type { Clock } from '../base/clock.ts';
import { rfc3339 } from '../base/clock.ts';
import type { FakeClock } from '../base/clock.fake.ts';
import { BoundedQueue } from '../base/queue.ts';
import { nameSuffix, seededRandom } from '../base/random.ts';
import * as resources from './resources.ts';
import { apiVersionOf } from './resources.ts';
import type { Resource } from './resources.ts';
import type { ApiRequest, ApiResponse, Transport } from './transport.ts';

/**
 * The Kubernetes API in memory, for tests of clients and controllers: resource versions,
 * conflicts, generations, finalizers, paged lists, watches. It admits and defaults nothing, and
 * deleted pods go at once.
 */
export interface FakeApi {
  readonly transport: Transport;
  /** Creates or replaces, as a user would who is always up to date; status included. */
  put<T extends KubeObject>(resource: Resource<T>, object: T): T;
  get<T extends KubeObject>(
    resource: Resource<T>,
    namespace: string | undefined,
    name: string,
  ): T | undefined;
  all<T extends KubeObject>(resource: Resource<T>, namespace?: string): T[];
  remove(resource: Resource, namespace: string | undefined, name: string): void;
  /** Every request as `METHOD path`, without reads. */
  readonly writes: string[];
  /** Answers a request with an error of the test's choice. */
  failNext(match: RegExp, error: StatusError, count?: number): void;
  /** Ends every watch, as a server that restarts. */
  dropWatches(): void;
  /** Forgets all events so far: older watches get 410. */
  compact(): void;
  readonly watchCount: number;
}

interface Watcher {
  resource: Resource;
  matches: (object: KubeObject) => boolean;
  queue: BoundedQueue<Uint8Array>;
}

interface Target {
  resource: Resource;
  namespace: string | undefined;
  name: string | undefined;
  subresource: string | undefined;
}

const KNOWN = Object.values(resources).filter(
  (value): value is Resource => typeof value === 'object',
);
/** Kinds whose status is written through its own path alone. */
const WITHOUT_STATUS = new Set(['events', 'configmaps', 'secrets', 'serviceaccounts', 'leases']);

export function createFakeApi(clock: Clock, extraResources: Resource[] = []): FakeApi {
  const known = [...KNOWN, ...extraResources];
  const stored = new Map<Resource, Map<string, KubeObject>>(known.map((one) => [one, new Map()]));
  const events: { revision: number; resource: Resource; event: WatchEvent }[] = [];
  const watchers = new Set<Watcher>();
  const failures: { match: RegExp; error: StatusError; count: number }[] = [];
  const writes: string[] = [];
  const random = seededRandom(1);
  let revision = 1;
  let compactedRevision = 0;

  const tableOf = (resource: Resource): Map<string, KubeObject> => {
    const own = known.find(
      (one) => one.resource === resource.resource && one.group === resource.group,
    );
    const table = own && stored.get(own);
    if (!table) throw notFound(resource.group, resource.resource, '');
    return table;
  };
  const keyOf = (namespace: string | undefined, name: string) => `${namespace ?? ''}/${name}`;

  const publish = (resource: Resource, type: WatchEvent['type'], object: KubeObject): void => {
    const event = { type, object: structuredClone(object) };
    events.push({ revision, resource, event });
    for (const watcher of watchers) {
      if (watcher.resource.resource !== resource.resource) continue;
      if (watcher.matches(object)) watcher.queue.push(encodeLine(event));
    }
  };

  const store = (resource: Resource, object: KubeObject, previous?: KubeObject): KubeObject => {
    revision += 1;
    object.metadata.resourceVersion = String(revision);
    const key = keyOf(object.metadata.namespace, object.metadata.name ?? '');
    tableOf(resource).set(key, object);
    publish(resource, previous ? 'MODIFIED' : 'ADDED', object);
    return structuredClone(object);
  };

  const drop = (resource: Resource, object: KubeObject): void => {
    revision += 1;
    tableOf(resource).delete(keyOf(object.metadata.namespace, object.metadata.name ?? ''));
    object.metadata.resourceVersion = String(revision);
    publish(resource, 'DELETED', object);
  };

  const create = (resource: Resource, body: KubeObject, namespace?: string): KubeObject => {
    const object = structuredClone(body);
    const { metadata } = object;
    if (resource.namespaced) metadata.namespace ??= namespace;
    metadata.name ??= `${metadata.generateName}${nameSuffix(random)}`;
    object.apiVersion ??= apiVersionOf(resource);
    object.kind ??= resource.kind;
    if (tableOf(resource).has(keyOf(metadata.namespace, metadata.name))) {
      throw alreadyExists(resource.group, resource.resource, metadata.name);
    }
    metadata.uid ??= random.uuid();
    metadata.creationTimestamp ??= rfc3339(clock.nowMs());
    metadata.generation = 1;
    return store(resource, object);
  };

  const find = ({ resource, namespace, name = '' }: Target): KubeObject => {
    const found = tableOf(resource).get(keyOf(namespace, name));
    if (!found) throw notFound(resource.group, resource.resource, name);
    return found;
  };

  const replace = (target: Target, body: KubeObject): KubeObject => {
    const { resource, subresource } = target;
    const current = find(target);
    const { resourceVersion, uid } = body.metadata;
    const isStale = resourceVersion && resourceVersion !== current.metadata.resourceVersion;
    if (isStale || (uid && uid !== current.metadata.uid)) {
      throw conflict(resource.group, resource.resource, target.name ?? '', 'it has been modified');
    }
    const next = merge(resource, current, structuredClone(body), subresource);
    if (isDeepStrictEqual(next, current)) return structuredClone(current);
    return settle(resource, next, current);
  };

  /** An object that is being deleted goes as soon as nothing holds it. */
  const settle = (resource: Resource, next: KubeObject, current: KubeObject): KubeObject => {
    const { deletionTimestamp, finalizers } = next.metadata;
    const specFinalizers = (next.spec as { finalizers?: string[] } | undefined)?.finalizers;
    const isHeld = finalizers?.length || (resource.kind === 'Namespace' && specFinalizers?.length);
    if (deletionTimestamp && !isHeld) {
      drop(resource, next);
      return next;
    }
    return store(resource, next, current);
  };

  const remove = (target: Target, body: Record<string, unknown>): KubeObject => {
    const { resource } = target;
    const current = find(target);
    const preconditions = body.preconditions as { uid?: string; resourceVersion?: string };
    const { uid, resourceVersion } = preconditions ?? {};
    const isOther =
      (uid && uid !== current.metadata.uid) ||
      (resourceVersion && resourceVersion !== current.metadata.resourceVersion);
    if (isOther)
      throw conflict(resource.group, resource.resource, target.name ?? '', 'precondition');
    const next = structuredClone(current);
    const finalizer = { Foreground: 'foregroundDeletion', Orphan: 'orphan' }[
      String(body.propagationPolicy)
    ];
    const finalizers = new Set(next.metadata.finalizers ?? []);
    if (finalizer) finalizers.add(finalizer);
    next.metadata.finalizers = [...finalizers];
    next.metadata.deletionTimestamp ??= rfc3339(clock.nowMs());
    if (resource.kind === 'Namespace') next.status = { phase: 'Terminating' };
    return isDeepStrictEqual(next, current) ? current : settle(resource, next, current);
  };

  const open = (target: Target, request: ApiRequest): ApiResponse => {
    const query = request.query ?? {};
    const after = Number(query.resourceVersion ?? revision);
    if (after < compactedRevision) {
      const status = new StatusError('Expired', 'too old resource version').toStatus();
      return answer(200, { type: 'ERROR', object: status });
    }
    const queue = new BoundedQueue<Uint8Array>(100_000);
    const matches = createFilter(target.namespace, query);
    const watcher = { resource: target.resource, matches, queue };
    for (const { revision: at, resource, event } of events) {
      const isWanted = resource.resource === target.resource.resource && matches(event.object);
      if (at > after && isWanted) queue.push(encodeLine(event));
    }
    watchers.add(watcher);
    const end = () => {
      watchers.delete(watcher);
      queue.close();
    };
    request.signal?.addEventListener('abort', end, { once: true });
    return { status: 200, headers: {}, body: endingWith(queue, end) };
  };

  const list = (target: Target, request: ApiRequest): unknown => {
    const { query = {} } = request;
    const matches = createFilter(target.namespace, query);
    const all = [...tableOf(target.resource).values()].filter(matches);
    const from = Number(query.continue ?? 0);
    const limit = Number(query.limit ?? all.length) || all.length;
    const more = all.length > from + limit ? String(from + limit) : undefined;
    return {
      apiVersion: apiVersionOf(target.resource),
      kind: `${target.resource.kind}List`,
      metadata: { resourceVersion: String(revision), continue: more },
      items: all.slice(from, from + limit),
    };
  };

  const handle = (request: ApiRequest): ApiResponse => {
    const { method, path } = request;
    const line = `${method} ${path}`;
    const failure = failures.find(({ match, count }) => count > 0 && match.test(line));
    if (failure) {
      failure.count -= 1;
      throw failure.error;
    }
    if (method !== 'GET') writes.push(line);
    const discovered = method === 'GET' ? discover(known, path) : undefined;
    if (discovered) return answer(200, discovered);
    const target = parsePath(known, path);
    const body = request.body ? (JSON.parse(String(request.body)) as unknown) : {};
    const isPatch = method === 'PATCH';
    switch (isPatch ? 'PATCH' : `${method}${target.name ? ' one' : ''}`) {
      case 'GET one':
        return answer(200, find(target));
      case 'GET':
        return request.query?.watch ? open(target, request) : answer(200, list(target, request));
      case 'POST':
        return answer(201, create(target.resource, body as KubeObject, target.namespace));
      case 'PUT one':
        return answer(200, replace(target, body as KubeObject));
      case 'PATCH': {
        const current = structuredClone(find(target));
        const type = request.headers?.['content-type'] ?? '';
        return answer(200, replace(target, patchObject(current, type, body)));
      }
      case 'DELETE one':
        return answer(200, remove(target, body as Record<string, unknown>));
      case 'DELETE': {
        const matches = createFilter(target.namespace, request.query ?? {});
        for (const object of [...tableOf(target.resource).values()].filter(matches)) {
          remove({ ...target, name: object.metadata.name }, body as Record<string, unknown>);
        }
        return answer(200, { kind: 'Status', status: 'Success' });
      }
      default:
        throw badRequest(`the fake does not serve ${line}`);
    }
  };

  return {
    writes,
    transport: {
      async request(request) {
        request.signal?.throwIfAborted();
        // As over a network, nobody is answered within their own call.
        await new Promise((resolve) => setImmediate(resolve));
        try {
          return handle(request);
        } catch (error) {
          if (!(error instanceof StatusError)) throw error;
          return answer(error.code, error.toStatus());
        }
      },
      close: () => Promise.resolve(),
    },
    put<T extends KubeObject>(resource: Resource<T>, object: T): T {
      const table = tableOf(resource);
      const current = table.get(keyOf(object.metadata.namespace, object.metadata.name ?? ''));
      if (!current) return create(resource, object) as T;
      const next = structuredClone(object) as KubeObject;
      const isSpecChanged = !isDeepStrictEqual(next.spec, current.spec);
      const generation = (current.metadata.generation ?? 1) + Number(isSpecChanged);
      next.metadata = { ...current.metadata, ...next.metadata, generation };
      return settle(resource, next, current) as T;
    },
    get: <T extends KubeObject>(
      resource: Resource<T>,
      namespace: string | undefined,
      name: string,
    ) => structuredClone(tableOf(resource).get(keyOf(namespace, name))) as T | undefined,
    all: <T extends KubeObject>(resource: Resource<T>, namespace?: string) =>
      [...tableOf(resource).values()]
        .filter(({ metadata }) => namespace === undefined || metadata.namespace === namespace)
        .map((object) => structuredClone(object)) as T[],
    remove(resource, namespace, name) {
      const object = tableOf(resource).get(keyOf(namespace, name));
      if (object) drop(resource, object);
    },
    failNext: (match, error, count = 1) => void failures.push({ match, error, count }),
    dropWatches() {
      for (const { queue } of watchers) queue.close();
      watchers.clear();
    },
    compact() {
      compactedRevision = revision + 1;
      revision += 1;
      events.length = 0;
    },
    get watchCount() {
      return watchers.size;
    },
  };
}

function encodeLine(value: unknown): Uint8Array {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

function answer(status: number, value: unknown): ApiResponse {
  const body = (async function* () {
    yield await Promise.resolve(encodeLine(value));
  })();
  return { status, headers: { 'content-type': 'application/json' }, body };
}

async function* endingWith(
  queue: BoundedQueue<Uint8Array>,
  end: () => void,
): AsyncIterable<Uint8Array> {
  try {
    yield* queue;
  } finally {
    end();
  }
}

function parsePath(known: Resource[], path: string): Target {
  const parts = path.split('/').slice(1).map(decodeURIComponent);
  const group = parts[0] === 'api' ? '' : (parts[1] ?? '');
  const rest = parts.slice(group ? 3 : 2);
  const lookUp = (name: string | undefined) =>
    known.find((one) => one.group === group && one.resource === name);
  const isScoped = rest[0] === 'namespaces' && rest.length > 2 && lookUp(rest[2])?.namespaced;
  const [name, ...after] = isScoped ? rest.slice(2) : rest;
  const resource = lookUp(name);
  if (!resource)
    throw new StatusError('NotFound', 'the server could not find the requested resource');
  const namespace = isScoped ? rest[1] : undefined;
  return { resource, namespace, name: after[0], subresource: after[1] };
}

function createFilter(
  namespace: string | undefined,
  query: NonNullable<ApiRequest['query']>,
): (object: KubeObject) => boolean {
  const terms = (selector: unknown) =>
    String(selector ?? '')
      .split(',')
      .filter(Boolean)
      .map((term) => term.split('='));
  const labels = terms(query.labelSelector);
  const fields = terms(query.fieldSelector);
  const at = (object: unknown, path: string) =>
    path.split('.').reduce<unknown>((value, part) => (value as never)?.[part], object);
  return (object) =>
    (namespace === undefined || object.metadata.namespace === namespace) &&
    labels.every(([name = '', value]) => object.metadata.labels?.[name] === value) &&
    fields.every(([path = '', value]) => at(object, path) === value);
}

/** What a write to the object or one of its subresources may change. */
function merge(
  resource: Resource,
  current: KubeObject,
  body: KubeObject,
  subresource: string | undefined,
): KubeObject {
  const { uid, creationTimestamp, deletionTimestamp, generation, resourceVersion } =
    current.metadata;
  const server = { uid, creationTimestamp, deletionTimestamp, generation, resourceVersion };
  const fixed = Object.fromEntries(
    Object.entries(server).filter(([, value]) => value !== undefined),
  );
  if (subresource === 'status') {
    return { ...structuredClone(current), status: body.status };
  }
  const keepsStatus = !subresource && !WITHOUT_STATUS.has(resource.resource);
  const next: KubeObject = { ...body, metadata: { ...body.metadata, ...fixed } };
  if (keepsStatus && current.status !== undefined) next.status = structuredClone(current.status);
  if (!isDeepStrictEqual(next.spec, current.spec) && subresource !== 'finalize') {
    next.metadata.generation = (generation ?? 1) + 1;
  }
  return next;
}

function patchObject(current: KubeObject, contentType: string, patch: unknown): KubeObject {
  if (contentType.startsWith('application/merge-patch')) {
    return mergePatch(current, patch) as KubeObject;
  }
  throw new StatusError('UnsupportedMediaType', `the fake does not apply "${contentType}"`);
}

/** RFC 7386. */
function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const isObject = typeof target === 'object' && target !== null && !Array.isArray(target);
  const result: Record<string, unknown> = isObject ? { ...(target as object) } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = mergePatch(result[key], value);
  }
  return result;
}

function discover(known: Resource[], path: string): unknown {
  if (path === '/api') return { kind: 'APIVersions', versions: ['v1'] };
  const groupVersions = [...new Set(known.map(apiVersionOf))];
  if (path === '/apis') {
    const groups = groupVersions
      .filter((groupVersion) => groupVersion.includes('/'))
      .map((groupVersion) => {
        const [name = '', version = ''] = groupVersion.split('/');
        const preferredVersion = { groupVersion, version };
        return { name, versions: [preferredVersion], preferredVersion };
      });
    return { kind: 'APIGroupList', groups };
  }
  const groupVersion = groupVersions.find((one) => {
    return path === (one.includes('/') ? `/apis/${one}` : `/api/${one}`);
  });
  if (!groupVersion) return undefined;
  const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];
  const list = known
    .filter((one) => apiVersionOf(one) === groupVersion)
    .map(({ resource, kind, namespaced }) => ({ name: resource, kind, namespaced, verbs }));
  return { kind: 'APIResourceList', groupVersion, resources: list };
}

/** Moves time in small steps, so that chains of requests finish between the timers. */
export async function pass(clock: FakeClock, durationMs: number, stepMs = 200): Promise<void> {
  for (let left = durationMs; left > 0; left -= stepMs) {
    await rest(clock);
    await clock.advance(Math.min(stepMs, left));
  }
  await rest(clock);
}

/** Lets everything that needs no time run to its end. */
async function rest(clock: FakeClock): Promise<void> {
  for (let round = 0; round < 12; round++) await clock.advance(0);
}
