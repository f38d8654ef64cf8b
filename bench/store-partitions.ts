import type { KubeObject } from '../src/api/object.ts';
import { systemClock } from '../src/base/clock.ts';
import { createMemoryStore } from '../src/store/memory.ts';
import type { Entry, Key, PartitionOf, Store } from '../src/store/store.ts';
import { series } from './report.ts';
import type { Series } from './report.ts';
import { benchPod, heapBytes } from './store-pods.ts';

const PARTITION_COUNT = 1_000;
const POD_COUNT = 100;
const ROUNDS = 400;
const CALLS_PER_ROUND = 20;
const IDLE_RESOURCE_COUNT = 10;

/** The one that is looked at; it lies in the middle of the others. */
const TENANT = 't-500';

const byNamespace: PartitionOf = ({ namespace }) => namespace;

/**
 * What a tenant's own reads cost, alone and among a thousand tenants like it, and what partitions
 * cost in memory. In memory, because a disk would hide it.
 */
export async function timePartitions(): Promise<Series[]> {
  const alone = createMemoryStore({ partitionOf: byNamespace });
  const among = createMemoryStore({ partitionOf: byNamespace });
  try {
    await fill(alone, [TENANT]);
    await fill(among, tenants());
    return [
      ...(await compare('list a tenant’s pods', alone, among, listOwn)),
      ...(await compare('list a page of them, 10 writes ago', alone, among, listOld)),
      ...(await compare('watch all that befell them', alone, among, watchPast)),
      ...(await compareLive(alone, among)),
      await memoryOfIndex(),
      await memoryOfIdle(),
    ];
  } finally {
    await alone.close();
    await among.close();
  }
}

const tenants = () => Array.from({ length: PARTITION_COUNT }, (_, index) => `t-${index}`);

const podKey = (namespace: string, index: number): Key => ({
  resource: 'pods',
  namespace,
  name: `p-${String(index).padStart(5, '0')}`,
});

/** In turns, as tenants write: what belongs to one of them lies scattered among the others. */
async function fill(store: Store, names: string[]): Promise<void> {
  for (let index = 0; index < POD_COUNT; index += 1) {
    await Promise.all(
      names.map((name) => {
        const key = podKey(name, index);
        const pod = name === TENANT ? benchPod(key.name) : smallObject(key);
        return store.mutate(key, () => pod);
      }),
    );
  }
}

function smallObject({ name, namespace }: Key): KubeObject {
  return { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace } };
}

function listOwn(store: Store): void {
  store.list('pods', { partition: TENANT });
}

function listOld(store: Store): void {
  const last = store.get(podKey(TENANT, POD_COUNT - 11)) as Entry;
  const options = { limit: POD_COUNT / 2, atRevision: last.revision };
  store.list('pods', { partition: TENANT, ...options });
}

async function watchPast(store: Store): Promise<void> {
  const stop = new AbortController();
  const afterRevision = store.stats().compactRevision;
  const { signal } = stop;
  const watch = store.watch('pods', { partition: TENANT, afterRevision, signal });
  const iterator = watch[Symbol.asyncIterator]();
  for (let index = 0; index < POD_COUNT; index += 1) await iterator.next();
  stop.abort();
}

/** Times both in turns, so that what else the machine does falls on both. */
async function compare(
  what: string,
  alone: Store,
  among: Store,
  act: (store: Store) => unknown,
): Promise<Series[]> {
  const samples: [alone: number[], among: number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [index, store] of [alone, among].entries()) {
      const startMs = systemClock.monotonicMs();
      for (let call = 0; call < CALLS_PER_ROUND; call += 1) await act(store);
      const elapsedMs = systemClock.monotonicMs() - startMs;
      samples[index]?.push((1000 * elapsedMs) / CALLS_PER_ROUND);
    }
  }
  const [first, second] = samples.map((each, index) =>
    series(`${what}, ${index === 0 ? 'alone' : `among ${PARTITION_COUNT} tenants`}`, each, 'µs'),
  ) as [Series, Series];
  const share = (100 * second.p50) / first.p50;
  return [first, second, series('  of what it is alone', [share], '%')];
}

/** A write and its arrival at the tenant's watch, while every other tenant watches its own. */
async function compareLive(alone: Store, among: Store): Promise<Series[]> {
  const stop = new AbortController();
  const { signal } = stop;
  const watch = (store: Store, partition: string) =>
    store.watch('pods', { partition, afterRevision: store.revision, signal });
  for (const name of tenants()) if (name !== TENANT) watch(among, name);
  const own = new Map(
    [alone, among].map((store) => [store, watch(store, TENANT)[Symbol.asyncIterator]()]),
  );
  const key = podKey(TENANT, 0);
  const pod = benchPod(key.name);
  const measured = await compare('write one and see it in a watch', alone, among, async (store) => {
    await store.mutate(key, () => pod);
    await own.get(store)?.next();
  });
  stop.abort();
  return measured;
}

/** What the second way to an object costs: the same store, with and without partitions. */
async function memoryOfIndex(): Promise<Series> {
  const count = PARTITION_COUNT * POD_COUNT;
  const bytes = await indexBytes((store) => fill(store, tenants()));
  return series(`memory of the index, per object of ${count}`, [bytes / count], 'B');
}

/** A tenant that does nothing: one object in each of a few resources, whose history has expired. */
async function memoryOfIdle(): Promise<Series> {
  const bytes = await indexBytes(async (store) => {
    for (const namespace of tenants()) {
      for (let index = 0; index < IDLE_RESOURCE_COUNT; index += 1) {
        const key = { resource: `example.org/kind-${index}`, namespace, name: 'default' };
        await store.mutate(key, () => smallObject(key));
      }
    }
  });
  const what = `memory of an idle tenant’s index, in ${IDLE_RESOURCE_COUNT} resources`;
  return series(what, [bytes / PARTITION_COUNT / 1024], 'KiB');
}

/** How much more a store takes that knows partitions. */
async function indexBytes(fillStore: (store: Store) => Promise<void>): Promise<number> {
  const limits = { ringEventCount: 1 };
  const stores = [
    createMemoryStore({ limits }),
    createMemoryStore({ limits, partitionOf: byNamespace }),
  ];
  const grown: number[] = [];
  for (const store of stores) {
    const before = heapBytes();
    await fillStore(store);
    grown.push(heapBytes() - before);
  }
  await Promise.all(stores.map((store) => store.close()));
  return (grown[1] as number) - (grown[0] as number);
}
