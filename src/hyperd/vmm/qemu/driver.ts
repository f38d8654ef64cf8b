import { chmod, mkdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Clock } from '../../../base/clock.ts';
import type { Exec } from '../../../base/exec.ts';
import { readFileIfExists, writeFileAtomic } from '../../../base/files.ts';
import { describeError } from '../../../base/log.ts';
import type { Log } from '../../../base/log.ts';
import type { Random } from '../../../base/random.ts';
import { HypervisorError } from '../hypervisor.ts';
import type {
  Hypervisor,
  HypervisorCapability,
  HypervisorInfo,
  TemplateUse,
  Vm,
  VmSpec,
} from '../hypervisor.ts';
import { validateVmSpec } from '../validate.ts';
import { adoptVm } from './adopt.ts';
import { SOCKET_NAMES, diskId, isRestored, launchPlan } from './argv.ts';
import type { LaunchContext } from './argv.ts';
import {
  applyLimits,
  cgroupPlan,
  detectCgroups,
  isDiskLimited,
  prepareCgroups,
  removeCgroups,
  removeUnusedParents,
} from './cgroup.ts';
import type { CgroupLayout } from './cgroup.ts';
import { withDeadline } from '../deadline.ts';
import { hostDevices } from './devices.ts';
import { connectSocket, killJail, readJailProcesses, startJail, awaitJailEnd } from './jail.ts';
import { emulatorFirmware, emulatorLibraries } from './libraries.ts';
import { DEVICE_MODELS } from './models.ts';
import type { MachineType } from './models.ts';
import { probeMachine } from './probe.ts';
import type { Machine } from './probe.ts';
import { connectQmp } from './qmp.ts';
import { createFreezing } from './freezing.ts';
import type { Freezing } from './freezing.ts';
import { loadState, createTemplateFiles, templateFormat } from './template.ts';
import type { Command } from './template.ts';
import { createQemuVm } from './vm.ts';
import type { QemuVmOptions } from './vm.ts';

export interface QemuOptions {
  /** Absolute path of qemu-system-x86_64. */
  qemuPath: string;
  /** Of the VMs that it starts. Those of the other can be adopted too. */
  machineType: MachineType;
  /** Absolute path of the compiled hyperjail. */
  jailPath: string;
  /** Firmware of QEMU. @default Debian's directories */
  firmwareDirectories?: string[];
  /** Where the result of the probe is kept, and where the probe VM lives. Made if missing. */
  directory: string;
  /** Kernel for the probe VM. */
  kernelPath: string;
  /** Name of the parent of all VMs' control groups. @default 'hypernetes' */
  cgroupParent?: string;
  exec: Exec;
  clock: Clock;
  random: Random;
  log: Log;
}

/** What every VM of one driver shares; found out once. */
export interface Host {
  cgroups: CgroupLayout;
  libraries: string[];
  firmware: string[];
}

const FIRMWARE_DIRECTORIES = ['/usr/share/qemu', '/usr/share/seabios'];
/** Made with the jail, and beside it. */
const LEND_NAME = 'hyperlend.so';
const THAW_NAME = 'hyperthaw';
const NO_LIMITS = { cpuMillis: 0, cpuWeightMillis: 0, memoryMib: 0, processCount: 0 };
/** From the start of the jail to the monitor's greeting; 0.1 s on an idle machine. */
const START_TIMEOUT_MS = 30_000;

/**
 * VMs as QEMU processes, each in a jail of its own.
 *
 *     create: jail --> cell becomes QEMU --> monitor answers --> Vm
 *     end:    QEMU ends --> keeper removes the control groups, writes exit.json, ends
 *
 * Everything that has to be known after a restart of the daemon lies in the VM's directory:
 * `vm.json` (what was asked for), `jail.json` (who runs), `exit.json` (how it ended), of one that is
 * to be frozen `inventory`, three sockets, and console and error output of bounded size. The
 * emulator can write none of it.
 */
