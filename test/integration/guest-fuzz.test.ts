import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { execute, run } from '../../src/base/exec.ts';

/**
 * The guest's fuzzer, for a short while and always with the same inputs: guest/fuzz.c says what it
 * checks. CONTRIBUTING.md says how to run it for longer.
 */
const ROOT = join(import.meta.dirname, '../..');
const SEED = 1;
const RUNS = 150;
const TIMEOUT_MS = 200_000;

test(`the guest takes ${RUNS} inputs of a host that errs (seed ${SEED})`, async () => {
  const out = join(ROOT, 'build');
  await mkdir(out, { recursive: true });
  await run('make', ['-s', '-C', join(ROOT, 'guest'), `OUT=${out}`, 'fuzz']);
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-fuzz-'));
  try {
    const args = [directory, SEED, RUNS, 0].map(String);
    const result = await execute(join(out, 'hyperstart-fuzz'), args, { timeoutMs: TIMEOUT_MS });
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stdout, new RegExp(`^${RUNS} inputs, \\d{4} edges, \\d+ kept\n$`));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
