import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PodState, ProcessExit } from '../../api/hyperd.ts';
import type { VmExit } from '../vmm/hypervisor.ts';
import { AgentError } from '../agent/agent.ts';
import {
  containerSpec,
  createRig,
  isRunning,
  isStopped,
  logText,
  podSpec,
  podUntil,
  runningPod,
} from './testing/rig.ts';

const pick = ({ exitCode, signal, reason }: ProcessExit) => ({ exitCode, signal, reason });

test('a pod runs a container, keeps its output and its exit code, and goes without a trace', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  const created = await daemon.createPod(podSpec('a'));
  assert.equal(created.phase, 'creating');
  const running = await podUntil(daemon, 'a', isRunning);
  assert.match(running.address, /^10\.88\.0\.\d+$/);
  assert.deepEqual(running.guest, { kernelVersion: '6.1.0-fake', bootId: 'boot-a' });
  const state = await daemon.pod('a').startContainer(containerSpec('c'));
  assert.equal(state.phase, 'running');
  await rig.guest('a').print('c', 'one\ntwo\n');
  await rig.guest('a').print('c', 'warning\n', 2);
  assert.ok((daemon.pods()[0]?.containers[0]?.firstByteAtMs ?? 0) > 0);
  await daemon.pod('a').signalContainer('c', 15);
  assert.deepEqual(rig.guest('a').signals, [{ id: 'c', signal: 15 }]);
  await rig.guest('a').exit('c', 3);
  const container = daemon.pod('a').container('c');
  assert.deepEqual(pick(await container.exited), { exitCode: 3, signal: 0, reason: 'Error' });
  assert.equal(await logText(daemon, 'a', 'c'), 'one\ntwo\nwarning\n');
  await daemon.pod('a').signalContainer('c', 9);
  assert.equal(rig.guest('a').signals.length, 1, 'the dead are not signalled');
  await daemon.pod('a').removeContainer('c');
  assert.deepEqual(daemon.pods()[0]?.containers, []);
  await daemon.removePod('a');
  assert.throws(() => daemon.pod('a'), { reason: 'NotFound' });
  assert.deepEqual(await rig.podDirectories(), []);
  assert.equal(rig.hypervisor.running.size, 0);
  assert.deepEqual((await rig.network.list()).ports, []);
  assert.deepEqual(rig.images.leases(), []);
});

test('a pod boots the kernel that it names; one that this node has not is refused', async () => {
  await using rig = await createRig('mine');
  const daemon = await rig.start();
  await assert.rejects(daemon.createPod({ ...podSpec('a'), kernel: 'other' }), {
    reason: 'Invalid',
    message: /^Cannot find kernel "other" on this node$/,
  });
  assert.deepEqual(daemon.pods(), []);
  await daemon.createPod({ ...podSpec('a'), kernel: 'mine' });
  await daemon.createPod(podSpec('b'));
  for (const id of ['a', 'b']) await podUntil(daemon, id, isRunning);
  assert.equal(rig.guest('a').vm.spec.kernelPath, '/mine/vmlinux');
  assert.equal(rig.guest('b').vm.spec.kernelPath, '/default/vmlinux');
  assert.equal((await daemon.createPod({ ...podSpec('a'), kernel: 'gone' })).phase, 'running');
});

test('what is asked twice is done once', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  let boots = 0;
  rig.fault = (step) => void (step === 'create' && (boots += 1));
  await Promise.all([daemon.createPod(podSpec('a')), daemon.createPod(podSpec('a'))]);
  await podUntil(daemon, 'a', isRunning);
  let starts = 0;
  rig.guest('a').before = (op) => void (op === 'startContainer' && (starts += 1));
  const start = () => daemon.pod('a').startContainer(containerSpec('c'));
  const states = await Promise.all([start(), start()]);
  assert.deepEqual([boots, starts, states[0]?.startedAtMs], [1, 1, states[1]?.startedAtMs]);
  await rig.guest('a').exit('c', 0);
  assert.equal((await start()).phase, 'exited');
  await Promise.all([daemon.removePod('a'), daemon.removePod('a')]);
  await daemon.removePod('a');
  await daemon.createPod(podSpec('a'));
  assert.equal((await podUntil(daemon, 'a', isRunning)).phase, 'running', 'the id is free again');
});

