import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { PodRecord } from './record.ts';
import {
  IMAGE_ID,
  containerSpec,
  createRig,
  isRunning,
  isStopped,
  logText,
  podSpec,
  podUntil,
  runningPod,
} from './testing/rig.ts';

/*
 * A daemon that finds what an earlier one has left. The earlier one ends in order; what a crash
 * would have left otherwise is then written into the record.
 */

test('a pod that runs is taken over with its containers, output and exits', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  const guest = rig.guest('a');
  await guest.print('a-c', 'before\n');
  await first.close();
  await guest.print('a-c', 'meanwhile\n');
  const second = await rig.start();
  await podUntil(second, 'a', isRunning);
  await guest.print('a-c', 'after\n');
  await guest.exit('a-c', 5);
  assert.equal((await second.pod('a').container('a-c').exited).exitCode, 5);
  assert.equal(await logText(second, 'a', 'a-c'), 'before\nmeanwhile\nafter\n');
  const again = await second.pod('a').startContainer(containerSpec('a-c'));
  assert.equal(again.exit?.exitCode, 5, 'it is not started twice');
  assert.equal(rig.hypervisor.running.size, 1);
});

test('an exit while no daemon was there is told to the next one', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await first.close();
  await rig.guest('a').print('a-c', 'last\n');
  await rig.guest('a').exit('a-c', 9);
  const second = await rig.start();
  assert.equal((await second.pod('a').container('a-c').exited).exitCode, 9);
  assert.equal(await logText(second, 'a', 'a-c'), 'last\n');
});

test('a VM that died meanwhile makes a pod that is stopped, for the reason it had', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await runningPod(first, 'b');
  await first.close();
  const { running } = rig.hypervisor;
  running.get('a')?.guest.panic('out of everything');
  running.get('b')?.end({ reason: 'killed', exitCode: undefined, signal: 'SIGKILL', message: 'x' });
  const second = await rig.start();
  const a = await podUntil(second, 'a', isStopped);
  const b = await podUntil(second, 'b', isStopped);
  assert.deepEqual([a.reason, b.reason], ['GuestPanic', 'VmmKilled']);
  assert.match(a.message, /out of everything/);
  assert.deepEqual([a.containers[0]?.exit?.exitCode, b.containers[0]?.exit?.exitCode], [137, 137]);
});

test('a VM that cannot be adopted is ended, and its pod says why', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await first.close();
  rig.fault = (step) => (step === 'adopt' ? new Error('the monitor is silent') : undefined);
  const second = await rig.start();
  const state = await podUntil(second, 'a', isStopped);
  assert.deepEqual([state.reason, state.message], ['VmmFailed', 'the monitor is silent']);
  assert.equal(rig.hypervisor.running.size, 0);
  await second.removePod('a');
  assert.deepEqual(await rig.podDirectories(), []);
});

test('a pod whose VM was not recorded yet is begun again, and only once', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await first.createPod(podSpec('a'));
  const before = await podUntil(first, 'a', isRunning);
  await first.close();
  await rig.editRecord('a', (record: PodRecord) => {
    Object.assign(record, { phase: 'creating', guest: null, port: null });
    delete record.timings.vmm;
  });
  const second = await rig.start();
  const after = await podUntil(second, 'a', isRunning);
  assert.equal(rig.hypervisor.running.size, 1);
  assert.equal(after.address, before.address);
});

test('a start that was accepted is carried out by the next daemon', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  const guest = rig.guest('a');
  await first.close();
  guest.containers.delete('a-c');
  await rig.editRecord('a', ({ containers }) => {
    Object.assign(containers[0]?.state ?? {}, { phase: 'creating', startedAtMs: 0 });
  });
  const second = await rig.start();
  const runs = await podUntil(second, 'a', ({ containers }) => containers[0]?.phase === 'running');
  assert.ok((runs.containers[0]?.startedAtMs ?? 0) > 0);
  assert.ok(guest.containers.has('a-c'));
});

test('a removal that was begun is finished by the next daemon', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await first.close();
  await rig.editRecord('a', (record) => (record.phase = 'deleting'));
  const second = await rig.start();
  await second.removePod('a');
  assert.deepEqual(second.pods(), []);
  assert.deepEqual(await rig.podDirectories(), []);
  assert.equal(rig.hypervisor.running.size, 0);
  assert.deepEqual((await rig.network.list()).ports, []);
  assert.deepEqual(rig.images.leases(), []);
});

test('a stop that was begun is finished by the next daemon', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await first.close();
  await rig.editRecord('a', (record) => {
    Object.assign(record, { phase: 'stopped', reason: 'PoweredOff' });
  });
  const second = await rig.start();
  await second.pod('a').stop();
  assert.equal(second.pods()[0]?.reason, 'PoweredOff');
  assert.equal(rig.hypervisor.running.size, 0);
  assert.deepEqual((await rig.network.list()).ports, []);
});

test('a pod is removed while it is being adopted', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await first.close();
  const adopting = Promise.withResolvers<void>();
  const removing = Promise.withResolvers<undefined>();
  rig.fault = (step) => {
    if (step !== 'adopt') return undefined;
    adopting.resolve();
    return removing.promise;
  };
  const second = await rig.start();
  await adopting.promise;
  const removal = second.removePod('a');
  removing.resolve(undefined);
  await removal;
  assert.equal(rig.hypervisor.running.size, 0);
  assert.deepEqual(await rig.podDirectories(), []);
  assert.deepEqual((await rig.network.list()).ports, []);
});

test('what belongs to no pod is taken back: ports, pinned images, directories', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await runningPod(first, 'lost');
  await first.close();
  await rig.network.ensureNetwork(podSpec('x').network ?? assert.fail());
  await rig.network.ensurePort({ id: 'nobody', networkId: 'default', ownerUid: 70_000 });
  await rig.images.acquire(IMAGE_ID, 'nobody');
  await mkdir(join(rig.directory, 'pods', 'empty'));
  await writeFile(join(rig.directory, 'pods', 'lost', 'pod.json'), '{ half');
  const second = await rig.start();
  await podUntil(second, 'a', isRunning);
  assert.deepEqual(await rig.podDirectories(), ['a', 'a']);
  assert.deepEqual(
    (await rig.network.list()).ports.map(({ id }) => id),
    ['a'],
  );
  assert.deepEqual(rig.images.leases(), [{ imageId: IMAGE_ID, owner: 'a' }]);
  assert.deepEqual([...rig.hypervisor.running.keys()], ['a']);
});

test('a daemon that ends removes the networks that no pod needs', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await first.close();
  assert.equal((await rig.network.list()).networks.length, 1, 'the pod runs on');
  const second = await rig.start();
  await second.removePod('a');
  await second.close();
  assert.deepEqual(await rig.network.list(), { networks: [], ports: [] });
});

test('a record that is gone while the pod runs does not keep it from being removed', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  await rm(join(rig.directory, 'pods', 'a'), { recursive: true });
  await daemon.removePod('a');
  assert.deepEqual(await rig.podDirectories(), []);
  assert.equal(rig.hypervisor.running.size, 0);
});
