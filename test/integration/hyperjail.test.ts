import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { execute, run, start } from '../../src/base/exec.ts';
import type { VmLimits } from '../../src/hyperd/vmm/hypervisor.ts';
import {
  cgroupPlan,
  detectCgroups,
  prepareCgroups,
  removeCgroupParents,
} from '../../src/hyperd/vmm/qemu/cgroup.ts';
import type { CgroupLayout } from '../../src/hyperd/vmm/qemu/cgroup.ts';
import {
  awaitJailEnd,
  connectSocket,
  isAlive,
  killJail,
  readExitRecord,
  readJailProcesses,
  startJail,
} from '../../src/hyperd/vmm/qemu/jail.ts';

/*
 * Goal: what runs in a cell can see and do nothing but what it was given, and leaves nothing.
 * Method: a program that tries it (jail/test/inmate.c) runs in the place of the emulator.
 */
const root = join(import.meta.dirname, '../..');
const UID = 70_123;
const EPERM = 1;
const ENOENT = 2;
const EBADF = 9;
const EACCES = 13;
const EROFS = 30;
const LIMITS: VmLimits = { cpuMillis: 0, cpuWeightMillis: 100, memoryMib: 64, processCount: 20 };

let base: string;
let jail: string;
let layout: CgroupLayout;
let count = 0;

before(async () => {
  base = await mkdtemp(join(tmpdir(), 'hypernetes-jail-'));
  jail = join(base, 'hyperjail');
  await run('make', ['-s', '-C', join(root, 'jail'), `OUT=${jail}`]);
  const inmate = ['-static', '-Os', '-o', join(base, 'inmate'), join(root, 'jail/test/inmate.c')];
  const headers = ['-idirafter', '/usr/include', '-idirafter', '/usr/include/x86_64-linux-gnu'];
  await run('musl-gcc', [...inmate, '-w', ...headers]);
  layout = await detectCgroups(`hypernetes-test-${process.pid}`);
  await prepareCgroups(layout);
});

after(async () => {
  await removeCgroupParents(layout);
  await rm(base, { recursive: true });
});

interface Cell {
  directory: string;
  id: string;
  args: string[];
}

async function cell(mode: string[], extra: string[] = []): Promise<Cell> {
  const id = `cell-${count++}`;
  const directory = join(base, id);
  await mkdir(directory, { mode: 0o700 });
  for (const disk of ['ro.img', 'rw.img'])
    await writeFile(join(directory, disk), 'disk', { mode: 0o600 });
  await writeFile(join(directory, 'data'), 'bound');
  // As open as a file can be, so that it is the mount that refuses.
  await chmod(join(directory, 'data'), 0o777);
  const plan = await cgroupPlan(layout, id, LIMITS);
  const args = [
    ...['run', '--directory', directory, '--uid', String(UID), '--files-max', '256'],
    ...plan.directories.flatMap((path) => ['--cgroup', path]),
    ...plan.settings.flatMap((s) => ['--cgroup-set', `${s.file}:${s.value}`]),
    ...plan.keeperDirectories.flatMap((path) => ['--keeper-cgroup', path]),
    ...['--bind-executable', `${join(base, 'inmate')}:/bin/inmate`],
    ...['--bind', `${join(directory, 'data')}:/data`, '--device', '/dev/null'],
    ...['--console', '13', '--listen', '10:door.sock'],
    ...[
      '--disk',
      `20:ro:${join(directory, 'ro.img')}`,
      '--disk',
      `21:rw:${join(directory, 'rw.img')}`,
    ],
    ...extra,
    ...['--', '/bin/inmate', ...mode],
  ];
  return { directory, id, args };
}

async function runToEnd({ directory, args }: Cell) {
  const processes = await startJail(jail, args, directory);
  await awaitJailEnd(processes, systemClock);
  return readExitRecord(directory);
}

/** Control groups of the cells, over all hierarchies. */
async function groups(): Promise<string[]> {
  const plan = await cgroupPlan(layout, 'any', LIMITS);
  const lists = await Promise.all(plan.directories.map((path) => readdir(join(path, '..'))));
  return lists.flat().filter((name) => name.startsWith('cell-'));
}

