import { GUEST_MODULES } from './modules.ts';

/** A kernel's configuration: `EROFS_FS` → `y`, `m` or a value. What is off is not in it. */
export type KernelConfig = ReadonlyMap<string, string>;

const LINE = /^CONFIG_(\w+)=(.*)$/;

/**
 * A `.config` or a fragment of one.
 * @throws Error when nothing in it is a configuration
 */
export function parseKernelConfig(text: string): KernelConfig {
  const config = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, name, value] = LINE.exec(line.trim()) ?? [];
    if (name !== undefined && value !== undefined) config.set(name, value);
  }
  if (config.size === 0) throw new Error('Cannot read the configuration: no line is CONFIG_…=…');
  return config;
}

interface RequiredOption {
  option: string;
  reason: string;
  /** The module with the same, which does where it is loaded with the others. */
  module?: (typeof GUEST_MODULES)[number];
}

/** What hyperstart and containers cannot be without. */
export const REQUIRED_OPTIONS: readonly RequiredOption[] = [
  { option: '64BIT', reason: 'hyperstart is a 64-bit program' },
  { option: 'PVH', reason: 'QEMU enters the kernel there' },
  { option: 'BLK_DEV_INITRD', reason: 'hyperstart is in the initial file system' },
  { option: 'BINFMT_ELF', reason: 'hyperstart is an ELF program' },
  { option: 'ACPI', reason: 'the devices of the machine are found by it' },
  { option: 'SERIAL_8250_CONSOLE', reason: 'a panic has to reach the log' },
  { option: 'VIRTIO_MMIO', reason: 'the devices of microvm', module: 'virtio_mmio' },
  { option: 'PCI', reason: 'the devices of q35' },
  { option: 'VIRTIO_PCI', reason: 'the devices of q35', module: 'virtio_pci' },
  { option: 'VIRTIO_CONSOLE', reason: 'hyperd speaks over it', module: 'virtio_console' },
  { option: 'VIRTIO_BLK', reason: 'the writable disk', module: 'virtio_blk' },
  { option: 'SCSI_VIRTIO', reason: "images' disks", module: 'virtio_scsi' },
  { option: 'BLK_DEV_SD', reason: "images' disks", module: 'sd_mod' },
  { option: 'VIRTIO_NET', reason: "the pod's network", module: 'virtio_net' },
  { option: 'EROFS_FS', reason: 'images are erofs', module: 'erofs' },
  { option: 'CRYPTO_CRC32C', reason: 'the checksum of erofs', module: 'crc32c_generic' },
  { option: 'OVERLAY_FS', reason: "containers' roots", module: 'overlay' },
  { option: 'EXT4_FS', reason: 'the writable disk' },
  { option: 'TMPFS', reason: "hyperstart's root, emptyDir in memory, /dev/shm" },
  { option: 'DEVTMPFS', reason: 'devices' },
  { option: 'PROC_FS', reason: '/proc' },
  { option: 'SYSFS', reason: '/sys' },
  { option: 'UNIX98_PTYS', reason: 'terminals' },
  { option: 'POSIX_MQUEUE', reason: '/dev/mqueue' },
  { option: 'EPOLL', reason: "hyperstart's loop" },
  { option: 'SIGNALFD', reason: "hyperstart's loop" },
  { option: 'TIMERFD', reason: "hyperstart's loop" },
  { option: 'NET', reason: "the pod's network" },
  { option: 'INET', reason: "the pod's network" },
  { option: 'UNIX', reason: 'unix sockets' },
  { option: 'NAMESPACES', reason: 'containers' },
  { option: 'UTS_NS', reason: 'containers' },
  { option: 'IPC_NS', reason: 'containers' },
  { option: 'PID_NS', reason: 'containers' },
  { option: 'CGROUPS', reason: 'limits of containers' },
  { option: 'MEMCG', reason: 'limits of memory' },
  { option: 'CGROUP_PIDS', reason: 'limits of processes' },
  { option: 'CFS_BANDWIDTH', reason: 'limits of CPU' },
  { option: 'SECCOMP_FILTER', reason: 'the default seccomp profile' },
];

/** What a kernel lacks, as `CONFIG_EROFS_FS (images are erofs)`. */
export function missingOptions(config: KernelConfig, hasModules: boolean): string[] {
  const lacks = ({ option, module }: RequiredOption) => {
    const value = config.get(option);
    return value !== 'y' && !(value === 'm' && hasModules && module !== undefined);
  };
  return REQUIRED_OPTIONS.filter(lacks).map(({ option, reason }) => {
    const isModule = config.get(option) === 'm';
    return `CONFIG_${option}${isModule ? '=y, is m' : ''} (${reason})`;
  });
}
