import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import type { CreatePod, HyperPodSpec } from '../../api/hyperd.ts';
import type { NetworkSpec } from '../../network/driver.ts';
import type { Daemon } from './daemon.ts';
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
import type { Rig } from './testing/rig.ts';

/** What pods do that nobody but hyperd looks after: created first, ended by themselves, paused. */

const newPod = (id: string, spec: Partial<HyperPodSpec> = {}, start = false): CreatePod => ({
  spec: podSpec(id, spec),
  containers: [containerSpec('first'), containerSpec('second')],
  start,
});

const hasStarted = (daemon: Daemon, id: string) =>
  podUntil(
    daemon,
    id,
    ({ containers }) =>
      containers.length > 0 &&
      containers.every(({ phase }) => phase !== 'creating') &&
      containers.some(({ phase }) => phase === 'running'),
  );

test('createNewPod() keeps a pod with its containers until it is started, over a restart too', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  const created = await first.createNewPod(newPod('a'));
  assert.equal(created.phase, 'created');
  await assert.rejects(first.createNewPod(newPod('a')), /pods "a" already exists/);
  await assert.rejects(first.pod('a').startContainer(containerSpec('x')), /it is created/);
  await first.close();

  const daemon = await rig.start();
  assert.equal(daemon.pod('a').state().phase, 'created');
  await daemon.startPod('a');
  const running = await hasStarted(daemon, 'a');
  assert.deepEqual(
    running.containers.map(({ id, phase }) => [id, phase]),
    [
      ['first', 'running'],
      ['second', 'running'],
    ],
  );
  await assert.rejects(daemon.startPod('a'), /Cannot start pod "a": it is running already/);
});

test('startPod() gives a pod that has ended another VM, and its containers another attempt', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await daemon.createNewPod(newPod('a', {}, true));
  await hasStarted(daemon, 'a');
  for (const round of [1, 2]) {
    const number = round === 1 ? '' : `--${round - 1}`;
    await rig.guest('a').print(`first${number}`, `round ${round}\n`);
    await daemon.pod('a').stop();
    await daemon.startPod('a');
    const state = await hasStarted(daemon, 'a');
    assert.deepEqual(
      state.containers.map(({ id, attempt, phase }) => [id, attempt, phase]),
      ['first', 'second'].flatMap((name) => [
        [`${name}${number}`, round - 1, 'exited'],
        [`${name}--${round}`, round, 'running'],
      ]),
    );
    assert.equal(await logText(daemon, 'a', `first${number}`), `round ${round}\n`);
  }
});

test('a pod that is removed while it is started again is gone, whoever is first', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  for (let turns = 0; turns < 40; turns++) {
    await daemon.createNewPod(newPod('a', { network: null }, true));
    await hasStarted(daemon, 'a');
    await daemon.pod('a').stop();
    const started = daemon.startPod('a').catch((error: Error) => error.message);
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
    await daemon.removePod('a');
    await started;
    assert.deepEqual(daemon.pods(), [], `after ${turns} turns`);
    assert.deepEqual(await rig.podDirectories(), [], `after ${turns} turns`);
    assert.equal(rig.hypervisor.running.size, 0);
  }
});

test('a pod that was told to start is started by the next daemon', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await first.createNewPod(newPod('a', {}, true));
  await hasStarted(first, 'a');
  await first.pod('a').stop();
  await first.close();
  // As `startPod` writes it, killed before anything else.
  await rig.editRecord('a', (record) => {
    record.phase = 'creating';
    record.timings = {};
    for (const { state } of record.containers)
      Object.assign(state, { phase: 'creating', exit: null });
  });
  const daemon = await rig.start();
  const state = await hasStarted(daemon, 'a');
  assert.ok(state.containers.every(({ phase }) => phase === 'running'));
});

