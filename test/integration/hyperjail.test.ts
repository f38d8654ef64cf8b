import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Stream } from 'node:stream';
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
import { hostDevices } from '../../src/hyperd/vmm/qemu/devices.ts';
import {
  awaitJailEnd,
  connectSocket,
  isAlive,
  killJail,
  readExitRecord,
  readJailProcesses,
  startJail,
} from '../../src/hyperd/vmm/qemu/jail.ts';
import { judgeExit } from '../../src/hyperd/vmm/qemu/verdict.ts';

/*
 * Goal: what runs in a cell can see and do nothing but what it was given, and leaves nothing.
 * Method: a program that tries it (jail/test/inmate.c) runs in the place of the emulator.
 */
const root = join(import.meta.dirname, '../..');
const UID = 70_123;
const EPERM = 1;
const ENOENT = 2;
const ESRCH = 3;
const ENOEXEC = 8;
const EBADF = 9;
const EACCES = 13;
const EINVAL = 22;
const EROFS = 30;
const ENOSYS = 38;
const ENETUNREACH = 101;
const ECONNREFUSED = 111;
const SIGSYS = 31;
const LIMITS: VmLimits = { cpuMillis: 0, cpuWeightMillis: 100, memoryMib: 64, processCount: 20 };

let base: string;
let jail: string;
/** The same jail without its filter of system calls, to see what holds by itself. */
let unfiltered: string;
let layout: CgroupLayout;
let count = 0;

