import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { kernelArguments } from '../../guestkernel/arguments.ts';
import type { DiskSpec, VmSpec } from '../hypervisor.ts';
import type { DeviceModel } from './models.ts';

/**
 * A VM's specification turned into the command lines of jail and emulator. Pure; a golden file
 * shows the whole of it.
 */
export interface LaunchPlan {
  /** Arguments of `hyperjail`, the emulator's command line at their end. */
  arguments: string[];
}

export interface LaunchContext {
  qemuPath: string;
  model: DeviceModel;
  accelerator: 'kvm' | 'tcg';
  /** Of the host's time stamp counter, which an emulated guest reads and cannot measure. */
  tscKhz: number;
  /** Libraries and modules of the emulator, bound at their own paths. */
  libraries: string[];
  /** Files of its firmware, bound at their own paths. */
  firmware: string[];
  cgroup: CgroupPlan;
  /** Of each boot disk, in order, whether it is a block device and not a file. */
  blockDevices: boolean[];
  /** `hyperlend.so`, by which the emulator opens a template's memory. */
  lendPath: string;
  /** `hyperthaw`, which becomes a monitor that was frozen. */
  thawPath: string;
  /** Of an heir: that it will be frozen. Of a clone: that what it starts from was. */
  isFrozen: boolean;
}

export interface CgroupPlan {
  directories: string[];
  settings: { file: string; value: string }[];
  keeperDirectories: string[];
}

export const SOCKET_NAMES = {
  monitor: 'qmp.sock',
  /** A second monitor, over which disks are handed in while the daemon holds the first. */
  attach: 'attach.sock',
  control: 'control.sock',
} as const;

const CONTROL_PORT_NAME = 'io.hypernetes.control';
const CONTROL_PORT_ID = 'control';
export const SCSI_BUS = 'scsi.0';

/** Emulator, its event loops, clients of its sockets, disks: far below this. */
const OPEN_FILES_MAX = 1024;

/**
 * Buffer for translated code. A Debian kernel and a few processes use some 25 MiB of it; when it
 * is full QEMU throws all of it away and translates again, which a busy pod notices.
 */
const TRANSLATION_BUFFER_MIB = 64;

/**
 * An emulated CPU must not claim that it copies bytes fast (ERMS): kernel and libraries would use an
 * instruction for it that is emulated byte by byte, in place of the one that takes eight at a time.
 * Nor has it random numbers: they would come from a generator in the emulator's memory, which all
 * clones of a frozen one have in common.
 */
const CPU_MODEL = { kvm: 'host', tcg: 'max,-erms,-rdrand,-rdseed' } as const;

/** Worker threads for disk requests; QEMU's default of 64 would not fit the limit of processes. */
const DISK_THREAD_COUNT_MAX = 8;

const FD = {
  ...{ monitor: 10, attach: 11, control: 12, console: 13, tap: 14 },
  ...{ templateMemory: 15, templateState: 16, frozenMonitor: 17, firstDisk: 20 },
} as const;
const CONSOLE_FDSET = 1;
const FIRST_DISK_FDSET = 2;
/** Sets of disks that are attached later lie from here on, up to what the jail takes. */
const HOT_FDSET_MIN = 1000;
const HOT_FDSET_COUNT = 2 ** 29;

/**
 * The files of a template in its directory: the guest's memory, and with it either the state of its
 * devices or all of the monitor.
 */
export const TEMPLATE_FILES = { memory: 'memory', state: 'state', monitor: 'monitor' } as const;
/** In the directory of a VM that will be frozen: what it has inherited. */
export const INVENTORY_NAME = 'inventory';
/** Where the jail shows hyperthaw. */
const THAW_TARGET = '/hyperthaw';
/** Where a clone's state is read from. */
export const STATE_URI = `fd:${FD.templateState}`;

const SANDBOX = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';

export function launchPlan(spec: VmSpec, context: LaunchContext): LaunchPlan {
  return {
    arguments: ['run', ...jailArguments(spec, context), '--', ...programArguments(spec, context)],
  };
}

function jailArguments(spec: VmSpec, context: LaunchContext): string[] {
  const { cgroup } = context;
  const pairs: [string, string][] = [
    ['--directory', spec.directory],
    ['--uid', String(spec.uid)],
    ['--files-max', String(OPEN_FILES_MAX)],
    ...cgroup.directories.map((path): [string, string] => ['--cgroup', path]),
    ...cgroup.settings.map((s): [string, string] => ['--cgroup-set', `${s.file}:${s.value}`]),
    ...cgroup.keeperDirectories.map((path): [string, string] => ['--keeper-cgroup', path]),
    ['--bind-executable', `${context.qemuPath}:${context.qemuPath}`],
    ...context.libraries.map((path): [string, string] => ['--bind-executable', `${path}:${path}`]),
    ...context.firmware.map((path): [string, string] => ['--bind', `${path}:${path}`]),
    ['--bind', `${spec.kernelPath}:/kernel`],
    ...(hasInitrd(spec) ? [['--bind', `${spec.initrdPath}:/initrd`] as [string, string]] : []),
    // QEMU tries out on it whether open file description locks work.
    ['--device', '/dev/null'],
    ['--device', '/dev/urandom'],
    ...(context.accelerator === 'kvm' ? [['--device', '/dev/kvm'] as [string, string]] : []),
    ['--listen', `${FD.monitor}:${SOCKET_NAMES.monitor}`],
    ['--listen', `${FD.attach}:${SOCKET_NAMES.attach}`],
    ['--listen', `${FD.control}:${SOCKET_NAMES.control}`],
    ['--console', String(FD.console)],
    ...spec.disks.map((disk, i): [string, string] => [
      '--disk',
      `${FD.firstDisk + i}:${disk.readOnly ? 'ro' : 'rw'}:${disk.path}`,
    ]),
  ];
  return [...pairs.flat(), ...tapArguments(spec), ...templateJailArguments(spec, context)];
}

