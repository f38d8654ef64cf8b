import assert from 'node:assert/strict';
import { lstat, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { run } from '../../base/exec.ts';
import { seededRandom } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import { crc32c } from './crc32c.ts';
import { readErofs } from './testing/erofs-reader.ts';
import { writeErofs } from './erofs.ts';
import { newNode } from './tree.ts';
import type { NodeType, TreeNode } from './tree.ts';

/** The model is the tree; the judges are `fsck.erofs` of erofs-utils and a reader of our own. */
let directory = '';
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'erofs-test-'));
});
after(() => rm(directory, { recursive: true, force: true }));

/** Content of files is by their `offset`, which serves as a seed here. */
function contentOf(node: TreeNode): Buffer {
  const content = Buffer.alloc(node.size);
  for (let i = 0; i < content.length; i++)
    content[i] = node.offset === 0 ? 0 : (i * 7 + node.offset + (i >> 9)) & 0xff;
  return content;
}

function write(root: TreeNode): Buffer {
  let disk = Buffer.alloc(0);
  const result = writeErofs(
    root,
    {
      write(bytes, position) {
        if (disk.length < position + bytes.length)
          disk = Buffer.concat([disk, Buffer.alloc(position + bytes.length - disk.length)]);
        bytes.copy(disk, position);
      },
    },
    (node, offset, into) => void contentOf(node).copy(into, 0, offset, offset + into.length),
    Buffer.alloc(16, 7),
  );
  return Buffer.concat([disk, Buffer.alloc(result.bytes - disk.length)]);
}

function fileOf(size: number, offset = 1): TreeNode {
  return { ...newNode('file', 0), size, offset };
}

function directoryOf(children: Record<string, TreeNode>): TreeNode {
  const node = newNode('directory', 0);
  for (const [name, child] of Object.entries(children)) node.children.set(name, child);
  return node;
}

async function fsck(disk: Buffer, name: string): Promise<string> {
  const image = join(directory, `${name}.erofs`);
  const extracted = join(directory, name);
  await writeFile(image, disk);
  await run('fsck.erofs', [`--extract=${extracted}`, '--preserve', image]);
  return extracted;
}

/** Every path of the tree with its node. */
function flatten(root: TreeNode): Map<string, TreeNode> {
  const nodes = new Map<string, TreeNode>();
  const visit = (node: TreeNode, path: string): void => {
    nodes.set(path, node);
    for (const [name, child] of node.children) visit(child, path === '' ? name : `${path}/${name}`);
  };
  visit(root, '');
  return nodes;
}

const TYPE_BITS = {
  file: 0o100000,
  directory: 0o040000,
  char: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  symlink: 0o120000,
};

function checkAgainstReader(root: TreeNode, disk: Buffer): void {
  const model = flatten(root);
  const found = readErofs(disk);
  assert.deepEqual([...found.keys()].sort(), [...model.keys()].sort());
  const inodes = new Map<TreeNode, number>();
  const names = new Map<TreeNode, number>();
  for (const node of model.values()) names.set(node, (names.get(node) ?? 0) + 1);
  for (const [path, node] of model) {
    const read = found.get(path);
    assert.ok(read);
    assert.equal(read.mode, TYPE_BITS[node.type] | node.mode, path);
    assert.deepEqual(
      [read.uid, read.gid, read.mtimeSec, read.mtimeNsec],
      [node.uid, node.gid, node.mtimeSec, node.mtimeNsec],
      path,
    );
    const subdirectories = [...node.children.values()].filter(
      ({ type }) => type === 'directory',
    ).length;
    assert.equal(
      read.linkCount,
      node.type === 'directory' ? 2 + subdirectories : names.get(node),
      path,
    );
    const xattrs = Object.fromEntries(
      [...(node.xattrs ?? [])].map(([name, value]) => [name, value.toString('hex')]),
    );
    assert.deepEqual(read.xattrs, xattrs, path);
    if (node.type === 'file') assert.ok(read.content.equals(contentOf(node)), path);
    if (node.type === 'symlink') assert.equal(read.content.toString('latin1'), node.target, path);
    assert.equal(inodes.get(node) ?? read.inode, read.inode, `${path} shares its inode`);
    inodes.set(node, read.inode);
  }
}

async function checkAgainstExtracted(root: TreeNode, extracted: string): Promise<void> {
  for (const [path, node] of flatten(root)) {
    const at = Buffer.concat([Buffer.from(`${extracted}/`), Buffer.from(path, 'latin1')]);
    const info = await lstat(at);
    assert.equal(info.mode & 0o170000, TYPE_BITS[node.type], path);
    if (node.type === 'directory') {
      const names = (await readdir(at, { encoding: 'latin1' as BufferEncoding })).sort();
      assert.deepEqual(names, [...node.children.keys()].sort(), path);
    }
    if (node.type === 'file') assert.ok((await readFile(at)).equals(contentOf(node)), path);
    if (node.type === 'symlink')
      assert.equal(await readlink(at, 'latin1' as BufferEncoding), node.target);
    // fsck.erofs 1.5 loses set-user-id and set-group-id when it changes the owner.
    if (node.type !== 'symlink') {
      assert.deepEqual(
        [info.mode & 0o1777, info.uid, info.gid],
        [node.mode & 0o1777, node.uid, node.gid],
        path,
      );
    }
    if (node.type === 'char' || node.type === 'block') {
      assert.equal(
        info.rdev,
        (node.deviceMinor & 0xff) + node.deviceMajor * 2 ** 8 + (node.deviceMinor >> 8) * 2 ** 20,
      );
    }
  }
}