before(async () => {
  base = await mkdtemp(join(tmpdir(), 'hypernetes-jail-'));
  jail = join(base, 'hyperjail');
  unfiltered = join(base, 'unfiltered');
  const make = ['-s', '-C', join(root, 'jail')];
  await run('make', [...make, `OUT=${jail}`]);
  await run('make', [...make, `OUT=${unfiltered}`, 'FILTER=test/unfiltered.c']);
  // Without PIE, so that two processes of it have the same variable at the same address.
  const source = join(root, 'jail/test/inmate.c');
  const inmate = ['-static', '-no-pie', '-Os', '-o', join(base, 'inmate'), source];
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

async function cell(mode: string[], limits = LIMITS, devices: string[] = []): Promise<Cell> {
  const id = `cell-${count++}`;
  const directory = join(base, id);
  await mkdir(directory, { mode: 0o700 });
  for (const disk of ['ro.img', 'rw.img'])
    await writeFile(join(directory, disk), 'disk', { mode: 0o600 });
  await writeFile(join(directory, 'data'), 'bound');
  // As open as a file can be, so that it is the mount that refuses.
  await chmod(join(directory, 'data'), 0o777);
  const plan = await cgroupPlan(layout, id, limits, devices);
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
    ...['--', '/bin/inmate', ...mode],
  ];
  return { directory, id, args };
}

async function runToEnd({ directory, args }: Cell, program = jail) {
  const processes = await startJail(program, args, directory);
  await awaitJailEnd(processes, systemClock);
  return readExitRecord(directory);
}

/** Control groups of the cells, over all hierarchies. */
async function groups(): Promise<string[]> {
  const plan = await cgroupPlan(layout, 'any', LIMITS);
  const lists = await Promise.all(plan.directories.map((path) => readdir(join(path, '..'))));
  return lists.flat().filter((name) => name.startsWith('cell-'));
}

interface Sight {
  [what: string]: unknown;
  uids: number[];
  descriptors: number[];
  interfaces: string[];
  tree: string[];
}

/** What is on the host for an inmate to find: a process with all a process can have, another VM. */
async function withHost(work: (look: string[], directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(base, 'host-'));
  await writeFile(join(directory, 'data'), 'bound');
  await chmod(join(directory, 'data'), 0o777);
  for (const disk of ['ro.img', 'rw.img']) await writeFile(join(directory, disk), 'disk');
  const name = `hypernetes-jail-${process.pid}`;
  const victim = start(join(base, 'inmate'), ['host', name], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise<number | null>((resolve) => victim.on('exit', resolve));
  const said = new Promise<string>((resolve) =>
    victim.stdout?.once('data', (data: Buffer) => resolve(data.toString().trim())),
  );
  try {
    const line = await Promise.race([said, ended]);
    assert.ok(typeof line === 'string', `the process of the host ended with ${line}`);
    await withNeighbour((other) =>
      work([...line.split(' '), name, join(directory, 'data'), other], directory),
    );
  } finally {
    victim.stdin?.end();
    assert.equal(await ended, 0);
  }
}

/** Another VM's cell, for as long as `work` takes its directory. */
async function withNeighbour(work: (directory: string) => Promise<void>): Promise<void> {
  const { args, directory } = await cell(['wait']);
  const processes = await startJail(jail, args, directory);
  try {
    await work(directory);
  } finally {
    await killJail(processes);
    await awaitJailEnd(processes, systemClock);
  }
}

async function lookFromCell(mode: string, program: string, look: string[]): Promise<Sight> {
  const given = await cell(['look', mode, ...look]);
  const record = await runToEnd(given, program);
  assert.deepEqual([record?.exitCode, record?.signal, record?.requested], [0, null, false]);
  assert.equal(await readFile(join(given.directory, 'rw.img'), 'utf8'), 'xisk');
  assert.equal(await readFile(join(given.directory, 'ro.img'), 'utf8'), 'disk');
  return JSON.parse(await readFile(join(given.directory, 'console.log'), 'utf8')) as Sight;
}

/** As root and free, but for mounts of its own. The descriptors are those of a cell. */
async function lookFromOutside(look: string[], directory: string): Promise<Sight> {
  const disks = [
    openSync(join(directory, 'ro.img'), 'r'),
    openSync(join(directory, 'rw.img'), 'r+'),
  ];
  const stdio = Array.from({ length: 22 }, (_, fd) =>
    fd === 13 ? ('pipe' as const) : fd >= 20 ? (disks[fd - 20] ?? 'ignore') : ('ignore' as const),
  );
  const args = ['--mount', join(base, 'inmate'), 'look', 'free', ...look];
  const child = start('unshare', args, { cwd: directory, stdio });
  for (const fd of disks) closeSync(fd);
  let text = '';
  const streams: readonly (Stream | null | undefined)[] = child.stdio;
  streams[13]?.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await new Promise((resolve) => child.on('close', resolve));
  return JSON.parse(text) as Sight;
}

/**
 * Each attempt: what comes of it in a cell, in a cell whose kernel calls are not filtered, and
 * outside of any. 0 is success, everything else an error of the kernel.
 */
const ATTEMPTS: Record<string, [inside: number | undefined, unfiltered: number, outside: number]> =
  {
    'write read-only disk': [EBADF, EBADF, EBADF],
    'cut read-only disk': [EINVAL, EINVAL, EINVAL],
    'punch read-only disk': [EBADF, EBADF, EBADF],
    'map read-only disk to write': [EACCES, EACCES, EACCES],
    'write disk': [0, 0, 0],
    'reopen read-only disk': [ENOENT, ENOENT, 0],
    'write root': [EROFS, EROFS, 0],
    'write bound file': [EROFS, EROFS, 0],
    'execute bound data': [EACCES, EACCES, ENOEXEC],
    'open a file of the host': [ENOENT, ENOENT, 0],
    'open a disk of another VM': [ENOENT, ENOENT, 0],
    'open the console of another VM': [ENOENT, ENOENT, 0],
    'open memory of a process': [ENOENT, ENOENT, 0],
    'open a device': [ENOENT, ENOENT, 0],
    'list processes': [ENOENT, ENOENT, 0],
    'list devices': [ENOENT, ENOENT, 0],
    'memory that is a file': [ENOSYS, 0, 0],
    'connect to an abstract socket': [ENOSYS, ECONNREFUSED, 0],
    'connect to a service of the host': [ENOSYS, ENETUNREACH, 0],
    'connect to another VM': [ENOSYS, ENOENT, 0],
    'raw socket': [ENOSYS, EPERM, 0],
    'packet socket': [ENOSYS, EPERM, 0],
    'signal a process': [ENOSYS, ESRCH, 0],
    'signal a thread': [ESRCH, ESRCH, 0],
    'shared memory of the host': [ENOSYS, ENOENT, 0],
    'message queue of the host': [ENOSYS, ENOENT, 0],
    'raise a resource limit': [EPERM, EPERM, 0],
    'raise the priority': [ENOSYS, EACCES, 0],
    'outlive the keeper': [EINVAL, 0, 0],
    'make a process': [ENOSYS, 0, 0],
    'read memory of a process': [undefined, ESRCH, 0],
    'trace a process': [undefined, ESRCH, 0],
    namespaces: [undefined, EPERM, 0],
    // What the kernel lets anybody do: here the filter is all there is.
    'user namespace': [undefined, 0, 0],
    'become root': [undefined, EPERM, 0],
    'change the root': [undefined, EPERM, 0],
    'make a device': [undefined, EROFS, 0],
    mount: [undefined, EPERM, 0],
  };

function assertAttempts(seen: Sight, column: 0 | 1 | 2): void {
  const wanted = Object.entries(ATTEMPTS).map(([what, row]) => [what, row[column]]);
  const found = Object.keys(ATTEMPTS).map((what) => [what, seen[what]]);
  assert.deepEqual(Object.fromEntries(found), Object.fromEntries(wanted));
}

test('a cell holds what it was given and nothing else', async () => {
  await withHost(async (look) => {
    const seen = await lookFromCell('filtered', jail, look);
    assert.deepEqual(seen.uids, [UID, UID]);
    assert.deepEqual(seen.gids, [UID, UID]);
    assert.equal(seen.pid, 1);
    assert.equal(seen.parent, 0);
    assert.equal(seen.processes, 1);
    assert.equal(seen.host, 'vm');
    assert.deepEqual(seen.environment, ['', 'LC_ALL=C']);
    assert.deepEqual(seen.descriptors, [-1, 0, 1, 2, 10, 13, 20, 21]);
    assert.equal(seen.files, 256);
    assert.ok(Number(seen.core) <= 1, 'too small for a core file');
    assert.equal(seen.unlimitedSize, true);
    assert.equal(seen['/proc/self/status'], '', 'there is no /proc');
    assert.equal(seen.data, 'bound');
    const expected = [
      '',
      '/bin 40755',
      '/bin/inmate 100755',
      '/data 100777',
      '/dev 40755',
      '/dev/null 20600',
    ];
    assert.deepEqual(seen.tree.sort(), expected);
    assertAttempts(seen, 0);
  });
  assert.deepEqual(await groups(), []);
});

test('without its filter a cell holds by namespaces, root and user alone', async () => {
  await withHost(async (look) => {
    const seen = await lookFromCell('free', unfiltered, look);
    assert.deepEqual(seen.interfaces, ['', 'lo down']);
    assert.equal(seen.processes, 1);
    assertAttempts(seen, 1);
  });
});

test('outside of a cell the same program does all of it', async () => {
  await withHost(async (look, directory) => {
    const seen = await lookFromOutside(look, directory);
    assert.ok(seen.interfaces.includes('lo up'), String(seen.interfaces));
    assert.ok(Number(seen.processes) > 1);
    assertAttempts(seen, 2);
  });
});

test('a call that no monitor makes ends the cell, and the verdict tells why', async () => {
  const record = await runToEnd(await cell(['unshare']));
  assert.deepEqual([record?.exitCode, record?.signal], [null, SIGSYS]);
  const exit = judgeExit({ record, shutdownReason: undefined, console: '', errors: '' });
  assert.match(exit.message, /SIGSYS: it made a system call that no emulator needs/);
  assert.equal((await runToEnd(await cell(['unshare']), unfiltered))?.exitCode, 0);
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
  assert.match(status, /NoNewPrivs:\t1\n/);
  assert.match(status, /Seccomp:\t2\n/);
  for (const id of ['Uid', 'Gid'])
    assert.match(status, new RegExp(`${id}:(\\t${UID}){4}\\n`), 'saved and file system ids too');
  assert.match(status, /Groups:\t *\n/);
  assert.match(status, /NSpid:\t\d+\t1\n/);
  const link = async (id: number | string, name: string) => {
    const { ino } = await stat(`/proc/${id}/ns/${name}`);
    return ino;
  };
  for (const name of ['pid', 'mnt', 'net', 'ipc', 'uts', 'cgroup']) {
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
  const threads = await cell(['threads']);
  await runToEnd(threads);
  const count = Number(await readFile(join(threads.directory, 'console.log'), 'utf8'));
  assert.ok(count > 5 && count < LIMITS.processCount, `${count} threads`);
  const eater = await runToEnd(await cell(['eat']));
  assert.equal(eater?.signal, 9);
  assert.ok((eater?.oomKills ?? 0) > 0, 'the verdict tells of the memory limit');
  const exit = judgeExit({ record: eater, shutdownReason: undefined, console: '', errors: '' });
  assert.match(exit.message, /memory limit on the host/);
  assert.deepEqual(await groups(), []);
});

const BURN_MS = 200;

test('the processor time of a cell is limited where there is a controller for it', async (t) => {
  if (layout.controllers.cpu === undefined) return t.skip('no cpu controller');
  const burn = async (cpuMillis: number) => {
    const given = await cell(['burn', String(BURN_MS)], { ...LIMITS, cpuMillis });
    await runToEnd(given);
    return Number(await readFile(join(given.directory, 'console.log'), 'utf8'));
  };
  const [free, limited] = [await burn(0), await burn(100)];
  // A tenth of a processor, less what one period gives at the start.
  assert.ok(limited >= 8 * BURN_MS, `${BURN_MS} ms of work took ${limited} ms`);
  assert.ok(free < limited, `without a limit it took ${free} ms`);
});

const READ_BYTES = 2 << 20;

test('the disk traffic of a cell is limited where there is a controller for it', async (t) => {
  const devices = await hostDevices([base]);
  if (layout.controllers.io === undefined) return t.skip('no controller of disk traffic');
  if (devices.length === 0) return t.skip(`"${base}" is on no single device`);
  const read = async (limits: VmLimits) => {
    const given = await cell(['read'], limits, devices);
    const disk = join(given.directory, 'ro.img');
    await writeFile(disk, Buffer.alloc(READ_BYTES, 1), { flush: true });
    await runToEnd(given);
    return Number(await readFile(join(given.directory, 'console.log'), 'utf8'));
  };
  const free = await read(LIMITS);
  const limited = await read({ ...LIMITS, diskBytesPerSecond: READ_BYTES / 2 });
  assert.ok(limited >= 1500, `two seconds' worth was read in ${limited} ms`);
  assert.ok(free < limited, `without a limit it took ${free} ms`);
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
