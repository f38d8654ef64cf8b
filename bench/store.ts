import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KubeObject } from '../src/api/object.ts';
import { systemClock } from '../src/base/clock.ts';
import type { DataPaths } from '../src/cli/config.ts';
import { openSqliteStore } from '../src/store/sqlite.ts';
import type { Key, Store } from '../src/store/store.ts';
import { describeMachine, series } from './report.ts';
import type { BenchReport, Series } from './report.ts';
import { benchPod, memoryBytes } from './store-pods.ts';
import { timePartitions } from './store-partitions.ts';

const CLIENT_COUNTS = [1, 16, 256];
const POD_COUNT = 10_000;
const PAGE_LENGTH = 500;
const LIST_ROUNDS = 30;
const WATCHER_COUNT = 1_000;
const FAN_OUT_ROUNDS = 100;
const BURST_LENGTH = 200;
const START_POD_COUNT = 100_000;

export interface StoreBenchOptions {
  /** A folder on the disk to measure. @default the system's for temporary files */
  folder?: string;
  /** How long each number of clients writes. @default 3000 */
  writeMs?: number;
}

/** The durable store alone, without HTTP: writes, lists, watches, memory, start. */
async function runStoreBench(options: StoreBenchOptions = {}): Promise<BenchReport> {
  const folder = await mkdtemp(join(options.folder ?? tmpdir(), 'hypernetes-bench-'));
  const path = join(folder, 'store.db');
  const measured: Series[] = [];
  let store = await openSqliteStore({ path });
  try {
    for (const clients of CLIENT_COUNTS) {
      measured.push(...(await timeWrites(store, clients, options.writeMs ?? 3000)));
    }
    await store.close();
    await rm(path);
    store = await openSqliteStore({ path });
    measured.push(await fill(store, POD_COUNT));
    measured.push(...timeLists(store));
    measured.push(...(await timeWatches(store)));
    await writeAll(store, POD_COUNT, START_POD_COUNT);
    await store.close();
    memoryBytes();
    const startMs = systemClock.monotonicMs();
    store = await openSqliteStore({ path });
    measured.push(series(`start with ${START_POD_COUNT} pods`, [since(startMs)]));
    measured.push(...(await timePartitions()));
  } finally {
    await store.close();
    await rm(folder, { recursive: true });
  }
  return {
    name: 'store',
    machine: describeMachine('not used'),
    series: measured,
    notes: [
      `Pods of ${jsonBytes(benchPod('p-00000'))} bytes; each write counts once it is on the disk.`,
      'Clients share the process with the store, and their work is part of the times.',
    ],
  };
}

async function timeWrites(store: Store, clients: number, writeMs: number): Promise<Series[]> {
  const latencies: number[] = [];
  const startMs = systemClock.monotonicMs();
  let next = 0;
  const work = async () => {
    while (since(startMs) < writeMs) {
      next += 1;
      const beganMs = systemClock.monotonicMs();
      await write(store, next % POD_COUNT);
      latencies.push(since(beganMs));
    }
  };
  await Promise.all(Array.from({ length: clients }, work));
  const perSecond = (1000 * latencies.length) / since(startMs);
  const who = clients === 1 ? '1 client' : `${clients} clients`;
  return [
    series(`write, ${who}`, latencies),
    series(`writes per second, ${who}`, [perSecond], '1/s'),
  ];
}

/** What the pods take in memory, with the parsed form that a write leaves behind. */
async function fill(store: Store, count: number): Promise<Series> {
  const before = memoryBytes();
  await writeAll(store, 0, count);
  const bytesEach = (memoryBytes() - before) / count;
  return series(`memory of a pod, of ${count}`, [bytesEach / 1024], 'KiB');
}

function timeLists(store: Store): Series[] {
  const whole: number[] = [];
  const joined: number[] = [];
  const pages: number[] = [];
  for (let round = 0; round < LIST_ROUNDS; round += 1) {
    let startMs = systemClock.monotonicMs();
    const { entries, revision } = store.list('pods');
    whole.push(since(startMs));
    startMs = systemClock.monotonicMs();
    Buffer.concat(entries.map(({ bytes }) => bytes));
    joined.push(since(startMs));
    startMs = systemClock.monotonicMs();
    store.list('pods', { limit: PAGE_LENGTH, atRevision: revision - POD_COUNT / 2 });
    pages.push(since(startMs));
  }
  return [
    series(`list ${POD_COUNT} pods`, whole),
    series(`join the bytes of ${POD_COUNT} pods`, joined),
    series(`list ${PAGE_LENGTH} pods, ${POD_COUNT / 2} writes ago`, pages),
  ];
}

async function timeWatches(store: Store): Promise<Series[]> {
  const stop = new AbortController();
  const { signal } = stop;
  const afterRevision = store.revision;
  let arrived = 0;
  let wanted = Infinity;
  let done = Promise.withResolvers<void>();
  const watches = Array.from({ length: WATCHER_COUNT }, async () => {
    for await (const _ of store.watch('pods', { afterRevision, signal })) {
      arrived += 1;
      if (arrived === wanted) done.resolve();
    }
  });
  const time = async (count: number) => {
    arrived = 0;
    wanted = count * WATCHER_COUNT;
    done = Promise.withResolvers();
    const startMs = systemClock.monotonicMs();
    await Promise.all(Array.from({ length: count }, (_, index) => write(store, index)));
    await done.promise;
    return since(startMs);
  };
  const single: number[] = [];
  for (let round = 0; round < FAN_OUT_ROUNDS; round += 1) single.push(await time(1));
  const burstMs = await time(BURST_LENGTH);
  stop.abort();
  await Promise.all(watches);
  const perSecond = (1000 * BURST_LENGTH * WATCHER_COUNT) / burstMs;
  return [
    series(`write seen by all of ${WATCHER_COUNT} watches`, single),
    series(`deliveries per second, ${BURST_LENGTH} writes at once`, [perSecond], '1/s'),
  ];
}

async function writeAll(store: Store, from: number, to: number): Promise<void> {
  for (let index = from; index < to; index += 1000) {
    const count = Math.min(1000, to - index);
    await Promise.all(Array.from({ length: count }, (_, offset) => write(store, index + offset)));
  }
}

function write(store: Store, index: number): Promise<unknown> {
  const name = `p-${String(index).padStart(5, '0')}`;
  const key: Key = { resource: 'pods', namespace: 'bench', name };
  // Parsed from text, as the API server gets it: no two pods share a string.
  const text = JSON.stringify(benchPod(name));
  return store.mutate(key, () => JSON.parse(text) as KubeObject);
}

const since = (startMs: number) => systemClock.monotonicMs() - startMs;

const jsonBytes = (object: KubeObject) => Buffer.byteLength(JSON.stringify(object));

/** As the command line calls it: the store's file lies beneath the data directory. */
export function benchStore(paths: DataPaths): Promise<BenchReport> {
  return runStoreBench({ folder: paths.root });
}
