import { StatusError, alreadyExists, conflict, notFound } from '../../api/status.ts';
import type { KubeObject, WatchEventType } from '../../api/object.ts';
import type { Clock } from '../../base/clock.ts';
import { rfc3339 } from '../../base/clock.ts';
import { BoundedQueue } from '../../base/queue.ts';
import type { ApiRequest, ApiResponse, Transport } from '../../client/transport.ts';

/**
 * The API as far as a kubelet uses it, in memory: objects by path, list and watch by collection
 * and node, merge patches (conditions by type), graceful deletion of pods. It checks nothing.
 */
export interface FakeApi extends Transport {
  create(path: string, object: Partial<KubeObject>): KubeObject;
  get(path: string): KubeObject | undefined;
  patch(path: string, body: object): KubeObject;
  /** As `kubectl delete` does: pods with a grace period get a deletionTimestamp. */
  deletePod(path: string, graceSeconds: number): void;
  remove(path: string): void;
  list(prefix: string): KubeObject[];
  /** Rejects every request while it is true. */
  down: boolean;
}

const QUEUE_LIMIT = 10_000;

export function createFakeApi(clock: Clock): FakeApi {
  const objects = new Map<string, KubeObject>();
  const watchers = new Set<{ collection: string; queue: BoundedQueue<Uint8Array>; node: string }>();
  let revision = 100;
  let tokenCount = 0;

  const tell = (type: WatchEventType, path: string, object: KubeObject) => {
    for (const { collection, queue, node } of watchers) {
      if (!inCollection(path, collection) || !isOfNode(object, node)) continue;
      queue.push(Buffer.from(`${JSON.stringify({ type, object })}\n`));
    }
  };
  const store = (type: WatchEventType, path: string, object: KubeObject): KubeObject => {
    revision += 1;
    const metadata = { ...object.metadata, resourceVersion: String(revision) };
    const stored = { ...structuredClone(object), metadata };
    if (type === 'DELETED') objects.delete(path);
    else objects.set(path, stored);
    tell(type, path, stored);
    return stored;
  };
  const need = (path: string): KubeObject => {
    const found = objects.get(path);
    const [name = '', resource = ''] = path.split('/').reverse();
    if (!found) throw notFound('', resource, name);
    return found;
  };
  const api: FakeApi = {
    down: false,
    create(path, object) {
      const [name = '', resource = ''] = path.split('/').reverse();
      if (objects.has(path)) throw alreadyExists('', resource, name);
      const namespace = /\/namespaces\/([^/]+)\//.exec(path)?.[1];
      const metadata = {
        uid: `uid-${name}-${revision}`,
        creationTimestamp: rfc3339(clock.nowMs()),
        generation: 1,
        ...(namespace ? { namespace } : {}),
        ...object.metadata,
        name,
      };
      const draft = { apiVersion: 'v1', kind: 'Object', ...object, metadata } as KubeObject;
      return store('ADDED', path, draft);
    },
    get: (path) => objects.get(path),
    patch(path, body) {
      const found = need(path);
      const uid = (body as { metadata?: { uid?: string } }).metadata?.uid;
      if (uid && uid !== found.metadata.uid) throw conflict('', 'pods', path, 'uid differs');
      return store('MODIFIED', path, merge(found, body) as KubeObject);
    },
    deletePod(path, graceSeconds) {
      const pod = need(path);
      if (graceSeconds === 0) {
        store('DELETED', path, pod);
        return;
      }
      const deletionTimestamp = rfc3339(clock.nowMs() + graceSeconds * 1000);
      const metadata = { deletionTimestamp, deletionGracePeriodSeconds: graceSeconds };
      api.patch(path, { metadata });
    },
    remove: (path) => void store('DELETED', path, need(path)),
    list: (prefix) =>
      [...objects].filter(([path]) => inCollection(path, prefix)).map(([, object]) => object),
    async request(request) {
      await Promise.resolve();
      if (api.down) throw new Error('connection refused');
      try {
        return handle(request);
      } catch (error) {
        if (!(error instanceof StatusError)) throw error;
        return respond(error.code, error.toStatus());
      }
    },
    close: () => Promise.resolve(),
  };

  const handle = (request: ApiRequest): ApiResponse => {
    const { method, path, query = {} } = request;
    const body = request.body ? (JSON.parse(String(request.body)) as KubeObject) : undefined;
    const target = path.replace(/\/status$/, '');
    if (method === 'GET' && query['watch']) return watch(request);
    if (method === 'GET' && objects.has(path)) return respond(200, objects.get(path));
    if (method === 'GET' && isCollection(path)) {
      const node = nodeOf(query['fieldSelector']);
      const items = api.list(path).filter((object) => isOfNode(object, node));
      const metadata = { resourceVersion: String(revision) };
      return respond(200, { kind: 'List', apiVersion: 'v1', metadata, items });
    }
    if (method === 'POST' && path.endsWith('/token')) {
      const expirationTimestamp = rfc3339(clock.nowMs() + 3600_000);
      return respond(201, { status: { token: `token-${(tokenCount += 1)}`, expirationTimestamp } });
    }
    if (method === 'POST' && body) {
      return respond(201, api.create(`${path}/${body.metadata.name}`, body));
    }
    if (method === 'PATCH' && body) return respond(200, api.patch(target, body));
    if (method === 'DELETE') {
      const wanted = (body as { preconditions?: { uid?: string } } | undefined)?.preconditions?.uid;
      const found = need(target);
      if (wanted && wanted !== found.metadata.uid)
        throw conflict('', 'pods', target, 'uid differs');
      store('DELETED', target, found);
      return respond(200, { kind: 'Status', status: 'Success' });
    }
    throw notFound('', 'path', path);
  };

  const watch = ({ path, query = {}, signal }: ApiRequest): ApiResponse => {
    const queue = new BoundedQueue<Uint8Array>(QUEUE_LIMIT);
    const watcher = { collection: path, queue, node: nodeOf(query['fieldSelector']) };
    watchers.add(watcher);
    const end = () => {
      watchers.delete(watcher);
      queue.close();
    };
    signal?.addEventListener('abort', end, { once: true });
    return { status: 200, headers: {}, body: queue };
  };
  return api;
}

