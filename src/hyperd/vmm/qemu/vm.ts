import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../../base/clock.ts';
import { describeError } from '../../../base/log.ts';
import type { Log } from '../../../base/log.ts';
import type { Exec } from '../../../base/exec.ts';
import { HypervisorError } from '../hypervisor.ts';
import type { DiskSpec, TemplateUse, Vm, VmExit, VmLimits, VmStats } from '../hypervisor.ts';
import { validateLimits, validateSerial } from '../validate.ts';
import { SCSI_BUS, SOCKET_NAMES, blockNode, diskId, hotFdset } from './argv.ts';
import { withDeadline } from '../deadline.ts';
import { awaitJailEnd, connectSocket, killJail, processStat, readExitRecord } from './jail.ts';
import type { JailProcesses } from './jail.ts';
import type { Freezing } from './freezing.ts';
import { watchGivenUp } from './given-up.ts';
import { QmpError } from './qmp.ts';
import type { QmpClient } from './qmp.ts';
import { saveState, statePath } from './template.ts';
import type { Command } from './template.ts';
import { judgeExit } from './verdict.ts';

export interface QemuVmOptions {
  id: string;
  directory: string;
  processes: JailProcesses;
  qmp: QmpClient;
  jailPath: string;
  exec: Exec;
  clock: Clock;
  log: Log;
  /** Ids of the devices that it has, `disk-…` among them, with the LUN of the attached ones. */
  disks: Map<string, AttachedDisk>;
  /** Removes what a keeper that was killed has left on the host. */
  cleanUp: () => Promise<void>;
  applyLimits: (limits: VmLimits) => Promise<void>;
  template: TemplateUse | undefined;
  /** Undefined: the VM is saved without its monitor. */
  freezing: Freezing | undefined;
  /** Starts a clone of what was frozen, and ends it. */
  tryClone: (signal?: AbortSignal) => Promise<void>;
}

export interface AttachedDisk {
  /** Undefined for a boot disk, which stays. */
  lun: number | undefined;
}

/**
 * LUN 0 is left out: a target without it is scanned one unit at a time, as units come. The Linux
 * driver takes no more than 16,384; far fewer devices make sense in one guest.
 */
const LUN_MIN = 1;
const LUN_MAX = 255;
/** For an emulator that has closed its sockets to end by itself. */
const GRACE_MS = 2000;
const DETACH_TIMEOUT_MS = 10_000;
const COMMAND_TIMEOUT_MS = 30_000;
/** In USER_HZ, which is 100 on every Linux that runs this. */
const TICK_NANOS = 10_000_000;
const PAGE_BYTES = 4096;
const EVIDENCE_BYTES = 16 << 10;

