import type { KubeObject } from '../api/object.ts';
import { StatusError } from '../api/status.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { describeError } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Client } from './client.ts';
import type { Resource } from './resources.ts';

/** What happened, told synchronously and in order. Handlers must not throw. */
export interface InformerHandler<T> {
  add?(object: T): void;
  update?(object: T, previous: T): void;
  /** The last known state; after a gap in the watch it may be older than the real last one. */
  delete?(object: T): void;
}

export type IndexFunction<T> = (object: T) => string[];

/**
 * A local copy of a collection, kept by list and watch. Objects are shared by everybody who
 * reads them: they must not be changed. `managedFields` are dropped on arrival.
 */
export interface Informer<T extends KubeObject> {
  readonly resource: Resource<T>;
  /** Resolves when the first complete list has been handed to the handlers. */
  readonly synced: Promise<void>;
  readonly isSynced: boolean;
  get(namespace: string | undefined, name: string): T | undefined;
  /** Everything, or what is in one namespace. */
  list(namespace?: string): T[];
  /** What an index function, added under this name, returned this value for. */
  byIndex(index: string, value: string): T[];
  /** Adding an index again, under the same name, changes nothing. */
  addIndex(index: string, of: IndexFunction<T>): void;
  /** What is there already is reported as added. */
  addHandler(handler: InformerHandler<T>): void;
}

export interface InformerOptions<T extends KubeObject> {
  client: Client;
  resource: Resource<T>;
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  clock: Clock;
  random: Random;
  log: Log;
  /** Ends the informer; its content stays as it was. */
  signal: AbortSignal;
}

/** Of client-go's reflector: delays between attempts that fail. */
const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 30_000;
/** The server ends a watch after five to ten minutes, each at its own time. */
const WATCH_TIMEOUT_MIN_SECONDS = 300;
/** A watch that ends sooner and brought nothing counts as a failure. */
const WATCH_SHORT_MS = 1000;

export function objectKey({ metadata }: KubeObject): string {
  return metadata.namespace ? `${metadata.namespace}/${metadata.name}` : (metadata.name ?? '');
}

/** Starts at once. */
export function createInformer<T extends KubeObject>(options: InformerOptions<T>): Informer<T> {
  const cache = createCache<T>();
  const { promise: synced, resolve: markSynced } = Promise.withResolvers<void>();
  let isSynced = false;
  void follow(options, cache, () => {
    isSynced = true;
    markSynced();
  });
  return {
    resource: options.resource,
    synced,
    get isSynced() {
      return isSynced;
    },
    get: (namespace, name) => cache.objects.get(namespace ? `${namespace}/${name}` : name),
    list: (namespace) =>
      namespace === undefined ? [...cache.objects.values()] : cache.byIndex(NAMESPACE, namespace),
    byIndex: cache.byIndex,
    addIndex: cache.addIndex,
    addHandler(handler) {
      cache.handlers.push(handler);
      if (handler.add) for (const object of cache.objects.values()) handler.add(object);
    },
  };
}

const NAMESPACE = 'namespace';

interface Cache<T extends KubeObject> {
  objects: Map<string, T>;
  handlers: InformerHandler<T>[];
  byIndex(index: string, value: string): T[];
  addIndex(index: string, of: IndexFunction<T>): void;
  set(object: T): void;
  delete(key: string, last?: T): void;
}

function createCache<T extends KubeObject>(): Cache<T> {
  const objects = new Map<string, T>();
  const handlers: InformerHandler<T>[] = [];
  const indexes = new Map<string, { of: IndexFunction<T>; keys: Map<string, Set<string>> }>();

  const enter = (key: string, object: T): void => {
    for (const { of, keys } of indexes.values()) {
      for (const value of of(object)) {
        const set = keys.get(value);
        if (set) set.add(key);
        else keys.set(value, new Set([key]));
      }
    }
  };
  const leave = (key: string, object: T): void => {
    for (const { of, keys } of indexes.values()) {
      for (const value of of(object)) {
        const set = keys.get(value);
        set?.delete(key);
        if (!set?.size) keys.delete(value);
      }
    }
  };

  const cache: Cache<T> = {
    objects,
    handlers,
    byIndex(index, value) {
      const keys = indexes.get(index)?.keys.get(value);
      return keys ? [...keys].map((key) => objects.get(key) as T) : [];
    },
    addIndex(index, of) {
      if (indexes.has(index)) return;
      const keys = new Map<string, Set<string>>();
      indexes.set(index, { of, keys });
      for (const [key, object] of objects) {
        for (const value of of(object)) {
          const set = keys.get(value);
          if (set) set.add(key);
          else keys.set(value, new Set([key]));
        }
      }
    },
    set(object) {
      delete object.metadata.managedFields;
      const key = objectKey(object);
      const previous = objects.get(key);
      if (previous?.metadata.resourceVersion === object.metadata.resourceVersion && previous)
        return;
      if (previous) leave(key, previous);
      objects.set(key, object);
      enter(key, object);
      // Deleted and created again while nobody looked: two objects, not one that changed.
      if (previous && previous.metadata.uid !== object.metadata.uid) {
        for (const handler of handlers) handler.delete?.(previous);
        for (const handler of handlers) handler.add?.(object);
      } else if (previous) {
        for (const handler of handlers) handler.update?.(object, previous);
      } else {
        for (const handler of handlers) handler.add?.(object);
      }
    },
    delete(key, last) {
      const previous = objects.get(key);
      if (!previous) return;
      leave(key, previous);
      objects.delete(key);
      if (last) delete last.metadata.managedFields;
      for (const handler of handlers) handler.delete?.(last ?? previous);
    },
  };
  cache.addIndex(NAMESPACE, ({ metadata }) => [metadata.namespace ?? '']);
  return cache;
}

