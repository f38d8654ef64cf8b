import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../base/random.ts';
import { createLayerReader, newTarget } from './layers.ts';
import { ImageError } from './store.ts';
import type { ImageErrorReason } from './store.ts';
import { PAX_HEADER_BYTES_MAX } from './tar.ts';
import { writeTar } from './tar-write.ts';
import type { TarMember } from './tar-write.ts';
import type { TreeNode } from './tree.ts';

/** Unites layers in memory; `chunkBytes` cuts the archives as a network would. */
function unite(
  layers: (TarMember[] | Buffer)[],
  chunkBytes = 1 << 20,
  entriesMax?: number,
  metadataBytesMax?: number,
) {
  const target = newTarget(entriesMax, metadataBytesMax);
  const spools: Buffer[][] = [];
  for (const [index, layer] of layers.entries()) {
    const chunks: Buffer[] = [];
    spools.push(chunks);
    let length = 0;
    const reader = createLayerReader(target, index, {
      get length() {
        return length;
      },
      append(chunk) {
        chunks.push(Buffer.from(chunk));
        length += chunk.length;
      },
    });
    const tar = Buffer.isBuffer(layer) ? layer : writeTar(layer);
    for (let at = 0; at < tar.length; at += chunkBytes)
      reader.push(tar.subarray(at, at + chunkBytes));
    reader.end();
  }
  return { root: target.root, spools: spools.map((chunks) => Buffer.concat(chunks)) };
}

/** The tree as lines, in order: path, type, and what the type has. */
function show({ root, spools }: ReturnType<typeof unite>): string[] {
  const lines: string[] = [];
  const visit = (node: TreeNode, path: string): void => {
    for (const [name, child] of [...node.children].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const full = `${path}/${name}`;
      const content = spools[child.spool]?.subarray(child.offset, child.offset + child.size);
      const detail = { symlink: ` -> ${child.target}`, file: `=${content}`, directory: '/' }[
        child.type as string
      ];
      lines.push(full + (detail ?? ` ${child.type}`));
      visit(child, full);
    }
  };
  visit(root, '');
  return lines;
}

const file = (path: string, content = ''): TarMember => ({
  path,
  type: 'file',
  content: Buffer.from(content),
});
const dir = (path: string): TarMember => ({ path, type: 'directory' });
const symlink = (path: string, linkName: string): TarMember => ({
  path,
  type: 'symlink',
  linkName,
});
const hardlink = (path: string, linkName: string): TarMember => ({ path, type: 'link', linkName });

test('layers are united as an overlay mount shows them', () => {
  const cases: { name: string; layers: TarMember[][]; tree: string[] }[] = [
    {
      name: 'a later file replaces an earlier one',
      layers: [[file('a', '1')], [file('a', '2')]],
      tree: ['/a=2'],
    },
    {
      name: 'a whiteout removes a file of an earlier layer',
      layers: [[file('d/a'), file('d/b')], [file('d/.wh.a')]],
      tree: ['/d/', '/d/b='],
    },
    {
      name: 'a whiteout removes a directory with all that is in it',
      layers: [[file('d/e/f')], [file('.wh.d')]],
      tree: [],
    },
    {
      name: 'a whiteout leaves what its own layer has, before and after it',
      layers: [[file('d/old')], [file('d/before'), file('.wh.d'), file('d/after')]],
      tree: ['/d/', '/d/after=', '/d/before='],
    },
    {
      name: 'a whiteout of what is not there does nothing',
      layers: [[file('a')], [file('x/.wh.y'), file('.wh.z')]],
      tree: ['/a='],
    },
    {
      name: 'an opaque directory hides what earlier layers have in it',
      layers: [
        [file('d/old'), file('d/sub/old')],
        [dir('d'), file('d/new'), file('d/.wh..wh..opq'), file('d/sub/new')],
      ],
      tree: ['/d/', '/d/new=', '/d/sub/', '/d/sub/new='],
    },
    {
      name: 'bookkeeping of aufs is left out',
      layers: [[dir('.wh..wh.plnk'), file('.wh..wh.plnk/1.2'), file('.wh..wh.aufs'), file('a')]],
      tree: ['/a='],
    },
    {
      name: 'a directory over a file, and a file over a directory',
      layers: [
        [file('a'), file('b/c')],
        [file('a/x'), file('b')],
      ],
      tree: ['/a/', '/a/x=', '/b='],
    },
    {
      name: 'a directory keeps what is in it when its attributes change',
      layers: [[file('d/a')], [dir('d')]],
      tree: ['/d/', '/d/a='],
    },
    {
      name: 'a path follows symbolic links of its own layer, confined to the root',
      layers: [
        [
          dir('usr/lib'),
          symlink('lib', 'usr/lib'),
          symlink('esc', '../../../..'),
          file('lib/a'),
          file('esc/b'),
        ],
      ],
      tree: ['/b=', '/esc -> ../../../..', '/lib -> usr/lib', '/usr/', '/usr/lib/', '/usr/lib/a='],
    },
    {
      name: 'an absolute symbolic link means the image, not the host',
      layers: [[symlink('etc', '/conf'), file('etc/passwd', 'x')]],
      tree: ['/conf/', '/conf/passwd=x', '/etc -> /conf'],
    },
    {
      name: 'a path does not follow symbolic links of earlier layers, it hides them',
      layers: [[dir('usr/lib'), symlink('lib', 'usr/lib')], [file('lib/a')]],
      tree: ['/lib/', '/lib/a=', '/usr/', '/usr/lib/'],
    },
    {
      name: 'leading slashes and dots mean the root',
      layers: [[file('/a'), file('./b'), file('x/../c'), dir('./')]],
      tree: ['/a=', '/b=', '/c='],
    },
    {
      name: 'hard links share their file, also with earlier layers',
      layers: [[file('a', '1')], [file('b', '2'), hardlink('c', 'b'), hardlink('d', '/a')]],
      tree: ['/a=1', '/b=2', '/c=2', '/d=1'],
    },
    {
      name: 'a replaced name leaves the other names of a file alone',
      layers: [[file('a', '1'), hardlink('b', 'a')], [file('a', '2')]],
      tree: ['/a=2', '/b=1'],
    },
  ];
  for (const { name, layers, tree } of cases) assert.deepEqual(show(unite(layers)), tree, name);
});

