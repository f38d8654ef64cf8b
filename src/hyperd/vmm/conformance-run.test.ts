import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { CONFORMANCE_CASES } from './conformance-cases.ts';
import { runConformance } from './conformance-run.ts';
import { createFakeHarness } from './fake/harness.fake.ts';
import type { FakeHypervisorOptions } from './fake/fake.ts';

const CASE_LIMIT_MS = 30_000;
const never = new AbortController().signal;

async function outcomes(options: Parameters<typeof createFakeHarness>[0], limitMs = CASE_LIMIT_MS) {
  const under = await createFakeHarness(options);
  try {
    const results = await runConformance(under, systemClock, limitMs, never);
    assert.deepEqual(
      results.map(({ name }) => name),
      CONFORMANCE_CASES.map(({ name }) => name),
    );
    return results;
  } finally {
    await under.dispose();
  }
}

test('runConformance() tells what passed, and what a driver does not declare', async () => {
  assert.ok((await outcomes({})).every(({ outcome }) => outcome === 'passed'));
  const few = await outcomes({ capabilities: ['pause'] });
  const undeclared = few.filter(({ outcome }) => outcome === 'not declared');
  assert.deepEqual(
    undeclared.map(({ message }) => message),
    ['template', 'template', 'template'],
  );
  assert.ok(few.every(({ outcome }) => outcome !== 'failed'));
});

test('runConformance() goes on after a case that fails, and says how it did', async () => {
  const fault: FakeHypervisorOptions['fault'] = (step) =>
    step === 'attachDisk' ? new Error('no\n  slot left') : undefined;
  const failed = (await outcomes({ fault })).filter(({ outcome }) => outcome === 'failed');
  assert.ok(failed.length >= 2);
  assert.equal(failed[0]?.message, 'no slot left');
});

test('runConformance() waits for no answer for ever, and ends when it is told to', async () => {
  const silent = await outcomes({ agent: (connection) => void connection.resume() }, 50);
  const failed = silent.filter(({ outcome }) => outcome === 'failed');
  assert.match(failed[0]?.message ?? '', /The case took longer than 50 ms/);
  const under = await createFakeHarness();
  try {
    const ended = AbortSignal.abort(new Error('enough'));
    await assert.rejects(runConformance(under, systemClock, CASE_LIMIT_MS, ended), /enough/);
  } finally {
    await under.dispose();
  }
});
