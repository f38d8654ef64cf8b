import { gzipSync } from 'node:zlib';

/** Kernels for tests: files that say what a kernel says and hold nothing that runs. */

export interface TestKernel {
  /** Type of the one note; 18 is the PVH entry. */
  noteType?: number;
  release?: string;
  /** Lines of a configuration to be carried inside. */
  config?: string[];
  /** Where the PVH entry is said to be. */
  entry?: number;
}

const HEADERS_BYTES = 64 + 2 * 56;
const ADDRESS = 0x100_0000;

/** A 64-bit ELF file with one segment that is loaded and one of notes. */
export function elfKernel(options: TestKernel = {}): Buffer {
  const { noteType = 18, release = '6.1.0-test', config, entry = ADDRESS } = options;
  const note = Buffer.alloc(20);
  note.writeUInt32LE(4, 0);
  note.writeUInt32LE(4, 4);
  note.writeUInt32LE(noteType, 8);
  note.write('Xen\0', 12, 'latin1');
  note.writeUInt32LE(entry, 16);
  const embedded = config
    ? ['IKCFG_ST', gzipSync(`${config.join('\n')}\n`), 'IKCFG_ED'].map((part) => Buffer.from(part))
    : [];
  const content = Buffer.concat([
    Buffer.from(`Linux version %s\0Linux version ${release} (a@test)\0`),
    ...embedded,
  ]);
  const headers = Buffer.alloc(HEADERS_BYTES);
  headers.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  headers.writeUInt16LE(2, 16);
  headers.writeUInt16LE(62, 18);
  headers.writeBigUInt64LE(64n, 32);
  headers.writeUInt16LE(56, 54);
  headers.writeUInt16LE(2, 56);
  segment(headers, 64, { type: 1, offset: HEADERS_BYTES, bytes: content.length });
  const noteOffset = HEADERS_BYTES + content.length;
  segment(headers, 120, { type: 4, offset: noteOffset, bytes: note.length });
  return Buffer.concat([headers, content, note]);
}

function segment(
  headers: Buffer,
  at: number,
  { type, offset, bytes }: { type: number; offset: number; bytes: number },
): void {
  headers.writeUInt32LE(type, at);
  headers.writeBigUInt64LE(BigInt(offset), at + 8);
  headers.writeBigUInt64LE(BigInt(ADDRESS), at + 24);
  headers.writeBigUInt64LE(BigInt(bytes), at + 32);
  headers.writeBigUInt64LE(BigInt(bytes), at + 40);
}

/** Packs what a bzImage has behind its real-mode code. */
export function bzImage(payload: Uint8Array): Buffer {
  const header = Buffer.alloc(1024);
  header[0x1f1] = 1;
  header.writeUInt32LE(0x53726448, 0x202);
  header.writeUInt32LE(0, 0x248);
  header.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([header, payload]);
}
