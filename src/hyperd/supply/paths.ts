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
