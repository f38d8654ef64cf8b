import { isAbsolute } from 'node:path';
import { HypervisorError } from './hypervisor.ts';
import type { Hypervisor, HypervisorCapability, VmLimits, VmSpec } from './hypervisor.ts';

/** Below it are the host's own users; the jail refuses them too. */
const UID_MIN = 1000;
const UID_MAX = 2 ** 31 - 1;
/** QEMU's `microvm` has 24 virtio slots, `q35` 30; further disks are attached while the VM runs. */
const BOOT_DISK_COUNT_MAX = 16;
const CPU_COUNT_MAX = 64;
/** Less does not hold a Debian kernel and its initial file system. */
const MEMORY_MIB_MIN = 64;
const MEMORY_MIB_MAX = 1 << 20;
/** Beyond it no disk goes, and the kernel would take it for no limit. */
const DISK_RATE_MAX = 2 ** 40;
/** The kernel's own limit on x86, less what the driver puts there itself. */
const KERNEL_ARGUMENTS_BYTES_MAX = 1500;

/**
 * What reaches command lines is checked here, whoever asks: nothing may be taken for an option.
 * @throws HypervisorError Invalid, naming field, value and limit
 */
export function validateVmSpec(spec: VmSpec): void {
  requireMatch('id', spec.id, /^[a-z0-9][a-z0-9-]{0,62}$/, '1 to 63 of [a-z0-9-]');
  for (const field of ['directory', 'kernelPath'] as const) requirePath(field, spec[field]);
  if (spec.initrdPath !== '') requirePath('initrdPath', spec.initrdPath);
  requireNumber('cpuCount', spec.cpuCount, 1, CPU_COUNT_MAX);
  requireNumber('memoryMib', spec.memoryMib, MEMORY_MIB_MIN, MEMORY_MIB_MAX);
  requireNumber('uid', spec.uid, UID_MIN, UID_MAX);
  validateLimits(spec.limits);
  const commandLine = spec.kernelArguments.join(' ');
  requireMatch('kernelArguments', commandLine, /^[\x20-\x7e]*$/, 'printable ASCII');
  requireNumber('length of kernelArguments', commandLine.length, 0, KERNEL_ARGUMENTS_BYTES_MAX);
  requireNumber('number of disks', spec.disks.length, 0, BOOT_DISK_COUNT_MAX);
  const serials = new Set(spec.disks.map((disk) => disk.serial));
  if (serials.size !== spec.disks.length) refuse('disks', 'two with one serial', 'different ones');
  for (const disk of spec.disks) {
    validateSerial(disk.serial);
    requirePath('disk path', disk.path);
  }
  if (spec.nic !== undefined) {
    requireMatch(
      'nic.mac',
      spec.nic.mac,
      /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/,
      'six octets in hexadecimal',
    );
  }
  const { tap } = spec.nic ?? {};
  if (tap !== undefined) {
    const namespace = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/;
    requireMatch('nic.tap.netns', tap.netns, namespace, 'a name of a namespace');
    const device = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/;
    requireMatch('nic.tap.name', tap.name, device, 'a name of a device');
  }
  if (spec.template !== undefined) requirePath('template.directory', spec.template.directory);
}

/** @throws HypervisorError Invalid, naming field, value and limit */
export function validateLimits(limits: VmLimits): void {
  requireNumber('limits.cpuMillis', limits.cpuMillis, 0, CPU_COUNT_MAX * 1000);
  requireNumber('limits.cpuWeightMillis', limits.cpuWeightMillis, 0, 1_000_000);
  requireNumber('limits.memoryMib', limits.memoryMib, MEMORY_MIB_MIN, 2 * MEMORY_MIB_MAX);
  requireNumber('limits.processCount', limits.processCount, 16, 65_536);
  for (const field of ['diskBytesPerSecond', 'diskOpsPerSecond'] as const) {
    requireNumber(`limits.${field}`, limits[field] ?? 0, 0, DISK_RATE_MAX);
  }
}

export function validateSerial(serial: string): void {
  requireMatch('disk serial', serial, /^[A-Za-z0-9]{1,20}$/, '1 to 20 of [A-Za-z0-9]');
}

/** @throws HypervisorError Unsupported, naming the driver and what it cannot do */
export function requireCapability(
  { name, capabilities }: Pick<Hypervisor, 'name' | 'capabilities'>,
  wanted: HypervisorCapability,
): void {
  if (capabilities.has(wanted)) return;
  throw new HypervisorError(
    'Unsupported',
    `Hypervisor "${name}" cannot do this: it has no ${wanted}`,
  );
}

function requirePath(field: string, value: string): void {
  if (!isAbsolute(value) || value.includes('\0') || value.split('/').includes('..')) {
    refuse(field, value, 'an absolute path without ".."');
  }
}

function requireMatch(field: string, value: string, pattern: RegExp, wanted: string): void {
  if (!pattern.test(value)) refuse(field, value, wanted);
}

function requireNumber(field: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    refuse(field, value, `an integer from ${min} to ${max}`);
  }
}

function refuse(field: string, value: unknown, wanted: string): never {
  throw new HypervisorError('Invalid', `Invalid VM: ${field} is "${value}", wanted ${wanted}`);
}