test('a cell holds what it was given and nothing else', async () => {
  const given = await cell([]);
  const record = await runToEnd(given);
  assert.deepEqual([record?.exitCode, record?.signal, record?.requested], [0, null, false]);
  const seen = JSON.parse(await readFile(join(given.directory, 'console.log'), 'utf8'));
  assert.deepEqual(seen.uids, [UID, UID, UID]);
  assert.deepEqual(seen.gids, [UID, UID, UID]);
  assert.equal(seen.groups, 0);
  assert.equal(seen.pid, 1);
  assert.equal(seen.host, 'vm');
  assert.deepEqual(seen.environment, ['', 'LC_ALL=C']);
  assert.deepEqual(seen.descriptors, [-1, 0, 1, 2, 10, 13, 20, 21]);
  assert.equal(seen.files, 256);
  assert.equal(seen.core, 0);
  assert.equal(seen.unlimitedSize, true);
  assert.deepEqual(seen.interfaces, ['', 'lo']);
  assert.equal(seen['/proc/self/status'], '', 'there is no /proc');
  assert.equal(seen['/data'], 'bound');
  const expected = [
    '',
    '/bin 40755',
    '/bin/inmate 100755',
    '/data 100777',
    '/dev 40755',
    '/dev/null 20600',
  ];
  assert.deepEqual(seen.tree.sort(), expected);
  const outcomes: Record<string, number> = {
    'write /': EROFS,
    'write /dev': EROFS,
    'write bound file': EROFS,
    'write read-only disk': EBADF,
    'write disk': 0,
    'reopen read-only disk': ENOENT,
    'execute bound data': EACCES,
    'read /dev/null': 0,
    'become root': EPERM,
    mount: EPERM,
    unshare: EPERM,
    chroot: EPERM,
    ptrace: EPERM,
    bpf: EPERM,
    io_uring: EPERM,
    'raw socket': EPERM,
  };
  for (const [what, errno] of Object.entries(outcomes)) assert.equal(seen[what], errno, what);
  assert.notEqual(seen.mknod, 0);
  assert.notEqual(seen['signal the keeper'], 0);
  assert.equal(await readFile(join(given.directory, 'rw.img'), 'utf8'), 'xisk');
  assert.deepEqual(await groups(), []);
});

/** The kernel's record of the process, once it has become what it was jailed for. */
async function statusOfInmate(pid: number): Promise<string> {
  const deadlineMs = systemClock.monotonicMs() + 10_000;
  for (;;) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    if (status.startsWith('Name:\tinmate\n')) return status;
    assert.ok(systemClock.monotonicMs() < deadlineMs, `it is still ${status.split('\n')[0]}`);
    await systemClock.sleep(1);
  }
}

test('seen from outside, a cell has no capability and namespaces of its own', async () => {
  const given = await cell(['wait']);
  const processes = await startJail(jail, given.args, given.directory);
  const { pid } = processes.vmm;
  const status = await statusOfInmate(pid);
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
    assert.match(status, new RegExp(`${set}:\\t0+\\n`));
  }
  assert.match(status, /NoNewPrivs:\t1/);
  assert.match(status, /Seccomp:\t2/);
  const link = async (id: number | string, name: string) => {
    const { ino } = await stat(`/proc/${id}/ns/${name}`);
    return ino;
  };
  for (const name of ['pid', 'mnt', 'net', 'ipc', 'uts']) {
    assert.notEqual(await link(pid, name), await link('self', name), name);
  }
  const mounts = (await readFile(`/proc/${pid}/mountinfo`, 'utf8')).trim().split('\n');
  for (const mount of mounts) {
    const [, , , , target = '', options = ''] = mount.split(' ');
    assert.match(options, /(^|,)ro(,|$)/, `${target} is read-only`);
    assert.match(options, /nosuid/, target);
    if (target !== '/bin/inmate') assert.match(options, /noexec/, target);
    if (target !== '/dev') assert.match(options, /nodev/, target);
  }
  assert.equal(mounts.length, 4);
  assert.ok((await groups()).includes(given.id));
  const keeper = await readFile(`/proc/${processes.keeper.pid}/status`, 'utf8');
  assert.match(keeper, /CapEff:\t0000000000000020\n/, 'the keeper keeps CAP_KILL alone');
  const pss = await readFile(`/proc/${processes.keeper.pid}/smaps_rollup`, 'utf8');
  assert.ok(Number(/^Pss: +(\d+)/m.exec(pss)?.[1]) < 1024, 'the keeper costs less than 1 MB');
  await killJail(processes);
  await awaitJailEnd(processes, systemClock);
  const record = await readExitRecord(given.directory);
  assert.deepEqual([record?.signal, record?.requested], [9, true]);
  assert.deepEqual(await groups(), []);
});

test('limits hold: processes, memory', async () => {
  const forks = await cell(['fork']);
  await runToEnd(forks);
  const children = Number(await readFile(join(forks.directory, 'console.log'), 'utf8'));
  assert.ok(children > 5 && children < LIMITS.processCount, `${children} children`);
  const eater = await runToEnd(await cell(['eat']));
  assert.equal(eater?.signal, 9);
  assert.ok((eater?.oomKills ?? 0) > 0, 'the verdict tells of the memory limit');
  assert.deepEqual(await groups(), []);
});

