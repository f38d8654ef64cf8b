import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { holdDirectory } from './data-watch.ts';

test('holdDirectory() tells a directory from what comes in its place', async () => {
  const base = await mkdtemp(join(tmpdir(), 'hn-held-'));
  const path = join(base, 'data');
  try {
    await mkdir(path);
    {
      await using held = await holdDirectory(path);
      await mkdir(join(path, 'inside'));
      assert.equal(await held.isThere(), true);
      await rm(path, { recursive: true });
      assert.equal(await held.isThere(), false, 'removed');
      await mkdir(path);
      assert.equal(await held.isThere(), false, 'made again');
    }
    await using held = await holdDirectory(path);
    await rename(path, join(base, 'elsewhere'));
    assert.equal(await held.isThere(), false, 'moved away');
    await rename(join(base, 'elsewhere'), path);
    assert.equal(await held.isThere(), true, 'moved back');
  } finally {
    await rm(base, { recursive: true });
  }
});
