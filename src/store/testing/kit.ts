import type { KubeObject } from '../../api/object.ts';
import type { FakeClock } from '../../base/clock.fake.ts';
import { DELETE } from '../store.ts';
import type {
  Entry,
  Key,
  PartitionOf,
  Store,
  StoreEvent,
  StoreLimits,
  StoreWatch,
} from '../store.ts';

/** What tests of stores share: keys and objects, and ways to read a watch. */

export interface TestContext {
  store: Store;
  clock: FakeClock;
  signal: AbortSignal;
}

export type TestBody = (context: TestContext) => Promise<void>;
/** Makes one test of the suite: its title, its body, and the limits of its store. */
export type Test = (title: string, body: TestBody, limits?: Partial<StoreLimits>) => void;

export const pod = (name: string, namespace = 'default'): Key => ({
  resource: 'pods',
  namespace,
  name,
});

export const namespace = (name: string): Key => ({ resource: 'namespaces', namespace: '', name });

/** A namespace belongs to its `owner`, what is in it to the same one, all else to the cluster. */
export const ownerOf: PartitionOf = (key, content, newest) => {
  if (key.resource === 'namespaces') return (content.owner as string | undefined) ?? '';
  return newest(namespace(key.namespace))?.partition ?? '';
};

export function object(key: Key, data: Record<string, unknown> = {}): KubeObject {
  const { name, namespace } = key;
  const metadata = namespace ? { name, namespace } : { name };
  return freeze({ apiVersion: 'v1', kind: 'Test', metadata, ...data });
}

/** Frozen, so that a store that changes what it was given fails. */
function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.freeze(value);
    for (const inner of Object.values(value)) freeze(inner);
  }
  return value;
}

/** Stores an object under `key` and returns its entry. */
export async function put(
  store: Store,
  key: Key,
  data: Record<string, unknown> = {},
): Promise<Entry> {
  const { entry } = await store.mutate(key, () => object(key, data));
  return entry as Entry;
}

export const remove = (store: Store, key: Key) => store.mutate(key, () => DELETE);

export const namesOf = (entries: Entry[]) =>
  entries.map(({ key }) => (key.namespace ? `${key.namespace}/${key.name}` : key.name));

/** The next `count` events. */
export async function take(watch: StoreWatch, count: number): Promise<StoreEvent[]> {
  const iterator = watch[Symbol.asyncIterator]();
  const events: StoreEvent[] = [];
  while (events.length < count) {
    const { value, done } = await iterator.next();
    if (done) break;
    events.push(value);
  }
  return events;
}

/** Everything up to the end of the stream. */
export async function drain(watch: StoreWatch): Promise<StoreEvent[]> {
  const events: StoreEvent[] = [];
  for await (const event of watch) events.push(event);
  return events;
}

export const brief = (event: StoreEvent) =>
  `${event.type} ${event.entry.key.name}@${event.revision}`;

export const parsed = (entry: Entry) =>
  JSON.parse(new TextDecoder().decode(entry.bytes)) as KubeObject;