/** A NIC without a cable has one all the same, which leads nowhere: its clones get another. */
function tapArguments({ nic }: VmSpec): string[] {
  if (nic === undefined) return [];
  if (nic.tap === undefined) return ['--tap-nowhere', String(FD.tap)];
  return ['--tap', `${FD.tap}:${nic.tap.name}:/run/netns/${nic.tap.netns}`];
}

function templateJailArguments({ template }: VmSpec, context: LaunchContext): string[] {
  if (template === undefined) return [];
  const disk = (fd: number, mode: 'ro' | 'rw', name: string) => [
    '--disk',
    `${fd}:${mode}:${join(template.directory, name)}`,
  ];
  const thaws = isThawed({ template }, context);
  const mode = template.role === 'clone' ? 'ro' : 'rw';
  return [
    ...['--preload', context.lendPath],
    ...disk(FD.templateMemory, mode, TEMPLATE_FILES.memory),
    ...(isRestored({ template }, context)
      ? disk(FD.templateState, 'ro', TEMPLATE_FILES.state)
      : []),
    ...(thaws ? ['--thaw', context.thawPath] : []),
    ...(thaws ? disk(FD.frozenMonitor, 'ro', TEMPLATE_FILES.monitor) : []),
    ...(context.isFrozen && !thaws ? ['--inventory', INVENTORY_NAME] : []),
  ];
}

/** Whether it is a new monitor that reads the state of its devices. */
export function isRestored(
  { template }: Pick<VmSpec, 'template'>,
  { isFrozen }: Pick<LaunchContext, 'isFrozen'>,
): boolean {
  return template?.role === 'heir' || (template?.role === 'clone' && !isFrozen);
}

function isThawed({ template }: Pick<VmSpec, 'template'>, { isFrozen }: LaunchContext): boolean {
  return isFrozen && template?.role === 'clone';
}

/** Who does not boot has no use for it: what was in it is in the memory. */
function hasInitrd({ initrdPath, template }: VmSpec): boolean {
  return initrdPath !== '' && (template === undefined || template.role === 'source');
}

/** The last argument of hyperthaw is for those who look at the host's processes. */
function programArguments(spec: VmSpec, context: LaunchContext): string[] {
  if (!isThawed(spec, context)) return qemuArguments(spec, context);
  return [THAW_TARGET, String(FD.frozenMonitor), String(FD.templateMemory), vmName(spec)];
}

function vmName({ id }: VmSpec): string {
  return `hypernetes-${id}`;
}

function qemuArguments(spec: VmSpec, context: LaunchContext): string[] {
  const { accelerator, model } = context;
  return [
    context.qemuPath,
    ...['-name', vmName(spec)],
    ...['-machine', `${model.machine}${spec.template ? MEMORY_BACKEND : ''}`],
    ...model.globals.flatMap((setting) => ['-global', setting]),
    ...['-accel', accelerator === 'kvm' ? 'kvm' : `tcg,tb-size=${TRANSLATION_BUFFER_MIB}`],
    ...['-cpu', CPU_MODEL[accelerator]],
    ...['-m', String(spec.memoryMib)],
    ...['-smp', String(spec.cpuCount)],
    ...templateArguments(spec),
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-sandbox', SANDBOX],
    ...['-object', `main-loop,id=main-loop,thread-pool-max=${DISK_THREAD_COUNT_MAX}`],
    ...['-kernel', '/kernel'],
    ...(hasInitrd(spec) ? ['-initrd', '/initrd'] : []),
    ...['-append', kernelCommandLine(spec, context)],
    ...consoleArguments(),
    ...monitorArguments('monitor', FD.monitor),
    ...monitorArguments('attach', FD.attach),
    ...['-chardev', `socket,id=control,fd=${FD.control},server=on,wait=off`],
    ...virtioDevice(model, 'serial', 'max_ports=2'),
    ...[
      '-device',
      `virtserialport,id=${CONTROL_PORT_ID},chardev=control,name=${CONTROL_PORT_NAME},nr=1`,
    ],
    ...randomArguments(model),
    ...virtioDevice(model, 'scsi', 'id=scsi', 'num_queues=1'),
    ...spec.disks.flatMap((disk, i) =>
      bootDiskArguments(disk, i, context.blockDevices[i] ?? false, model),
    ),
    ...nicArguments(spec, model),
    ...balloonArguments(model),
  ];
}

