import { assert } from '../../base/assert.ts';
import { crc32c } from './crc32c.ts';
import type { TreeNode } from './tree.ts';

/**
 * Writes a tree as an EROFS file system, uncompressed: under emulation decompression costs more
 * than reading, and without it every file is a run of blocks that the page cache can map.
 *
 *   block 0   superblock at byte 1024, then inodes
 *   …         inodes, each followed by its extended attributes and, where it is small, the last
 *             part of its data; a directory's entries stand together, depth first
 *   …         data blocks of files and large directories, in the order of their inodes
 *
 * The format is that of Linux' fs/erofs/erofs_fs.h; only features that every kernel since 5.4
 * knows are used. The output depends on the tree alone.
 */
export interface ErofsOutput {
  /** What is never written is zeros. `bytes` may be used again after the call. */
  write(bytes: Buffer, position: number): void;
}

/** Fills all of `into` with content of the file `node` from `offset` on. */
export type ReadContent = (node: TreeNode, offset: number, into: Buffer) => void;

export interface ErofsResult {
  bytes: number;
  inodeCount: number;
}

const BLOCK_BYTES = 4096;
const BLOCK_BITS = 12;
const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_BYTES = 128;
const MAGIC = 0xe0f5e1e2;
const FEATURE_CHECKSUM = 0x1;
const FEATURE_MTIME = 0x2;
const INODE_SLOT_BYTES = 32;
const INODE_COMPACT_BYTES = 32;
const INODE_EXTENDED_BYTES = 64;
const LAYOUT_PLAIN = 0;
const LAYOUT_INLINE = 2;
const XATTR_HEADER_BYTES = 12;
const XATTR_ENTRY_BYTES = 4;
const DIRENT_BYTES = 12;
/**
 * A tail up to here stands beside its inode; a longer one gets a block of its own. Half a block
 * either way is the most that is ever wasted.
 */
const INLINE_TAIL_BYTES_MAX = 2048;
/** Output is handed on in pieces of this size. */
const WRITE_BYTES = 1 << 20;

const XATTR_INDEX: [prefix: string, index: number][] = [
  ['user.', 1],
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['trusted.', 4],
  ['security.', 6],
];

const FILE_TYPE = { file: 1, directory: 2, char: 3, block: 4, fifo: 5, symlink: 7 } as const;
const MODE_TYPE = {
  file: 0o100000,
  directory: 0o040000,
  char: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  symlink: 0o120000,
} as const;

/** One inode and its place on the disk. */
interface Inode {
  node: TreeNode;
  /** Of a directory: the one above it; the root's is itself. */
  parent: Inode | undefined;
  ordinal: number;
  linkCount: number;
  /** Position of the inode in bytes; its number is that in slots. */
  position: number;
  inodeBytes: number;
  xattrBytes: number;
  dataBytes: number;
  /** Of `dataBytes`, how many stand behind the inode. */
  inlineBytes: number;
  /** First block of the rest. */
  dataBlock: number;
  /** Of a directory: names in order, with `.` and `..`. */
  names: string[];
}

interface Layout {
  inodes: Inode[];
  byNode: Map<TreeNode, Inode>;
  /** The most frequent modification time: inodes that have it can be compact. */
  buildTimeSec: number;
  buildTimeNsec: number;
  blockCount: number;
}

/**
 * @param uuid 16 bytes, the identity of the file system
 * @returns the size of the file system, which the output has to have
 */
export function writeErofs(
  root: TreeNode,
  output: ErofsOutput,
  readContent: ReadContent,
  uuid: Uint8Array,
): ErofsResult {
  const layout = planLayout(root);
  const window = createWindow(output);
  encodeSuperblock(window.space(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES), layout, uuid);
  for (const inode of layout.inodes) {
    const headBytes = inode.inodeBytes + inode.xattrBytes;
    const space = window.space(inode.position, headBytes + inode.inlineBytes);
    encodeInode(space, inode, layout);
    encodeXattrs(space.subarray(inode.inodeBytes, headBytes), inode.node);
    const inlineStart = inode.dataBytes - inode.inlineBytes;
    readData(inode, layout, inlineStart, space.subarray(headBytes), readContent);
  }
  for (const inode of layout.inodes) {
    const end = inode.dataBytes - inode.inlineBytes;
    for (let at = 0; at < end;) {
      const space = window.space(
        inode.dataBlock * BLOCK_BYTES + at,
        Math.min(end - at, WRITE_BYTES),
      );
      readData(inode, layout, at, space, readContent);
      at += space.length;
    }
  }
  window.flush();
  output.write(superblockChecksum(window.firstBlock()), SUPERBLOCK_OFFSET + 4);
  return { bytes: layout.blockCount * BLOCK_BYTES, inodeCount: layout.inodes.length };
}

