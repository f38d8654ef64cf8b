import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../base/clock.fake.ts';
import { silentLog } from '../base/log.ts';
import { namespace, object, ownerOf, pod, put } from './testing/kit.ts';
import { Engine } from './engine.ts';
import type { Journal, JournalBatch } from './journal.ts';
import { DELETE, STORE_LIMITS, StoreBusyError } from './store.ts';
import type { Entry, Key, StoreLimits } from './store.ts';

/** A journal whose commits end when the test says so. */
function makeJournal() {
  const commits: { batch: JournalBatch; succeed: () => void; fail: (error: Error) => void }[] = [];
  const journal: Journal = {
    commit: (batch) =>
      new Promise((resolve, reject) => commits.push({ batch, succeed: resolve, fail: reject })),
    close: () => Promise.resolve(),
  };
  /** The next commit that is waiting. */
  const next = async () => {
    for (let turn = 0; turn < 100 && commits.length === 0; turn += 1) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    const commit = commits.shift();
    assert.ok(commit, 'a commit was expected');
    return commit;
  };
  return { journal, commits, next };
}

function makeEngine(journal: Journal, limits: Partial<StoreLimits> = {}): Engine {
  return new Engine({
    clock: new FakeClock(),
    log: silentLog,
    limits: { ...STORE_LIMITS, ...limits },
    journal,
    isVolatile: (key) => key.resource === 'events',
    mayBeVolatile: (resource) => resource === 'events',
    revision: 0,
    reservedRevision: 100,
    floors: new Map(),
    partitionOf: ownerOf,
  });
}

const event = (name: string): Key => ({ resource: 'events', namespace: 'default', name });

const namesIn = (batch: JournalBatch) => batch.writes.map(({ entry }) => entry.key.name);