/** Lists, then watches; resumes where the watch ended; lists again when that is too long ago. */
async function follow<T extends KubeObject>(
  options: InformerOptions<T>,
  cache: Cache<T>,
  markSynced: () => void,
): Promise<void> {
  const { clock, random, signal } = options;
  const log = options.log.with({ resource: options.resource.resource });
  let resourceVersion: string | undefined;
  let failureCount = 0;
  while (!signal.aborted) {
    try {
      if (resourceVersion === undefined) {
        resourceVersion = await relist(options, cache);
        markSynced();
        failureCount = 0;
      }
      const startMs = clock.monotonicMs();
      const after = await watchOnce(options, cache, resourceVersion, (version) => {
        resourceVersion = version;
        failureCount = 0;
      });
      if (!after && clock.monotonicMs() - startMs < WATCH_SHORT_MS) failureCount += 1;
    } catch (error) {
      if (signal.aborted) return;
      const isExpired = error instanceof StatusError && error.code === 410;
      if (isExpired) resourceVersion = undefined;
      failureCount += 1;
      // The first failure is everyday life: the server restarted, or the watch was too old.
      if (failureCount > 1) log.warn('Watch failed', { failureCount, error: describeError(error) });
    }
    if (failureCount === 0) continue;
    const limitMs = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(failureCount - 1, 16));
    await clock.sleep(limitMs * (0.5 + random.next() / 2), signal).catch(() => {});
  }
}

async function relist<T extends KubeObject>(
  { client, resource, signal, namespace, labelSelector, fieldSelector }: InformerOptions<T>,
  cache: Cache<T>,
): Promise<string> {
  const select = { namespace, labelSelector, fieldSelector, signal };
  const { items, metadata } = await client.listAll(resource, select);
  const gone = new Set(cache.objects.keys());
  for (const object of items) {
    gone.delete(objectKey(object));
    cache.set(object);
  }
  for (const key of gone) cache.delete(key);
  return metadata.resourceVersion ?? '0';
}

/** @returns whether the watch brought anything, bookmarks included */
async function watchOnce<T extends KubeObject>(
  options: InformerOptions<T>,
  cache: Cache<T>,
  resourceVersion: string,
  reached: (resourceVersion: string) => void,
): Promise<boolean> {
  const { client, resource, signal, namespace, labelSelector, fieldSelector, random } = options;
  const timeoutSeconds = Math.floor(WATCH_TIMEOUT_MIN_SECONDS * (1 + random.next()));
  const select = { namespace, labelSelector, fieldSelector, signal };
  const events = client.watch(resource, { ...select, resourceVersion, timeoutSeconds });
  let hasProgress = false;
  for await (const { type, object } of events) {
    if (signal.aborted) break;
    if (type === 'DELETED') cache.delete(objectKey(object), object);
    else if (type !== 'BOOKMARK') cache.set(object);
    const version = object.metadata.resourceVersion;
    if (version) reached(version);
    hasProgress = true;
  }
  return hasProgress;
}

export interface InformerFactory {
  readonly client: Client;
  /** One informer per resource for the whole process, started when it is first asked for. */
  informer<T extends KubeObject>(resource: Resource<T>): Informer<T>;
}

/** Shares informers, so that each object is held in memory once, however many controllers look. */
export function createInformerFactory(
  options: Pick<InformerOptions<KubeObject>, 'client' | 'clock' | 'random' | 'log' | 'signal'>,
): InformerFactory {
  const informers = new Map<string, Informer<KubeObject>>();
  return {
    client: options.client,
    informer<T extends KubeObject>(resource: Resource<T>): Informer<T> {
      const { group, version, metadataOnly } = resource;
      const id = `${group}/${version}/${resource.resource}${metadataOnly ? ' metadata' : ''}`;
      const known = informers.get(id) ?? createInformer<KubeObject>({ ...options, resource });
      informers.set(id, known);
      return known as unknown as Informer<T>;
    },
  };
}
