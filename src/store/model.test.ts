import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FakeClock } from '../base/clock.fake.ts';
import { seededRandom } from '../base/random.ts';
import type { Random } from '../base/random.ts';
import { object, take } from './testing/kit.ts';
import { createMemoryStore } from './memory.ts';
import { openSqliteStore } from './sqlite.ts';
import { CompactedError, DELETE } from './store.ts';
import type { Entry, Key, PartitionOf, Store } from './store.ts';

interface Scope {
  namespace: string | undefined;
  partition: string | undefined;
}

/** One write, as the model remembers it. */
interface ModelWrite {
  key: Key;
  revision: number;
  createRevision: number;
  partition: string;
  /** Undefined: deleted. */
  value: number | undefined;
}

/**
 * The simplest store there can be: the list of all writes ever made. Every answer is worked out
 * from the beginning.
 */
class Model {
  readonly writes: ModelWrite[] = [];

  newest(key: Key, atRevision = Infinity): ModelWrite | undefined {
    const same = (other: Key) =>
      other.resource === key.resource &&
      other.namespace === key.namespace &&
      other.name === key.name;
    const found = this.writes.findLast((w) => w.revision <= atRevision && same(w.key));
    return found?.value === undefined ? undefined : found;
  }

  list(resource: string, { partition, namespace }: Scope, atRevision: number): ModelWrite[] {
    const newest = new Map<string, ModelWrite>();
    for (const write of this.writes) {
      const { key } = write;
      if (write.revision > atRevision || key.resource !== resource) continue;
      if (namespace === undefined || key.namespace === namespace) {
        newest.set(JSON.stringify([key.namespace, key.name]), write);
      }
    }
    return [...newest.values()]
      .filter((write) => write.value !== undefined && isIn(write, partition))
      .sort((a, b) => compare(a.key.namespace, b.key.namespace) || compare(a.key.name, b.key.name));
  }
}

const isIn = (write: ModelWrite, partition: string | undefined) =>
  partition === undefined || write.partition === partition;

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

const RESOURCES = ['pods', 'apps/deployments'];
const NAMESPACES = ['', 'a', 'a-b', 'b'];
const NAMES = ['x', 'x-1', 'y', 'z', 'é'];

const PARTITIONS = ['', 'red', 'blue'];

const decider = (key: Key): Key => ({ ...key, resource: 'pods', name: 'x' });

/** A pod belongs to its owner, a deployment to the owner of the pod `x` beside it. */
const partitionOf: PartitionOf = (key, content, newest) =>
  key.resource === 'pods' ? (content.owner as string) : (newest(decider(key))?.partition ?? '');

const HISTORY_MS = 60_000;
const HISTORY_COUNT = 60;

interface Run {
  random: Random;
  model: Model;
  store: Store;
  valueCount: number;
}

const pick = <T>(random: Random, items: readonly T[]) =>
  items[Math.floor(random.next() * items.length)] as T;

const anyKey = (random: Random): Key => ({
  resource: pick(random, RESOURCES),
  namespace: pick(random, NAMESPACES),
  name: pick(random, NAMES),
});

const anyScope = (random: Random): Scope => ({
  namespace: pick(random, [undefined, undefined, ...NAMESPACES]),
  partition: pick(random, [undefined, ...PARTITIONS, 'nobody']),
});

const seen = ({ key, revision, createRevision, partition, object }: Entry): ModelWrite => ({
  key,
  revision,
  createRevision,
  partition,
  value: object.value as number,
});

/** Up to eight mutations at once, each checked against what the model had at that place. */
async function mutateSome(run: Run): Promise<void> {
  const { random, model, store } = run;
  const count = 1 + Math.floor(random.next() * 8);
  await Promise.all(
    Array.from({ length: count }, async () => {
      const key = anyKey(random);
      const choice = random.next();
      const value = (run.valueCount += 1);
      const owner = pick(random, PARTITIONS);
      let before: ModelWrite | undefined;
      const refusal = new Error('refused');
      const result = await store
        .mutate(key, (current) => {
          before = current && seen(current);
          if (choice < 0.6) return object(key, { value, owner, text: 'x'.repeat(value % 500) });
          if (choice < 0.85) return DELETE;
          if (choice < 0.93) return undefined;
          throw refusal;
        })
        .catch((error) => {
          assert.equal(error, refusal);
          return undefined;
        });
      assert.equal(result === undefined, choice >= 0.93);
      const written = result?.changed ? (result.entry as Entry) : undefined;
      // Acknowledgements arrive in order of revision, so the model holds all that came before.
      const expected = model.newest(key, (written?.revision ?? Infinity) - 1);
      assert.deepEqual(before, expected);
      if (!written) return;
      const deleted = choice >= 0.6;
      const { revision, createRevision, partition } = written;
      const current = deleted ? undefined : value;
      model.writes.push({ key, revision, createRevision, partition, value: current });
      const atCreation = () =>
        key.resource === 'pods' ? owner : (model.newest(decider(key))?.partition ?? '');
      assert.equal(partition, expected ? expected.partition : atCreation());
      assert.equal(createRevision, expected?.createRevision ?? revision);
      assert.equal(result?.deleted, deleted);
    }),
  );
}

