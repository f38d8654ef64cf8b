/**
 * Which options a kernel seems to lack, from what hyperstart or the kernel said. What hyperstart
 * says comes as an answer, or from before it could speak by the console.
 */
const SYMPTOMS: [pattern: RegExp, options: string[]][] = [
  [/Unable to mount root fs|VFS: Cannot open root device/, ['BLK_DEV_INITRD']],
  [/No working init found|Failed to execute \/init/, ['BINFMT_ELF', '64BIT']],
  [/mount \/new: No such device/, ['TMPFS']],
  [/mount \/new\/dev: No such device/, ['DEVTMPFS']],
  [/mount \/new\/proc: No such device/, ['PROC_FS']],
  [/mount \/new\/sys: No such device/, ['SYSFS']],
  [/cgroup2: |control group|cgroup: /, ['CGROUPS', 'MEMCG', 'CGROUP_SCHED', 'CFS_BANDWIDTH']],
  [/no controller for .*memory/, ['MEMCG']],
  [/no controller for .*cpu/, ['CGROUP_SCHED', 'FAIR_GROUP_SCHED']],
  [/no controller for .*pids/, ['CGROUP_PIDS']],
  [/no control port/, ['VIRTIO_CONSOLE', 'VIRTIO_MMIO', 'VIRTIO_PCI', 'ACPI']],
  [/(?:signals|uevents): Function not implemented/, ['SIGNALFD', 'EPOLL', 'TIMERFD', 'NET']],
  [/scratchSerial: no disk/, ['VIRTIO_BLK']],
  [/cannot mount the scratch disk/, ['EXT4_FS']],
  [/imageSerial: no disk/, ['SCSI_VIRTIO', 'BLK_DEV_SD']],
  [/cannot mount the image/, ['EROFS_FS', 'CRYPTO_CRC32C']],
  [/cannot mount the root of/, ['OVERLAY_FS']],
  [/cannot mount ".*mqueue"/, ['POSIX_MQUEUE']],
  [/cannot mount ".*pts"/, ['UNIX98_PTYS']],
  [/cannot make a namespace/, ['UTS_NS', 'IPC_NS', 'PID_NS']],
  [/cannot set system call filter/, ['SECCOMP_FILTER']],
];

/** @returns `CONFIG_…`, those that fit what was answered first; empty where nothing is known */
export function optionsBehind(answer: string, console: string): string[] {
  const found = [answer, console].flatMap((text) =>
    SYMPTOMS.filter(([pattern]) => pattern.test(text)).flatMap(([, options]) => options),
  );
  return [...new Set(found)].map((option) => `CONFIG_${option}`);
}
