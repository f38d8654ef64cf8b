import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import type { PodState } from '../../src/api/hyperd.ts';
import type { Container, Pod } from '../../src/api/types.generated.ts';
import { systemClock } from '../../src/base/clock.ts';
import { run } from '../../src/base/exec.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { createHyperdClient } from '../../src/client/hyperd.ts';
import type { HyperdClient } from '../../src/client/hyperd.ts';
import { EVENTS, PODS } from '../../src/client/resources.ts';
import { runCommand } from '../../src/kubelet/exec.ts';
import type { CommandResult } from '../../src/kubelet/exec.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { hostState, vmUids } from './support/leftovers.ts';
import { reportCluster } from './support/report.ts';
import { waitFor } from './support/wait.ts';

/*
 * What happens to one pod while another runs beside it: a disk with no room for templates, templates
 * that are destroyed or deleted, an emulator that is stopped, a hyperstart that is killed, a damaged
 * image, a hyperd that is killed at each step of a pod's life. All real. Each time the pod tells what
 * is true, nothing is left on the host, and the bystander's VM is the same and answers.
 */
const NAMESPACE = 'default';
const BYSTANDER = 'bystander';
/** Several times of what it takes on a busy machine: only what never comes is waited for so long. */
const WAIT_MS = 120_000;
/** Less than the memory of one VM. */
const FULL = '8m';
const ROOMY = '1g';
const uids = new Set<number>();

let cluster: TestCluster;
let hyperd: HyperdClient;
let image: string;
let templates = '';
let bystander: PodState;

before(async () => {
  cluster = await startCluster(['--warm-pool', 'off'], async (dataDir) => {
    templates = join(dataDir, 'hyperd/templates');
    await mkdir(templates, { recursive: true });
    await run('mount', ['-t', 'tmpfs', '-o', `size=${FULL},mode=700`, 'templates', templates]);
  });
  hyperd = createHyperdClient(join(cluster.dataDir, 'run/hyperd.sock'));
  image = await pushDemoImage(cluster.registryPort);
});

afterEach(async (context) => {
  if ('passed' in context && !context.passed && cluster) await reportCluster(cluster);
});

after(async () => {
  await cluster?.cli('down');
  if (templates) await run('umount', ['--lazy', templates]);
  await cluster?.[Symbol.asyncDispose]();
});

async function create(name: string, rest: Partial<Container> = {}, using = image): Promise<void> {
  const container = { name: 'main', image: using, command: ['/bin/sleep', '3600'], ...rest };
  await cluster.client.create(PODS, {
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { namespace: NAMESPACE, name } },
    spec: { restartPolicy: 'Always', terminationGracePeriodSeconds: 5, containers: [container] },
  });
}

const status = (pod: Pod | undefined) => pod?.status?.containerStatuses?.[0];
const isRunning = (pod: Pod | undefined) => status(pod)?.state?.running !== undefined;

async function podUntil(name: string, done: (pod: Pod | undefined) => boolean): Promise<Pod> {
  const pod = await waitFor(cluster.client, PODS, { namespace: NAMESPACE, name }, done, WAIT_MS);
  return pod as Pod;
}

async function stateOf(name: string): Promise<PodState> {
  for (const uid of await vmUids(cluster.dataDir)) uids.add(uid);
  return (await hyperd.pods()).find((pod) => pod.name === name) ?? assert.fail(`no pod ${name}`);
}

/** A pod that runs, as hyperd tells of it. */
async function running(name: string, rest: Partial<Container> = {}): Promise<PodState> {
  await create(name, rest);
  await podUntil(name, isRunning);
  return stateOf(name);
}

/** Without its grace period, which its containers would use up. */
async function gone(name: string): Promise<void> {
  await cluster.client.delete(PODS, { namespace: NAMESPACE, name }, { gracePeriodSeconds: 0 });
  const isThere = async () => (await hyperd.pods()).some((pod) => pod.name === name);
  await until(async () => !(await isThere()), `pod ${name} stays`);
}