export function createQemuHypervisor(options: QemuOptions): Hypervisor {
  const host = once(async (): Promise<Host> => {
    const cgroups = await detectCgroups(options.cgroupParent ?? 'hypernetes');
    await prepareCgroups(cgroups);
    const firmware = await emulatorFirmware(
      DEVICE_MODELS[options.machineType].firmware,
      options.firmwareDirectories ?? FIRMWARE_DIRECTORIES,
    );
    return { cgroups, libraries: await emulatorLibraries(options.qemuPath), firmware };
  });
  const machine = once(async (): Promise<Machine> => {
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    return probeMachine(options, (spec, found, signal) => launch(spec, found, signal));
  });

  const freezing = createFreezing(options);
  const format = once(async () => {
    const { jailPath } = options;
    const programs = [LEND_NAME, THAW_NAME].map((name) => join(dirname(jailPath), name));
    const any = { id: 'any', disks: [], limits: NO_LIMITS };
    const context = await launchContext(options, await host(), any, await machine(), true);
    return templateFormat([jailPath, ...programs], context);
  });
  const launch = async (
    spec: VmSpec,
    found: Pick<Machine, 'accelerator' | 'tscKhz'>,
    signal?: AbortSignal,
  ): Promise<Vm> => {
    validateVmSpec(spec);
    const shared = await host();
    const isFrozen = await freezing.isUsed(spec.template, found.accelerator);
    const context = await launchContext(options, shared, spec, found, isFrozen);
    await createTemplateFiles(spec, options.exec);
    await chmod(spec.directory, 0o700);
    await writeFileAtomic(join(spec.directory, 'vm.json'), JSON.stringify(spec));
    const { arguments: args } = launchPlan(spec, context);
    const tryClone = async (bounded?: AbortSignal) => {
      const { directory } = spec.template as TemplateUse;
      const clone = { ...spec, template: { role: 'clone', directory } as const };
      await (await launch(clone, found, bounded)).kill();
    };
    try {
      return await withDeadline(options.clock, START_TIMEOUT_MS, 'The start', signal, (bounded) =>
        startVm(options, shared, spec, args, isFrozen ? freezing : undefined, tryClone, bounded),
      );
    } catch (error) {
      await abandon(options, shared, spec);
      signal?.throwIfAborted();
      throw await explain(spec, error);
    }
  };

  return {
    name: `qemu-${options.machineType}`,
    capabilities: new Set<HypervisorCapability>(['template', 'pause', 'disk-hotplug']),
    async probe() {
      const { accelerator, acceleratorReason, version, overheadMemoryMib } = await machine();
      return {
        accelerator,
        acceleratorReason,
        version,
        templateFormat: await format(),
        overheadMemoryMib,
      } satisfies HypervisorInfo;
    },
    create: async (spec, signal) => launch(spec, await machine(), signal),
    adopt: async (directory, signal) => adoptVm(options, await host(), directory, signal),
    async destroy(directory) {
      const text = await readFileIfExists(join(directory, 'vm.json'));
      if (text === undefined) return;
      const { id } = JSON.parse(text) as VmSpec;
      await endVm(options, await host(), { id, directory });
    },
    close: async () => removeUnusedParents((await host()).cgroups),
  };
}

async function launchContext(
  options: QemuOptions,
  host: Host,
  spec: Pick<VmSpec, 'id' | 'disks' | 'limits'>,
  found: Pick<Machine, 'accelerator' | 'tscKhz'>,
  isFrozen: boolean,
): Promise<LaunchContext> {
  const disks = spec.disks.map((disk) => disk.path);
  const [blockDevices, limited] = await Promise.all([
    Promise.all(disks.map(async (path) => (await stat(path)).isBlockDevice())),
    isDiskLimited(spec.limits) ? hostDevices(disks) : [],
  ]).catch((error: unknown) => {
    throw new HypervisorError('Invalid', `Cannot open a disk of VM "${spec.id}"`, error);
  });
  return {
    qemuPath: options.qemuPath,
    model: DEVICE_MODELS[options.machineType],
    accelerator: found.accelerator,
    tscKhz: found.tscKhz,
    libraries: host.libraries,
    firmware: host.firmware,
    cgroup: await cgroupPlan(host.cgroups, spec.id, spec.limits, limited),
    blockDevices,
    lendPath: join(dirname(options.jailPath), LEND_NAME),
    thawPath: join(dirname(options.jailPath), THAW_NAME),
    isFrozen,
  };
}

async function startVm(
  options: QemuOptions,
  host: Host,
  spec: VmSpec,
  args: string[],
  freezing: Freezing | undefined,
  tryClone: QemuVmOptions['tryClone'],
  signal: AbortSignal,
): Promise<Vm> {
  const { directory, id } = spec;
  const processes = await startJail(options.jailPath, args, directory, signal);
  const qmp = await connectQmp(
    await connectSocket(directory, SOCKET_NAMES.monitor, signal),
    signal,
  );
  const command: Command = (name, args) => qmp.command(name, args, signal);
  if (isRestored(spec, { isFrozen: freezing !== undefined })) {
    await loadState(command, options.clock, signal);
  }
  if (spec.template !== undefined && spec.template.role !== 'source') {
    // It was stopped when it was saved, and so it is.
    await command('cont');
  }
  return createQemuVm({
    ...options,
    id,
    directory,
    processes,
    qmp,
    ...{ freezing, tryClone, template: spec.template },
    applyLimits: (limits) => applyLimits(host.cgroups, id, limits),
    disks: new Map(spec.disks.map((disk) => [diskId(disk.serial), { lun: undefined }])),
    cleanUp: () => removeCgroups(host.cgroups, id),
  });
}

/** Nothing is left but the directory, which is the caller's. */
async function endVm(
  options: QemuOptions,
  host: Host,
  { id, directory }: Pick<VmSpec, 'id' | 'directory'>,
): Promise<void> {
  const processes = await readJailProcesses(directory);
  if (processes !== undefined) {
    await killJail(processes);
    await awaitJailEnd(processes, options.clock);
  }
  await removeCgroups(host.cgroups, id);
}

async function abandon(options: QemuOptions, host: Host, spec: VmSpec): Promise<void> {
  await endVm(options, host, spec).catch((error: unknown) => {
    options.log.error('Cannot end a VM that did not start', { vm: spec.id, error });
  });
}

async function explain(spec: VmSpec, error: unknown): Promise<HypervisorError> {
  const printed = (await readFileIfExists(join(spec.directory, 'vmm.log')))?.trim().slice(0, 2000);
  const detail = printed === undefined || printed === '' ? describeError(error) : printed;
  return new HypervisorError('Failed', `Cannot start VM "${spec.id}": ${detail}`, error);
}

/** Runs once for all callers; a failure is forgotten, so that the next caller tries again. */
function once<T>(work: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => {
    result ??= work().catch((error: unknown) => {
      result = undefined;
      throw error;
    });
    return result;
  };
}
