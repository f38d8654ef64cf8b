import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { KubeObject } from '../../src/api/object.ts';
import { systemClock } from '../../src/base/clock.ts';
import { seededRandom } from '../../src/base/random.ts';
import type { Random } from '../../src/base/random.ts';
import { openSqliteStore } from '../../src/store/sqlite.ts';
import { CompactedError, DELETE, StoreClosedError } from '../../src/store/store.ts';
import type { Entry, Key, PartitionOf, Store } from '../../src/store/store.ts';
import type { Acknowledgement, Recovered, Write } from './store-history.ts';

/**
 * The victim of the crash test. Waits for `go`, opens the store, reports what it finds, and then
 * writes with several clients, reporting each acknowledgement, until it is killed or told `stop`.
 *
 * Arguments: path, process number, seed, number of clients.
 */
const [path = '', number = '0', seed = '0', clientCount = '1'] = process.argv.slice(2);
const processNumber = Number(number);

const KEYS: Key[] = [
  ...Array.from({ length: 20 }, (_, index) => key('pods', `ns-${index % 3}`, `p${index}`)),
  ...Array.from({ length: 6 }, (_, index) => key('secrets', 'ns-0', `s${index}`)),
];
const PARTITIONS = ['', 'red', 'blue'];
const partitionOf: PartitionOf = (_, content) => content.owner as string;
const VOLATILE_KEYS = [key('events', 'ns-0', 'e0'), key('events', 'ns-0', 'e1')];

function key(resource: string, namespace: string, name: string): Key {
  return { resource, namespace, name };
}

/** Blocks until it is in the pipe, where the parent finds it even when this process is gone. */
function report(line: object): void {
  let rest = Buffer.from(`${JSON.stringify(line)}\n`);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      // The pipe is full and does not block by itself.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

const nameOf = ({ resource, namespace, name }: Key) => `${resource}/${namespace}/${name}`;

const itemOf = (entry: Entry) => `${nameOf(entry.key)}@${entry.revision}`;

function checkPayload({ key: where, object }: Entry): void {
  const text = object.text as string;
  if (text.length !== object.length || /[^é]/.test(text)) {
    throw new Error(`The payload of ${nameOf(where)} is damaged`);
  }
}

/** What is found by partition must be a part of what is found without. */
async function checkPartition(
  store: Store,
  resource: string,
  partition: string,
  floor: number,
  events: Write[],
): Promise<void> {
  const same = (found: unknown[], expected: unknown[]) => {
    if (JSON.stringify(found) === JSON.stringify(expected)) return;
    throw new Error(`Partition "${partition}" of ${resource} is not what it is among all`);
  };
  for (const atRevision of [floor, store.revision]) {
    const all = store.list(resource, { atRevision }).entries;
    const own = all.filter((entry) => entry.partition === partition);
    same(store.list(resource, { partition, atRevision }).entries.map(itemOf), own.map(itemOf));
  }
  const expected = events.filter((event) => event.partition === partition);
  const { signal } = new AbortController();
  const watch = store.watch(resource, { partition, afterRevision: floor, signal });
  const iterator = watch[Symbol.asyncIterator]();
  const found: number[] = [];
  while (watch.progressRevision < store.revision) {
    const { value: event } = await iterator.next();
    found.push(event.revision);
  }
  same(
    found,
    expected.map(({ revision }) => revision),
  );
}

async function findings(store: Store, resource: string): Promise<Recovered> {
  const { signal } = new AbortController();
  let floor = 0;
  try {
    store.watch(resource, { afterRevision: 0, signal });
  } catch (error) {
    if (!(error instanceof CompactedError)) throw error;
    floor = error.compactRevision;
  }
  const watch = store.watch(resource, { afterRevision: floor, signal });
  const events: Write[] = [];
  const iterator = watch[Symbol.asyncIterator]();
  while (watch.progressRevision < store.revision) {
    const { value: event } = await iterator.next();
    checkPayload(event.entry);
    events.push({
      key: nameOf(event.entry.key),
      revision: event.revision,
      previousRevision: event.previous?.revision ?? 0,
      partition: event.entry.partition,
      deleted: event.type === 'DELETED',
      token: event.type === 'DELETED' ? '' : (event.entry.object.token as string),
    });
  }
  const { entries } = store.list(resource);
  entries.forEach(checkPayload);
  const base = store.list(resource, { atRevision: floor }).entries.map(itemOf);
  for (const partition of PARTITIONS)
    await checkPartition(store, resource, partition, floor, events);
  return { floor, base, events, state: entries.map(itemOf) };
}

async function runClient(store: Store, client: number, random: Random): Promise<void> {
  for (let operation = 0; ; operation += 1) {
    const volatile = random.next() < 0.1;
    const keys = volatile ? VOLATILE_KEYS : KEYS;
    const target = keys[Math.floor(random.next() * keys.length)] as Key;
    const choice = random.next();
    const owner = PARTITIONS[Math.floor(random.next() * PARTITIONS.length)] as string;
    const token = `${processNumber}.${client}.${operation}`;
    const length = Math.floor(random.next() ** 8 * 60_000);
    let previousRevision = 0;
    const { entry, changed, deleted } = await store.mutate(target, (current) => {
      previousRevision = current?.revision ?? 0;
      if (choice < 0.15) return DELETE;
      if (choice < 0.2) return undefined;
      const { name, namespace } = target;
      const metadata = { name, namespace };
      const content = { token, owner, length, text: 'é'.repeat(length) };
      return { apiVersion: 'v1', kind: 'Test', metadata, ...content } satisfies KubeObject;
    });
    const revision = entry?.revision ?? 0;
    if ((store.get(target)?.revision ?? Infinity) < revision) {
      throw new Error(`${nameOf(target)} is acknowledged at ${revision} but not yet visible`);
    }
    const partition = entry?.partition ?? '';
    const subject = { key: nameOf(target), revision, previousRevision, partition, deleted, token };
    const origin = { process: processNumber, client, operation };
    report({ ack: { ...subject, ...origin, changed, volatile } satisfies Acknowledgement });
  }
}

async function main(): Promise<void> {
  const commands = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  await commands.next();
  const limits = { ringEventCount: 300 };
  const store = await openSqliteStore({ path, clock: systemClock, limits, partitionOf });
  const resources = [await findings(store, 'pods'), await findings(store, 'secrets')];
  const volatileCount = store.list('events').entries.length;
  report({ recovery: { revision: store.revision, resources, volatileCount } });
  const random = seededRandom(Number(seed));
  const clients = Array.from({ length: Number(clientCount) }, (_, client) =>
    runClient(store, client, random).catch((error) => {
      if (!(error instanceof StoreClosedError)) throw error;
    }),
  );
  await Promise.race([Promise.all(clients), commands.next()]);
  await store.close();
  await Promise.all(clients);
  process.stdin.destroy();
}

await main();
