/**
 * LZ4's legacy frame, in which kernels are packed: a magic number, then blocks of a length and
 * the compressed bytes. `node:zlib` has no LZ4.
 *
 * Source: lz4, doc/lz4_Block_format.md and lz4_Frame_format.md ("Legacy frame").
 */
const MAGIC = 0x184c2102;
const MATCH_BYTES_MIN = 4;
/** A block's length beyond this is the size of the whole that the kernel's build appends. */
const BLOCK_BYTES_MAX = 8 << 20;
const COMPRESSED_BLOCK_BYTES_MAX = BLOCK_BYTES_MAX + Math.ceil(BLOCK_BYTES_MAX / 255) + 16;

/**
 * @param bytesMax of the result; more is refused
 * @throws Error when the bytes are not what they say
 */
export function lz4LegacyDecompress(packed: Buffer, bytesMax: number): Buffer {
  if (packed.length < 4 || packed.readUInt32LE(0) !== MAGIC) fail('wrong magic number');
  const blocks: Buffer[] = [];
  let total = 0;
  for (let at = 4; at + 4 <= packed.length;) {
    const length = packed.readUInt32LE(at);
    at += 4;
    if (length === 0 || length > COMPRESSED_BLOCK_BYTES_MAX || at + length > packed.length) break;
    const block = decompressBlock(packed.subarray(at, at + length));
    total += block.length;
    if (total > bytesMax) fail(`more than ${bytesMax} bytes`);
    blocks.push(block);
    at += length;
  }
  return Buffer.concat(blocks, total);
}

/** No position lies in a closure: V8 14 loses updates of one that it has compiled the users of. */
function decompressBlock(packed: Buffer): Buffer {
  const out = Buffer.allocUnsafe(BLOCK_BYTES_MAX);
  let at = 0;
  let size = 0;
  while (at < packed.length) {
    const token = packed[at++] as number;
    let literals = token >> 4;
    if (literals === LENGTH_GOES_ON) {
      const end = endOfLength(packed, at);
      literals += lengthBetween(packed, at, end);
      at = end;
    }
    if (at + literals > packed.length || size + literals > out.length) fail('literals too long');
    packed.copy(out, size, at, at + literals);
    at += literals;
    size += literals;
    if (at === packed.length) break;
    if (at + 2 > packed.length) fail('cut off');
    const distance = packed.readUInt16LE(at);
    at += 2;
    let length = (token & 15) + MATCH_BYTES_MIN;
    if ((token & 15) === LENGTH_GOES_ON) {
      const end = endOfLength(packed, at);
      length += lengthBetween(packed, at, end);
      at = end;
    }
    if (distance === 0 || distance > size || size + length > out.length) fail('match out of range');
    // The match may overlap what it makes, so whole copies are right only up to its distance.
    if (distance >= length) out.copyWithin(size, size - distance, size - distance + length);
    else for (let i = 0; i < length; i += 1) out[size + i] = out[size + i - distance] as number;
    size += length;
  }
  return out.subarray(0, size);
}

/** A length of 15 is followed by bytes to be added to it, of which the last is not 255. */
const LENGTH_GOES_ON = 15;

function endOfLength(packed: Buffer, start: number): number {
  for (let at = start; at < packed.length; at += 1) if (packed[at] !== 255) return at + 1;
  return fail('cut off');
}

function lengthBetween(packed: Buffer, start: number, end: number): number {
  return (end - start - 1) * 255 + (packed[end - 1] as number);
}

function fail(reason: string): never {
  throw new Error(`Cannot unpack lz4: ${reason}`);
}
