import { chmod, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../../base/files.ts';
import { initArchive } from './initrd.ts';

/** What a VM is started from. */
export interface GuestFiles {
  kernelPath: string;
  initrdPath: string;
  /** Beside those that every guest gets. */
  kernelArguments: string[];
}

/**
 * Writes what a VM is started from into a directory, which VMs' users may then pass.
 * @param modules archive of the modules that the guest loads; empty for none
 */
export async function writeGuestFiles(
  directory: string,
  { vmlinux, modules }: { vmlinux: Buffer; modules: Buffer },
  hyperstartPath: string,
): Promise<GuestFiles> {
  await chmod(directory, 0o755);
  const files = guestFiles(directory, modules.length > 0);
  const initrd = Buffer.concat([initArchive(await readFile(hyperstartPath)), modules]);
  // Each VM runs as a user of its own and only reads them.
  await writeFileAtomic(files.kernelPath, vmlinux, { mode: 0o644, sync: true });
  await writeFileAtomic(files.initrdPath, initrd, { mode: 0o644, sync: true });
  return files;
}

/** @param hasModules whether the initial file system has modules that the guest loads */
export function guestFiles(directory: string, hasModules = false): GuestFiles {
  return {
    kernelPath: join(directory, 'vmlinux'),
    initrdPath: join(directory, 'initrd'),
    // As a module it is told so by hyperstart. PID 1 asks for the one target that there is; to ask
    // all takes a tenth of a start.
    kernelArguments: hasModules ? [] : ['scsi_mod.scan=manual'],
  };
}
