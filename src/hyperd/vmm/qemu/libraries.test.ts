import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLdd } from './libraries.ts';

test('parseLdd() takes libraries and the loader, and nothing without a file', () => {
  const output = `\tlinux-vdso.so.1 (0x00007ffc5a5f2000)
\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f6d6c9d8000)
\tlibgone.so.2 => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f6d6ca2c000)
`;
  const expected = ['/lib/x86_64-linux-gnu/libz.so.1', '/lib64/ld-linux-x86-64.so.2'];
  assert.deepEqual([...parseLdd(output)], expected);
});