test('console and error output are bounded, and the console keeps its end', async () => {
  const given = await cell(['print']);
  assert.equal((await runToEnd(given))?.exitCode, 3);
  const size = async (name: string) => (await stat(join(given.directory, name))).size;
  assert.ok((await size('console.log')) <= 128 << 10);
  assert.ok((await size('console.old.log')) <= 128 << 10);
  assert.ok((await size('vmm.log')) <= 64 << 10);
  const text = await readFile(join(given.directory, 'console.log'), 'utf8');
  assert.ok(text.endsWith('THE LAST LINE\n'));
  assert.match(await readFile(join(given.directory, 'vmm.log'), 'utf8'), /^0{1023}\n/);
});

test('a cell dies with its keeper, and what is left is found', async () => {
  const given = await cell(['wait']);
  const processes = await startJail(jail, given.args, given.directory);
  process.kill(processes.keeper.pid, 'SIGKILL');
  await awaitJailEnd(processes, systemClock);
  assert.equal(await isAlive(processes.vmm), false);
  assert.equal(await readExitRecord(given.directory), undefined);
  const plan = await cgroupPlan(layout, given.id, LIMITS);
  for (const path of plan.directories) await run('rmdir', [path]);
});

test('a deep directory does not matter to its sockets', async () => {
  const given = await cell(['wait']);
  const deep = join(base, ...Array.from({ length: 12 }, () => 'a-rather-long-name'));
  await mkdir(deep, { recursive: true });
  const args = given.args.map((arg) => (arg === given.directory ? deep : arg));
  const processes = await startJail(jail, args, deep);
  const socket = await connectSocket(deep, 'door.sock');
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.on('close', resolve));
  await killJail(processes);
  await closed;
  await awaitJailEnd(processes, systemClock);
});

test('arguments that make no sense are refused, and nothing is done', async () => {
  const { args, directory } = await cell(['wait']);
  const replaced = (name: string, value: string) => {
    const copy = [...args];
    copy[copy.indexOf(name) + 1] = value;
    return copy;
  };
  const cases: [string[], RegExp][] = [
    [[], /usage/],
    [['run'], /no program/],
    [['run', '--', 'relative'], /absolute/],
    [['run', '--uid', '0', '--', '/x'], /--uid is "0", wanted a number from 1000/],
    [replaced('--uid', '-1'), /--uid is "-1"/],
    [replaced('--uid', '70001x'), /--uid is "70001x"/],
    [replaced('--directory', 'relative'), /absolute/],
    [replaced('--directory', '/a/../b'), /without ".."/],
    [replaced('--listen', '10:../x'), /plain name/],
    [replaced('--listen', '13:x'), /given twice/],
    [replaced('--console', '2'), /from 3 to 127/],
    [replaced('--disk', '20:rx:/dev/null'), /wanted ro or rw/],
    [replaced('--disk', '20:ro:/nowhere/disk'), /open disk "\/nowhere\/disk": No such file/],
    [replaced('--disk', '20:ro:/dev/null'), /neither a regular file nor a block device/],
    [['run', '--unknown', 'x', '--', '/x'], /unknown option/],
    [replaced('--device', '/etc/passwd'), /not a character device/],
  ];
  for (const [wrong, message] of cases) {
    const late = wrong.includes('/etc/passwd');
    const result = await execute(jail, wrong);
    const printed = late
      ? await readFile(join(directory, 'vmm.log'), 'utf8').catch(() => '')
      : result.stderr;
    assert.match(printed, message, wrong.join(' ').slice(-200));
    if (!late) assert.equal(result.exitCode, 125);
  }
  assert.deepEqual(await groups(), []);
});

test('a program that cannot be executed is told in the verdict and the log', async () => {
  const given = await cell([]);
  given.args.splice(given.args.indexOf('--') + 1, 1, '/bin/nothing');
  assert.equal((await runToEnd(given))?.exitCode, 126);
  assert.match(
    await readFile(join(given.directory, 'vmm.log'), 'utf8'),
    /cannot execute "\/bin\/nothing"/,
  );
});

test('the starter may be killed at any time', async () => {
  const given = await cell(['wait']);
  const child = start(jail, given.args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout?.destroy();
  child.stderr?.destroy();
  while (!existsSync(join(given.directory, 'jail.json'))) await systemClock.sleep(2);
  const processes = await readJailProcesses(given.directory);
  assert.ok(processes !== undefined && (await isAlive(processes.vmm)));
  await killJail(processes);
  await awaitJailEnd(processes, systemClock);
  assert.equal((await readExitRecord(given.directory))?.requested, true);
});
