import { ImageError } from './store.ts';

/**
 * A strict streaming reader of tar archives (ustar, pax, GNU long names), for archives made by
 * strangers. Names are byte strings (one character a byte, `latin1`), because tar's are.
 * It follows Go's `archive/tar` where formats are ambiguous: every other container runtime
 * reads layers with that one.
 */
export type TarType = 'file' | 'link' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

export interface TarEntry {
  name: string;
  type: TarType;
  linkName: string;
  /** Permission, set-user-id, set-group-id and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
  /** Content that follows. 0 for everything but files. */
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  deviceMajor: number;
  deviceMinor: number;
  xattrs: Map<string, Buffer> | undefined;
}

export interface TarSink {
  onEntry(entry: TarEntry): void;
  /** Content of the last entry, in order, `entry.size` bytes in all. */
  onData(chunk: Buffer): void;
}

export interface TarReader {
  /** @throws ImageError Malformed, TooLarge */
  push(chunk: Buffer): void;
  /** The archive is over. @throws ImageError Malformed where it ends inside an entry */
  end(): void;
}

const BLOCK_BYTES = 512;
/** Of one pax header: room for the largest set of extended attributes that Linux allows. */
export const PAX_HEADER_BYTES_MAX = 1 << 20;
/** Linux' PATH_MAX. */
const PATH_BYTES_MAX = 4096;
/** Extension headers before one entry. Real ones have at most three. */
const EXTENSIONS_MAX = 16;
const SIZE_MAX = 2 ** 46;
const ID_MAX = 2 ** 32 - 1;
/** Seconds; years far beyond any clock, and exact in a double. */
const MTIME_ABS_MAX = 2 ** 40;
const XATTR_PREFIX = 'SCHILY.xattr.';

const TYPES: Record<string, TarType> = {
  '0': 'file',
  '\0': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
  '7': 'file',
};

interface Extensions {
  count: number;
  path: string | undefined;
  linkPath: string | undefined;
  records: Map<string, Buffer>;
}

/** Reads a layer's tar stream, from strangers: what it refuses is an `ImageError`. */
export function createTarReader(sink: TarSink): TarReader {
  const block = Buffer.alloc(BLOCK_BYTES);
  let blockFill = 0;
  /** What the bytes that come next are. */
  let state: 'header' | 'meta' | 'data' | 'skip' | 'ended' = 'header';
  let remaining = 0;
  let padding = 0;
  let meta = { type: '', chunks: [] as Buffer[] };
  let extensions = noExtensions();
  let zeroBlocks = 0;

  const body = (size: number, next: 'meta' | 'data' | 'skip') => {
    remaining = size;
    padding = (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;
    state = next;
    if (remaining === 0) bodyDone();
  };
  const bodyDone = () => {
    if (state === 'meta') {
      readExtension(meta.type, Buffer.concat(meta.chunks), extensions);
      meta = { type: '', chunks: [] };
    }
    remaining = padding;
    padding = 0;
    state = remaining > 0 ? 'skip' : 'header';
  };
  const header = () => {
    if (isZero(block)) {
      zeroBlocks += 1;
      if (zeroBlocks === 2) state = 'ended';
      return;
    }
    if (zeroBlocks > 0) throw malformed('a block of zeros is followed by an entry');
    verifyChecksum(block);
    const type = String.fromCharCode(block[156] as number);
    if (type === 'x' || type === 'L' || type === 'K') {
      extensions.count += 1;
      if (extensions.count > EXTENSIONS_MAX) {
        throw malformed(`an entry has more than ${EXTENSIONS_MAX} extension headers`);
      }
      meta = { type, chunks: [] };
      body(extensionSize(block, type), 'meta');
    } else if (type === 'g') {
      body(readNumber(block, 124, 12, 'size', 0, PAX_HEADER_BYTES_MAX), 'skip');
    } else {
      const entry = readEntry(block, type, extensions);
      extensions = noExtensions();
      sink.onEntry(entry);
      body(entry.size, 'data');
    }
  };

  return {
    push(chunk) {
      let at = 0;
      while (at < chunk.length && state !== 'ended') {
        if (state === 'header') {
          const count = Math.min(BLOCK_BYTES - blockFill, chunk.length - at);
          chunk.copy(block, blockFill, at, at + count);
          at += count;
          blockFill += count;
          if (blockFill < BLOCK_BYTES) return;
          blockFill = 0;
          header();
          continue;
        }
        const count = Math.min(remaining, chunk.length - at);
        const part = chunk.subarray(at, at + count);
        at += count;
        remaining -= count;
        if (state === 'data') sink.onData(part);
        else if (state === 'meta') meta.chunks.push(Buffer.from(part));
        if (remaining === 0) bodyDone();
      }
    },
    end() {
      // Archives without the closing zeros exist; one that ends inside an entry is cut off.
      if (state === 'ended' || (state === 'header' && blockFill === 0 && extensions.count === 0))
        return;
      throw malformed('the archive ends in the middle of an entry');
    },
  };
}

function noExtensions(): Extensions {
  return { count: 0, path: undefined, linkPath: undefined, records: new Map() };
}

/** For messages: what a byte string says, as text. */
export function showName(name: string): string {
  return JSON.stringify(Buffer.from(name.slice(0, 300), 'latin1').toString('utf8'));
}

export function malformed(message: string): ImageError {
  return new ImageError('Malformed', `layer is not a valid archive: ${message}`);
}

const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);