function respond(status: number, value: unknown): ApiResponse {
  const bytes = Buffer.from(JSON.stringify(value));
  return {
    status,
    headers: { 'content-type': 'application/json' },
    body: (async function* () {
      yield bytes;
    })(),
  };
}

function nodeOf(selector: string | string[] | undefined): string {
  return /spec\.nodeName=([^,]+)/.exec(String(selector ?? ''))?.[1] ?? '';
}

function isOfNode(object: KubeObject, node: string): boolean {
  return node === '' || (object['spec'] as { nodeName?: string } | undefined)?.nodeName === node;
}

function isCollection(path: string): boolean {
  return /\/(pods|services|events|nodes|leases)$/.test(path);
}

/** `/api/v1/pods` holds the pods of all namespaces. */
function inCollection(path: string, collection: string): boolean {
  const parent = path.slice(0, path.lastIndexOf('/'));
  return parent === collection || parent.replace(/\/namespaces\/[^/]+/, '') === collection;
}

function merge(target: unknown, patch: unknown): unknown {
  if (Array.isArray(patch)) return mergeList(Array.isArray(target) ? target : [], patch);
  if (typeof patch !== 'object' || patch === null) return patch;
  const result: Record<string, unknown> = {
    ...(typeof target === 'object' && target !== null ? (target as object) : {}),
  };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merge(result[key], value);
  }
  return result;
}

function mergeList(target: unknown[], patch: unknown[]): unknown[] {
  const isDirective = (each: unknown) => (each as { $patch?: string } | null)?.$patch === 'replace';
  if (patch.some(isDirective)) return patch.filter((each) => !isDirective(each));
  const ipOf = (each: unknown) => (each as { ip?: string } | null)?.ip;
  if (patch.length > 0 && patch.every(ipOf)) {
    const known = new Set(patch.map(ipOf));
    return [...patch, ...target.filter((each) => !known.has(ipOf(each)))];
  }
  const typeOf = (each: unknown) => (each as { type?: string } | null)?.type;
  if (!patch.every(typeOf)) return patch.map((each) => merge(undefined, each));
  const isKept = (each: unknown) => (each as { $patch?: string }).$patch !== 'delete';
  const merged = patch.filter(isKept).map((each) =>
    merge(
      target.find((other) => typeOf(other) === typeOf(each)),
      each,
    ),
  );
  const types = new Set(patch.map(typeOf));
  return [...merged, ...target.filter((each) => !types.has(typeOf(each)))];
}
