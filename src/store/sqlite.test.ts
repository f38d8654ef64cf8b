import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it } from 'node:test';
import { run, start } from '../base/exec.ts';
import { seededRandom } from '../base/random.ts';
import { storeConformance } from './conformance.ts';
import { object, pod, put, take } from './testing/kit.ts';
import { openSqliteStore } from './sqlite.ts';
import type { SqliteStoreOptions } from './sqlite.ts';
import { CompactedError, DELETE, StoreOpenError, StoreUnavailableError } from './store.ts';
import type { Key, Store } from './store.ts';

const makeFolder = () => mkdtemp(join(tmpdir(), 'hypernetes-store-'));

storeConformance('sqlite', async (options) => {
  const folder = await makeFolder();
  const store = await openSqliteStore({ path: join(folder, 'store.db'), ...options });
  const release = async () => {
    await store.close();
    await rm(folder, { recursive: true });
  };
  return { store, release };
});

interface Bench {
  path: string;
  folder: string;
  /** Opens the store; closes the one opened before. */
  open: (options?: Partial<SqliteStoreOptions>) => Promise<Store>;
  close: () => Promise<void>;
}

/** Runs a test with a folder of its own, in which a store can be opened again and again. */
function withFile(body: (bench: Bench) => Promise<void>): () => Promise<void> {
  return async () => {
    const folder = await makeFolder();
    const path = join(folder, 'store.db');
    let store: Store | undefined;
    const close = async () => {
      await store?.close();
      store = undefined;
    };
    const open = async (options: Partial<SqliteStoreOptions> = {}) => {
      await close();
      store = await openSqliteStore({ path, ...options });
      return store;
    };
    try {
      await body({ path, folder, open, close });
    } finally {
      await close();
      await rm(folder, { recursive: true });
    }
  };
}

const rejectsOpen = (open: Promise<unknown>, pattern: RegExp) =>
  assert.rejects(open, (error) => {
    assert.ok(error instanceof StoreOpenError, String(error));
    assert.match(error.message, pattern);
    return true;
  });

/** Everything a reader can see, as text. */
function contentOf(store: Store, atRevision?: number): string[] {
  return ['pods', 'secrets'].flatMap((resource) =>
    store.list(resource, { atRevision }).entries.map((entry) => {
      const text = new TextDecoder().decode(entry.bytes);
      return `${resource} ${entry.revision} ${entry.createRevision} ${text}`;
    }),
  );
}

const nodeLease: Key = {
  resource: 'coordination.k8s.io/leases',
  namespace: 'kube-node-lease',
  name: 'node-1',
};

describe('sqlite: reopening', () => {
  it(
    'keeps objects, revisions and history',
    withFile(async ({ open }) => {
      let store = await open();
      const states = new Map<number, string[]>();
      for (let round = 0; round < 40; round += 1) {
        const key = pod(`p${(round * 5) % 7}`, `ns${round % 3}`);
        if (round % 6 === 5) await store.mutate(key, () => DELETE);
        else await put(store, key, { round, text: 'ü'.repeat(round * 100) });
        states.set(store.revision, contentOf(store));
      }
      const { revision } = store;
      const [first] = states.keys();
      store = await open();
      assert.ok(store.revision > revision);
      assert.deepEqual(contentOf(store), states.get(revision));
      for (const [atRevision, content] of states) {
        assert.deepEqual(contentOf(store, atRevision), content);
      }
      const { signal } = new AbortController();
      const watch = store.watch('pods', { afterRevision: first as number, signal });
      const revisions = (await take(watch, states.size - 1)).map((event) => event.revision);
      assert.deepEqual(revisions, [...states.keys()].slice(1));
      const next = await put(store, pod('new'));
      assert.equal(next.revision, store.revision);
    }),
  );

  it(
    'forgets volatile objects, but never reuses their revisions',
    withFile(async ({ open }) => {
      let store = await open();
      const durable = { ...nodeLease, namespace: 'default', name: 'leader' };
      await put(store, pod('a'));
      await put(store, durable, { holder: 'me' });
      for (let index = 0; index < 10; index += 1) await put(store, nodeLease, { index });
      await put(store, { resource: 'events', namespace: 'default', name: 'e' });
      const { revision } = store;
      const { signal } = new AbortController();
      store.watch(nodeLease.resource, { afterRevision: revision, signal });

      store = await open();
      assert.ok(store.revision > revision);
      assert.equal(store.get(nodeLease), undefined);
      assert.equal(store.list('events').entries.length, 0);
      assert.equal(store.get(durable)?.object.holder, 'me');
      assert.equal(store.get(pod('a'))?.key.name, 'a');
      for (const resource of [nodeLease.resource, 'events']) {
        const resume = () => store.watch(resource, { afterRevision: revision, signal });
        assert.throws(resume, CompactedError);
        store.watch(resource, { afterRevision: store.revision, signal });
      }
      store.watch('pods', { afterRevision: revision, signal });
    }),
  );

  it(
    'drops from disk what has become volatile',
    withFile(async ({ open }) => {
      let store = await open({ volatile: [] });
      await put(store, nodeLease);
      store = await open();
      assert.equal(store.get(nodeLease), undefined);
      await put(store, pod('a'));
      store = await open({ volatile: [] });
      assert.equal(store.get(nodeLease), undefined);
    }),
  );
});