export function createQemuVm(options: QemuVmOptions): Vm {
  const { id, directory, processes, qmp, clock, log } = options;
  let shutdownReason: string | undefined;
  let isGivenUp = false;
  let released = false;
  let ended = false;
  /** Its monitor has no clients meanwhile. */
  let freeze: Promise<void> = Promise.resolve();
  qmp.onEvent((event) => {
    if (event.name === 'SHUTDOWN') shutdownReason = String(event.data.reason);
  });
  watchGivenUp(qmp, () => {
    isGivenUp = true;
    void killJail(processes);
  });

  const consoleTail = async (bytesMax: number) => {
    const current = await readTail(join(directory, 'console.log'), bytesMax);
    const rest = bytesMax - current.length;
    const older =
      rest > 0 ? await readTail(join(directory, 'console.old.log'), rest) : Buffer.alloc(0);
    return Buffer.concat([older, current]).toString('utf8');
  };

  const end = async (): Promise<VmExit> => {
    const violation = await qmp.closed;
    if (released) return new Promise(() => {});
    ended = true;
    await freeze.catch(() => {});
    if (violation !== undefined) log.error('Monitor is not to be trusted', { vm: id, violation });
    // An emulator that has closed its monitor is on its way out, or has to be helped.
    const timer = clock.after(GRACE_MS, () => void killJail(processes));
    await awaitJailEnd(processes, clock);
    timer.cancel();
    await options.cleanUp().catch((error: unknown) => {
      log.error('Cannot clean up after VM', { vm: id, error });
    });
    return judgeExit({
      record: await readExitRecord(directory),
      shutdownReason,
      isGivenUp,
      console: await consoleTail(EVIDENCE_BYTES),
      errors: (await readTail(join(directory, 'vmm.log'), EVIDENCE_BYTES)).toString('utf8'),
    });
  };
  const exited = end().catch((error: unknown): VmExit => {
    const message = `Cannot tell how the VM ended: ${describeError(error)}`;
    return { reason: 'failed', exitCode: undefined, signal: undefined, message };
  });

  // Attaching and detaching share LUNs and the attach socket: one after the other.
  let last: Promise<unknown> = Promise.resolve();
  const exclusive = (work: () => Promise<void>) => {
    const result = last.then(() => {
      if (ended) throw goneError(id);
      return work();
    });
    last = result.catch(() => {});
    return result;
  };

  return {
    id,
    pid: processes.vmm.pid,
    exited,
    consoleTail,
    async connectControl(signal) {
      try {
        return await connectSocket(directory, SOCKET_NAMES.control, signal);
      } catch (error) {
        signal?.throwIfAborted();
        throw new HypervisorError('Gone', `Cannot reach the guest of VM "${id}"`, error);
      }
    },
    attachDisk: (disk, signal) => exclusive(() => attach(options, disk, signal)),
    detachDisk: (serial, signal) => exclusive(() => detach(options, serial, signal)),
    pause: async () => void (await command(options, 'stop')),
    resume: async () => void (await command(options, 'cont')),
    saveTemplate: (signal) =>
      exclusive(async () => {
        if (options.freezing === undefined) await saveTemplate(options, signal);
        else await (freeze = freezeTemplate(options, options.freezing, signal));
        await exited;
        if (options.freezing !== undefined) await proveFrozen(options, options.freezing, signal);
      }),
    async setLimits(limits) {
      validateLimits(limits);
      if (ended) throw goneError(id);
      await options.applyLimits(limits);
    },
    stats: () => readStats(id, processes.vmm.pid),
    release() {
      released = true;
      qmp.close();
    },
    async kill() {
      await killJail(processes);
      await exited;
    },
  };
}

function sourceOf({ id, template }: QemuVmOptions): TemplateUse {
  if (template !== undefined && template.role !== 'clone') return template;
  throw new HypervisorError('Invalid', `VM "${id}" is neither source nor heir of a template`);
}

async function freezeTemplate(
  options: QemuVmOptions,
  freezing: Freezing,
  signal?: AbortSignal,
): Promise<void> {
  const { qmp, processes, directory } = options;
  const template = sourceOf(options);
  await command(options, 'stop', undefined, signal);
  qmp.close();
  try {
    await freezing.freeze({ process: processes.vmm, directory }, template, signal);
  } finally {
    await killJail(processes);
  }
}

/** Whether a kernel thaws what another part of it has let be frozen shows at the first attempt. */
async function proveFrozen(
  { tryClone, id }: QemuVmOptions,
  freezing: Freezing,
  signal?: AbortSignal,
): Promise<void> {
  try {
    await tryClone(signal);
  } catch (error) {
    signal?.throwIfAborted();
    freezing.giveUp(describeError(error));
    throw new HypervisorError('Failed', `VM "${id}" was frozen and does not thaw`, error);
  }
}

async function saveTemplate(options: QemuVmOptions, signal?: AbortSignal): Promise<void> {
  const { clock } = options;
  const template = sourceOf(options);
  const start = () => passFile(options, ['--state', statePath(template)], signal);
  const send: Command = (name, args) => command(options, name, args, signal);
  await saveState(send, start, clock, signal);
  await send('quit');
}

/** What the jail opens and hands to the emulator over the second monitor. */
async function passFile(
  { exec, jailPath, directory }: QemuVmOptions,
  args: string[],
  signal?: AbortSignal,
): Promise<void> {
  const socket = ['--socket', join(directory, SOCKET_NAMES.attach)];
  const result = await exec(jailPath, ['attach', ...socket, ...args], { signal });
  if (result.exitCode !== 0) throw new HypervisorError('Failed', result.stderr.trim());
}

