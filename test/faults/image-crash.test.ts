import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { start } from '../../src/base/exec.ts';
import { seededRandom } from '../../src/base/random.ts';
import { buildImage } from '../../src/hyperd/registry/build.ts';
import { readErofs } from '../../src/hyperd/image/testing/erofs-reader.ts';
import {
  openTestStore,
  plainRegistries,
  publish,
  startUpstream,
} from '../../src/hyperd/image/testing/upstream.ts';

/**
 * Kills a process with SIGKILL at random points of its life: start, download, building the disk,
 * naming it, pinning, removing. After each the directory must open, hold only whole things, and
 * give a whole image.
 */
const ROUNDS = 8;

test('a store that is killed at any point opens again, with nothing half done', async () => {
  const seed = 42;
  const random = seededRandom(seed);
  const upstream = await startUpstream();
  const directory = await mkdtemp(join(tmpdir(), 'image-crash-'));
  const content = randomBytes(3 << 20);
  const layers = [[{ path: 'large', content }], [{ path: 'small', content: 'small' }]];
  const image = await buildImage({ layers, compression: 'zstd' });
  publish(upstream, 'app', '1', image);
  const reference = `${upstream.host}/app:1`;
  const script = join(import.meta.dirname, 'image-crash.child.ts');
  const outcomes = new Set<string>();
  /** Of the first process, which is left alone: how long all of it takes on this machine. */
  let lifetimeMs = 0;
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const args = [...process.execArgv, script, directory, upstream.host, reference];
      const child = start(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      const exited = once(child, 'exit');
      await once(child.stdout as NodeJS.ReadableStream, 'data');
      const startedMs = systemClock.monotonicMs();
      if (round > 0) {
        await systemClock.sleep(random.next() * lifetimeMs);
        child.kill('SIGKILL');
      }
      await exited;
      if (round === 0) lifetimeMs = systemClock.monotonicMs() - startedMs;

      const { store, close } = await reopen(directory, upstream.host);
      const there = store.list();
      const counts = ['blobs/sha256', 'ingest', 'disks', 'leases'].map(
        async (name) => (await readdir(join(directory, name))).length,
      );
      outcomes.add((await Promise.all(counts)).join());
      const expected = there.map(({ id }) => `${id.slice('sha256:'.length)}.erofs`);
      assert.deepEqual(
        await readdir(join(directory, 'disks')),
        expected,
        `seed ${seed}, round ${round}`,
      );
      const { id } = await store.pull({ reference, credentials: [] });
      const disk = readErofs(await readFile(await store.acquire(id, 'check')));
      assert.ok(disk.get('large')?.content.equals(content), `seed ${seed}, round ${round}`);
      for (const lease of store.leases()) await store.release(lease.imageId, lease.owner);
      await store.remove(id);
      await close();
    }
    assert.ok(outcomes.size > 1, 'the process was killed at different points');
  } finally {
    await upstream.close();
    await rm(directory, { recursive: true, force: true });
  }
});

async function reopen(directory: string, host: string) {
  const { store } = await openTestStore({ registries: plainRegistries([host]), directory });
  return { store, close: () => store.close() };
}
