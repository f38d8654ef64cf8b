import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '../../src/base/exec.ts';

/*
 * Goal: the filter lets through what is on its list, under the conditions there, and no other call.
 * Method: jail/test/filter.c makes each call once free and once under the filter. What both would
 * answer alike proves nothing, so they must differ.
 */
const root = join(import.meta.dirname, '../..');
const ENOSYS = 38;
const KILLED_BY_SIGSYS = 128 + 31;
/**
 * uretprobe and uprobe: Linux itself lets them past every filter, and they end a process that
 * calls them from anywhere but the kernel's own trampolines.
 */
const PAST_EVERY_FILTER = [335, 336];
/** Kernels may be built without modules, kexec, ports of input and output, or x32. */
const UNBUILT_MAX = 10;

type Outcomes = Record<string, [free: number, held: number]>;
interface Report {
  alarmed: Outcomes;
  unknown: Outcomes;
  conditional: Outcomes;
  allowed: Outcomes;
  leaks: number[];
}

test('the filter answers every call there is as its tables say', async () => {
  const base = await mkdtemp(join(tmpdir(), 'hypernetes-filter-'));
  try {
    const program = join(base, 'filter');
    const sources = ['jail/test/filter.c', 'jail/util.c'].map((file) => join(root, file));
    const headers = ['-idirafter', '/usr/include', '-idirafter', '/usr/include/x86_64-linux-gnu'];
    await run('musl-gcc', ['-static', '-Os', '-o', program, ...sources, ...headers]);
    const report = JSON.parse(await run(program, [])) as Report;
    const heldAs = (outcomes: Outcomes, answer: number) =>
      Object.entries(outcomes).filter(([, [, held]]) => held !== answer);
    assert.deepEqual(heldAs(report.alarmed, KILLED_BY_SIGSYS), []);
    assert.deepEqual(heldAs(report.unknown, ENOSYS), []);
    const tried = { ...report.alarmed, ...report.unknown, ...report.conditional };
    const same = Object.entries(tried).filter(([, [free, held]]) => free === held);
    assert.deepEqual(same, [], 'the filter makes no difference');
    const unbuilt = Object.values(tried).filter(([free]) => free === ENOSYS);
    assert.ok(unbuilt.length <= UNBUILT_MAX, `${unbuilt.length} calls are not in this kernel`);
    assert.deepEqual(Object.values(report.allowed).flat(), Array(10).fill(0));
    const leaks = report.leaks.slice(1).filter((call) => !PAST_EVERY_FILTER.includes(call));
    assert.deepEqual(leaks, []);
  } finally {
    await rm(base, { recursive: true });
  }
});