/** A view of the output that moves forward, so that small pieces leave as large writes. */
function createWindow(output: ErofsOutput) {
  const buffer = Buffer.alloc(WRITE_BYTES);
  const zeros = Buffer.alloc(WRITE_BYTES);
  const first = Buffer.alloc(BLOCK_BYTES);
  let base = 0;
  let used = 0;
  const flush = (): void => {
    const bytes = buffer.subarray(0, used);
    if (base === 0) bytes.copy(first);
    if (!bytes.equals(zeros.subarray(0, used))) output.write(bytes, base);
    bytes.fill(0);
    base += used;
    used = 0;
  };
  return {
    /** Zeroed bytes for `position`, to be filled before the next call. Positions only grow. */
    space(position: number, length: number): Buffer {
      assert(position >= base + used && length <= WRITE_BYTES, 'erofs: output out of order');
      if (position + length > base + WRITE_BYTES) {
        flush();
        base = position;
      }
      used = position + length - base;
      return buffer.subarray(position - base, used);
    },
    flush,
    firstBlock: () => first,
  };
}

function planLayout(root: TreeNode): Layout {
  const { inodes, byNode } = collectInodes(root);
  const time = mostFrequentTime(inodes);
  let cursor = SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES;
  for (const inode of inodes) {
    inode.inodeBytes = isCompact(inode, time) ? INODE_COMPACT_BYTES : INODE_EXTENDED_BYTES;
    const headBytes = inode.inodeBytes + inode.xattrBytes;
    const tail = inode.dataBytes % BLOCK_BYTES;
    if (tail <= INLINE_TAIL_BYTES_MAX && headBytes + tail <= BLOCK_BYTES) inode.inlineBytes = tail;
    // Kernels want the inode, and the inline data, each within one block.
    const together = inode.inlineBytes > 0 ? headBytes + inode.inlineBytes : inode.inodeBytes;
    cursor = roundUp(cursor, INODE_SLOT_BYTES);
    if ((cursor % BLOCK_BYTES) + together > BLOCK_BYTES) cursor = roundUp(cursor, BLOCK_BYTES);
    inode.position = cursor;
    cursor += headBytes + inode.inlineBytes;
  }
  let block = Math.ceil(cursor / BLOCK_BYTES);
  for (const inode of inodes) {
    const blocks = Math.ceil((inode.dataBytes - inode.inlineBytes) / BLOCK_BYTES);
    if (blocks > 0) inode.dataBlock = block;
    block += blocks;
  }
  return { inodes, byNode, buildTimeSec: time.sec, buildTimeNsec: time.nsec, blockCount: block };
}

/** Depth first, but the entries of one directory together, as `ls -l` and path look-ups read them. */
function collectInodes(root: TreeNode): Pick<Layout, 'inodes' | 'byNode'> {
  const inodes: Inode[] = [];
  const byNode = new Map<TreeNode, Inode>();
  const add = (node: TreeNode, parent: Inode | undefined): Inode => {
    const inode = newInode(node, inodes.length);
    inode.parent = parent;
    inodes.push(inode);
    byNode.set(node, inode);
    return inode;
  };
  const pending = [add(root, undefined)];
  for (let directory = pending.pop(); directory; directory = pending.pop()) {
    const subdirectories: Inode[] = [];
    for (const name of directory.names) {
      const child = directory.node.children.get(name);
      if (child === undefined) continue;
      const known = byNode.get(child);
      if (known) {
        known.linkCount += 1;
        continue;
      }
      const inode = add(child, directory);
      if (child.type === 'directory') subdirectories.push(inode);
    }
    directory.linkCount += subdirectories.length;
    pending.push(...subdirectories.reverse());
  }
  return { inodes, byNode };
}

