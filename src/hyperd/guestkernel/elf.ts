/**
 * What QEMU starts: a 64-bit ELF kernel with a PVH entry. The file comes from whoever imports it,
 * so every number in it is looked at before it is used.
 *
 * Sources: ELF-64 Object File Format 1.5; Xen, docs/misc/pvh.pandoc.
 */

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const MACHINE_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
/** A kernel has six. */
const PROGRAM_HEADERS_MAX = 64;
/** Everything that is loaded; the smallest VM of a pod has less memory than that. */
const LOADED_BYTES_MAX = 256 << 20;
/** Of all notes of one segment; a kernel's take some hundred bytes. */
const NOTES_BYTES_MAX = 1 << 20;
/** `XEN_ELFNOTE_PHYS32_ENTRY`: where PVH starts. */
const PVH_NOTE_TYPE = 18;
const PVH_NOTE_OWNER = 'Xen\0';
/** Sums of a few of them are exact. */
const NUMBER_MAX = 2 ** 45;

interface Segment {
  type: number;
  offset: number;
  address: number;
  fileBytes: number;
  memoryBytes: number;
}

/** Whether a file says of itself that it is ELF. */
export function isElf(bytes: Buffer): boolean {
  return bytes.length >= 4 && bytes.toString('latin1', 0, 4) === '\x7fELF';
}

/**
 * Refuses what is no 64-bit x86 kernel with a PVH entry: QEMU's own words for that are hard to read.
 * @throws Error naming what is wrong
 */
export function checkPvhKernel(vmlinux: Buffer): void {
  const segments = readSegments(vmlinux);
  const loaded = segments.filter(({ type }) => type === PT_LOAD);
  const total = loaded.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  if (total === 0 || total > LOADED_BYTES_MAX) {
    throw unreadable(`it loads ${total} bytes, wanted 1 to ${LOADED_BYTES_MAX}`);
  }
  const entry = segments
    .filter(({ type }) => type === PT_NOTE)
    .map((segment) => pvhEntry(notesOf(vmlinux, segment)))
    .find((found) => found !== undefined);
  if (entry === undefined) throw new Error('Cannot use the kernel: no PVH entry (CONFIG_PVH)');
  const isLoaded = loaded.some(
    ({ address, fileBytes }) => entry >= address && entry < address + fileBytes,
  );
  if (!isLoaded) throw unreadable('its PVH entry lies outside of what is loaded');
}

function readSegments(vmlinux: Buffer): Segment[] {
  // Class 64, little endian.
  if (vmlinux.length < HEADER_BYTES || !isElf(vmlinux) || vmlinux.readUInt16LE(4) !== 0x0102) {
    throw unreadable('not a 64-bit ELF file');
  }
  const machine = vmlinux.readUInt16LE(18);
  if (machine !== MACHINE_X86_64) {
    throw unreadable(`it is for machine ${machine}, wanted ${MACHINE_X86_64} (x86-64)`);
  }
  const start = readNumber(vmlinux, 32);
  const size = vmlinux.readUInt16LE(54);
  const count = vmlinux.readUInt16LE(56);
  if (size !== PROGRAM_HEADER_BYTES || count === 0 || count > PROGRAM_HEADERS_MAX) {
    throw unreadable(`${count} program headers of ${size} bytes`);
  }
  if (start + count * size > vmlinux.length) {
    throw unreadable('its program headers lie outside the file');
  }
  return Array.from({ length: count }, (_, index) => readSegment(vmlinux, start + index * size));
}

function readSegment(vmlinux: Buffer, at: number): Segment {
  const segment = {
    type: vmlinux.readUInt32LE(at),
    offset: readNumber(vmlinux, at + 8),
    address: readNumber(vmlinux, at + 24),
    fileBytes: readNumber(vmlinux, at + 32),
    memoryBytes: readNumber(vmlinux, at + 40),
  };
  const { type, offset, fileBytes, memoryBytes } = segment;
  if (type !== PT_LOAD && type !== PT_NOTE) return segment;
  if (offset + fileBytes > vmlinux.length) throw unreadable('a segment lies outside the file');
  if (type === PT_LOAD && memoryBytes < fileBytes) {
    throw unreadable(`a segment of ${fileBytes} bytes is loaded into ${memoryBytes}`);
  }
  return segment;
}

function notesOf(vmlinux: Buffer, { offset, fileBytes }: Segment): Buffer {
  if (fileBytes > NOTES_BYTES_MAX) throw unreadable(`${fileBytes} bytes of notes`);
  return vmlinux.subarray(offset, offset + fileBytes);
}

function pvhEntry(notes: Buffer): number | undefined {
  const align = (value: number) => Math.ceil(value / 4) * 4;
  for (let at = 0; at + 12 <= notes.length;) {
    const nameBytes = notes.readUInt32LE(at);
    const descriptionBytes = notes.readUInt32LE(at + 4);
    const description = at + 12 + align(nameBytes);
    if (description + descriptionBytes > notes.length) throw unreadable('a note is cut');
    const owner = notes.toString('latin1', at + 12, at + 12 + nameBytes);
    if (notes.readUInt32LE(at + 8) === PVH_NOTE_TYPE && owner === PVH_NOTE_OWNER) {
      if (descriptionBytes < 4) throw unreadable('its PVH note is too short');
      return notes.readUInt32LE(description);
    }
    at = description + align(descriptionBytes);
  }
  return undefined;
}

/** Numbers that a file of our size cannot hold are as good as the largest one that can be told. */
function readNumber(bytes: Buffer, at: number): number {
  return Math.min(Number(bytes.readBigUInt64LE(at)), NUMBER_MAX);
}

function unreadable(why: string): Error {
  return new Error(`Cannot read the kernel: ${why}`);
}
