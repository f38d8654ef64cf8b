import assert from 'node:assert/strict';

/**
 * Reads disks of `erofs.ts` back, for tests: an independent reading of the format, which sees
 * what `fsck.erofs` does not extract (link counts, extended attributes, devices).
 */
export interface ReadNode {
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  linkCount: number;
  inode: number;
  device: number;
  xattrs: Record<string, string>;
  content: Buffer;
}

const XATTR_PREFIX: Record<number, string> = {
  1: 'user.',
  2: 'system.posix_acl_access',
  3: 'system.posix_acl_default',
  4: 'trusted.',
  6: 'security.',
};

/** All files by path (`latin1`), the root as the empty one. */
export function readErofs(disk: Buffer): Map<string, ReadNode> {
  const superblock = disk.subarray(1024, 1152);
  assert.equal(superblock.readUInt32LE(0), 0xe0f5e1e2);
  assert.equal(superblock.readUInt32LE(36) * 4096, disk.length);
  const nodes = new Map<string, ReadNode>();
  const visit = (nid: number, path: string): void => {
    const node = readInode(disk, superblock, nid);
    nodes.set(path, node);
    if ((node.mode & 0o170000) !== 0o040000) return;
    let previous = '';
    for (const [name, child] of readDirectory(node.content)) {
      assert.ok(name > previous, `names are in order: ${name}`);
      previous = name;
      if (name !== '.' && name !== '..') visit(child, path === '' ? name : `${path}/${name}`);
    }
  };
  visit(superblock.readUInt16LE(14), '');
  return nodes;
}

function readInode(disk: Buffer, superblock: Buffer, nid: number): ReadNode {
  const at = nid * 32;
  const raw = disk.subarray(at, at + 64);
  const format = raw.readUInt16LE(0);
  const isExtended = (format & 1) === 1;
  const size = isExtended ? Number(raw.readBigUInt64LE(8)) : raw.readUInt32LE(8);
  const headBytes = isExtended ? 64 : 32;
  const xattrCount = raw.readUInt16LE(2);
  const xattrBytes = xattrCount === 0 ? 0 : 12 + (xattrCount - 1) * 4;
  const isInline = format >> 1 === 2;
  const blocks = raw.readUInt32LE(16) * 4096;
  const full = isInline ? size - (size % 4096) : size;
  const mode = raw.readUInt16LE(4);
  const hasData = [0o100000, 0o040000, 0o120000].includes(mode & 0o170000);
  const inlineAt = at + headBytes + xattrBytes;
  const parts = hasData
    ? [disk.subarray(blocks, blocks + full), disk.subarray(inlineAt, inlineAt + size - full)]
    : [];
  return {
    mode,
    uid: isExtended ? raw.readUInt32LE(24) : raw.readUInt16LE(24),
    gid: isExtended ? raw.readUInt32LE(28) : raw.readUInt16LE(26),
    mtimeSec: Number(isExtended ? raw.readBigInt64LE(32) : superblock.readBigInt64LE(24)),
    mtimeNsec: isExtended ? raw.readUInt32LE(40) : superblock.readUInt32LE(32),
    linkCount: isExtended ? raw.readUInt32LE(44) : raw.readUInt16LE(6),
    inode: nid,
    device: hasData ? 0 : raw.readUInt32LE(16),
    xattrs: readXattrs(disk.subarray(at + headBytes, at + headBytes + xattrBytes)),
    content: Buffer.concat(parts),
  };
}

function readXattrs(area: Buffer): Record<string, string> {
  const xattrs: Record<string, string> = {};
  for (let at = 12; at < area.length;) {
    const nameBytes = area.readUInt8(at);
    const valueBytes = area.readUInt16LE(at + 2);
    const prefix = XATTR_PREFIX[area.readUInt8(at + 1)] as string;
    const name = area.toString('latin1', at + 4, at + 4 + nameBytes);
    const valueAt = at + 4 + nameBytes;
    xattrs[prefix + name] = area.toString('hex', valueAt, valueAt + valueBytes);
    at = Math.ceil((valueAt + valueBytes) / 4) * 4;
  }
  return xattrs;
}

function* readDirectory(content: Buffer): Generator<[name: string, nid: number]> {
  for (let start = 0; start < content.length; start += 4096) {
    const block = content.subarray(start, start + 4096);
    const count = block.readUInt16LE(8) / 12;
    for (let i = 0; i < count; i++) {
      const nameAt = block.readUInt16LE(i * 12 + 8);
      const last = i === count - 1;
      let end = last ? block.length : block.readUInt16LE((i + 1) * 12 + 8);
      const nul = last ? block.indexOf(0, nameAt) : -1;
      if (nul >= 0) end = nul;
      yield [block.toString('latin1', nameAt, end), Number(block.readBigUInt64LE(i * 12))];
    }
  }
}