function newInode(node: TreeNode, ordinal: number): Inode {
  const isDirectory = node.type === 'directory';
  const names = isDirectory ? [...node.children.keys(), '.', '..'].sort() : [];
  return {
    node,
    parent: undefined,
    ordinal,
    linkCount: isDirectory ? 2 : 1,
    position: 0,
    inodeBytes: 0,
    xattrBytes: xattrBytes(node),
    dataBytes: isDirectory
      ? directoryBytes(names)
      : node.type === 'symlink'
        ? node.target.length
        : node.size,
    inlineBytes: 0,
    dataBlock: 0,
    names,
  };
}

function mostFrequentTime(inodes: Inode[]): { sec: number; nsec: number } {
  const counts = new Map<string, number>();
  let best = { count: 0, sec: 0, nsec: 0 };
  for (const { node } of inodes) {
    const key = `${node.mtimeSec}.${node.mtimeNsec}`;
    const count = (counts.get(key) ?? 0) + 1;
    counts.set(key, count);
    if (count > best.count) best = { count, sec: node.mtimeSec, nsec: node.mtimeNsec };
  }
  return { sec: best.sec, nsec: best.nsec };
}

function isCompact(inode: Inode, time: { sec: number; nsec: number }): boolean {
  const { node } = inode;
  const fits = (value: number) => value <= 0xffff;
  return (
    node.mtimeSec === time.sec &&
    node.mtimeNsec === time.nsec &&
    fits(node.uid) &&
    fits(node.gid) &&
    fits(inode.linkCount) &&
    inode.dataBytes <= 0xffffffff
  );
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

function inodeNumber(inode: Inode): number {
  return inode.position / INODE_SLOT_BYTES;
}

function encodeSuperblock(out: Buffer, layout: Layout, uuid: Uint8Array): void {
  assert(uuid.length === 16, 'erofs: a uuid has 16 bytes');
  out.writeUInt32LE(MAGIC, 0);
  out.writeUInt32LE(FEATURE_CHECKSUM | FEATURE_MTIME, 8);
  out.writeUInt8(BLOCK_BITS, 12);
  out.writeUInt16LE(inodeNumber(layout.inodes[0] as Inode), 14);
  out.writeBigUInt64LE(BigInt(layout.inodes.length), 16);
  out.writeBigInt64LE(BigInt(layout.buildTimeSec), 24);
  out.writeUInt32LE(layout.buildTimeNsec, 32);
  out.writeUInt32LE(layout.blockCount, 36);
  out.set(uuid, 48);
}

/** Over what follows the boot area in block 0, with the checksum itself as zeros. */
function superblockChecksum(block: Buffer): Buffer {
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE(crc32c(block.subarray(SUPERBLOCK_OFFSET), 0xffffffff));
  return sum;
}

function encodeInode(out: Buffer, inode: Inode, layout: Layout): void {
  const { node } = inode;
  const isExtended = inode.inodeBytes === INODE_EXTENDED_BYTES;
  const dataLayout = inode.inlineBytes > 0 ? LAYOUT_INLINE : LAYOUT_PLAIN;
  out.writeUInt16LE((isExtended ? 1 : 0) | (dataLayout << 1), 0);
  const xattrCount = (inode.xattrBytes - XATTR_HEADER_BYTES) / XATTR_ENTRY_BYTES + 1;
  out.writeUInt16LE(inode.xattrBytes === 0 ? 0 : xattrCount, 2);
  out.writeUInt16LE(MODE_TYPE[node.type] | node.mode, 4);
  const isDevice = node.type === 'char' || node.type === 'block';
  out.writeUInt32LE(isDevice ? encodeDevice(node) : inode.dataBlock, 16);
  out.writeUInt32LE(inode.ordinal + 1, 20);
  if (isExtended) {
    out.writeBigUInt64LE(BigInt(inode.dataBytes), 8);
    out.writeUInt32LE(node.uid, 24);
    out.writeUInt32LE(node.gid, 28);
    out.writeBigInt64LE(BigInt(node.mtimeSec), 32);
    out.writeUInt32LE(node.mtimeNsec, 40);
    out.writeUInt32LE(inode.linkCount, 44);
  } else {
    assert(node.mtimeSec === layout.buildTimeSec, 'erofs: a compact inode has the build time');
    out.writeUInt16LE(inode.linkCount, 6);
    out.writeUInt32LE(inode.dataBytes, 8);
    out.writeUInt16LE(node.uid, 24);
    out.writeUInt16LE(node.gid, 26);
  }
}

/** Linux' `new_encode_dev`. */
function encodeDevice(node: TreeNode): number {
  const { deviceMajor: major, deviceMinor: minor } = node;
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

interface XattrEntry {
  index: number;
  suffix: string;
  value: Buffer;
}

function xattrEntries(node: TreeNode): XattrEntry[] {
  if (node.xattrs === undefined) return [];
  const names = [...node.xattrs.keys()].sort();
  return names.map((name) => {
    const match = XATTR_INDEX.find(([prefix]) => name.startsWith(prefix));
    assert(match !== undefined, 'erofs: an extended attribute has a known namespace');
    return {
      index: match[1],
      suffix: name.slice(match[0].length),
      value: node.xattrs?.get(name) as Buffer,
    };
  });
}

function xattrEntryBytes(entry: XattrEntry): number {
  return roundUp(XATTR_ENTRY_BYTES + entry.suffix.length + entry.value.length, XATTR_ENTRY_BYTES);
}

function xattrBytes(node: TreeNode): number {
  const entries = xattrEntries(node);
  if (entries.length === 0) return 0;
  return entries.reduce((sum, entry) => sum + xattrEntryBytes(entry), XATTR_HEADER_BYTES);
}

function encodeXattrs(out: Buffer, node: TreeNode): void {
  let at = XATTR_HEADER_BYTES;
  for (const entry of xattrEntries(node)) {
    out.writeUInt8(entry.suffix.length, at);
    out.writeUInt8(entry.index, at + 1);
    out.writeUInt16LE(entry.value.length, at + 2);
    out.write(entry.suffix, at + XATTR_ENTRY_BYTES, 'latin1');
    entry.value.copy(out, at + XATTR_ENTRY_BYTES + entry.suffix.length);
    at += xattrEntryBytes(entry);
  }
}

/** Fills `into` with an inode's data from `offset` on. */
function readData(
  inode: Inode,
  layout: Layout,
  offset: number,
  into: Buffer,
  readContent: ReadContent,
): void {
  if (into.length === 0) return;
  if (inode.node.type === 'symlink') into.write(inode.node.target.slice(offset), 'latin1');
  else if (inode.node.type === 'directory') encodeDirectory(inode, layout, offset, into);
  else readContent(inode.node, offset, into);
}

/** Splits a directory's names into blocks: entries first, then their names. */
function* directoryBlocks(names: string[]): Generator<{ names: string[]; bytes: number }> {
  let start = 0;
  let bytes = 0;
  for (let i = 0; i < names.length; i++) {
    const size = DIRENT_BYTES + (names[i] as string).length;
    if (bytes + size > BLOCK_BYTES) {
      yield { names: names.slice(start, i), bytes };
      start = i;
      bytes = 0;
    }
    bytes += size;
  }
  yield { names: names.slice(start), bytes };
}

function directoryBytes(names: string[]): number {
  const blocks = [...directoryBlocks(names)];
  return (blocks.length - 1) * BLOCK_BYTES + (blocks[blocks.length - 1]?.bytes ?? 0);
}

function encodeDirectory(inode: Inode, layout: Layout, offset: number, into: Buffer): void {
  let at = -offset;
  for (const block of directoryBlocks(inode.names)) {
    if (at >= into.length) return;
    if (at >= 0)
      encodeDirectoryBlock(inode, layout, block.names, into.subarray(at, at + BLOCK_BYTES));
    at += BLOCK_BYTES;
  }
}

function encodeDirectoryBlock(
  directory: Inode,
  layout: Layout,
  names: string[],
  out: Buffer,
): void {
  let nameAt = names.length * DIRENT_BYTES;
  names.forEach((name, i) => {
    const child = lookUp(directory, layout, name);
    const at = i * DIRENT_BYTES;
    out.writeUInt32LE(inodeNumber(child), at);
    out.writeUInt16LE(nameAt, at + 8);
    out.writeUInt8(FILE_TYPE[child.node.type], at + 10);
    out.write(name, nameAt, 'latin1');
    nameAt += name.length;
  });
}

function lookUp(directory: Inode, layout: Layout, name: string): Inode {
  if (name === '.') return directory;
  if (name === '..') return directory.parent ?? directory;
  const node = directory.node.children.get(name) as TreeNode;
  return layout.byNode.get(node) as Inode;
}