async function attach(options: QemuVmOptions, disk: DiskSpec, signal?: AbortSignal): Promise<void> {
  const { disks } = options;
  validateSerial(disk.serial);
  const id = diskId(disk.serial);
  if (disks.has(id)) return;
  const taken = new Set([...disks.values()].map((attached) => attached.lun));
  let lun = LUN_MIN;
  while (taken.has(lun)) lun += 1;
  if (lun > LUN_MAX) {
    throw new HypervisorError(
      'Invalid',
      `VM "${options.id}" has ${LUN_MAX} disks attached already`,
    );
  }
  const fdset = hotFdset(disk.serial);
  const undo: (() => Promise<unknown>)[] = [
    () => command(options, 'remove-fd', { 'fdset-id': fdset }),
  ];
  try {
    const blockDevice = (await stat(disk.path)).isBlockDevice();
    const mode = disk.readOnly ? '--disk-ro' : '--disk-rw';
    await passFile(options, ['--fdset', String(fdset), mode, disk.path], signal);
    await command(options, 'blockdev-add', { ...blockNode(disk, fdset, blockDevice) }, signal);
    undo.unshift(() => command(options, 'blockdev-del', { 'node-name': id }));
    await command(
      options,
      'device_add',
      { driver: 'scsi-hd', id, drive: id, serial: disk.serial, bus: SCSI_BUS, 'scsi-id': 0, lun },
      signal,
    );
    disks.set(id, { lun });
  } catch (error) {
    for (const step of undo) await step().catch(() => {});
    signal?.throwIfAborted();
    if (error instanceof HypervisorError && error.reason === 'Gone') throw error;
    throw new HypervisorError(
      'Failed',
      `Cannot attach disk "${disk.serial}": ${describeError(error)}`,
      error,
    );
  }
}

async function detach(options: QemuVmOptions, serial: string, signal?: AbortSignal): Promise<void> {
  const id = diskId(serial);
  const attached = options.disks.get(id);
  if (attached === undefined) return;
  if (attached.lun === undefined) {
    throw new HypervisorError(
      'Invalid',
      `Cannot detach disk "${serial}": the VM was started with it`,
    );
  }
  await removeDevice(options, id, signal);
  await command(options, 'blockdev-del', { 'node-name': id }, signal);
  // Where nothing refers to a set any more QEMU may have removed it by itself.
  await command(options, 'remove-fd', { 'fdset-id': hotFdset(serial) }).catch(() => {});
  options.disks.delete(id);
}

async function removeDevice(
  options: QemuVmOptions,
  id: string,
  signal?: AbortSignal,
): Promise<void> {
  const gone = Promise.withResolvers<void>();
  gone.promise.catch(() => {});
  const stopListening = options.qmp.onEvent((event) => {
    if (event.name === 'DEVICE_DELETED' && event.data.device === id) gone.resolve();
  });
  const timer = options.clock.after(DETACH_TIMEOUT_MS, () => {
    gone.reject(new HypervisorError('Failed', `Device "${id}" did not leave the guest in time`));
  });
  void options.qmp.closed.then(() => gone.reject(goneError(options.id)));
  try {
    await command(options, 'device_del', { id }, signal);
    await gone.promise;
  } finally {
    stopListening();
    timer.cancel();
  }
}

async function command(
  options: QemuVmOptions,
  name: string,
  args?: Record<string, unknown>,
  signal?: AbortSignal,
): Promise<unknown> {
  try {
    return await withDeadline(
      options.clock,
      COMMAND_TIMEOUT_MS,
      `Monitor command ${name}`,
      signal,
      (bounded) => options.qmp.command(name, args, bounded),
    );
  } catch (error) {
    if (error instanceof QmpError && error.errorClass === 'Closed') throw goneError(options.id);
    throw error;
  }
}

function goneError(id: string): HypervisorError {
  return new HypervisorError('Gone', `VM "${id}" has ended`);
}

async function readStats(id: string, pid: number): Promise<VmStats> {
  const fields = await processStat(pid);
  if (fields === undefined) throw goneError(id);
  const ticks = Number(fields[11]) + Number(fields[12]);
  return { cpuNanos: ticks * TICK_NANOS, rssBytes: Number(fields[21]) * PAGE_BYTES };
}

async function readTail(path: string, bytesMax: number): Promise<Buffer> {
  const handle = await open(path, 'r').catch(() => undefined);
  if (handle === undefined) return Buffer.alloc(0);
  try {
    const { size } = await handle.stat();
    const length = Math.min(size, bytesMax);
    const { buffer, bytesRead } = await handle.read({
      buffer: Buffer.alloc(length),
      position: size - length,
    });
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
