import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { run } from '../../base/exec.ts';
import { seededRandom } from '../../base/random.ts';
import { kernelArguments } from './arguments.ts';
import { buildGuestAssets } from './assets.ts';
import { extractVmlinux } from './bzimage.ts';
import { CPIO_DIRECTORY, CPIO_FILE, cpioArchive } from './cpio.ts';
import { lz4LegacyDecompress } from './lz4.ts';
import { GUEST_MODULES, moduleDependencies, orderModules, stripModule } from './modules.ts';
import { bzImage, elfKernel } from './testing/kernel-file.ts';

/** Literals only, and one run that overlaps itself when `repeat` is given. */
function lz4(bytes: Buffer, repeat = 0): Buffer {
  const extra = bytes.length - 15;
  const lengths = [...Array<number>(Math.floor(extra / 255)).fill(255), extra % 255];
  const match = repeat > 0 ? [1, 0, repeat - 19] : [];
  const token = repeat > 0 ? 0xff : 0xf0;
  const block = Buffer.concat([Buffer.from([token, ...lengths]), bytes, Buffer.from(match)]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32LE(0x184c2102, 0);
  frame.writeUInt32LE(block.length, 4);
  return Buffer.concat([frame, block]);
}

describe('extractVmlinux()', () => {
  const packed = {
    lz4: lz4(elfKernel()),
    gzip: gzipSync(elfKernel()),
    zstd: zstdCompressSync(elfKernel()),
  };
  for (const [name, payload] of Object.entries({ ...packed, nothing: elfKernel() })) {
    test(`unpacks a kernel packed with ${name}`, async () => {
      assert.deepEqual(await extractVmlinux(bzImage(payload)), elfKernel());
    });
  }

  const bad: [string, Buffer, RegExp][] = [
    ['something else', Buffer.alloc(2000), /not a bzImage/],
    ['one without PVH', bzImage(elfKernel({ noteType: 1 })), /no PVH entry/],
    ['no ELF file', bzImage(Buffer.from('MZ')), /not a 64-bit ELF file/],
    ['xz', bzImage(Buffer.from('\xfd7zXZ\0', 'latin1')), /packed with xz, wanted lz4, gzip, zstd/],
    ['a cut one', bzImage(lz4(elfKernel())).subarray(0, -10), /outside the file/],
  ];
  for (const [name, image, message] of bad) {
    test(`refuses ${name}`, () => assert.rejects(extractVmlinux(image), message));
  }
});

describe('lz4LegacyDecompress()', () => {
  test('copies matches that overlap what they make', () => {
    const literals = Buffer.from('abcdefghijklmnopq');
    const out = lz4LegacyDecompress(lz4(literals, 40), 1000);
    assert.equal(out.toString(), `abcdefghijklmnopq${'q'.repeat(40)}`);
  });

  test('never crashes on bytes that were changed', () => {
    const random = seededRandom(4);
    const good = lz4(Buffer.alloc(300, 7), 100);
    for (let i = 0; i < 3000; i += 1) {
      const bytes = Buffer.from(good);
      for (let k = 0; k < 3; k += 1)
        bytes[Math.floor(random.next() * 20)] = random.bytes(1)[0] ?? 0;
      try {
        lz4LegacyDecompress(bytes, 10_000);
      } catch (error) {
        assert.match(String(error), /^Error: Cannot unpack lz4: /);
      }
    }
  });

  test('stops at the limit', () => {
    assert.throws(() => lz4LegacyDecompress(lz4(Buffer.alloc(200)), 100), /more than 100 bytes/);
  });
});

test('cpioArchive() makes what cpio reads', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-cpio-'));
  try {
    const content = Buffer.from('hello');
    const archive = cpioArchive([
      { path: 'a', mode: CPIO_DIRECTORY | 0o755 },
      { path: 'a/file', mode: CPIO_FILE | 0o640, content },
    ]);
    await writeFile(join(directory, 'archive'), archive);
    await run('busybox', ['cpio', '-i', '-d', '-F', join(directory, 'archive')], {
      cwd: directory,
    });
    assert.deepEqual(await readFile(join(directory, 'a/file')), content);
  } finally {
    await rm(directory, { recursive: true });
  }
});

describe('modules', () => {
  const file = (depends: string) => Buffer.from(`license=GPL\0depends=${depends}\0name=x\0`);
  const files: Record<string, Buffer> = {
    disk: file('bus,ring'),
    bus: file('ring'),
    ring: file(''),
    loop_a: file('loop-b'),
    loop_b: file('loop_a'),
    lost: file('gone'),
  };
  const order = (...names: string[]) =>
    orderModules(
      names,
      (name) => files[name],
      (name) => name === 'built_in',
    ).map(({ name }) => name);

  test('come after what they need', () => {
    assert.deepEqual(moduleDependencies(file('a-b,c')), ['a_b', 'c']);
    assert.deepEqual(order('disk', 'bus', 'built-in'), ['ring', 'bus', 'disk']);
  });

  test('that cannot be ordered are named', () => {
    assert.throws(() => order('loop_a'), /"loop_a" needs itself/);
    assert.throws(() => order('lost'), /Cannot find module "gone", needed by "lost"/);
  });

  test('lose their signature and type information', () => {
    const names = Buffer.from('\0.text\0.BTF\0');
    const elfFile = Buffer.concat([Buffer.alloc(64), names, Buffer.alloc(64)]);
    elfFile.writeBigUInt64LE(BigInt(64 + names.length), 40);
    elfFile.writeBigUInt64LE(64n, 64 + names.length + 24);
    elfFile.writeBigUInt64LE(BigInt(names.length), 64 + names.length + 32);
    const info = Buffer.alloc(12);
    info.writeUInt32BE(100, 8);
    const trailer = Buffer.from('~Module signature appended~\n');
    const signed = Buffer.concat([elfFile, Buffer.alloc(100, 1), info, trailer]);
    const stripped = stripModule(signed);
    assert.equal(stripped.length, elfFile.length);
    assert.ok(stripped.includes('.btf') && !stripped.includes('.BTF'));
  });
});

test('kernelArguments() wants to know the clock of an emulated CPU', () => {
  const list = kernelArguments({ accelerator: 'tcg', tscKhz: 2_445_000 });
  assert.ok(list.some(({ argument }) => argument === 'tsc_early_khz=2445000'));
  assert.ok(list.every(({ reason }) => reason.length > 10));
  assert.throws(() => kernelArguments({ accelerator: 'tcg' }), /tscKhz: 0, wanted/);
  const kvm = kernelArguments({ accelerator: 'kvm' }).map(({ argument }) => argument);
  assert.ok(!kvm.some((argument) => argument.startsWith('tsc')));
});

test('buildGuestAssets() says what is missing in a package', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-assets-'));
  const options = { unpackedDir: directory, hyperstartPath: '/bin/true', outDir: directory };
  const builtIn = GUEST_MODULES.map((name) => `kernel/${name}.ko\n`).join('');
  try {
    await assert.rejects(buildGuestAssets(options), /0 images, wanted 1/);
    await mkdir(join(directory, 'boot'));
    await writeFile(join(directory, 'boot/vmlinuz-6.1'), 'x');
    await assert.rejects(buildGuestAssets(options), /Cannot find the kernel's modules/);
    await mkdir(join(directory, 'lib/modules/6.1/kernel'), { recursive: true });
    await writeFile(join(directory, 'lib/modules/6.1/modules.builtin'), builtIn);
    await assert.rejects(buildGuestAssets(options), /not a bzImage/);
  } finally {
    await rm(directory, { recursive: true });
  }
});
