import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { seededRandom } from '../../base/random.ts';
import { REQUIRED_OPTIONS, missingOptions, parseKernelConfig } from './config.ts';
import { readKernelImage } from './image.ts';
import { bzImage, elfKernel } from './testing/kernel-file.ts';

const FRAGMENT = new URL('../../../guest/kernel/hyper.config', import.meta.url);

describe('readKernelImage()', () => {
  test('reads an ELF kernel and a bzImage of it alike', async () => {
    const vmlinux = elfKernel({ release: '6.1.192-hyper', config: ['CONFIG_PVH=y', '# no'] });
    const plain = await readKernelImage(vmlinux);
    const packed = await readKernelImage(bzImage(gzipSync(vmlinux)));
    assert.deepEqual(plain, packed);
    assert.equal(plain.release, '6.1.192-hyper');
    assert.deepEqual([...(plain.config ?? [])], [['PVH', 'y']]);
    assert.equal((await readKernelImage(elfKernel())).config, undefined);
  });

  const cut = (bytes: Buffer, at: number, write: (bytes: Buffer, at: number) => void) => {
    const copy = Buffer.from(bytes);
    write(copy, at);
    return copy;
  };
  const huge = (bytes: Buffer, at: number) => void bytes.writeBigUInt64LE(2n ** 64n - 1n, at);
  const bad: [what: string, bytes: Buffer, message: RegExp][] = [
    ['an empty file', Buffer.alloc(0), /neither a bzImage nor an ELF file/],
    ['a script', Buffer.from('#!/bin/sh\n'), /neither a bzImage nor an ELF file/],
    ['a cut ELF file', elfKernel().subarray(0, 50), /not a 64-bit ELF file/],
    ['32 bits', cut(elfKernel(), 4, (b, at) => void (b[at] = 1)), /not a 64-bit ELF file/],
    ['another machine', cut(elfKernel(), 18, (b, at) => void (b[at] = 183)), /for machine 183/],
    ['headers far outside', cut(elfKernel(), 32, huge), /program headers lie outside the file/],
    ['a segment far outside', cut(elfKernel(), 64 + 8, huge), /a segment lies outside the file/],
    ['a segment that is too long', cut(elfKernel(), 64 + 32, huge), /a segment lies outside/],
    ['a huge memory', cut(elfKernel(), 64 + 40, huge), /it loads \d+ bytes, wanted 1 to/],
    ['an entry nowhere', elfKernel({ entry: 0x1000 }), /entry lies outside of what is loaded/],
    ['no PVH', elfKernel({ noteType: 1 }), /no PVH entry \(CONFIG_PVH\)/],
    ['no banner', elfKernel({ release: 'x' }), /does not say which Linux it is/],
  ];
  for (const [what, bytes, message] of bad) {
    test(`refuses ${what}`, () => assert.rejects(readKernelImage(bytes), message));
  }

  test('a configuration that is a bomb or garbage is refused', async () => {
    const bomb = elfKernel({ config: ['CONFIG_A=y', 'x'.repeat(3 << 20)] });
    await assert.rejects(readKernelImage(bomb), /Cannot read the configuration in the kernel/);
    const none = elfKernel({ config: ['nothing'] });
    await assert.rejects(readKernelImage(none), /Cannot read the configuration in the kernel/);
  });

  test('never crashes on bytes that were changed', async () => {
    const random = seededRandom(11);
    const good = elfKernel({ config: ['CONFIG_PVH=y'] });
    for (let i = 0; i < 2000; i += 1) {
      const bytes = Buffer.from(good);
      for (let k = 0; k < 4; k += 1) {
        bytes[Math.floor(random.next() * bytes.length)] = random.bytes(1)[0] ?? 0;
      }
      await readKernelImage(bytes).catch((error: unknown) => {
        assert.match(String(error), /^Error: Cannot (read|use) the/);
      });
    }
  });
});

describe('missingOptions()', () => {
  const all = REQUIRED_OPTIONS.map(({ option }) => `CONFIG_${option}=y`).join('\n');

  test('names what is off, and modules where none are loaded', () => {
    assert.deepEqual(missingOptions(parseKernelConfig(all), false), []);
    const lacking = all.replace('CONFIG_EXT4_FS=y', '# CONFIG_EXT4_FS is not set');
    assert.deepEqual(missingOptions(parseKernelConfig(lacking), true), [
      'CONFIG_EXT4_FS (the writable disk)',
    ]);
    const modular = parseKernelConfig(all.replace('CONFIG_EROFS_FS=y', 'CONFIG_EROFS_FS=m'));
    assert.deepEqual(missingOptions(modular, true), []);
    assert.deepEqual(missingOptions(modular, false), [
      'CONFIG_EROFS_FS=y, is m (images are erofs)',
    ]);
  });

  test('our own configuration lacks nothing and has no module', () => {
    const fragment = parseKernelConfig(readFileSync(FRAGMENT, 'utf8'));
    assert.deepEqual(missingOptions(fragment, false), []);
    assert.deepEqual(
      [...fragment.values()].filter((value) => value === 'm'),
      [],
    );
  });

  test('what is no configuration is said to be none', () => {
    assert.throws(() => parseKernelConfig('hello'), /no line is CONFIG_/);
  });
});
