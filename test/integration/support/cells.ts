import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../../src/base/clock.ts';
import { run } from '../../../src/base/exec.ts';
import type { VmLimits } from '../../../src/hyperd/vmm/hypervisor.ts';
import {
  cgroupPlan,
  detectCgroups,
  prepareCgroups,
  removeCgroupParents,
} from '../../../src/hyperd/vmm/qemu/cgroup.ts';
import type { CgroupLayout } from '../../../src/hyperd/vmm/qemu/cgroup.ts';
import { awaitJailEnd, readExitRecord, startJail } from '../../../src/hyperd/vmm/qemu/jail.ts';
import type { ExitRecord } from '../../../src/hyperd/vmm/qemu/verdict.ts';

/** Jails in which a program of the test's (jail/test/inmate.c) runs in the place of the emulator. */
export interface Cells {
  /** Directory of all that is made here; `inmate` in it is the program. */
  base: string;
  /** Path of hyperjail. */
  jail: string;
  /** The same without its filter of system calls, to see what holds by itself. */
  unfiltered: string;
  layout: CgroupLayout;
  /** A cell that is ready to be started, its inmate called with `mode`. */
  cell(mode: string[], limits?: VmLimits, devices?: string[]): Promise<Cell>;
  /** Runs it and returns the keeper's verdict. @param program @default jail */
  runToEnd(cell: Cell, program?: string): Promise<ExitRecord | undefined>;
  /** Control groups of the cells, over all hierarchies. */
  groups(): Promise<string[]>;
  close(): Promise<void>;
}

export interface Cell {
  directory: string;
  id: string;
  /** Of hyperjail. */
  args: string[];
}

export const UID = 70_123;
export const LIMITS: VmLimits = {
  cpuMillis: 0,
  cpuWeightMillis: 100,
  memoryMib: 64,
  processCount: 20,
};

const root = join(import.meta.dirname, '../../..');

export async function openCells(): Promise<Cells> {
  const base = await mkdtemp(join(tmpdir(), 'hypernetes-jail-'));
  const jail = join(base, 'hyperjail');
  const unfiltered = join(base, 'unfiltered');
  const make = ['-s', '-C', join(root, 'jail')];
  await run('make', [...make, `OUT=${jail}`]);
  await run('make', [...make, `OUT=${unfiltered}`, 'FILTER=test/unfiltered.c']);
  // Without PIE, so that two processes of it have the same variable at the same address.
  const source = join(root, 'jail/test/inmate.c');
  const inmate = ['-static', '-no-pie', '-Os', '-o', join(base, 'inmate'), source];
  const headers = ['-idirafter', '/usr/include', '-idirafter', '/usr/include/x86_64-linux-gnu'];
  await run('musl-gcc', [...inmate, '-w', ...headers]);
  const layout = await detectCgroups(`hypernetes-test-${process.pid}`);
  await prepareCgroups(layout);
  let count = 0;
  return {
    base,
    jail,
    unfiltered,
    layout,
    cell: (mode, limits = LIMITS, devices = []) =>
      makeCell({ base, layout, id: `cell-${count++}` }, mode, limits, devices),
    async runToEnd({ directory, args }, program = jail) {
      const processes = await startJail(program, args, directory);
      await awaitJailEnd(processes, systemClock);
      return readExitRecord(directory);
    },
    async groups() {
      const plan = await cgroupPlan(layout, 'any', LIMITS);
      const lists = await Promise.all(plan.directories.map((path) => readdir(join(path, '..'))));
      return lists.flat().filter((name) => name.startsWith('cell-'));
    },
    async close() {
      await removeCgroupParents(layout);
      await rm(base, { recursive: true });
    },
  };
}

async function makeCell(
  { base, layout, id }: { base: string; layout: CgroupLayout; id: string },
  mode: string[],
  limits: VmLimits,
  devices: string[],
): Promise<Cell> {
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
