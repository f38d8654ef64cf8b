import assert from 'node:assert/strict';
import { test } from 'node:test';
import { progressPrinter } from './build.ts';

function printed(isTTY: boolean): string {
  let text = '';
  const output = { isTTY, write: (part: string | Uint8Array) => Boolean((text += String(part))) };
  const tell = progressPrinter(output as never);
  const step = (number: number, title: string, fraction?: number) =>
    tell({ step: number, stepCount: 3, title, ...(fraction === undefined ? {} : { fraction }) });
  step(1, 'fetching');
  step(2, 'compiling', 0);
  for (let i = 1; i <= 250; i += 1) step(2, 'compiling', i / 250);
  step(3, 'ending');
  return text;
}

test('progressPrinter() counts on in one line of a terminal', () => {
  const lines = printed(true).split('\n');
  assert.equal(lines.length, 3);
  assert.equal(lines[0], '\r[1/3] fetching');
  assert.ok(lines[1]?.startsWith('\r[2/3] compiling: 0 %\r[2/3] compiling: 1 %\r'));
  assert.ok(lines[1]?.endsWith('compiling: 100 %'));
  assert.equal(lines[1]?.split('\r').length, 102, 'each number once');
});

test('progressPrinter() prints tenths into a file', () => {
  const lines = printed(false).trimEnd().split('\n');
  assert.equal(lines[0], '[1/3] fetching');
  assert.equal(lines.filter((line) => line.startsWith('[2/3] compiling')).length, 11);
  assert.equal(lines.at(-1), '[3/3] ending');
  assert.ok(lines.every((line) => !line.includes('\r')));
});