async function until(holds: () => Promise<boolean> | boolean, what: string): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + WAIT_MS;
  while (!(await holds())) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, what);
    await systemClock.sleep(50);
  }
}

async function execIn(pod: PodState, script: string, privileged = false): Promise<CommandResult> {
  const [container] = pod.containers;
  const { process } = await hyperd.containerSpec(pod.id, container?.id ?? '');
  const target = { sandboxId: pod.id, containerId: container?.id ?? '' };
  const security = { ...process.security, ...(privileged ? { privileged: true } : {}) };
  const spec = { ...process, argv: ['/bin/sh', '-c', script], tty: false, security };
  const { signal } = new AbortController();
  return runCommand(hyperd, systemClock, target, spec, 30_000, signal);
}

/** The VM beside all that: the same, and it answers. */
async function bystanderGoesOn(): Promise<void> {
  const now = await stateOf(BYSTANDER);
  assert.deepEqual([now.phase, now.guest], ['running', bystander.guest]);
  const { output } = await execIn(now, 'cat /proc/sys/kernel/random/boot_id');
  assert.equal(output.trim(), bystander.guest?.bootId);
  const pod = await cluster.client.get(PODS, { namespace: NAMESPACE, name: BYSTANDER });
  assert.deepEqual([pod.status?.phase, status(pod)?.restartCount], ['Running', 0]);
}

async function reasonsOf(name: string): Promise<string[]> {
  const { items } = await cluster.client.listAll(EVENTS, { namespace: NAMESPACE });
  const events = items as unknown as { reason: string; involvedObject: { name: string } }[];
  return events.filter((each) => each.involvedObject.name === name).map(({ reason }) => reason);
}

async function vmmOf(pod: PodState): Promise<number> {
  const record = await readFile(join(cluster.dataDir, 'hyperd/pods', pod.id, 'pod.json'), 'utf8');
  const { vmId } = JSON.parse(record) as { vmId: string };
  const jail = await readFile(join(cluster.dataDir, 'hyperd/vms', vmId, 'vm/jail.json'), 'utf8');
  return (JSON.parse(jail) as { vmm: { pid: number } }).vmm.pid;
}

/** Kills hyperd when `reached` says so; returns when there is another one. */
async function killHyperd(reached: () => boolean | Promise<boolean> = () => true): Promise<void> {
  const pid = await cluster.pidOf('hyperd');
  const deadlineMs = systemClock.monotonicMs() + WAIT_MS;
  // Steps are milliseconds long: there is no event that tells of them but what they leave on disk.
  while (!(await reached())) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, 'a step does not come');
    await new Promise((resolve) => setImmediate(resolve));
  }
  process.kill(pid, 'SIGKILL');
  await until(async () => {
    const component = (await cluster.status())?.components.find(({ name }) => name === 'hyperd');
    return component?.state === 'ready' && component.pid !== pid;
  }, 'hyperd does not come back');
}

async function hyperdLog(): Promise<string> {
  return readFile(join(cluster.dataDir, 'log/hyperd.log'), 'utf8');
}

test('a disk with no room for a template: pods boot, and it is told why', async () => {
  bystander = await running(BYSTANDER);
  await until(async () => (await hyperd.templates())[0]?.phase === 'resting', 'no attempt');
  const [template] = await hyperd.templates();
  assert.match(template?.message ?? '', /No space left on device/);
  assert.deepEqual(await readdir(templates), []);
  assert.equal((await stateOf(BYSTANDER)).origin, 'cold');
  const state = await hostState(cluster.dataDir, uids);
  assert.equal(state.processes.filter((line) => line.startsWith('vm ')).length, 1);
  await bystanderGoesOn();
});