test('a container that cannot be started says why, and its pod goes on', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  const refusal = new AgentError('StartError', 'exec "nope": no such file', 127);
  rig.guest('a').before = (op, id) => {
    if (op === 'startContainer' && id === 'bad') throw refusal;
    if (op === 'startContainer' && id === 'late') throw new AgentError('Timeout', 'no answer');
  };
  const bad = await daemon.pod('a').startContainer(containerSpec('bad'));
  assert.equal(bad.phase, 'exited');
  assert.equal(bad.startedAtMs, 0);
  const { exitCode, reason, message } = bad.exit ?? assert.fail();
  assert.deepEqual([exitCode, reason], [128, 'StartError']);
  assert.match(message, /no such file/);
  const late = await daemon.pod('a').startContainer(containerSpec('late'));
  assert.equal(late.exit?.reason, 'Timeout');
  rig.fault = (step) => (step === 'attachDisk' ? new Error('no slot left') : undefined);
  const diskless = await daemon.pod('a').startContainer(containerSpec('diskless'));
  assert.match(diskless.exit?.message ?? '', /no slot left/);
  const missing = containerSpec('e', { imageId: `sha256:${'0'.repeat(64)}` });
  await assert.rejects(daemon.pod('a').startContainer(missing), { reason: 'NotFound' });
  const [pod] = daemon.pods();
  assert.equal(pod?.phase, 'running');
  assert.deepEqual(
    pod?.containers.map(({ id, phase }) => [id, phase]),
    [
      ['a-c', 'running'],
      ['bad', 'exited'],
      ['late', 'exited'],
      ['diskless', 'exited'],
    ],
  );
});

test('an exit that comes before the answer to the start counts', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await daemon.createPod(podSpec('a'));
  await podUntil(daemon, 'a', isRunning);
  const guest = rig.guest('a');
  const open = guest.open;
  guest.open = (connection, options) => {
    const agent = open(connection, options);
    return {
      ...agent,
      async startContainer(spec) {
        await agent.startContainer(spec);
        await guest.print(spec.id, 'quick\n');
        await guest.exit(spec.id, 7);
      },
    };
  };
  await guest.cut();
  const state = await daemon.pod('a').startContainer(containerSpec('c'));
  assert.deepEqual([state.phase, state.exit?.exitCode], ['exited', 7]);
  assert.ok(state.startedAtMs > 0);
  assert.equal(await logText(daemon, 'a', 'c'), 'quick\n');
});

const ENDS: [VmExit['reason'], PodState['reason']][] = [
  ['powered-off', 'PoweredOff'],
  ['panicked', 'GuestPanic'],
  ['killed', 'VmmKilled'],
  ['failed', 'VmmFailed'],
];
for (const [reason, expected] of ENDS) {
  test(`a VM that ended ${reason} makes a pod that is stopped: ${expected}`, async () => {
    await using rig = await createRig();
    const daemon = await rig.start();
    await runningPod(daemon, 'a');
    await daemon.pod('a').startContainer(containerSpec('done'));
    await rig.guest('a').exit('done', 4);
    const seen: PodState[] = [];
    const watch = daemon.events.subscribe(undefined, AbortSignal.timeout(10_000));
    const message = 'as the test wants it';
    rig.hypervisor.running.get('a')?.end({ reason, exitCode: 0, signal: undefined, message });
    for await (const { pod } of watch) {
      seen.push(...daemon.pods().filter(({ id }) => id === pod));
      if (seen.some(isStopped)) break;
    }
    const state = seen.at(-1) ?? assert.fail();
    assert.equal(state.reason, expected);
    assert.match(state.message, /as the test wants it/);
    const exits = state.containers.map(({ exit }) => [exit?.exitCode, exit?.signal]);
    assert.deepEqual(exits, [
      [137, 9],
      [4, 0],
    ]);
    assert.equal(state.containers[0]?.exit?.message, state.message);
    await assert.rejects(daemon.pod('a').startContainer(containerSpec('late')), {
      reason: 'Conflict',
      message: /Pod "a" does not run, it is stopped/,
    });
    assert.deepEqual((await rig.network.list()).ports, []);
    assert.deepEqual(rig.images.leases(), []);
    await daemon.removePod('a');
    assert.deepEqual(await rig.podDirectories(), []);
  });
}

test('nobody sees a stopped pod with a container that has not ended', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a', { terminationMessageFromLog: true });
  const record = () => daemon.pods()[0] ?? assert.fail();
  rig.hypervisor.running.get('a')?.guest.panic('attempted to kill init');
  while (record().phase !== 'stopped') {
    assert.equal(record().containers[0]?.phase, 'running');
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(record().containers[0]?.phase, 'exited');
  assert.match(record().message, /attempted to kill init/);
});