const SIZES = [
  0, 1, 31, 32, 2047, 2048, 2049, 4032, 4064, 4095, 4096, 4097, 6144, 6145, 8192, 100_000,
];
const TYPES: NodeType[] = [
  'file',
  'file',
  'file',
  'file',
  'symlink',
  'directory',
  'directory',
  'char',
  'block',
  'fifo',
];

function randomTree(random: Random): TreeNode {
  const below = (limit: number) => Math.floor(random.next() * limit);
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;
  const files: TreeNode[] = [];
  const name = (): string => {
    const length = random.next() < 0.1 ? 255 : 1 + below(20);
    const bytes = Array.from({ length }, () => 1 + below(255)).map((byte) =>
      byte === 0x2f ? 0x5f : byte,
    );
    const text = Buffer.from(bytes).toString('latin1');
    return text === '.' || text === '..' ? 'dots' : text;
  };
  const make = (depth: number): TreeNode => {
    const node = newNode(depth === 0 ? 'directory' : pick(TYPES), 0);
    node.mode = pick([0o644, 0o755, 0o4755, 0o1777, 0o000, 0o7777]);
    node.uid = pick([0, 1000, 65535, 65536, 2 ** 32 - 2]);
    node.gid = pick([0, 0, 65536]);
    node.mtimeSec = pick([0, 0, 0, 1_700_000_000, -5, 2 ** 33]);
    node.mtimeNsec = pick([0, 0, 0, 999_999_999]);
    if (node.type === 'file') {
      node.size = pick(SIZES);
      node.offset = below(5);
      files.push(node);
    }
    if (node.type === 'symlink') node.target = 't'.repeat(pick([1, 60, 2048, 2049, 4000]));
    if (node.type === 'char' || node.type === 'block') {
      node.deviceMajor = pick([1, 0xfff]);
      node.deviceMinor = pick([0, 3, 0xfffff]);
    }
    if (random.next() < 0.15) {
      const value = () => Buffer.from(random.bytes(pick([0, 1, 20, 3000, 9000])));
      node.xattrs = new Map([
        ['security.capability', value()],
        ['user.name', value()],
        ['system.posix_acl_access', value()],
      ]);
    }
    if (node.type === 'directory' && depth < 4) {
      const count = depth === 0 ? 12 : below(random.next() < 0.1 ? 100 : 8);
      for (let i = 0; i < count; i++) node.children.set(name(), make(depth + 1));
      if (files.length > 0) node.children.set('hard', pick(files));
    }
    return node;
  };
  return make(0);
}

test('every tree is read back as it was, by fsck.erofs and by the format', async () => {
  const seed = 4711;
  for (let round = 0; round < 5; round++) {
    const root = randomTree(seededRandom(seed + round));
    const disk = write(root);
    try {
      checkAgainstReader(root, disk);
      await checkAgainstExtracted(root, await fsck(disk, `round-${round}`));
    } catch (error) {
      throw new Error(`seed ${seed + round}`, { cause: error });
    }
  }
});

test('directories of one block and of many, to the byte', async () => {
  for (const count of [0, 15, 16, 17, 1000]) {
    const names = Array.from(
      { length: count },
      (_, i) => [`${i}-`.padEnd(232, 'n'), fileOf(i % 3)] as const,
    );
    const root = directoryOf({ d: directoryOf(Object.fromEntries(names)) });
    const disk = write(root);
    checkAgainstReader(root, disk);
    const extracted = await fsck(disk, `directory-${count}`);
    assert.equal((await readdir(join(extracted, 'd'))).length, count);
  }
});

test('files around the limit for inline data, at every place in a block', () => {
  const files = Array.from({ length: 200 }, (_, i) => [`f${i}`, fileOf(1900 + i)] as const);
  const root = directoryOf(Object.fromEntries(files));
  checkAgainstReader(root, write(root));
});

test('the output depends on the tree alone, not on the order in which it was made', () => {
  const names = ['b', 'a', 'c'];
  const make = (order: string[]) =>
    directoryOf(Object.fromEntries(order.map((name) => [name, fileOf(10)])));
  assert.ok(write(make(names)).equals(write(make([...names].reverse()))));
});

test('long runs of zeros are left out of the output', () => {
  const written: number[] = [];
  const root = directoryOf({ zeros: fileOf(64 << 20, 0) });
  const result = writeErofs(
    root,
    { write: (bytes) => void written.push(bytes.length) },
    (_node, _offset, into) => void into.fill(0),
    Buffer.alloc(16),
  );
  assert.equal(result.bytes, (64 << 20) + 4096);
  assert.ok(written.reduce((sum, bytes) => sum + bytes, 0) < 64 << 10);
});

test('crc32c() is the Castagnoli CRC', () => {
  assert.equal((crc32c(Buffer.from('123456789'), 0xffffffff) ^ 0xffffffff) >>> 0, 0xe3069283);
});
