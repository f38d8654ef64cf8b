import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PodState } from '../../api/hyperd.ts';
import type { Daemon } from './daemon.ts';
import { createMortalProcess } from './testing/crash.ts';
import type { MortalProcess } from './testing/crash.ts';
import {
  containerSpec,
  createRig,
  isRunning,
  podSpec,
  podUntil,
  runningPod,
} from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';

/*
 * hyperd killed before each of its steps, one after the other, while it takes over a pod, makes
 * another one, runs a container in it and removes it: the next daemon tells what is true, does what
 * it is asked again, and has nothing left; the pod that was taken over notices nothing.
 */
const STEPS_MIN = 30;
const BYSTANDER = 'other';

/** A life of pod `a`, as its kubelet asks for it. */
async function live(daemon: Daemon, ask: MortalProcess['ask'] = (work) => work()): Promise<void> {
  await ask(() => daemon.createPod(podSpec('a')));
  await ask(() => podUntil(daemon, 'a', isRunning));
  await ask(() => daemon.pod('a').startContainer(containerSpec('a-c')));
  await ask(() => daemon.pod('a').signalContainer('a-c', 15));
  await ask(() => daemon.removePod('a'));
}

const QUIET_TURNS = 20;

/**
 * Resolves when what the dead process had begun with files and programs has ended: it lives in this
 * process, where that can be seen, and what follows from it comes within a few turns.
 */
async function settle(): Promise<void> {
  const isBusy = () => process.getActiveResourcesInfo().some((name) => /^(FS|Process)/.test(name));
  for (let quiet = 0; quiet < QUIET_TURNS; quiet = isBusy() ? 0 : quiet + 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const phaseOf = (daemon: Daemon, id: string): PodState['phase'] | undefined =>
  daemon.pods().find((pod) => pod.id === id)?.phase;

/** What a pod can say of itself after a crash, and nothing else. */
async function isTold(daemon: Daemon, step: string): Promise<void> {
  const known = daemon.pods().find(({ id }) => id === 'a');
  if (known === undefined) return;
  assert.ok(['creating', 'running', 'deleting'].includes(known.phase), `${step}: ${known.phase}`);
  if (known.phase === 'running') assert.equal(known.guest?.bootId, 'boot-a', step);
}

async function goesOn(rig: Rig, daemon: Daemon, bootId: string, step: string): Promise<void> {
  const other = await podUntil(daemon, BYSTANDER, isRunning);
  assert.equal(other.guest?.bootId, bootId, step);
  assert.equal(other.containers[0]?.phase, 'running', step);
  await daemon.pod(BYSTANDER).agent((agent) => agent.stats());
  assert.equal(rig.hypervisor.running.get(BYSTANDER)?.paused, false, step);
}

/** @returns the step at which the daemon was killed; undefined where it came to the end first */
async function killedAt(index: number): Promise<string | undefined> {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, BYSTANDER);
  const bootId = (await podUntil(first, BYSTANDER, isRunning)).guest?.bootId ?? '';
  await first.close();
  const mortal = createMortalProcess(index);
  const work = rig.start(mortal).then(async (daemon) => {
    await live(daemon, mortal.ask);
    await mortal.ask(() => daemon.close());
    return 'done' as const;
  });
  const outcome = await Promise.race([work, mortal.died]);
  if (outcome === 'done') {
    assert.ok(index >= STEPS_MIN, `${index} steps`);
    return undefined;
  }
  await settle();
  const step = `killed after step ${index}, ${mortal.steps.at(-1) ?? 'none'}`;
  const next = await rig.start();
  await isTold(next, step);
  await goesOn(rig, next, bootId, step);
  // The kubelet asks again: for a pod that is being removed when it is gone.
  if (phaseOf(next, 'a') === 'deleting') await next.removePod('a');
  await live(next);
  await goesOn(rig, next, bootId, step);
  assert.deepEqual([...rig.hypervisor.running.keys()], [BYSTANDER], step);
  assert.deepEqual(await rig.podDirectories(), [BYSTANDER, BYSTANDER], step);
  const { ports } = await rig.network.list();
  assert.deepEqual(
    ports.map(({ id }) => id),
    [BYSTANDER],
    step,
  );
  assert.ok(
    rig.images.leases().every(({ owner }) => owner === BYSTANDER),
    step,
  );
  return step;
}

test('a daemon that is killed at any of its steps leaves the truth, and nothing else', async (context) => {
  for (let index = 0; ; index += 1) {
    const step = await killedAt(index);
    if (step === undefined) return context.diagnostic(`killed at each of ${index} steps`);
  }
});
