/**
 * A cpio archive in the "newc" format, as the kernel unpacks it into its first root file system.
 * Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
 */
export interface CpioEntry {
  /** Without a leading slash. */
  path: string;
  /** File type and permission bits. */
  mode: number;
  content?: Uint8Array;
  device?: { major: number; minor: number };
}

export const CPIO_DIRECTORY = 0o040000;
export const CPIO_FILE = 0o100000;
export const CPIO_CHARACTER_DEVICE = 0o020000;

const ALIGNMENT = 4;
const TRAILER = 'TRAILER!!!';

/** Entries in order, owned by root, without times: the same input gives the same bytes. */
export function cpioArchive(entries: CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  entries.forEach((entry, index) => parts.push(...encodeEntry(entry, index + 1)));
  parts.push(...encodeEntry({ path: TRAILER, mode: 0 }, 0));
  return Buffer.concat(parts);
}

function encodeEntry(entry: CpioEntry, inode: number): Buffer[] {
  const name = Buffer.from(`${entry.path}\0`);
  const content = Buffer.from(entry.content ?? []);
  const fields = [
    inode,
    entry.mode,
    0,
    0,
    1,
    0,
    content.length,
    0,
    0,
    entry.device?.major ?? 0,
    entry.device?.minor ?? 0,
    name.length,
    0,
  ];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  return [pad(Buffer.concat([Buffer.from(header, 'latin1'), name])), pad(content)];
}

function pad(bytes: Buffer): Buffer {
  const missing = (ALIGNMENT - (bytes.length % ALIGNMENT)) % ALIGNMENT;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}