test('attributes reach the tree unchanged', () => {
  const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
  const { root } = unite([
    [
      {
        path: 'ping',
        type: 'file',
        mode: 0o4755,
        uid: 3_000_000_000,
        gid: 12,
        mtimeSec: 1234567890,
        xattrs: { 'security.capability': capability, 'trusted.overlay.opaque': Buffer.from('y') },
      },
      { path: `long/${'é'.repeat(100)}`, type: 'char', deviceMajor: 10, deviceMinor: 229 },
      { path: '/', type: 'directory', mode: 0o700 },
    ],
  ]);
  const ping = root.children.get('ping') as TreeNode;
  assert.equal(root.mode, 0o700);
  assert.deepEqual(
    [ping.mode, ping.uid, ping.gid, ping.mtimeSec],
    [0o4755, 3_000_000_000, 12, 1234567890],
  );
  assert.deepEqual([...(ping.xattrs ?? [])], [['security.capability', capability]]);
  const name = Buffer.from('é'.repeat(100), 'utf8').toString('latin1');
  const device = root.children.get('long')?.children.get(name) as TreeNode;
  assert.deepEqual([device.type, device.deviceMajor, device.deviceMinor], ['char', 10, 229]);
});

/** Changes a header of an archive and makes its checksum right again. */
function patch(tar: Buffer, edit: (header: Buffer) => void): Buffer {
  const copy = Buffer.from(tar);
  const header = copy.subarray(0, 512);
  edit(header);
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return copy;
}

const pax = (records: string, member = file('a')): Buffer => {
  const tar = writeTar([{ ...file('pax', records) }, member]);
  return patch(tar, (header) => header.write('x', 156));
};