/** Makes a pod that has ended one whose VM had waited for it, with all that may be left of such a VM. */
async function leaveWarmVm(rig: Rig, podId: string): Promise<void> {
  const vmId = 'warm-1';
  await mkdir(join(rig.directory, 'vms', vmId, 'vm'), { recursive: true });
  await rm(join(rig.directory, 'vms', podId), { recursive: true });
  await rig.network.ensurePort({ id: vmId, networkId: 'default', ownerUid: 1_000_000_001 });
  await rig.editRecord(podId, (record) =>
    Object.assign(record, { vmId, uid: 1_000_000_001, origin: 'warm' }),
  );
}

for (const [when, phase] of [
  ['has ended', 'stopped'],
  ['a killed daemon was about to start', 'creating'],
] as const) {
  test(`a pod which ${when}, and whose VM had waited for it, gets one of its own`, async () => {
    await using rig = await createRig();
    const first = await rig.start();
    await first.createNewPod(newPod('a', {}, true));
    await hasStarted(first, 'a');
    await first.pod('a').stop();
    await first.close();
    await rig.network.ensureNetwork(podSpec('a').network as NetworkSpec);
    await leaveWarmVm(rig, 'a');
    if (phase === 'creating') {
      await rig.editRecord('a', (record) => Object.assign(record, { phase, timings: {} }));
    }
    const daemon = await rig.start();
    if (phase === 'stopped') await daemon.startPod('a');
    const { origin } = await podUntil(daemon, 'a', isRunning);
    assert.equal(origin, 'cold');
    assert.deepEqual([...rig.hypervisor.running.keys()], ['a']);
    assert.deepEqual(await rig.podDirectories(), ['a', 'a']);
    assert.equal(rig.hypervisor.running.get('a')?.guest.spec.uid, 1_000_000_001);
    const { ports } = await rig.network.list();
    assert.deepEqual(
      ports.map(({ id }) => id),
      ['a'],
    );
    assert.equal((await daemon.vms())[0]?.id, 'a');
    await daemon.removePod('a');
    assert.deepEqual(await rig.podDirectories(), []);
  });
}

test('a container whose image is gone when its pod is started ends, and says why', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await daemon.createNewPod(newPod('a'));
  rig.images.present.delete(IMAGE_ID);
  await daemon.startPod('a');
  const { containers } = await podUntil(daemon, 'a', (pod) =>
    pod.containers.every(({ phase }) => phase === 'exited'),
  );
  assert.match(containers[0]?.exit?.message ?? '', /not found/);
});

test('whenDone stops or removes a pod after the last of its containers', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await daemon.createNewPod(newPod('a', { whenDone: 'stop' }, true));
  await daemon.createNewPod(newPod('b', { whenDone: 'remove' }, true));
  await hasStarted(daemon, 'a');
  await hasStarted(daemon, 'b');
  await rig.guest('a').exit('first', 0);
  assert.equal(daemon.pod('a').state().phase, 'running', 'one of them is left');
  const removed = new AbortController();
  const events = daemon.events.subscribe(undefined, removed.signal);
  await rig.guest('a').exit('second', 3);
  const stopped = await podUntil(daemon, 'a', isStopped);
  assert.equal(stopped.message, 'All containers of the pod have ended');
  assert.equal(stopped.containers[1]?.exit?.exitCode, 3);
  await rig.guest('b').exit('first', 0);
  await rig.guest('b').exit('second', 0);
  for await (const _ of events) if (!daemon.pods().some(({ id }) => id === 'b')) break;
  removed.abort();
  // Its record and logs, and what its VM has left to look at.
  assert.deepEqual(await rig.podDirectories(), ['a', 'a']);
});

