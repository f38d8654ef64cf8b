import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import { createMemoryStore } from '../../store/memory.ts';
import type { Amounts } from './amounts.ts';
import { runUsageSampler } from './sampler.ts';

const MINUTE = 60_000;
const told = (uid: string, cpuSeconds: unknown, workingSetBytes: unknown = 1000) => ({
  podRef: { uid },
  cpu: { usageCoreNanoSeconds: typeof cpuSeconds === 'number' ? cpuSeconds * 1e9 : cpuSeconds },
  memory: { workingSetBytes },
});

/** Two nodes with a pod each; what they tell is set by the test. */
async function rig() {
  const clock = new FakeClock();
  const store = createMemoryStore({ clock, partitionOf: ({ namespace }) => namespace });
  for (const [tenant, nodeName] of [
    ['acme', 'n1'],
    ['globex', 'n2'],
  ] as const) {
    await store.mutate({ resource: 'pods', namespace: tenant, name: 'web' }, () => ({
      ...{ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'web', uid: `${tenant}-pod` } },
      spec: { nodeName },
    }));
  }
  const answers: Record<string, unknown> = {};
  const used: Record<string, { cpuSeconds: number; byteSeconds: number }> = {};
  const stop = new AbortController();
  const running = runUsageSampler({
    ...{ store, clock, log: silentLog, signal: stop.signal },
    readSummary: (node) =>
      node in answers ? Promise.resolve(answers[node]) : Promise.reject(new Error('away')),
    meter: {
      addMeasured(tenant: string, { cpuUsed, memoryUsed }: Amounts) {
        const sum = (used[tenant] ??= { cpuSeconds: 0, byteSeconds: 0 });
        sum.cpuSeconds += Number(cpuUsed) / 1e6;
        sum.byteSeconds += Number(memoryUsed) / 1000;
      },
    },
  });
  const end = async () => {
    stop.abort();
    await running;
  };
  return { clock, answers, used, end };
}

test('what a pod used is the difference of two samples, and its memory over the time', async () => {
  const { clock, answers, used, end } = await rig();
  answers.n1 = { pods: [told('acme-pod', 100)] };
  await clock.advance(MINUTE);
  assert.deepEqual(used, {});
  answers.n1 = { pods: [told('acme-pod', 130)] };
  await clock.advance(MINUTE);
  assert.deepEqual(used, { acme: { cpuSeconds: 30, byteSeconds: 60_000 } });
  answers.n1 = { pods: [told('acme-pod', 5)] };
  await clock.advance(MINUTE);
  assert.equal(used.acme?.cpuSeconds, 35);
  delete answers.n1;
  await clock.advance(MINUTE);
  answers.n1 = { pods: [told('acme-pod', 15)] };
  await clock.advance(MINUTE);
  assert.equal(used.acme?.cpuSeconds, 45);
  await end();
});

test('a node speaks for its own pods, once of each, and is not believed what cannot be', async () => {
  const { clock, answers, used, end } = await rig();
  answers.n1 = { pods: [told('acme-pod', 0), told('globex-pod', 0)] };
  await clock.advance(MINUTE);
  answers.n1 = { pods: [told('acme-pod', 9e6), told('acme-pod', 1), told('globex-pod', 50)] };
  await clock.advance(MINUTE);
  assert.deepEqual(Object.keys(used), ['acme']);
  assert.equal(used.acme?.cpuSeconds, 60 * 1024);
  const before = used.acme.cpuSeconds;
  for (const nonsense of [
    null,
    'text',
    {},
    { pods: {} },
    { pods: [null, {}, told('acme-pod', 'x'), told('acme-pod', -1), told('acme-pod', Infinity)] },
  ]) {
    answers.n1 = nonsense;
    await clock.advance(MINUTE);
  }
  assert.equal(used.acme.cpuSeconds, before);
  await end();
});