/** Follows a promise without waiting for it. */
function follow<T>(promise: Promise<T>) {
  const followed = { state: 'pending', error: undefined as unknown, promise };
  promise.then(
    () => (followed.state = 'done'),
    (error) => {
      followed.state = 'failed';
      followed.error = error;
    },
  );
  return followed;
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('Engine', () => {
  it('neither shows nor acknowledges a write before its commit', async () => {
    const { journal, next } = makeJournal();
    const engine = makeEngine(journal);
    const write = follow(put(engine, pod('a')));
    const commit = await next();
    await turn();
    assert.equal(write.state, 'pending');
    assert.equal(engine.get(pod('a')), undefined);
    assert.equal(engine.revision, 1);
    commit.succeed();
    await write.promise;
    assert.equal(engine.get(pod('a'))?.revision, 2);
  });

  it('commits together what comes together, and what gathers meanwhile', async () => {
    const { journal, next } = makeJournal();
    const engine = makeEngine(journal);
    const writes = ['a', 'b', 'c'].map((name) => put(engine, pod(name)));
    const first = await next();
    assert.deepEqual(namesIn(first.batch), ['a', 'b', 'c']);
    for (const name of ['d', 'e']) {
      writes.push(put(engine, pod(name)));
      await turn();
    }
    first.succeed();
    const second = await next();
    assert.deepEqual(namesIn(second.batch), ['d', 'e']);
    second.succeed();
    await Promise.all(writes);
  });

  it('rejects all of a failed commit and decides anew what rested on it', async () => {
    const { journal, next } = makeJournal();
    const engine = makeEngine(journal);
    const seen: (number | undefined)[] = [];
    const writeA = () => put(engine, pod('a'), { value: 1 });
    const append = () =>
      engine.mutate(pod('a'), (current: Entry | undefined) => {
        seen.push(current?.object.value as number | undefined);
        return object(pod('a'), { value: 2 });
      });
    const failing = [follow(writeA()), follow(put(engine, pod('b')))];
    const first = await next();
    const resting = [
      append(),
      engine.mutate(pod('b'), (current) => (current ? undefined : object(pod('b')))),
      engine.mutate(pod('b'), () => DELETE),
    ];
    const error = new Error('disk full');
    first.fail(error);
    const second = await next();
    assert.deepEqual(
      failing.map(({ state }) => state),
      ['failed', 'failed'],
    );
    for (const write of failing) assert.equal(write.error, error);
    assert.deepEqual(seen, [1, undefined], 'first with, then without the write that failed');
    assert.deepEqual(
      second.batch.writes.map(({ entry }) => entry.revision),
      [2, 3, 4],
      'the revisions of the failed writes were never visible',
    );
    second.succeed();
    const [appended, created, deleted] = await Promise.all(resting);
    assert.equal(appended?.entry?.createRevision, 2);
    assert.equal(created?.changed, true);
    assert.equal(deleted?.deleted, true);
    assert.equal(engine.revision, 4);
  });

  it('decides the partition anew when the write that decided it fails', async () => {
    const { journal, next } = makeJournal();
    const engine = makeEngine(journal);
    const failing = follow(put(engine, namespace('r'), { owner: 'red' }));
    const first = await next();
    const resting = put(engine, pod('a', 'r'));
    const volatile = put(engine, { ...event('a'), namespace: 'r' });
    first.fail(new Error('disk full'));
    (await next()).succeed();
    assert.deepEqual([(await resting).partition, (await volatile).partition], ['', '']);
    assert.equal(failing.state, 'failed');
    assert.equal(engine.list('pods', { partition: 'red' }).entries.length, 0);
    assert.equal(engine.list('pods', { partition: '' }).entries.length, 1);
  });

  it('delays an answer until the write it rests on is durable', async () => {
    const { journal, next } = makeJournal();
    const engine = makeEngine(journal);
    const write = put(engine, pod('a'));
    const commit = await next();
    const conflict = new Error('exists');
    const refused = follow(
      engine.mutate(pod('a'), (current) => {
        if (current) throw conflict;
        return object(pod('a'));
      }),
    );
    const unrelated = follow(engine.mutate(pod('b'), () => undefined));
    await turn();
    assert.equal(refused.state, 'pending');
    assert.equal(unrelated.state, 'done');
    commit.succeed();
    await assert.rejects(refused.promise, (error) => error === conflict);
    await write;
  });

  it('publishes volatile writes without a commit, but never ahead of earlier ones', async () => {
    const { journal, commits, next } = makeJournal();
    const engine = makeEngine(journal);
    await put(engine, event('a'));
    assert.equal(commits.length, 0);
    const durable = put(engine, pod('a'));
    const late = follow(put(engine, event('b')));
    const first = await next();
    assert.deepEqual(namesIn(first.batch), ['a']);
    await turn();
    assert.equal(late.state, 'pending');
    first.succeed();
    await durable;
    assert.equal((await late.promise).revision, 4);
  });

  it('keeps volatile writes when a commit fails beside them', async () => {
    const { journal, next } = makeJournal();
    const engine = makeEngine(journal);
    const durable = follow(put(engine, pod('a')));
    const kept = put(engine, event('a'));
    (await next()).fail(new Error('disk full'));
    assert.equal((await kept).revision, 2);
    assert.equal(durable.state, 'failed');
    assert.equal(engine.revision, 2);
  });

  it('reserves revisions durably before it hands them out', async () => {
    const { journal, commits, next } = makeJournal();
    const engine = makeEngine(journal);
    const writes: Promise<Entry>[] = [];
    for (let index = 0; index < 150; index += 1) writes.push(put(engine, event(`e${index}`)));
    const commit = await next();
    assert.equal(engine.revision, 100, 'what is reserved is used up');
    assert.deepEqual(commit.batch.writes, []);
    assert.ok(commit.batch.reservedRevision > 150);
    commit.succeed();
    await Promise.all(writes);
    assert.equal(engine.revision, 151);
    assert.equal(commits.length, 0);
  });

  it('refuses writes when too many bytes wait for the disk', async () => {
    const { journal, next } = makeJournal();
    const engine = makeEngine(journal, { pendingBytes: 10_000 });
    const text = 'x'.repeat(3000);
    const writes = ['a', 'b', 'c', 'd'].map((name) => put(engine, pod(name), { text }));
    await assert.rejects(put(engine, pod('e'), { text }), StoreBusyError);
    (await next()).succeed();
    await Promise.all(writes);
    const last = put(engine, pod('e'), { text });
    (await next()).succeed();
    await last;
  });

  it('asks the journal to drop exactly the rows that nothing needs any more', async () => {
    const { journal, next } = makeJournal();
    const engine = makeEngine(journal, { ringEventCount: 2 });
    const batches: JournalBatch[] = [];
    const step = async (promise: Promise<unknown>) => {
      const commit = await next();
      batches.push(commit.batch);
      commit.succeed();
      await promise;
    };
    await step(put(engine, pod('a'))); // 2
    await step(put(engine, pod('a'))); // 3, supersedes 2
    await step(engine.mutate(pod('a'), () => DELETE)); // 4, supersedes 3
    await step(put(engine, pod('b'))); // 5
    await step(put(engine, pod('b'))); // 6, supersedes 5
    await step(put(engine, pod('c'))); // 7
    await step(put(engine, pod('c'))); // 8, supersedes 7
    const gone = batches.flatMap(({ superseded }) => superseded);
    assert.deepEqual(gone, [2, 3, 4]);
    const floors = batches.flatMap((batch) => [...batch.floors.values()]);
    assert.deepEqual(floors, [2, 3, 4, 5]);
  });
});
