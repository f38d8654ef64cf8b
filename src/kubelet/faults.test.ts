import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { StatusError } from '../api/status.ts';
import type { Pod, PodSpec } from '../api/types.generated.ts';
import { waitLeftMs } from './backoff.ts';
import { createRig } from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';

/** Guests that answer nothing any more, and a host whose clock is set while pods wait. */
let rig: Rig;
afterEach(() => rig.close());

const HOUR_MS = 3600_000;
const status = (pod: Pod) => pod.status?.containerStatuses?.[0];
const running = (pod: Pod) => status(pod)?.state?.running !== undefined;
const waits = (reason: string, count: number) => (pod: Pod) =>
  status(pod)?.state?.waiting?.reason === reason && status(pod)?.restartCount === count;
const one = (rest: Partial<PodSpec['containers'][number]> = {}): PodSpec => ({
  containers: [{ name: 'main', image: 'busybox:1', ...rest }],
});

async function start(): Promise<void> {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1');
}

for (const [graceSeconds, endsMs] of [
  [5, 7_000],
  [1, 4_000],
] as const) {
  test(`a pod whose guest is frozen goes ${endsMs} ms after a deletion with ${graceSeconds} s`, async () => {
    await start();
    rig.addPod('frozen', one());
    rig.addPod('bystander', one());
    await rig.until('frozen', running);
    await rig.until('bystander', running);
    rig.hyperd.freeze(rig.uid('frozen'));
    const other = rig.uid('bystander');
    rig.api.deletePod(rig.path('frozen'), graceSeconds);
    await rig.settle();
    await rig.clock.advance(endsMs - 1_100);
    await rig.settle();
    assert.equal(rig.hyperd.pods.size, 2, 'its time is not over');
    await rig.clock.advance(1_100);
    await rig.waitUntil(() => rig.hyperd.pods.size === 1);
    await rig.waitUntil(() => rig.api.get(rig.path('frozen')) === undefined);
    assert.deepEqual([...rig.hyperd.pods.keys()], [other]);
    assert.ok(running(rig.api.get(rig.path('bystander')) as Pod));
  });
}

test('a container that is not alive, in a guest that answers no signal, gets another VM', async () => {
  await start();
  const livenessProbe = { exec: { command: ['exit', '1'] }, failureThreshold: 1 };
  rig.addPod('frozen', { ...one({ livenessProbe }), terminationGracePeriodSeconds: 3 });
  await rig.waitUntil(() => rig.hyperd.pods.get(rig.uid('frozen'))?.phase === 'running');
  rig.hyperd.freeze(rig.uid('frozen'));
  await rig.until('frozen', running);
  await rig.settle();
  // The probe, the grace period, and what KILL has.
  for (const ms of [0, 3_000, 10_000]) {
    await rig.clock.advance(ms);
    await rig.settle();
  }
  const pod = await rig.until('frozen', (each) => status(each)?.restartCount === 1);
  assert.equal(status(pod)?.lastState?.terminated?.exitCode, 137);
  assert.ok((await rig.events('frozen')).includes('FailedKillPod'));
  assert.ok(rig.hyperd.pods.has(`${rig.uid('frozen')}-1`));
});

for (const jumpMs of [-HOUR_MS, HOUR_MS]) {
  const way = jumpMs < 0 ? 'back' : 'forward';
  test(`a clock that is set ${way} holds up neither restarts nor pulls`, async () => {
    await start();
    rig.hyperd.failPull('nope:1', new StatusError('NotFound', 'manifest unknown'));
    rig.addPod('crash', one({ command: ['exit', '3'] }));
    rig.addPod('pulls', one({ image: 'nope:1' }));
    rig.addPod('bystander', one());
    await rig.until('bystander', running);
    await rig.until('crash', waits('CrashLoopBackOff', 1));
    await rig.until('pulls', (pod) => /ImagePull/.test(status(pod)?.state?.waiting?.reason ?? ''));
    rig.clock.jump(jumpMs);
    rig.hyperd.failPull('nope:1', undefined);
    rig.hyperd.addImage('nope:1');
    // As long as they would have waited without it, and not an hour more.
    await rig.clock.advance(20_000);
    await rig.until('crash', (pod) => (status(pod)?.restartCount ?? 0) >= 2);
    await rig.until('pulls', running);
    const bystander = rig.api.get(rig.path('bystander')) as Pod;
    assert.deepEqual([running(bystander), status(bystander)?.restartCount], [true, 0]);
  });
}

test('waitLeftMs() is what is left, and nothing of a wait that began far in the future', () => {
  assert.equal(waitLeftMs(1_000, 500, 1_200), 300);
  assert.equal(waitLeftMs(1_000, 500, 9_000), 0);
  assert.equal(waitLeftMs(1_100, 500, 1_000), 600, 'a guest whose clock is somewhat ahead');
  assert.equal(waitLeftMs(HOUR_MS, 500, 1_000), 0);
});
