import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { removeTemporaries, writeFileAtomic } from './files.ts';

test('writeFileAtomic() replaces the whole file and leaves nothing beside it', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'files-'));
  try {
    const path = join(directory, 'state.json');
    await writeFileAtomic(path, 'a longer first content');
    await writeFileAtomic(path, 'second');
    assert.equal(await readFile(path, 'utf8'), 'second');
    await assert.rejects(writeFileAtomic(join(directory, 'none', 'x'), ''), { code: 'ENOENT' });
    assert.deepEqual(await readdir(directory), ['state.json']);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('removeTemporaries() removes what a killed writer left, and no other file', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'files-'));
  try {
    const kept = ['state.json', '.hidden', 'state.json.tmp'];
    for (const name of [...kept, '.state.json.0123456789ab.tmp']) {
      await writeFile(join(directory, name), '');
    }
    await removeTemporaries(directory);
    assert.deepEqual((await readdir(directory)).sort(), kept.sort());
  } finally {
    await rm(directory, { recursive: true });
  }
});