function virtioDevice(model: DeviceModel, kind: string, ...properties: string[]): string[] {
  return ['-device', [`virtio-${kind}-${model.transport}`, ...properties].join(',')];
}

const MEMORY_BACKEND = ',memory-backend=memory';

/**
 * Source and heir share their memory with the file, so that saving them writes the devices' state
 * alone; a clone maps the same file privately, which is to copy what it writes.
 */
function templateArguments({ template, memoryMib }: VmSpec): string[] {
  if (template === undefined) return [];
  const memory = [
    ...['memory-backend-file', 'id=memory', `size=${memoryMib}M`],
    ...[
      `mem-path=/inherited/${FD.templateMemory}`,
      `share=${template.role === 'clone' ? 'off' : 'on'}`,
    ],
  ];
  return [
    ...['-object', memory.join(',')],
    ...(template.role === 'source' ? [] : ['-incoming', 'defer']),
  ];
}

/** An orderly end powers the VM off, a panic resets it (`-no-reboot`): so the two are told apart. */
function kernelCommandLine(spec: VmSpec, context: LaunchContext): string {
  const own = kernelArguments(context).map(({ argument }) => argument);
  return [...own, ...spec.kernelArguments].join(' ');
}

function consoleArguments(): string[] {
  return [
    ...['-add-fd', `fd=${FD.console},set=${CONSOLE_FDSET}`],
    ...['-chardev', `file,id=console,path=/dev/fdset/${CONSOLE_FDSET},append=on`],
    ...['-serial', 'chardev:console'],
  ];
}

function monitorArguments(id: string, fd: number): string[] {
  return [
    ...['-chardev', `socket,id=${id},fd=${fd},server=on,wait=off`],
    ...['-mon', `chardev=${id},mode=control`],
  ];
}

/** Name of a disk's block node and of its device. */
export function diskId(serial: string): string {
  return `disk-${serial}`;
}

/**
 * The descriptor set of a disk that is attached to a running VM. It follows from the serial, so
 * that what a daemon put there before it died is never taken for another disk's.
 */
export function hotFdset(serial: string): number {
  const hash = createHash('sha256').update(serial).digest();
  return HOT_FDSET_MIN + (hash.readUInt32LE(0) % HOT_FDSET_COUNT);
}

/** The block layer's description of a disk whose open file lies in a descriptor set. */
export function blockNode(disk: DiskSpec, fdset: number, blockDevice: boolean): object {
  return {
    driver: 'raw',
    'node-name': diskId(disk.serial),
    'read-only': disk.readOnly,
    cache: { direct: false, 'no-flush': disk.ephemeral === true },
    file: {
      driver: blockDevice ? 'host_device' : 'file',
      filename: `/dev/fdset/${fdset}`,
      'read-only': disk.readOnly,
      'auto-read-only': false,
      cache: { direct: false, 'no-flush': disk.ephemeral === true },
      // One image serves many VMs: by a lock on it, an emulator that was taken over could keep the
      // others from starting.
      ...(disk.readOnly ? { locking: 'off' } : { discard: 'unmap' }),
    },
    ...(disk.readOnly ? {} : { discard: 'unmap' }),
  };
}

function bootDiskArguments(
  disk: DiskSpec,
  index: number,
  blockDevice: boolean,
  model: DeviceModel,
): string[] {
  const fdset = FIRST_DISK_FDSET + index;
  const id = diskId(disk.serial);
  return [
    ...['-add-fd', `fd=${FD.firstDisk + index},set=${fdset}`],
    ...['-blockdev', JSON.stringify(blockNode(disk, fdset, blockDevice))],
    ...virtioDevice(model, 'blk', `id=${id}`, `drive=${id}`, `serial=${disk.serial}`),
  ];
}

/**
 * The guest reports blocks of memory that it does not use, and their pages go back to the host; the
 * balloon itself stays empty. What comes back in place of such a page is not always zero (a clone
 * finds its template's): a kernel that relies on it is told by the missing `page-poison` to report
 * nothing.
 */
function balloonArguments(model: DeviceModel): string[] {
  return virtioDevice(model, 'balloon', 'free-page-reporting=on', 'page-poison=off');
}

/** The host's kernel itself: a generator in the emulator would be copied with it by the freezing. */
function randomArguments(model: DeviceModel): string[] {
  return [
    ...['-object', 'rng-random,id=random,filename=/dev/urandom'],
    ...virtioDevice(model, 'rng', 'rng=random'),
  ];
}

function nicArguments({ nic }: VmSpec, model: DeviceModel): string[] {
  if (nic === undefined) return [];
  return [
    ...['-netdev', `tap,id=nic,fd=${FD.tap}`],
    ...virtioDevice(model, 'net', 'netdev=nic', `mac=${nic.mac}`),
  ];
}