test('what a guest said before its end is kept: the last lines and the exit code', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  const guest = rig.guest('a');
  const last = [guest.print('a-c', 'last words\n'), guest.exit('a-c', 42)];
  rig.hypervisor.running.get('a')?.guest.powerOff();
  await Promise.all(last);
  const state = await podUntil(daemon, 'a', isStopped);
  assert.equal(state.containers[0]?.exit?.exitCode, 42);
  assert.equal(await logText(daemon, 'a', 'a-c'), 'last words\n');
});

test('a VM that cannot be started stops the pod and leaves nothing', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  rig.fault = (step) => (step === 'create' ? new Error('no memory for it') : undefined);
  await daemon.createPod(podSpec('a'));
  const state = await podUntil(daemon, 'a', isStopped);
  assert.deepEqual([state.reason, state.message], ['StartFailed', 'no memory for it']);
  await assert.rejects(daemon.pod('a').startContainer(containerSpec('c')), { reason: 'Conflict' });
  await daemon.removePod('a');
  assert.deepEqual((await rig.network.list()).ports, []);
  assert.deepEqual(await rig.podDirectories(), []);
});

test('a guest that refuses its set-up is not asked again', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  let asked = 0;
  rig.onBoot = (guest) => {
    guest.before = () => {
      asked += 1;
      throw new AgentError('Invalid', 'sysctl "kernel.nothing" is unknown');
    };
  };
  await daemon.createPod(podSpec('a', { sysctls: { 'kernel.nothing': '1' } }));
  const state = await podUntil(daemon, 'a', isStopped);
  assert.equal(state.reason, 'StartFailed');
  assert.match(state.message, /kernel\.nothing/);
  assert.equal(rig.hypervisor.running.size, 0);
  assert.equal(asked, 1);
});

test('a broken line to the guest is taken up again: nothing lost, nothing doubled', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  const guest = rig.guest('a');
  for (let line = 0; line < 20; line += 1) {
    void guest.print('a-c', `line ${line}\n`);
    if (line % 10 === 9) await guest.cut();
  }
  await guest.exit('a-c', 0);
  await daemon.pod('a').container('a-c').exited;
  const expected = Array.from({ length: 20 }, (_, line) => `line ${line}\n`).join('');
  assert.equal(await logText(daemon, 'a', 'a-c'), expected);
  assert.equal(guest.sessionCount, 3);
  assert.equal(daemon.pods()[0]?.phase, 'running');
});

test('an operation under which the line breaks is repeated, unless that could do harm', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  const guest = rig.guest('a');
  let calls = 0;
  guest.before = () => {
    calls += 1;
    if (calls === 1) void guest.cut();
  };
  assert.equal((await daemon.pod('a').stats()).memoryBytes, 2);
  assert.equal(calls, 2);
  calls = 0;
  const stats = daemon.pod('a').agent((agent) => agent.stats(), 'once');
  await assert.rejects(stats, { name: 'AgentError', reason: 'Interrupted' });
  assert.equal(calls, 1);
});

/** Where a pod can be when its removal comes: what is held up, and until what. */
const MOMENTS = [
  ['create', 1],
  ['attachDisk', 1],
  ['connectControl', 1],
  // The first was the pod's own.
  ['attachDisk', 2],
  ['startContainer', 1],
] as const;
for (const [moment, time] of MOMENTS) {
  test(`a pod that is removed in the middle of ${moment} ${time} leaves nothing`, async () => {
    await using rig = await createRig();
    const daemon = await rig.start();
    const reached = Promise.withResolvers<void>();
    const removing = Promise.withResolvers<undefined>();
    let times = 0;
    const hold = (step: string) => {
      if (step !== moment || ++times < time) return undefined;
      reached.resolve();
      return removing.promise;
    };
    rig.fault = hold;
    rig.onBoot = (guest) => (guest.before = hold);
    await daemon.createPod(podSpec('a'));
    let start: Promise<unknown> | undefined;
    if (time === 2 || moment === 'startContainer') {
      await podUntil(daemon, 'a', isRunning);
      start = daemon.pod('a').startContainer(containerSpec('c'));
      start.catch(() => {});
    }
    await reached.promise;
    const events = daemon.events.subscribe(undefined, AbortSignal.timeout(10_000));
    const removal = daemon.removePod('a');
    assert.equal(daemon.pod('a').state().phase, 'deleting');
    for await (const { pod } of events) if (pod === 'a') break;
    removing.resolve(undefined);
    await removal;
    if (start) await assert.rejects(start, { reason: 'Conflict' });
    assert.deepEqual(await rig.podDirectories(), []);
    assert.equal(rig.hypervisor.running.size, 0);
    assert.deepEqual((await rig.network.list()).ports, []);
    assert.deepEqual(rig.images.leases(), []);
  });
}

