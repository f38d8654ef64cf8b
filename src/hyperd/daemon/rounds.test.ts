import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../base/random.ts';
import { containerSpec, createRig, logText, podSpec, runningPod } from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';
import type { PodState } from '../../api/hyperd.ts';
import type { Daemon } from './daemon.ts';

/** With pretended VMs; test/e2e/faults.test.ts does some of the same with real ones. */
const ROUNDS = Number(process.env.HYPERNETES_TEST_ROUNDS ?? 500);
const AT_A_TIME = 8;
const STEPS_MAX = 6;
const BYSTANDER = 'other';
/** Many times what it takes. */
const TOLD_TIMEOUT_MS = 10_000;

test(`${ROUNDS} random rounds of create, kill, restart and delete leave nothing behind`, async (context) => {
  const seed = Number(process.env.HYPERNETES_TEST_SEED ?? Date.now() % 2 ** 32);
  context.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const draw = (count: number) => Math.floor(random.next() * count);
  await using rig = await createRig();
  let daemon: Daemon = await rig.start();
  await runningPod(daemon, BYSTANDER);
  await rig.guest(BYSTANDER).print(`${BYSTANDER}-c`, 'before\n');
  rig.fault = (step, vmId) => {
    if (vmId === BYSTANDER) return undefined;
    if (draw(12) === 0) return new Error(`${step} fails`);
    return draw(2) === 0 ? new Promise((resolve) => setImmediate(resolve, undefined)) : undefined;
  };
  const steps: ((id: string) => Promise<unknown> | unknown)[] = [
    (id) => daemon.createPod(podSpec(id)),
    (id) => daemon.pod(id).startContainer(containerSpec(`${id}-c${draw(3)}`)),
    (id) => rig.guest(id).print(`${id}-c0`, 'some text\n'),
    (id) => rig.guest(id).exit(`${id}-c0`, draw(256)),
    (id) => daemon.pod(id).removeContainer(`${id}-c0`),
    (id) => rig.hypervisor.running.get(id)?.guest.panic('drawn'),
    (id) => rig.guest(id).cut(),
    (id) => daemon.pod(id).stop(),
    (id) => daemon.removePod(id),
    () => new Promise((resolve) => setImmediate(resolve)),
  ];
  const round = async (id: string) => {
    await daemon.createPod(podSpec(id));
    const count = draw(STEPS_MAX);
    // They are not waited for: the next one may come in the middle of any of them.
    const taken = Array.from({ length: count }, async () => steps[draw(steps.length)]?.(id));
    for (const step of taken) step.catch(() => {});
    if (draw(2) === 0) await new Promise((resolve) => setImmediate(resolve));
  };
  for (let done = 0; done < ROUNDS; done += AT_A_TIME) {
    const ids = Array.from({ length: AT_A_TIME }, (_, n) => `p${done + n}`);
    await Promise.all(ids.map(round));
    if (draw(3) === 0) {
      await daemon.close();
      daemon = await rig.start();
    }
    await becomesTrue(rig, daemon, `seed ${seed}`);
    await Promise.all(ids.map((id) => removeWithPatience(daemon, id)));
  }
  await bystanderGoesOn(rig, daemon);
  await removeWithPatience(daemon, BYSTANDER);
  assert.deepEqual(daemon.pods(), [], `seed ${seed}`);
  assert.deepEqual(await rig.podDirectories(), [], `seed ${seed}`);
  assert.equal(rig.hypervisor.running.size, 0, `seed ${seed}`);
  assert.deepEqual((await rig.network.list()).ports, [], `seed ${seed}`);
  assert.deepEqual(rig.images.leases(), [], `seed ${seed}`);
});

/** A pod that says that it runs has a VM; one that has stopped says why, and its containers ended. */
async function becomesTrue(rig: Rig, daemon: Daemon, seed: string): Promise<void> {
  const isWrong = ({ id, phase }: PodState) =>
    phase === 'running' && !rig.hypervisor.running.has(id);
  // The end of a VM takes a moment to be known.
  const limit = AbortSignal.timeout(TOLD_TIMEOUT_MS);
  while (daemon.pods().some(isWrong)) {
    assert.ok(!limit.aborted, `${daemon.pods().find(isWrong)?.id} has no VM, ${seed}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (const { id, phase, reason, message, containers } of daemon.pods()) {
    if (phase !== 'stopped') continue;
    assert.ok(reason && message, `${id} does not say why it has stopped, ${seed}`);
    for (const each of containers) assert.ok(each.exit, `${each.id} of ${id} runs on, ${seed}`);
  }
}

/** The pod that nothing was done to: the same VM, in which nothing was lost. */
async function bystanderGoesOn(rig: Rig, daemon: Daemon): Promise<void> {
  const pod = daemon.pods().find(({ id }) => id === BYSTANDER);
  assert.deepEqual([pod?.phase, pod?.guest?.bootId], ['running', `boot-${BYSTANDER}`]);
  assert.equal(pod?.containers[0]?.phase, 'running');
  await rig.guest(BYSTANDER).print(`${BYSTANDER}-c`, 'after\n');
  assert.equal(await logText(daemon, BYSTANDER, `${BYSTANDER}-c`), 'before\nafter\n');
}

/** What fails once in a while is asked again, as the kubelet does. */
async function removeWithPatience(daemon: Daemon, id: string): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await daemon.removePod(id);
      return;
    } catch (error) {
      assert.ok(attempt < 50, `pod ${id} cannot be removed: ${String(error)}`);
    }
  }
}
