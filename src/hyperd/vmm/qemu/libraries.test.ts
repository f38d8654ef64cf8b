import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { emulatorFirmware, parseLdd } from './libraries.ts';

test('emulatorFirmware() takes each file that is needed from the first directory with it', async () => {
  const base = await mkdtemp(join(tmpdir(), 'hypernetes-firmware-'));
  try {
    const [first, second] = [join(base, 'first'), join(base, 'second')];
    const files = ['first/pvh.bin', 'first/slof.bin', 'second/pvh.bin', 'second/bios-256k.bin'];
    for (const directory of [first, second]) await mkdir(directory);
    for (const file of files) await writeFile(join(base, file), '');
    const found = await emulatorFirmware(
      ['bios-256k.bin', 'pvh.bin'],
      [first, join(base, 'nowhere'), second],
    );
    assert.deepEqual(found, [join(second, 'bios-256k.bin'), join(first, 'pvh.bin')]);
  } finally {
    await rm(base, { recursive: true });
  }
});

test('parseLdd() takes libraries and the loader, and nothing without a file', () => {
  const output = `\tlinux-vdso.so.1 (0x00007ffc5a5f2000)
\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f6d6c9d8000)
\tlibgone.so.2 => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f6d6ca2c000)
`;
  const expected = ['/lib/x86_64-linux-gnu/libz.so.1', '/lib64/ld-linux-x86-64.so.2'];
  assert.deepEqual([...parseLdd(output)], expected);
});
