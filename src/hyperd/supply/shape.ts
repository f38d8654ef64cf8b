import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import type { GuestFiles } from '../guestkernel/files.ts';

/** What VMs must have in common to be started from one template. */
export interface VmShape extends GuestFiles {
  /** Whose pods they are. VMs of two owners never share memory. Empty: of nobody, so alone. */
  owner: string;
  cpuCount: number;
  memoryMib: number;
}

/** 128 bits are enough for names that nobody attacks: who could make VMs of another owner? */
const ID_CHARACTERS = 32;

/**
 * Names the template of a shape on this host, as it is now: another kernel, hyperstart or emulator,
 * or the same after a reboot of the host, gives another name.
 *
 * @param host what all templates of this host depend on: its boot, its hypervisor's version
 */
export async function templateId(shape: VmShape, host: string): Promise<string> {
  const files = [await fileIdentity(shape.kernelPath), await fileIdentity(shape.initrdPath)];
  const text = JSON.stringify([shape, files, host]);
  return createHash('sha256').update(text).digest('hex').slice(0, ID_CHARACTERS);
}

async function fileIdentity(path: string): Promise<string> {
  if (path === '') return '';
  const found = await stat(path);
  return `${found.ino} ${found.size} ${found.mtimeMs}`;
}