const HOSTILE: { name: string; tar: Buffer; reason?: ImageErrorReason; message: RegExp }[] = [
  {
    name: 'a path out of the root',
    tar: writeTar([file('../../etc/passwd')]),
    message: /"\.\.\/\.\.\/etc\/passwd" leads out/,
  },
  {
    name: 'a path out of the root, later',
    tar: writeTar([file('a/../../b')]),
    message: /leads out of the image's root/,
  },
  {
    name: 'an absolute path out of the root',
    tar: writeTar([file('/../x')]),
    message: /leads out/,
  },
  { name: 'a directory out of the root', tar: writeTar([dir('..')]), message: /leads out/ },
  {
    name: 'a symbolic link out of the root',
    tar: writeTar([symlink('../x', 'y')]),
    message: /leads out/,
  },
  { name: 'a whiteout out of the root', tar: writeTar([file('../.wh.x')]), message: /leads out/ },
  {
    name: 'a hard link to the host',
    tar: writeTar([hardlink('a', '../../etc/shadow')]),
    message: /leads out/,
  },
  {
    name: 'a hard link to nothing',
    tar: writeTar([hardlink('a', 'b')]),
    message: /"a" to "b" has no target/,
  },
  { name: 'a hard link to itself', tar: writeTar([hardlink('a', 'a')]), message: /has no target/ },
  {
    name: 'a hard link to a directory',
    tar: writeTar([dir('d'), hardlink('a', 'd')]),
    message: /a directory as target/,
  },
  {
    name: 'a hard link to the root',
    tar: writeTar([hardlink('a', '/')]),
    message: /a directory as target/,
  },
  {
    name: 'a loop of symbolic links',
    tar: writeTar([symlink('a', 'b'), symlink('b', 'a'), file('a/x')]),
    message: /too many symbolic links/,
  },
  {
    name: 'a symbolic link to itself',
    tar: writeTar([symlink('a', 'a'), file('a/x')]),
    message: /too many symbolic links/,
  },
  {
    name: 'a symbolic link without target',
    tar: writeTar([symlink('a', '')]),
    message: /has no target/,
  },
  {
    name: 'a root that is a file',
    tar: writeTar([file('.')]),
    message: /root but not a directory/,
  },
  { name: 'a whiteout of nothing', tar: writeTar([file('.wh.')]), message: /names nothing/ },
  {
    name: 'a whiteout of the directory itself',
    tar: writeTar([file('d/.wh..')]),
    message: /names nothing/,
  },
  {
    name: 'a whiteout of the directory above',
    tar: writeTar([file('d/.wh...')]),
    message: /names nothing/,
  },
  {
    name: 'a name that is too long',
    tar: writeTar([file('n'.repeat(256))]),
    message: /256 bytes, at most 255/,
  },
  {
    name: 'a name that is too long, by a symbolic link',
    tar: writeTar([symlink('a', 'n'.repeat(256)), file('a/b')]),
    message: /more than 255/,
  },
  {
    name: 'a path that is too long',
    tar: writeTar([file('p/'.repeat(3000))]),
    message: /6000 bytes, at most 4096/,
  },
  {
    name: 'a path that is too deep',
    tar: writeTar([file('p/'.repeat(300) + 'x')]),
    message: /301 levels deep, at most 256/,
  },
  {
    name: 'a device number out of range',
    tar: writeTar([{ path: 'a', type: 'char', deviceMajor: 5000 }]),
    message: /number out of range/,
  },
  {
    name: 'a sparse file',
    tar: patch(writeTar([file('a')]), (header) => header.write('S', 156)),
    message: /sparse/,
  },
  { name: 'a sparse file of pax', tar: pax('22 GNU.sparse.major=1\n'), message: /sparse/ },
  {
    name: 'an unknown type',
    tar: patch(writeTar([file('a')]), (header) => header.write('Z', 156)),
    message: /type "Z", which is not supported/,
  },
  {
    name: 'a wrong checksum',
    tar: Buffer.concat([Buffer.from('x'), writeTar([file('a')]).subarray(1)]),
    message: /checksum/,
  },
  { name: 'no archive at all', tar: Buffer.alloc(4096, 'text '), message: /not octal|checksum/ },
  {
    name: 'a size that is no number',
    tar: patch(writeTar([file('a')]), (header) => header.write('99999999999', 124)),
    message: /size of a header is not octal/,
  },
  {
    name: 'a negative size',
    tar: patch(writeTar([file('a')]), (header) => header.fill(0xff, 124, 136)),
    message: /out of range/,
  },
  {
    name: 'a huge size',
    tar: patch(writeTar([file('a')]), (header) => header.fill(0x80, 124, 125).fill(0x7f, 125, 136)),
    message: /out of range/,
  },
  {
    name: 'an archive cut in a header',
    tar: writeTar([file('a', 'text')]).subarray(0, 300),
    message: /ends in the middle/,
  },
  {
    name: 'an archive cut in a file',
    tar: writeTar([file('a', 'x'.repeat(2000))]).subarray(0, 1200),
    message: /ends in the middle/,
  },
  {
    name: 'an archive cut after a pax header',
    tar: writeTar([file('é')]).subarray(0, 1024),
    message: /ends in the middle/,
  },
  {
    name: 'one block of zeros in the middle',
    tar: Buffer.concat([Buffer.alloc(512), writeTar([file('a')])]),
    message: /zeros is followed/,
  },
  { name: 'a pax record without length', tar: pax('abc=def\n'), message: /no length/ },
  {
    name: 'a pax record with a wrong length',
    tar: pax('99 path=b\n'),
    message: /length of a pax record/,
  },
  { name: 'a pax record without value', tar: pax('8 path b\n'), message: /pax record/ },
  { name: 'a pax path with a NUL', tar: pax('12 path=a\0b\n'), message: /NUL/ },
  {
    name: 'a pax size that is no number',
    tar: pax('11 size=-1\n'),
    message: /not a number in range/,
  },
  { name: 'a pax time that is none', tar: pax('14 mtime=soon\n'), message: /mtime is not a time/ },
  {
    name: 'a pax header that is too large',
    tar: pax('x'.repeat(PAX_HEADER_BYTES_MAX + 1)),
    message: /pax header has/,
  },
  {
    name: 'too many extension headers',
    tar: Buffer.concat([
      ...Array<Buffer>(20).fill(pax('').subarray(0, 512)),
      writeTar([file('a')]),
    ]),
    message: /extension headers/,
  },
  {
    name: 'extended attributes that are too large',
    tar: writeTar([{ ...file('a'), xattrs: { 'user.a': Buffer.alloc(62_000) } }]),
    message: /extended attributes/,
  },
];

