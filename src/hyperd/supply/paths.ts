import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Where a VM lies on this host. A VM may be there before it is any pod's, so it has a place of its
 * own; the pod's record names it.
 */
export interface VmPaths {
  root: string;
  /** The driver's: sockets, console, state. */
  vm: string;
  /** The writable disk. */
  scratch: string;
}

export function vmPaths(vmsDirectory: string, vmId: string): VmPaths {
  const root = join(vmsDirectory, vmId);
  return { root, vm: join(root, 'vm'), scratch: join(root, 'scratch.ext4') };
}

/**
 * Makes the directories of a VM, but not what they lie in: a data directory that was deleted stays
 * so. May be repeated.
 */
export async function makeVmDirectory({ root, vm }: VmPaths): Promise<void> {
  for (const path of [root, vm]) {
    await mkdir(path, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  }
}
