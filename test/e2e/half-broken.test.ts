import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod } from '../../src/api/types.generated.ts';
import { systemClock } from '../../src/base/clock.ts';
import { execute } from '../../src/base/exec.ts';
import { silentLog } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { PODS } from '../../src/client/resources.ts';
import { namesOf } from '../../src/network/linux/commands.ts';
import { createLinuxNetwork } from '../../src/network/linux/driver.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { waitFor } from './support/wait.ts';

/**
 * What an administrator finds and does when things are half broken: the supervisor killed or
 * stuck, the data directory deleted. The commands say how it is, and nothing runs on unseen.
 */
let cluster: TestCluster;
/** The container of the VM that has been ended. */
let ended: string | undefined;
const key = { namespace: 'default', name: 'steady' };
/** Ten times of what it takes on a busy machine. */
const END_TIMEOUT_MS = 60_000;

before(async () => {
  cluster = await startCluster(['--warm-pool', 'off']);
  await runPod();
});
after(() => cluster?.[Symbol.asyncDispose]());

async function runPod(): Promise<void> {
  const image = await pushDemoImage(cluster.registryPort);
  await cluster.client.create(PODS, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: key,
    spec: { containers: [{ name: 'main', image, command: ['/bin/sleep', '1000'] }] },
  });
  await ready();
}

/** The same on a cluster that this test may spoil. */
async function onAnother(work: () => Promise<void>): Promise<void> {
  await using other = await startCluster(['--warm-pool', 'off']);
  const previous = cluster;
  cluster = other;
  try {
    await runPod();
    await work();
  } finally {
    cluster = previous;
  }
}

const containerOf = (pod: Pod | undefined) => pod?.status?.containerStatuses?.[0]?.containerID;

/** @param before the container that has ended: until the kubelet says so, it counts as Ready */
const ready = (before?: string) =>
  waitFor(
    cluster.client,
    PODS,
    key,
    (pod) =>
      pod?.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true &&
      containerOf(pod) !== before,
  );

async function supervisorPid(): Promise<number> {
  const status = await cluster.status();
  assert.ok(status, 'a supervisor runs');
  return status.pid;
}

/** Programs that name the data directory: supervisor, components, jails. */
async function running(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = pids.map(async (pid) => {
    const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    return text.replaceAll('\0', ' ').trim();
  });
  const isOther = (line: string) => line === '' || !line.includes(cluster.dataDir);
  return (await Promise.all(lines)).filter((line) => !isOther(line));
}

async function until(done: () => Promise<boolean>, what: string): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + END_TIMEOUT_MS;
  while (!(await done())) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, `${what}: ${(await running()).join('\n')}`);
    await systemClock.sleep(100);
  }
}

async function killSupervisor(): Promise<void> {
  process.kill(await supervisorPid(), 'SIGKILL');
  await until(async () => (await running()).every((line) => line.includes('hyperjail')), 'orphans');
  assert.equal((await running()).length, 1);
}

test('components end with their supervisor; the VMs run on, and the next start takes over', async () => {
  await killSupervisor();
  const status = await cluster.cli('status');
  assert.equal(status.exitCode, 3);
  assert.match(status.stdout, /^nothing looks after .*, where 1 VM runs: .*hypernetes up.*down/);
  assert.equal((await cluster.cli('logs', '-n', '1')).exitCode, 0);
  const up = await cluster.cli('up', '--detach');
  assert.equal(up.exitCode, 0, up.stderr);
  const pod = await ready();
  assert.equal(pod?.status?.containerStatuses?.[0]?.restartCount, 0);
});

test('a supervisor that does not answer is told as that', async () => {
  const pid = await supervisorPid();
  process.kill(pid, 'SIGSTOP');
  try {
    const status = await cluster.cli('status');
    assert.equal(status.exitCode, 1);
    assert.match(status.stderr, /^hypernetes: The supervisor at .* does not answer within 10 s\./);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
});

test('down ends the VMs that nobody looks after', async () => {
  ended = containerOf(await ready());
  await killSupervisor();
  const kept = await cluster.cli('down', '--keep-pods');
  assert.match(kept.stdout, /^nothing runs on /);
  assert.equal((await running()).length, 1);
  const down = await cluster.cli('down');
  assert.equal(down.exitCode, 0, down.stderr);
  assert.equal(down.stdout, 'ended 1 pod that nobody looked after\n');
  assert.deepEqual(await running(), []);
  assert.match((await cluster.cli('status')).stdout, /^nothing runs on /);
  assert.match((await cluster.cli('down')).stdout, /^nothing runs on /);
});

async function network(): Promise<string> {
  const { scope, table } = namesOf(join(cluster.dataDir, 'hyperd/network'));
  const namespaces = await readdir('/run/netns').catch(() => []);
  const tables = await execute('nft', ['list', 'tables']);
  const found = [...namespaces, ...tables.stdout.split('\n')];
  return found.filter((name) => name.includes(scope) || name.includes(table)).join('\n');
}

test('when the data directory is deleted, everything on it ends', async () => {
  const up = await cluster.cli('up', '--detach');
  assert.equal(up.exitCode, 0, up.stderr);
  await ready(ended);
  assert.notEqual(await network(), '');
  await rm(cluster.dataDir, { recursive: true, force: true });
  await until(async () => (await running()).length === 0, 'runs without a data directory');
  assert.equal(await network(), '');
  assert.ok(!existsSync(cluster.dataDir), 'it was made again');
});

test('nothing stays when the VMs end of it before the supervisor knows', () =>
  onAnother(async () => {
    const pid = await supervisorPid();
    process.kill(pid, 'SIGSTOP');
    try {
      await rm(cluster.dataDir, { recursive: true, force: true });
      const isVm = (line: string) => line.includes('hyperjail');
      // Meanwhile hyperd finds its pod ended, and the kubelet asks for it again.
      await until(async () => !(await running()).some(isVm), 'a VM without a directory');
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await until(async () => (await running()).length === 0, 'runs without a data directory');
    assert.equal(await network(), '');
    assert.ok(!existsSync(cluster.dataDir), 'it was made again');
  }));

test('without anybody else, a VM ends with its directory', () =>
  onAnother(async () => {
    await killSupervisor();
    await rm(cluster.dataDir, { recursive: true, force: true });
    await until(async () => (await running()).length === 0, 'a VM without a directory');
    // There was nobody to take back its network: whoever begins there next does.
    const stateDirectory = join(cluster.dataDir, 'hyperd/network');
    await createLinuxNetwork({
      ...{ stateDirectory, hostServices: [], exec: execute },
      ...{ random: systemRandom, log: silentLog },
    });
    assert.equal(await network(), '');
  }));