function isZero(block: Buffer): boolean {
  return block.equals(ZERO_BLOCK);
}

/** The sum over the header with the checksum field as blanks; some old writers used signed bytes. */
function verifyChecksum(block: Buffer): void {
  let unsigned = 0;
  let signed = 0;
  for (let i = 0; i < BLOCK_BYTES; i++) {
    const byte = i >= 148 && i < 156 ? 0x20 : (block[i] as number);
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  const stored = readNumber(block, 148, 8, 'checksum', 0, 2 ** 21);
  if (stored !== unsigned && stored !== signed)
    throw malformed('the checksum of a header is wrong');
}

/** Octal text, or GNU's base-256 for what does not fit. */
function readNumber(
  block: Buffer,
  start: number,
  length: number,
  field: string,
  min: number,
  max: number,
): number {
  const value =
    ((block[start] as number) & 0x80) === 0
      ? readOctal(block, start, length, field)
      : readBase256(block, start, length);
  if (value < min || value > max) throw malformed(`the field ${field} of a header is out of range`);
  return value;
}

function readOctal(block: Buffer, start: number, length: number, field: string): number {
  const text = block.toString('latin1', start, start + length).replace(/^[ \0]+|[ \0]+$/g, '');
  // What stands after the first NUL is not part of the number.
  const digits = text.split('\0', 1)[0] as string;
  if (digits === '') return 0;
  if (!/^[0-7]+$/.test(digits)) throw malformed(`the field ${field} of a header is not octal`);
  return Number.parseInt(digits, 8);
}

function readBase256(block: Buffer, start: number, length: number): number {
  const negative = ((block[start] as number) & 0x40) !== 0;
  let value = 0;
  for (let i = start; i < start + length; i++) {
    const byte = block[i] as number;
    const bits = i === start ? byte & 0x7f : byte;
    value = value * 256 + (negative ? (i === start ? ~bits & 0x7f : ~bits & 0xff) : bits);
  }
  return negative ? -1 - value : value;
}

function readText(block: Buffer, start: number, length: number): string {
  const end = block.indexOf(0, start);
  const stop = end < 0 || end > start + length ? start + length : end;
  return block.toString('latin1', start, stop);
}

function extensionSize(block: Buffer, type: string): number {
  const limit = type === 'x' ? PAX_HEADER_BYTES_MAX : PATH_BYTES_MAX + 1;
  const size = readNumber(block, 124, 12, 'size', 0, SIZE_MAX);
  if (size > limit) {
    const what = type === 'x' ? 'a pax header' : 'a long name';
    throw malformed(`${what} has ${size} bytes, at most ${limit} are allowed`);
  }
  return size;
}

function readExtension(type: string, content: Buffer, extensions: Extensions): void {
  if (type === 'x') {
    for (const [key, value] of readPax(content)) extensions.records.set(key, value);
    return;
  }
  const text = readText(content, 0, content.length);
  if (type === 'L') extensions.path = text;
  else extensions.linkPath = text;
}

/** Records are `<length> <key>=<value>\n`, the length counting itself. */
function readPax(content: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  let at = 0;
  while (at < content.length) {
    const space = content.indexOf(0x20, at);
    const lengthText = space < 0 ? '' : content.toString('latin1', at, space);
    if (!/^[0-9]{1,9}$/.test(lengthText)) throw malformed('a pax record has no length');
    const end = at + Number(lengthText);
    if (end > content.length || end < space + 3 || content[end - 1] !== 0x0a) {
      throw malformed('the length of a pax record is wrong');
    }
    const equals = content.indexOf(0x3d, space);
    if (equals < 0 || equals >= end) throw malformed('a pax record has no value');
    const key = content.toString('latin1', space + 1, equals);
    if (key === '' || key.includes('\0')) throw malformed('a pax record has an invalid key');
    records.set(key, Buffer.from(content.subarray(equals + 1, end - 1)));
    at = end;
  }
  return records;
}

function readEntry(block: Buffer, typeFlag: string, extensions: Extensions): TarEntry {
  const { records } = extensions;
  const name = readName(block, extensions);
  const type = readType(typeFlag, name, records);
  const paxNumber = (key: string, start: number, length: number, max: number): number => {
    const value = records.get(key);
    if (value === undefined || value.length === 0) {
      return readNumber(block, start, length, key, 0, max);
    }
    const text = value.toString('latin1');
    if (!/^[0-9]{1,16}$/.test(text) || Number(text) > max) {
      throw malformed(`the pax record ${key} of ${showName(name)} is not a number in range`);
    }
    return Number(text);
  };
  const linkRecord = records.get('linkpath')?.toString('latin1');
  const linkName = linkRecord || (extensions.linkPath ?? readText(block, 157, 100));
  checkPath(name, 'name');
  checkPath(linkName, 'link target');
  const isDevice = type === 'char' || type === 'block';
  return {
    name,
    type,
    linkName: type === 'link' || type === 'symlink' ? linkName : '',
    mode: readNumber(block, 100, 8, 'mode', 0, 2 ** 31) & 0o7777,
    uid: paxNumber('uid', 108, 8, ID_MAX),
    gid: paxNumber('gid', 116, 8, ID_MAX),
    size: type === 'file' ? paxNumber('size', 124, 12, SIZE_MAX) : 0,
    ...readTime(block, records),
    deviceMajor: isDevice ? readNumber(block, 329, 8, 'devmajor', 0, ID_MAX) : 0,
    deviceMinor: isDevice ? readNumber(block, 337, 8, 'devminor', 0, ID_MAX) : 0,
    xattrs: readXattrs(records),
  };
}

function readName(block: Buffer, extensions: Extensions): string {
  const record = extensions.records.get('path')?.toString('latin1');
  if (record) return record;
  if (extensions.path !== undefined) return extensions.path;
  const name = readText(block, 0, 100);
  // GNU's own format has other things where ustar has the prefix.
  const isUstar = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isUstar ? readText(block, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function readType(flag: string, name: string, records: Map<string, Buffer>): TarType {
  const isSparse = [...records.keys()].some((key) => key.startsWith('GNU.sparse.'));
  if (flag === 'S' || isSparse) {
    throw malformed(`${showName(name)} is stored as a sparse file, which is not supported`);
  }
  const type = TYPES[flag];
  if (type === undefined) {
    throw malformed(`${showName(name)} is of type ${showName(flag)}, which is not supported`);
  }
  // The first tar had no type for directories.
  return flag === '\0' && name.endsWith('/') ? 'directory' : type;
}

function checkPath(path: string, what: string): void {
  if (path.includes('\0')) throw malformed(`the ${what} ${showName(path)} contains a NUL byte`);
  if (path.length > PATH_BYTES_MAX) {
    throw malformed(
      `the ${what} ${showName(path)}… has ${path.length} bytes, at most ${PATH_BYTES_MAX} are allowed`,
    );
  }
}

function readTime(
  block: Buffer,
  records: Map<string, Buffer>,
): { mtimeSec: number; mtimeNsec: number } {
  const text = records.get('mtime')?.toString('latin1') ?? '';
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(text);
  if (text !== '' && !match) throw malformed('the pax record mtime is not a time');
  if (!match) {
    return {
      mtimeSec: clampTime(readNumber(block, 136, 12, 'mtime', -SIZE_MAX, 2 ** 53)),
      mtimeNsec: 0,
    };
  }
  const fraction = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  const whole = clampTime(Number(match[2]));
  if (match[1] !== '-') return { mtimeSec: whole, mtimeNsec: fraction };
  return fraction === 0
    ? { mtimeSec: -whole, mtimeNsec: 0 }
    : { mtimeSec: -whole - 1, mtimeNsec: 1e9 - fraction };
}

function clampTime(seconds: number): number {
  return Math.max(-MTIME_ABS_MAX, Math.min(MTIME_ABS_MAX, seconds));
}

function readXattrs(records: Map<string, Buffer>): Map<string, Buffer> | undefined {
  let xattrs: Map<string, Buffer> | undefined;
  for (const [key, value] of records) {
    if (!key.startsWith(XATTR_PREFIX)) continue;
    xattrs ??= new Map();
    xattrs.set(key.slice(XATTR_PREFIX.length), value);
  }
  return xattrs;
}
