import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { FakeClock } from '../base/clock.fake.ts';
import { run } from '../base/exec.ts';
import { StoreDatabase } from './sqlite.database.ts';
import { openSqliteStore } from './sqlite.ts';
import { StoreOpenError } from './store.ts';
import type { PartitionOf, Store } from './store.ts';
import { brief, ownerOf, pod, put, take } from './testing/kit.ts';

/**
 * A file as the last Hypernetes that knew no partitions wrote it. Namespaces `red-1`, `plain` and
 * `gone`, of which the first belongs to red and was updated after its pods were; twelve events per
 * resource are kept.
 */
const FORMAT_1 = join(import.meta.dirname, 'testing', 'format-1.db.gz');
/** After the last write of the pod `dropped`. */
const FLOOR = 16;
const REVISION = 28;

interface Bench {
  path: string;
  open: (partitionOf?: PartitionOf) => Promise<Store>;
  /** Works on the file while nobody has it open. */
  edit: (work: (database: DatabaseSync) => void) => Promise<void>;
}

function withOldFile(body: (bench: Bench) => Promise<void>): () => Promise<void> {
  return async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hypernetes-store-'));
    const path = join(folder, 'store.db');
    let store: Store | undefined;
    const open = async (partitionOf?: PartitionOf) => {
      await store?.close();
      // The clock stands where it stood for the writer: no history is old enough to go.
      store = await openSqliteStore({ path, clock: new FakeClock(), partitionOf });
      return store;
    };
    const edit = async (work: (database: DatabaseSync) => void) => {
      await store?.close();
      store = undefined;
      const database = new DatabaseSync(path);
      work(database);
      database.close();
    };
    try {
      await writeFile(path, gunzipSync(await readFile(FORMAT_1)));
      await body({ path, open, edit });
    } finally {
      await store?.close();
      await rm(folder, { recursive: true });
    }
  };
}

const partitionsOf = (store: Store, resource: string) =>
  store
    .list(resource)
    .entries.map(({ key, partition }) => `${key.namespace}/${key.name} ${partition}`);

/** What the file holds, and whose it is. */
async function checkContent(store: Store): Promise<void> {
  assert.ok(store.revision > REVISION);
  assert.deepEqual(partitionsOf(store, 'namespaces'), ['/plain ', '/red-1 red']);
  assert.deepEqual(partitionsOf(store, 'secrets'), ['red-1/s red']);
  assert.deepEqual(partitionsOf(store, 'pods'), [
    'plain/a ',
    'red-1/a red',
    'red-1/b red',
    'red-1/dropped red',
  ]);
  const { signal } = new AbortController();
  const eventsOf = async (partition: string, count: number) => {
    const watch = store.watch('pods', { partition, afterRevision: FLOOR, signal });
    const events = await take(watch, count);
    assert.equal(watch.progressRevision, store.revision);
    for (const { entry, previous } of events) {
      assert.equal(previous?.partition ?? entry.partition, entry.partition);
    }
    return events.map(brief);
  };
  assert.deepEqual(await eventsOf('red', 6), [
    'ADDED a@17',
    'MODIFIED a@20',
    'DELETED a@21',
    'ADDED a@22',
    'ADDED b@25',
    'MODIFIED b@26',
  ]);
  assert.deepEqual(await eventsOf('', 3), ['ADDED a@18', 'ADDED a@19', 'DELETED a@23']);
  const past = store.list('pods', { partition: 'red', atRevision: 21 });
  assert.deepEqual(
    past.entries.map(({ key }) => key.name),
    ['dropped'],
  );
}

describe('sqlite: a file of format 1', () => {
  it(
    'gets partitions, which stay',
    withOldFile(async ({ open, path, edit }) => {
      let store = await open(ownerOf);
      assert.equal((await readFile(path)).readUInt32BE(60), 2, 'older programs refuse it at once');
      await checkContent(store);
      await put(store, pod('new', 'red-1'));
      store = await open();
      assert.equal(store.get(pod('new', 'red-1'))?.partition, 'red');
      assert.equal(store.get(pod('a', 'red-1'))?.partition, 'red');
      await edit((database) => {
        const undecided = database.prepare(
          'SELECT count(*) AS count FROM write WHERE partition IS NULL',
        );
        assert.equal(undecided.get()?.count, 0);
      });
    }),
  );

  it(
    'of which the upgrade was cut short is upgraded when it is opened again',
    withOldFile(async ({ open, path }) => {
      const database = new StoreDatabase(path);
      const { reservedRevision } = database.meta();
      database.upgrade();
      database.setPartitions([{ revision: 17, partition: 'red' }]);
      database.close(reservedRevision);
      await checkContent(await open(ownerOf));
    }),
  );

  it(
    'gives all versions of an object the partition that one of them has',
    withOldFile(async ({ open, path }) => {
      const database = new StoreDatabase(path);
      const { reservedRevision } = database.meta();
      database.upgrade();
      database.setPartitions([{ revision: 25, partition: 'blue' }]);
      database.close(reservedRevision);
      const store = await open(ownerOf);
      assert.equal(store.get(pod('b', 'red-1'))?.partition, 'blue');
      assert.equal(store.get(pod('a', 'red-1'))?.partition, 'red');
    }),
  );

  it(
    'that is damaged is refused, and left as it was',
    withOldFile(async ({ open, path, edit }) => {
      await edit((database) => database.exec('UPDATE write SET time_ms = 7 WHERE revision = 25'));
      const before = await readFile(path);
      await assert.rejects(open(ownerOf), (error) => {
        assert.ok(error instanceof StoreOpenError);
        assert.match(error.message, /the row of revision 25 does not match its checksum/);
        return true;
      });
      assert.deepEqual(await readFile(path), before);
    }),
  );

  it('is left whole by an upgrade that the disk has no room for', async () => {
    const disk = await mkdtemp(join(tmpdir(), 'hypernetes-disk-'));
    const path = join(disk, 'store.db');
    await run('mount', ['-t', 'tmpfs', '-o', 'size=48k', 'tmpfs', disk]);
    try {
      await writeFile(path, gunzipSync(await readFile(FORMAT_1)));
      const options = { path, clock: new FakeClock(), partitionOf: ownerOf };
      await assert.rejects(openSqliteStore(options), (error) => {
        assert.ok(error instanceof StoreOpenError, String(error));
        assert.match(error.message, /^Cannot upgrade store ".*" to format 2: .*make room/);
        return true;
      });
      await run('mount', ['-o', 'remount,size=8m', disk]);
      const store = await openSqliteStore(options);
      await checkContent(store);
      await store.close();
    } finally {
      await run('umount', [disk]);
      await rm(disk, { recursive: true });
    }
  });

  for (const value of [`'blue'`, `''`, 'NULL']) {
    it(
      `refuses a partition changed to ${value} behind the store’s back`,
      withOldFile(async ({ open, edit }) => {
        await open(ownerOf);
        await edit((database) => {
          database.exec(`UPDATE write SET partition = ${value} WHERE revision = 25`);
        });
        await assert.rejects(open(ownerOf), /revision 25 does not match its checksum/);
      }),
    );
  }
});
