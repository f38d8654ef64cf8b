import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfExists } from '../../../base/files.ts';

/**
 * The host's devices, as `major:minor`, under files and block devices. Whole disks, since those
 * are what the kernel limits: of a partition its disk. A file system that is on no single device
 * (overlay, btrfs, tmpfs) has none.
 */
export async function hostDevices(paths: string[], sysfs = '/sys'): Promise<string[]> {
  const found = new Set<string>();
  for (const path of paths) {
    const status = await stat(path, { bigint: true });
    const number = deviceNumber(status.isBlockDevice() ? status.rdev : status.dev);
    const directory = join(sysfs, 'dev/block', number);
    const own = await readFileIfExists(join(directory, 'dev'));
    const isPartition = (await readFileIfExists(join(directory, 'partition'))) !== undefined;
    // Not joined: the directory is a symbolic link, and the disk is above where it leads to.
    const device = isPartition ? await readFileIfExists(`${directory}/../dev`) : own;
    if (device !== undefined) found.add(device.trim());
  }
  return [...found].sort();
}

/** As glibc's `major` and `minor` take a number apart. */
export function deviceNumber(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn & 0xffffffffn);
  return `${major}:${minor}`;
}