test('a template that is destroyed or deleted under a start: the pod boots', async () => {
  await run('mount', ['-o', `remount,size=${ROOMY}`, templates]);
  await killHyperd();
  const isReady = async () => (await hyperd.templates())[0]?.phase === 'ready';
  await running('maker');
  await until(isReady, 'no template');
  await gone('maker');
  const [id = ''] = await readdir(templates);
  // As long as it was, so that only its clones can find out.
  const memory = join(templates, id, 'memory');
  const { size } = await stat(memory);
  const other = await open(`${memory}.new`, 'w', 0o600);
  await other.truncate(size);
  await other.close();
  await rename(`${memory}.new`, memory);
  assert.equal((await running('destroyed')).origin, 'cold');
  assert.match(await hyperdLog(), /template does not start VMs/);
  await until(isReady, 'no other template');
  const restored = running('restored');
  const vms = join(cluster.dataDir, 'hyperd/vms');
  await until(async () => {
    for (const vm of await readdir(vms)) {
      const text = await readFile(join(vms, vm, 'vm/vm.json'), 'utf8').catch(() => '');
      if (text.includes('"role":"clone"')) return true;
    }
    return false;
  }, 'it does not start from its template');
  await rm(join(templates, id), { recursive: true, force: true });
  const { origin } = await restored;
  assert.match(origin ?? '', /^(template|cold)$/);
  await gone('destroyed');
  await gone('restored');
  await bystanderGoesOn();
});

test('an emulator that is stopped: not ready, goes on when it may, and can be deleted', async () => {
  const before = await hostState(cluster.dataDir, uids);
  const readinessProbe = {
    exec: { command: ['/bin/true'] },
    ...{ periodSeconds: 1, timeoutSeconds: 2, failureThreshold: 1 },
  };
  await create('stopped', { readinessProbe });
  const ready = (wanted: boolean) => (pod: Pod | undefined) => status(pod)?.ready === wanted;
  await podUntil('stopped', ready(true));
  const state = await stateOf('stopped');
  const pid = await vmmOf(state);
  process.kill(pid, 'SIGSTOP');
  await podUntil('stopped', ready(false));
  assert.ok((await reasonsOf('stopped')).includes('Unhealthy'));
  await bystanderGoesOn();
  process.kill(pid, 'SIGCONT');
  const pod = await podUntil('stopped', ready(true));
  assert.equal(status(pod)?.restartCount, 0);
  assert.deepEqual((await stateOf('stopped')).guest, state.guest);
  process.kill(pid, 'SIGSTOP');
  const beganMs = systemClock.monotonicMs();
  await cluster.client.delete(PODS, { namespace: NAMESPACE, name: 'stopped' });
  await podUntil('stopped', (each) => each === undefined);
  const tookMs = systemClock.monotonicMs() - beganMs;
  console.log(`a stopped VM went ${Math.round(tookMs)} ms after a deletion with 5 s`);
  // Far less than what a guest has to answer one request: 5 s, twice 2 s, and a busy machine.
  assert.ok(tookMs < 25_000, `${tookMs} ms`);
  await until(async () => !(await hyperd.pods()).some(({ id }) => id === state.id), 'it stays');
  assert.deepEqual(await hostState(cluster.dataDir, uids), before);
  await bystanderGoesOn();
});

/**
 * The guest's kernel runs a core dump's reader outside of all containers. It writes over the code
 * of PID 1, which no signal from inside of the guest ends.
 */
const KILLS_HYPERSTART = [
  'cat > /tmp/k <<E',
  '#!/bin/sh',
  'a=0x$(head -n 2 /proc/1/maps | tail -n 1 | cut -d- -f1)',
  'dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((a / 4096)) count=64 conv=notrunc',
  'E',
].join('\n');

test('a hyperstart that is killed: its kernel panics, and the pod says so', async () => {
  const privileged = { securityContext: { privileged: true } };
  const pod = await running('init-killed', privileged);
  const script = KILLS_HYPERSTART.replaceAll('$', '\\$');
  const pattern = '|/proc/%P/root/bin/busybox sh /proc/%P/root/tmp/k';
  await execIn(
    pod,
    `${script}\nulimit -c unlimited; echo '${pattern}' > /proc/sys/kernel/core_pattern
     sh -c 'kill -SEGV $$'; sleep 5`,
    true,
  ).catch(() => undefined);
  const after = await podUntil('init-killed', (each) => status(each)?.restartCount === 1);
  const ended = status(after)?.lastState?.terminated;
  assert.deepEqual([ended?.exitCode, ended?.reason], [137, 'GuestPanic']);
  assert.match(ended?.message ?? '', /Attempted to kill init/);
  await podUntil('init-killed', isRunning);
  await gone('init-killed');
  await bystanderGoesOn();
});

