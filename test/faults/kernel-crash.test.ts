import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { start } from '../../src/base/exec.ts';
import { seededRandom } from '../../src/base/random.ts';
import { openTestKernels } from './kernel-store.ts';

/**
 * Kills a process with SIGKILL at random points of importing, choosing, taking and removing. After
 * each the store must open, every kernel in it be whole, the default be one that is there, and
 * nothing be left that nobody can remove.
 */
const ROUNDS = 12;
const LIFETIME_MS_MAX = 250;

test('a store of kernels that is killed at any point opens again, whole', async () => {
  const seed = 17;
  const random = seededRandom(seed);
  const directory = await mkdtemp(join(tmpdir(), 'kernel-crash-'));
  const script = join(import.meta.dirname, 'kernel-crash.child.ts');
  const outcomes = new Set<string>();
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const args = [...process.execArgv, script, directory, String(round)];
      const child = start(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      const exited = once(child, 'exit');
      await once(child.stdout as NodeJS.ReadableStream, 'data');
      await systemClock.sleep(random.next() * LIFETIME_MS_MAX);
      child.kill('SIGKILL');
      await exited;

      const where = `seed ${seed}, round ${round}`;
      const before = await readdir(join(directory, 'kernels'));
      outcomes.add(before.map((name) => name.slice(0, 4)).join());
      const store = await openTestKernels(directory);
      const left = (await readdir(join(directory, 'kernels'))).filter((name) => /^\./.test(name));
      assert.deepEqual(left, [], where);
      const standard = await store.default();
      const [release] = (await readFile(standard.kernelPath, 'latin1')).split(' ', 1);
      assert.equal(release, standard.isBuiltIn ? 'vmlinux' : 'kernel', where);
      await store.use('debian');
      await rm(join(directory, 'pods'), { recursive: true, force: true });
      for (const { id, names, isBuiltIn, kernelPath, initrdPath } of await store.list()) {
        if (isBuiltIn) continue;
        assert.match(await readFile(kernelPath, 'latin1'), /^(kernel \d+ \d )\1{19999}$/, where);
        assert.ok((await readFile(initrdPath)).includes('hyperstart'), where);
        await store.remove(names[0] ?? id);
      }
      assert.equal((await store.list()).length, 1, where);
    }
    assert.ok(outcomes.size > 1, 'the process was killed at different points');
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