test('a removal that fails is finished when it is asked again', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  const { deletePort } = rig.network;
  rig.network.deletePort = () => Promise.reject(new Error('ip is busy'));
  await assert.rejects(daemon.removePod('a'), /ip is busy/);
  assert.equal(daemon.pods()[0]?.phase, 'deleting');
  assert.equal((await daemon.createPod(podSpec('a'))).phase, 'deleting');
  rig.network.deletePort = deletePort;
  await daemon.removePod('a');
  assert.deepEqual(await rig.podDirectories(), []);
});

test('stop() gives back what only a VM needs and keeps the logs', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  await rig.guest('a').print('a-c', 'kept\n');
  await rig.guest('a').exit('a-c', 0);
  const [first, second] = await Promise.all([daemon.pod('a').stop(), daemon.pod('a').stop()]);
  for (const state of [first, second]) {
    assert.deepEqual([state.phase, state.reason, state.address], ['stopped', 'PoweredOff', '']);
  }
  assert.equal(first.containers[0]?.exit?.exitCode, 0);
  assert.equal(rig.hypervisor.running.size, 0);
  assert.deepEqual((await rig.network.list()).ports, []);
  assert.equal(await logText(daemon, 'a', 'a-c'), 'kept\n');
});

test('a volume is written again when the first attempt did not reach the guest', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  const content = (version: number) => ({ version, files: [] });
  const volumes = [{ name: 'v', type: 'files' as const, content: content(1) }];
  await daemon.createPod(podSpec('a', { volumes }));
  await podUntil(daemon, 'a', isRunning);
  rig.guest('a').before = (op) => {
    if (op === 'writeVolume') throw new AgentError('Timeout', 'no answer');
  };
  await assert.rejects(daemon.pod('a').writeVolume('v', content(2)), { reason: 'Timeout' });
  rig.guest('a').before = () => {};
  await daemon.pod('a').writeVolume('v', content(2));
  assert.equal(rig.guest('a').volumes.get('v')?.version, 2);
  await daemon.pod('a').writeVolume('v', content(1));
  assert.equal(rig.guest('a').volumes.get('v')?.version, 2, 'the older one is not written');
  await assert.rejects(daemon.pod('a').writeVolume('none', content(1)), { reason: 'NotFound' });
});

test('events after a number are those that followed, and what is not kept is said', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  const first = daemon.events.subscribe(0, AbortSignal.timeout(10_000));
  const all: number[] = [];
  for await (const event of first) {
    all.push(event.sequence);
    if (event.type === 'container') break;
  }
  assert.deepEqual(
    all,
    all.map((_, index) => index + 1),
  );
  const subscribe = (after: number) => daemon.events.subscribe(after, AbortSignal.timeout(10_000));
  assert.throws(() => subscribe(1_000_000), { reason: 'Expired' });
  for (let count = 0; count < 10_000; count += 1) daemon.events.emit({ type: 'image', pod: '' });
  assert.throws(() => subscribe(0), { reason: 'Expired' });
});

test('a daemon that is ending takes no pods; what it cannot remove it names', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  await daemon.createNewPod({ spec: podSpec('b'), containers: [], start: false });
  rig.fault = (step, vmId) =>
    step === 'kill' && vmId === 'a' ? new Error('it does not end') : undefined;
  const removing = daemon.removeAllPods();
  await assert.rejects(daemon.createPod(podSpec('c')), { reason: 'ServiceUnavailable' });
  await assert.rejects(daemon.startPod('b'), { reason: 'ServiceUnavailable' });
  const left = await removing;
  assert.deepEqual([...left.keys()], ['a']);
  assert.match(String(left.get('a')), /it does not end/);
  rig.fault = () => undefined;
  assert.equal((await daemon.removeAllPods()).size, 0);
  assert.deepEqual(await rig.podDirectories(), []);
});
