import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Agent, GuestContainerSpec, PodSetup } from '../../src/hyperd/agent/agent.ts';
import { connectAgent } from '../../src/hyperd/agent/client.ts';
import { ownSetup } from '../../src/hyperd/agent/own-pod.ts';
import { containerSpec, makeTestHost, processSpec } from '../../src/hyperd/agent/testing/guest.ts';
import { startGuestVm, testAssets } from './guest-vm.ts';

// Goal: a container that was made ready before there was a pod is in nothing different from one
// that is made when it is asked for. Method: a VM under QEMU rehearses, makes one ready, and becomes
// a pod; what the first container sees is compared with what a later one of the same kind sees.

const MOUNT_PATH = '/var/run/conf';

const file = (path: string, text: string) => ({
  path,
  mode: 0o644,
  content: Buffer.from(text).toString('base64'),
});

const SETUP: PodSetup = ownSetup({
  hostname: 'web-1',
  epochMs: 1_800_000_000_000,
  entropy: Buffer.alloc(64, 3).toString('base64'),
  dns: { nameservers: ['10.96.0.10'], searches: ['default.svc'], options: [] },
  scratchSerial: 'scratch',
  volumes: [
    { name: 'shared', type: 'scratch' },
    { name: 'ram', type: 'memory', sizeLimitMib: 4 },
    { name: 'conf', type: 'files', content: { version: 1, files: [file('key', 'value\n')] } },
  ],
});

const MOUNTS = [
  { volume: 'conf', path: MOUNT_PATH, subPath: '', readOnly: true },
  { volume: 'shared', path: '/mnt/shared', subPath: 'a/b', readOnly: false },
  { volume: 'ram', path: '/mnt/ram', subPath: '', readOnly: false },
];

/** All that a process can see of how its container was made, without what is counted through. */
const LOOK_AROUND = `
  sed 's/^[0-9]* [0-9]* [0-9:]* //; s/master:[0-9]*//; s,containers/[0-9]*,containers,g' \\
    /proc/self/mountinfo
  ls -l /dev /proc/self/ns | sed 's/[A-Z][a-z][a-z]  *[0-9].*:[0-9][0-9] //; s/:\\[.*//'
  cat /etc/hosts /etc/resolv.conf /etc/hostname ${MOUNT_PATH}/key
  grep -E '^(Cap|NoNewPrivs|Seccomp|Groups)' /proc/self/status
  cat /proc/self/cgroup; hostname; id; echo $$; ls -a / /etc /var /var/run
  echo no > ${MOUNT_PATH}/key; echo yes > /mnt/shared/x; echo 1 > /proc/sysrq-trigger
`;

/** A VM that was made ready for a pod, and has become it. */
async function withWarmPod(work: (run: Run, agent: Agent) => Promise<void>): Promise<void> {
  const host = makeTestHost();
  await using vm = await startGuestVm(await testAssets());
  const agent = await connectAgent(await vm.connect(), host.options);
  let count = 0;
  await agent.setupPod({ ...SETUP, rehearsal: true, hostname: 'nobody', dns: NO_DNS, volumes: [] });
  await agent.endRehearsal({ keepsScratch: true });
  const { imageSerial, imageFsType } = containerSpec('a', []);
  const image = { imageSerial, imageFsType, program: 'sh', mountPaths: [MOUNT_PATH] };
  await agent.prefetch(image);
  // It may be asked for again, and then replaces the one before.
  await agent.prefetch(image);
  await agent.setupPod(SETUP);
  await work(async (script, overrides = {}) => {
    const id = `c-${(count += 1)}`;
    const process = processSpec(['sh', '-c', script], { env: ['PATH=/bin'] });
    await agent.startContainer({ ...containerSpec(id, []), process, mounts: MOUNTS, ...overrides });
    const { exitCode } = await host.exit(id);
    await agent.removeContainer(id);
    return { exitCode, out: host.text(id), err: host.text(id, 2) };
  }, agent);
}

const NO_DNS = { nameservers: [], searches: [], options: [] };

type Run = (
  script: string,
  overrides?: Partial<GuestContainerSpec>,
) => Promise<{ exitCode: number; out: string; err: string }>;

test('a container that was made ready is like one that was not', () =>
  withWarmPod(async (run) => {
    const first = await run(LOOK_AROUND);
    const second = await run(LOOK_AROUND);
    assert.deepEqual(first.out.split('\n'), second.out.split('\n'));
    assert.deepEqual(first, second);
    assert.match(first.out, /^value$/m);
    assert.match(first.out, /^nameserver 10.96.0.10$/m);
    assert.match(first.out, /^web-1$/m);
    assert.match(first.err, /Read-only file system/);
  }));

test('one that mounts something else, or may do all, gets a container of its own', () =>
  withWarmPod(async (run) => {
    const other = await run(`ls -d ${MOUNT_PATH}; ls /`, { mounts: [] });
    assert.match(other.err, /No such file or directory/);
    assert.match(other.out, /^proc$/m);
    const later = await run(`cat ${MOUNT_PATH}/key`, { readOnlyRootfs: true });
    assert.equal(later.out, 'value\n');
  }));

test('a root that is only read, and privileges, are those that were asked for', async () => {
  await withWarmPod(async (run) => {
    const readOnly = await run('touch /x /etc/hosts; cat /etc/hostname', { readOnlyRootfs: true });
    assert.equal(readOnly.out, 'web-1\n');
    assert.equal(readOnly.err.match(/Read-only file system/g)?.length, 2);
  });
  await withWarmPod(async (run) => {
    const security = { ...processSpec([]).security, privileged: true };
    const process = processSpec(['sh', '-c', 'ls /dev/vda && test -e /proc/kcore'], { security });
    const privileged = await run('', { process: { ...process, env: ['PATH=/bin'] } });
    assert.deepEqual([privileged.exitCode, privileged.out], [0, '/dev/vda\n']);
  });
});