test('stop() lets containers end by their stop signals for as long as it is told', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a', { stopSignal: 'INT' });
  const guest = rig.guest('a');
  guest.before = (op, id) => {
    if (op === 'signal') void guest.exit(id, 7);
  };
  const state = await daemon.pod('a').stop(10_000);
  assert.deepEqual(guest.signals, [{ id: 'a-c', signal: 2 }]);
  assert.equal(state.containers[0]?.exit?.exitCode, 7);
  await runningPod(daemon, 'b');
  const killed = await daemon.pod('b').stop(20);
  assert.deepEqual(rig.guest('b').signals, [{ id: 'b-c', signal: 15 }]);
  assert.equal(killed.containers[0]?.exit?.exitCode, 137);
});

test('a paused pod refuses what needs its guest, and goes on with the right time', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  const pod = daemon.pod('a');
  assert.equal((await pod.pause()).paused, true);
  assert.equal((await pod.pause()).paused, true, 'again is fine');
  assert.ok(rig.hypervisor.running.get('a')?.paused);
  const refusal = /Pod "a" is paused: unpause it first/;
  await assert.rejects(pod.stats(), refusal);
  await assert.rejects(pod.startContainer(containerSpec('other')), refusal);
  await assert.rejects(pod.signalContainer('a-c', 9), refusal);
  assert.equal((await daemon.vms())[0]?.state, 'paused');
  assert.equal((await pod.unpause()).paused, false);
  assert.ok(!rig.hypervisor.running.get('a')?.paused);
  assert.equal(rig.guest('a').clocks.length, 1);
  await pod.stats();
  await pod.stop();
  await assert.rejects(pod.pause(), /does not run, it is stopped/);
});

test('a pod whose hypervisor cannot pause refuses to, and runs on', async () => {
  await using rig = await createRig();
  rig.hypervisor.capabilities.delete('pause');
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  await assert.rejects(
    daemon.pod('a').pause(),
    /Hypervisor "fake" cannot do this: it has no pause/,
  );
  assert.equal(daemon.pod('a').state().paused, false);
  await daemon.pod('a').stats();
});

test('a hypervisor to whose VMs no disk can come is refused at the start', async () => {
  await using rig = await createRig();
  rig.hypervisor.capabilities.delete('disk-hotplug');
  await assert.rejects(rig.start(), /Hypervisor "fake" cannot do this: it has no disk-hotplug/);
});

test('guests get the time of a host whose clock is set, and those that are paused later', async () => {
  await using rig = await createRig();
  const clock = new FakeClock();
  rig.clock = clock;
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  await runningPod(daemon, 'held');
  await daemon.pod('held').pause();
  await clock.advance(60_000);
  assert.deepEqual(rig.guest('a').clocks, []);
  clock.jump(-3600_000);
  await clock.advance(5_000);
  assert.deepEqual(rig.guest('a').clocks, [clock.nowMs()]);
  assert.deepEqual(rig.guest('held').clocks, []);
  await daemon.pod('held').unpause();
  assert.deepEqual(rig.guest('held').clocks, [clock.nowMs()]);
  const phases = daemon.pods().map(({ phase }) => phase);
  assert.deepEqual(phases, ['running', 'running']);
});

test('a paused pod is one for the next daemon too, which can end it and let it go on', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  for (const id of ['a', 'b', 'c']) {
    await runningPod(first, id);
    await first.pod(id).pause();
  }
  await first.close();
  const sessions = rig.guest('a').sessionCount;
  const daemon = await rig.start();
  const { phase, paused } = daemon.pod('a').state();
  assert.deepEqual({ phase, paused }, { phase: 'running', paused: true });
  await assert.rejects(daemon.pod('a').stats(), /is paused/);
  assert.equal(rig.guest('a').sessionCount, sessions, 'a guest that is held is not spoken to');
  await daemon.pod('a').unpause();
  assert.equal(rig.guest('a').clocks.length, 1);
  await rig.guest('a').print('a-c', 'hello\n');
  assert.equal(await logText(daemon, 'a', 'a-c'), 'hello\n');
  assert.equal((await daemon.pod('b').stop()).phase, 'stopped');
  await daemon.removePod('c');
});