function listSome({ random, model, store }: Run): void {
  const resource = pick(random, RESOURCES);
  const scope = anyScope(random);
  const back = Math.floor(random.next() ** 3 * 100);
  const atRevision = random.next() < 0.4 ? undefined : Math.max(1, store.revision - back);
  const limit = random.next() < 0.5 ? undefined : 1 + Math.floor(random.next() * 5);
  const after = random.next() < 0.5 ? undefined : anyKey(random);
  let result;
  try {
    result = store.list(resource, { ...scope, atRevision, limit, after });
  } catch (error) {
    assert.ok(error instanceof CompactedError && atRevision !== undefined);
    assert.ok(atRevision < error.compactRevision);
    return;
  }
  assert.equal(result.revision, atRevision ?? store.revision);
  const all = model
    .list(resource, scope, result.revision)
    .filter(
      ({ key }) =>
        !after || (compare(key.namespace, after.namespace) || compare(key.name, after.name)) > 0,
    );
  assert.deepEqual(result.entries.map(seen), all.slice(0, limit));
  assert.equal(result.remainingCount, all.length - result.entries.length);
}

async function watchSome({ random, model, store }: Run): Promise<void> {
  const resource = pick(random, RESOURCES);
  const scope = anyScope(random);
  const { partition, namespace } = scope;
  const afterRevision = Math.max(1, store.revision - Math.floor(random.next() ** 2 * 100));
  const expected = model.writes.filter(
    (write) =>
      write.revision > afterRevision &&
      write.key.resource === resource &&
      (namespace === undefined || write.key.namespace === namespace) &&
      isIn(write, partition),
  );
  const abort = new AbortController();
  try {
    const watch = store.watch(resource, { ...scope, afterRevision, signal: abort.signal });
    const events = await take(watch, expected.length);
    assert.equal(watch.progressRevision, store.revision);
    for (const [index, event] of events.entries()) {
      const write = expected[index] as ModelWrite;
      const before = model.newest(write.key, write.revision - 1);
      const { value, revision } = write;
      const type = value === undefined ? 'DELETED' : before ? 'MODIFIED' : 'ADDED';
      assert.equal(event.type, type);
      const current = { ...write, value: value ?? before?.value };
      assert.deepEqual(seen(event.entry), current);
      assert.deepEqual(event.previous && seen(event.previous), before);
      assert.equal(event.entry.object.metadata.resourceVersion, String(revision));
    }
  } catch (error) {
    if (!(error instanceof CompactedError)) throw error;
    assert.ok(afterRevision < error.compactRevision);
    const dropped = model.writes.some(({ revision }) => revision === error.compactRevision);
    assert.ok(dropped, 'a floor is the revision of the last event that was dropped');
  } finally {
    abort.abort();
  }
}

async function play(
  stepCount: number,
  open: (clock: FakeClock) => Promise<Store>,
  keepsState: boolean,
): Promise<void> {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const random = seededRandom(seed);
  const clock = new FakeClock();
  const run: Run = { random, model: new Model(), store: await open(clock), valueCount: 0 };
  try {
    for (let step = 0; step < stepCount; step += 1) {
      const choice = random.next();
      if (choice < 0.5) await mutateSome(run);
      else if (choice < 0.75) listSome(run);
      else if (choice < 0.94) await watchSome(run);
      else if (choice < 0.97) await clock.advance(random.next() * HISTORY_MS);
      else if (keepsState) {
        const { revision } = run.store;
        await run.store.close();
        run.store = await open(clock);
        assert.ok(run.store.revision > revision);
      }
    }
  } catch (error) {
    throw new Error(`The store differs from the model with seed ${seed}`, { cause: error });
  } finally {
    await run.store.close();
  }
}

const limits = { ringEventCount: HISTORY_COUNT, historyMs: HISTORY_MS };

describe('a store under random operations', () => {
  it('in memory answers as the model does', async () => {
    await play(
      1500,
      (clock) => Promise.resolve(createMemoryStore({ clock, limits, partitionOf })),
      false,
    );
  });

  it('in a file, opened again and again, answers as the model does', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hypernetes-store-'));
    const path = join(folder, 'store.db');
    try {
      await play(500, (clock) => openSqliteStore({ path, clock, limits, partitionOf }), true);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
