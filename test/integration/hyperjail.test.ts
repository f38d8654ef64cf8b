import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { execute, run, start } from '../../src/base/exec.ts';
import type { VmLimits } from '../../src/hyperd/vmm/hypervisor.ts';
import { cgroupPlan } from '../../src/hyperd/vmm/qemu/cgroup.ts';
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
import { LIMITS, UID, openCells } from './support/cells.ts';
import type { Cells } from './support/cells.ts';

/*
 * Goal: a cell is what it should be as seen from outside, keeps its limits, and leaves nothing.
 * Method: a program of the test's (jail/test/inmate.c) runs in the place of the emulator. What it
 * can reach from inside is in jail-reach.test.ts.
 */
let base: string;
let jail: string;
let layout: CgroupLayout;
let cell: Cells['cell'];
let runToEnd: Cells['runToEnd'];
let groups: Cells['groups'];
let close: Cells['close'];

before(async () => {
  ({ base, jail, layout, cell, runToEnd, groups, close } = await openCells());
});

after(() => close());

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
  const exit = judgeExit({
    record: eater,
    shutdownReason: undefined,
    isGivenUp: false,
    console: '',
    errors: '',
  });
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
    // What no second attempt will change is told from what may be otherwise tomorrow.
    if (!late) assert.equal(result.exitCode, printed.includes('refused') ? 124 : 125);
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