test('every malicious archive is refused with an error that says what it is', () => {
  for (const { name, tar, reason = 'Malformed', message } of HOSTILE) {
    for (const chunkBytes of [1 << 20, 100]) {
      assert.throws(
        () => unite([tar], chunkBytes),
        (error) => {
          assert.ok(error instanceof ImageError, `${name}: ${String(error)}`);
          assert.equal(error.reason, reason, name);
          assert.match(error.message, message, name);
          return true;
        },
        name,
      );
    }
  }
});

test('an image with too many files is refused', () => {
  const files = Array.from({ length: 11 }, (_, i) => file(`f${i}`));
  assert.throws(() => unite([files], 512, 10), {
    reason: 'TooLarge',
    message: /more than 10 files/,
  });
  assert.throws(() => unite([[file('a/'.repeat(20) + 'b')]], 512, 10), { reason: 'TooLarge' });
});

test('layers made to take time are refused or cost no more than their size', () => {
  const links = Array.from({ length: 39 }, (_, i) =>
    symlink(`l${i}`, `${'./'.repeat(1500)}l${i + 1}`),
  );
  const through = Array.from({ length: 400 }, (_, i) => file(`l0/${i}`));
  assert.throws(() => unite([[dir('l39'), ...links, ...through]]), {
    reason: 'TooLarge',
    message: /symbolic links/,
  });

  const own = Array.from({ length: 5000 }, (_, i) => file(`d/own${i}`));
  const whiteouts = Array.from({ length: 5000 }, () => file('.wh.d'));
  const opaque = Array.from({ length: 5000 }, () => file('d/.wh..wh..opq'));
  const { root } = unite([[file('d/old')], [...own, ...whiteouts, ...opaque]]);
  assert.equal(root.children.get('d')?.children.size, 5000);
});

test('an archive means the same however it is cut into pieces', () => {
  const tar = writeTar([
    file('a', 'x'.repeat(1000)),
    symlink('l', 'a'),
    { ...file(`deep/${'é'.repeat(90)}`, 'text'), xattrs: { 'user.k': Buffer.from('v') } },
    dir('empty'),
  ]);
  const whole = show(unite([tar]));
  for (const chunkBytes of [1, 7, 511, 512, 513, 1000]) {
    assert.deepEqual(show(unite([tar], chunkBytes)), whole, `${chunkBytes}`);
  }
});

test('a damaged archive is read or refused, and nothing else happens', () => {
  const seed = 20_260_101;
  const random = seededRandom(seed);
  const tar = writeTar([
    file('a', 'x'.repeat(600)),
    dir('d'),
    symlink('d/l', '../a'),
    hardlink('h', 'a'),
    { ...file(`d/${'ü'.repeat(80)}`), xattrs: { 'user.k': Buffer.from('v') } },
    file('.wh.a'),
  ]);
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    const copy = Buffer.from(tar);
    const count = 1 + Math.floor(random.next() * 4);
    for (let i = 0; i < count; i++)
      copy[Math.floor(random.next() * copy.length)] = Math.floor(random.next() * 256);
    // Half of them get past the checksum of the first header.
    const input = random.next() < 0.5 ? copy : patch(copy, () => {});
    try {
      unite([input, input], 1 + Math.floor(random.next() * 2000));
    } catch (error) {
      assert.ok(error instanceof ImageError, `seed ${seed}, round ${round}: ${String(error)}`);
      refused += 1;
    }
  }
  assert.ok(refused > 100 && refused < 3000, `refused ${refused}`);
});

test('what entries carry beside content is bounded over all layers, for it is kept in memory', () => {
  const value = Buffer.alloc(1000);
  const member = (name: string) => ({ ...file(name), xattrs: { 'user.a': value } });
  const link = (name: string): TarMember => ({
    path: name,
    type: 'symlink',
    linkName: 'x'.repeat(1000),
  });
  const within = [[member('a')], [member('b')], [link('c')]];
  unite(within, undefined, undefined, 3100);
  for (const more of [member('d'), link('d')]) {
    assert.throws(
      () => unite([...within, [more]], undefined, undefined, 3100),
      (error) => error instanceof ImageError && error.reason === 'TooLarge',
    );
  }
});