describe('sqlite: the file', () => {
  it(
    'is readable by its owner alone',
    withFile(async ({ open, path }) => {
      await put(await open(), pod('a'));
      assert.equal((await stat(path)).mode & 0o777, 0o600);
      assert.equal((await stat(`${path}-wal`)).mode & 0o777, 0o600);
    }),
  );

  it(
    'is compacted along with the writes',
    withFile(async ({ open, close, path }) => {
      const limits = { ringEventCount: 20 };
      let store = await open({ limits });
      for (let round = 0; round < 30; round += 1) {
        const writes = Array.from({ length: 20 }, (_, index) =>
          store.mutate(pod(`p${index}`), () =>
            round % 10 === 9 ? DELETE : object(pod('p'), { round }),
          ),
        );
        await Promise.all(writes);
      }
      await put(store, pod('last'));
      const { compactRevision, revision } = store.stats();
      assert.equal(compactRevision, revision - 20);
      await close();
      const database = new DatabaseSync(path, { readOnly: true });
      const rows = database.prepare('SELECT count(*) AS count FROM write').get();
      database.close();
      assert.ok((rows?.count as number) < 50, `${rows?.count} rows are left of 601`);
      store = await open({ limits });
      assert.equal(store.list('pods').entries.length, 1);
      const { signal } = new AbortController();
      const afterRevision = compactRevision - 5;
      assert.throws(() => store.watch('pods', { afterRevision, signal }), CompactedError);
      store.watch('pods', { afterRevision: compactRevision, signal });
    }),
  );

  it(
    'keeps its write-ahead log short',
    withFile(async ({ open, path }) => {
      const store = await open({ limits: { ringEventCount: 100 } });
      const text = 'x'.repeat(20_000);
      for (let round = 0; round < 20; round += 1) {
        const names = Array.from({ length: 100 }, (_, index) => `p${index}`);
        await Promise.all(names.map((name) => put(store, pod(name), { round, text })));
        const { size } = await stat(`${path}-wal`);
        assert.ok(size < 16 << 20, `the log has grown to ${size} bytes`);
      }
    }),
  );

  it(
    'can be opened only once',
    withFile(async ({ open, path, folder }) => {
      const store = await open();
      await put(store, pod('a'));
      await rejectsOpen(openSqliteStore({ path }), /already open in this process/);
      await rejectsOpen(
        openSqliteStore({
          path: join(folder, '..', folder.split('/').at(-1) as string, 'store.db'),
        }),
        /already open in this process/,
      );
      await put(store, pod('b'));
      const again = await open();
      assert.equal(again.list('pods').entries.length, 2);
    }),
  );

  it(
    'belongs to one process, until that one ends however it ends',
    withFile(async (bench) => {
      const { open, path } = bench;
      const module = new URL('./sqlite.ts', import.meta.url).href;
      const script = `
      const { openSqliteStore } = await import(${JSON.stringify(module)});
      const store = await openSqliteStore({ path: ${JSON.stringify(path)} });
      const metadata = { name: 'a', namespace: 'default' };
      const key = { resource: 'pods', ...metadata };
      await store.mutate(key, () => ({ apiVersion: 'v1', kind: 'Test', metadata }));
      console.log('ready');
    `;
      const child = start(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exited = once(child, 'exit');
      try {
        await Promise.race([once(child.stdout as NodeJS.ReadableStream, 'data'), exited]);
        await rejectsOpen(open(), /in use by another process; stop that one first/);
        child.kill('SIGKILL');
        await exited;
        const store = await open();
        assert.equal(store.get(pod('a'))?.key.name, 'a');
      } finally {
        child.kill('SIGKILL');
        await exited;
      }
    }),
  );
});

describe('sqlite: a file that cannot be opened', () => {
  const refuses = (title: string, pattern: RegExp, spoil: (path: string) => Promise<void>) =>
    it(
      title,
      withFile(async ({ open, close, path }) => {
        await put(await open(), pod('a'), { text: 'x'.repeat(100_000) });
        await close();
        await spoil(path);
        const before = await readFile(path);
        await rejectsOpen(open(), pattern);
        await rejectsOpen(open(), pattern);
        assert.deepEqual(await readFile(path), before, 'the file is left as it was');
      }),
    );

  refuses(
    'names both versions',
    /has format 7, this Hypernetes reads and writes format 2; start/,
    (path) => patch(path, 60, [0, 0, 0, 7]),
  );
  refuses('of another program', /SQLite file of another program/, (path) =>
    patch(path, 68, [0, 0, 0, 0]),
  );
  refuses('that is no database', /not an SQLite file/, (path) =>
    writeFile(path, 'x'.repeat(10_000)),
  );
  refuses('that is empty', /cut off after 0 bytes/, (path) => truncate(path, 0));
  refuses('that is cut off', /cannot be read: .*malformed; restore/, (path) =>
    truncate(path, 40_000),
  );
  refuses('with a flipped bit', /the row of revision \d+ does not match its checksum/, flipValue);

  it('in a folder that is not there', async () => {
    const path = join(tmpdir(), 'hypernetes-absent', 'store.db');
    await rejectsOpen(openSqliteStore({ path }), /its folder cannot be used: ENOENT/);
  });

  it('damaged at random is refused, or shows what was written', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = seededRandom(seed);
    const folder = await makeFolder();
    const path = join(folder, 'store.db');
    try {
      let store = await openSqliteStore({ path });
      for (let index = 0; index < 60; index += 1) {
        await put(store, pod(`p${index % 20}`), { text: 'x'.repeat(index * 20) });
      }
      const content = contentOf(store);
      await store.close();
      const intact = await readFile(path);
      let refused = 0;
      for (let round = 0; round < 15; round += 1) {
        const damaged = Buffer.from(intact);
        const at = Math.floor(random.next() * damaged.length);
        const length = 1 + Math.floor(random.next() * 64);
        damaged.set(random.bytes(length).subarray(0, damaged.length - at), at);
        await writeFile(path, damaged);
        await rm(`${path}-wal`, { force: true });
        try {
          store = await openSqliteStore({ path });
        } catch (error) {
          assert.ok(error instanceof StoreOpenError, `seed ${seed}: ${error}`);
          refused += 1;
          continue;
        }
        assert.deepEqual(contentOf(store), content, `seed ${seed}, round ${round}`);
        await store.close();
      }
      assert.ok(refused > 0, `seed ${seed}: no damage was noticed`);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

async function patch(path: string, at: number, bytes: number[]): Promise<void> {
  const content = await readFile(path);
  content.set(bytes, at);
  await writeFile(path, content);
}

async function flipValue(path: string): Promise<void> {
  const content = await readFile(path);
  await patch(path, content.indexOf('xxxxxxxx') + 50_000, ['y'.charCodeAt(0)]);
}

describe('sqlite: a full disk', () => {
  it('fails writes with a clear error, answers reads, and recovers', async () => {
    const folder = await makeFolder();
    const disk = join(folder, 'disk');
    const path = join(disk, 'store.db');
    await mkdir(disk);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk]);
    try {
      let store = await openSqliteStore({ path });
      const text = 'x'.repeat(10_000);
      const stored: string[] = [];
      const fill = async () => {
        for (let index = 0; index < 1000; index += 1) {
          const name = `p${String(index).padStart(4, '0')}`;
          await put(store, pod(name), { text });
          stored.push(name);
        }
      };
      await assert.rejects(fill(), (error) => {
        assert.ok(error instanceof StoreUnavailableError, String(error));
        assert.match(error.message, /Cannot write to store ".*store.db": .*(full|disk I\/O)/);
        return true;
      });
      const { revision } = store;
      assert.deepEqual(
        store.list('pods').entries.map(({ key }) => key.name),
        stored,
      );
      await put(store, nodeLease, {});
      await assert.rejects(put(store, pod('more'), { text }), StoreUnavailableError);
      assert.equal(store.get(pod('more')), undefined);
      assert.equal(store.revision, revision + 1, 'heartbeats go on, failed writes leave no trace');

      await run('mount', ['-o', 'remount,size=8m', disk]);
      await put(store, pod('more'), { text });
      stored.unshift('more');
      await store.close();
      store = await openSqliteStore({ path });
      assert.deepEqual(
        store.list('pods').entries.map(({ key }) => key.name),
        stored,
      );
      await store.close();
    } finally {
      await run('umount', [disk]);
      await rm(folder, { recursive: true });
    }
  });
});
