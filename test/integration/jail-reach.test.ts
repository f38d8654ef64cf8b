import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { chmod, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Stream } from 'node:stream';
import { after, before, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { start } from '../../src/base/exec.ts';
import { awaitJailEnd, killJail, startJail } from '../../src/hyperd/vmm/qemu/jail.ts';
import { judgeExit } from '../../src/hyperd/vmm/qemu/verdict.ts';
import { UID, openCells } from './support/cells.ts';
import type { Cells } from './support/cells.ts';

/*
 * Goal: what runs in a cell reaches nothing of the host and nothing of another VM.
 * Method: jail/test/inmate.c tries it three times: in a cell, in one whose system calls are not
 * filtered, and outside of any, where all must succeed that fails inside.
 */
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

let base: string;
let jail: string;
let unfiltered: string;
let cell: Cells['cell'];
let runToEnd: Cells['runToEnd'];
let groups: Cells['groups'];
let close: Cells['close'];

before(async () => {
  ({ base, jail, unfiltered, cell, runToEnd, groups, close } = await openCells());
});

after(() => close());

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
  const exit = judgeExit({
    record,
    shutdownReason: undefined,
    isGivenUp: false,
    console: '',
    errors: '',
  });
  assert.match(exit.message, /SIGSYS: it made a system call that no emulator needs/);
  assert.equal((await runToEnd(await cell(['unshare']), unfiltered))?.exitCode, 0);
});
