import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../base/random.ts';
import { containerSpec, createRig, podSpec } from './testing/rig.ts';
import type { Daemon } from './daemon.ts';

/** With pretended VMs; test/e2e/faults.test.ts does some of the same with real ones. */
const ROUNDS = 120;
const AT_A_TIME = 8;
const STEPS_MAX = 6;

test(`${ROUNDS} random rounds of create, kill, restart and delete leave nothing behind`, async () => {
  const seed = Number(process.env.HYPERNETES_TEST_SEED ?? Date.now() % 2 ** 32);
  const random = seededRandom(seed);
  const draw = (count: number) => Math.floor(random.next() * count);
  await using rig = await createRig();
  let daemon: Daemon = await rig.start();
  rig.fault = (step) => {
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
    await Promise.all(ids.map((id) => removeWithPatience(daemon, id)));
  }
  assert.deepEqual(daemon.pods(), [], `seed ${seed}`);
  assert.deepEqual(await rig.podDirectories(), [], `seed ${seed}`);
  assert.equal(rig.hypervisor.running.size, 0, `seed ${seed}`);
  assert.deepEqual((await rig.network.list()).ports, [], `seed ${seed}`);
  assert.deepEqual(rig.images.leases(), [], `seed ${seed}`);
});

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
