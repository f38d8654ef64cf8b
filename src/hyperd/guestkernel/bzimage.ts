import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { checkPvhKernel } from './elf.ts';
import { lz4LegacyDecompress } from './lz4.ts';

/**
 * A bzImage holds the kernel proper as a compressed ELF file. QEMU boots the ELF file by its PVH
 * entry without the real-mode stub and without decompressing in the guest, which under emulation
 * takes longer than the rest of the boot.
 *
 * Source of the layout: Linux, Documentation/arch/x86/boot.rst.
 */

/** Larger than any kernel of a distribution, with room. */
const VMLINUX_BYTES_MAX = 256 << 20;

const SETUP_SECTORS_OFFSET = 0x1f1;
const HEADER_MAGIC_OFFSET = 0x202;
const HEADER_MAGIC = 0x53726448;
const PAYLOAD_OFFSET_OFFSET = 0x248;
const PAYLOAD_LENGTH_OFFSET = 0x24c;
const SECTOR_BYTES = 512;

interface Format {
  name: string;
  magic: number[];
  decompress: (payload: Buffer) => Buffer | Promise<Buffer>;
}

const FORMATS: Format[] = [
  {
    name: 'lz4',
    magic: [0x02, 0x21, 0x4c, 0x18],
    decompress: (payload) => lz4LegacyDecompress(payload, VMLINUX_BYTES_MAX),
  },
  {
    name: 'gzip',
    magic: [0x1f, 0x8b],
    decompress: (payload) => gunzipSync(payload, { maxOutputLength: VMLINUX_BYTES_MAX }),
  },
  {
    name: 'zstd',
    magic: [0x28, 0xb5, 0x2f, 0xfd],
    decompress: (payload) => zstdDecompressSync(payload, { maxOutputLength: VMLINUX_BYTES_MAX }),
  },
];

/** Formats that kernels are packed with and that are refused by name. */
const REFUSED: { name: string; magic: number[] }[] = [
  { name: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a] },
  { name: 'lzma', magic: [0x5d, 0x00, 0x00] },
  { name: 'bzip2', magic: [0x42, 0x5a, 0x68] },
  { name: 'lzo', magic: [0x89, 0x4c, 0x5a, 0x4f] },
];

const startsWith = (bytes: Buffer, magic: number[]) => magic.every((byte, i) => bytes[i] === byte);

/** Whether a file says of itself that it is a bzImage. */
export function isBzImage(bytes: Buffer): boolean {
  return (
    bytes.length >= PAYLOAD_LENGTH_OFFSET + 4 &&
    bytes.readUInt32LE(HEADER_MAGIC_OFFSET) === HEADER_MAGIC
  );
}

/**
 * The uncompressed ELF kernel of a bzImage.
 * @throws Error naming what is wrong with the image
 */
export async function extractVmlinux(bzImage: Buffer): Promise<Buffer> {
  if (!isBzImage(bzImage)) throw new Error('Cannot read the kernel: not a bzImage');
  const setupSectors = bzImage[SETUP_SECTORS_OFFSET] || 4;
  const start = (setupSectors + 1) * SECTOR_BYTES + bzImage.readUInt32LE(PAYLOAD_OFFSET_OFFSET);
  const length = bzImage.readUInt32LE(PAYLOAD_LENGTH_OFFSET);
  if (length === 0 || start + length > bzImage.length) {
    throw new Error('Cannot read the kernel: its payload lies outside the file');
  }
  const payload = bzImage.subarray(start, start + length);
  const refused = REFUSED.find((format) => startsWith(payload, format.magic));
  if (refused) {
    const known = FORMATS.map((format) => format.name).join(', ');
    throw new Error(`Cannot read the kernel: packed with ${refused.name}, wanted ${known}`);
  }
  const format = FORMATS.find((candidate) => startsWith(payload, candidate.magic));
  const vmlinux = format ? await format.decompress(payload) : payload;
  checkPvhKernel(vmlinux);
  return vmlinux;
}