test('an image whose disk was written to is made anew for the next pod', async () => {
  const [known] = await hyperd.images();
  const disk = join(cluster.dataDir, 'hyperd/images/disks', `${known?.id.slice(7)}.erofs`);
  const file = await open(disk, 'r+');
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 8192);
  await file.write(Buffer.from([~(buffer[0] ?? 0) & 0xff]), 0, 1, 8192);
  await file.close();
  const { ino } = await stat(disk);
  await running('image');
  assert.match(await hyperdLog(), /image is damaged: the next pull makes it anew/);
  assert.notEqual((await stat(disk)).ino, ino);
  await gone('image');
  await bystanderGoesOn();
});

/** What hyperd leaves on the disk on its way, in its order. */
const recordOf = (id: string) => join(cluster.dataDir, 'hyperd/pods', id, 'pod.json');
const vmOf = (id: string) => join(cluster.dataDir, 'hyperd/vms', id);
const says = async (id: string, phase: string) =>
  (await readFile(recordOf(id), 'utf8').catch(() => '')).includes(`"phase":"${phase}"`);
const CREATE_STEPS: Record<string, (id: string) => boolean | Promise<boolean>> = {
  'its record is written': (id) => existsSync(recordOf(id)),
  'its VM has begun': (id) => existsSync(join(vmOf(id), 'vm/jail.json')),
  'it runs': (id) => says(id, 'running'),
};
const DELETE_STEPS: Record<string, (id: string) => boolean | Promise<boolean>> = {
  'it is to go': (id) => says(id, 'deleting'),
  'its VM has ended': (id) => existsSync(join(vmOf(id), 'vm/exit.json')) || !existsSync(vmOf(id)),
};

test('hyperd killed at each step of create and delete leaves nothing and loses nothing', async () => {
  const before = await hostState(cluster.dataDir, uids);
  const specOf = (id: string) => ({ ...bystander.spec, id, name: id, hostname: id, volumes: [] });
  const phaseOf = async (id: string) => (await hyperd.pods()).find((pod) => pod.id === id)?.phase;
  const runs = async (id: string) => {
    // Who was told nothing asks again, as the kubelet does.
    await hyperd.createPod(specOf(id));
    await until(async () => {
      const phase = await phaseOf(id);
      assert.match(phase ?? '', /^(creating|running)$/, id);
      return phase === 'running';
    }, `pod ${id} does not run`);
    for (const uid of await vmUids(cluster.dataDir)) uids.add(uid);
  };
  let count = 0;
  for (const [step, reached] of Object.entries(CREATE_STEPS)) {
    const id = `killed-${count++}`;
    const asked = hyperd.createPod(specOf(id)).catch(() => undefined);
    await killHyperd(() => reached(id));
    await asked;
    assert.match((await phaseOf(id)) ?? '', /^(creating|running)$/, step);
    await runs(id);
    await hyperd.deletePod(id);
    await bystanderGoesOn();
  }
  for (const [step, reached] of Object.entries(DELETE_STEPS)) {
    const id = `killed-${count++}`;
    await runs(id);
    const asked = hyperd.deletePod(id).catch(() => undefined);
    await killHyperd(() => reached(id));
    await asked;
    // It goes without being asked again, once hyperd has recorded that it is to.
    await until(async () => (await phaseOf(id)) === undefined, `pod ${id} stays: ${step}`);
    await bystanderGoesOn();
  }
  assert.deepEqual(await hostState(cluster.dataDir, uids), before);
});