test('a daemon that was killed while it paused a pod finds it paused', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await runningPod(first, 'a');
  await first.close();
  await rig.editRecord('a', (record) => (record.paused = true));
  const daemon = await rig.start();
  await assert.rejects(daemon.pod('a').stats(), /is paused/);
  assert.ok(rig.hypervisor.running.get('a')?.paused);
});

test('port mappings lead into the guest, over a restart, until the pod ends', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  const ports = [{ hostAddress: '127.0.0.1', hostPort: 0, guestPort: 80 }];
  await first.createPod(podSpec('a', { ports }));
  await podUntil(first, 'a', isRunning);
  const { hostPort } = first.pod('a').state().ports[0] ?? { hostPort: 0 };
  assert.notEqual(hostPort, 0);
  assert.equal(await echoed(hostPort, 'ping'), 'ping');
  await first.close();
  await assert.rejects(echoed(hostPort, 'ping'), /ECONNREFUSED/);
  const daemon = await rig.start();
  await podUntil(daemon, 'a', isRunning);
  await daemon.pod('a').stats();
  assert.equal(await echoed(hostPort, 'pong'), 'pong');
  assert.deepEqual((await daemon.pod('a').stop()).ports, []);
  await assert.rejects(echoed(hostPort, 'ping'), /ECONNREFUSED/);
});

test('a port that is taken keeps a new pod from starting, and is told of one that runs', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port: hostPort } = other.address() as AddressInfo;
  const ports = [{ hostAddress: '127.0.0.1', hostPort, guestPort: 80 }];
  const problem = `Cannot listen on port ${hostPort} of 127.0.0.1: it is taken`;
  try {
    await first.createPod(podSpec('a', { ports }));
    const { reason, message } = await podUntil(first, 'a', isStopped);
    assert.deepEqual({ reason, message }, { reason: 'StartFailed', message: problem });
    await first.createPod(podSpec('b'));
    await podUntil(first, 'b', isRunning);
    await first.close();
    await rig.editRecord('b', (record) => {
      record.ports = ports.map((each) => ({ ...each, problem: '' }));
    });
    const daemon = await rig.start();
    await daemon.pod('b').stats();
    assert.equal(daemon.pod('b').state().ports[0]?.problem, problem);
  } finally {
    other.close();
  }
});

/** What a server behind the port sends back to somebody who says something and is done. */
async function echoed(port: number, text: string): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  await once(socket, 'connect');
  socket.end(text);
  let answer = '';
  for await (const chunk of socket.setEncoding('utf8')) answer += chunk;
  return answer;
}

test('kernels, templates, pools and VMs are listed; what is no template cannot be removed', async () => {
  await using rig = await createRig('mine');
  const daemon = await rig.start();
  const kernels = await daemon.kernels();
  assert.deepEqual(
    kernels.map(({ names, isDefault }) => [names, isDefault]),
    [
      [['default'], true],
      [['mine'], false],
    ],
  );
  assert.deepEqual(await daemon.templates(), []);
  assert.deepEqual(daemon.pools(), []);
  await assert.rejects(daemon.removeTemplate('x'), /templates "x" not found/);
  await daemon.createPod(podSpec('a'));
  await podUntil(daemon, 'a', isRunning);
  assert.deepEqual(
    (await daemon.vms()).map(({ id, pod, state }) => [id, pod, state]),
    [['a', 'a', 'running']],
  );
  assert.match(daemon.metrics(), /^hyperd_vm_starts_total\{origin="cold"\} 1$/m);
});

test('an owner goes after its pods', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await daemon.createPod(podSpec('a', { owner: 'tenant/x' }));
  await assert.rejects(daemon.removeOwner('tenant/x'), /pod "a" has to be removed first/);
  await daemon.removeOwner('tenant/y');
  await daemon.removePod('a');
  await daemon.removeOwner('tenant/x');
});
