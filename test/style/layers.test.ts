import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';

/** The map of ARCHITECTURE.md as a rule: a file may import from its own part and from rows below. */
const ROWS: string[][] = [
  ['base'],
  ['api'],
  ['network', 'store', 'client', 'auth', 'streams'],
  ['apiserver', 'scheduler', 'controllers', 'kubelet', 'hyperd', 'identity'],
  ['cli'],
];

const root = join(import.meta.dirname, '../..');
const source = join(root, 'src');
const files = globSync('src/**/*.ts', { cwd: root }).sort();
const isTest = (file: string) =>
  /\.(test|fuzz)\.ts$|conformance\.ts$|\/testing\/|\.fake\.ts$/.test(file);

const rowOf = (part: string) => ROWS.findIndex((row) => row.includes(part));

function imports(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1] ?? '');
}

test('every folder of src has its row', () => {
  const parts = new Set(files.map((file) => file.split('/')[1] ?? ''));
  for (const part of parts) assert.notEqual(rowOf(part), -1, `src/${part} has no row`);
});

test('imports go downward only, and never between parts of one row', () => {
  const wrong: string[] = [];
  for (const file of files) {
    const part = file.split('/')[1] ?? '';
    for (const target of imports(file)) {
      if (!target.startsWith('.')) continue;
      const path = relative(source, resolve(root, dirname(file), target));
      const other = path.split('/')[0] ?? '';
      if (other === part) continue;
      if (other === '..' || rowOf(other) >= rowOf(part)) wrong.push(`${file} imports ${target}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('base imports nothing but Node', () => {
  const foreign = files
    .filter((file) => file.startsWith('src/base/') && !isTest(file))
    .flatMap((file) => imports(file).map((target) => ({ file, target })))
    .filter(({ target }) => !target.startsWith('node:') && !target.startsWith('./'));
  assert.deepEqual(foreign, []);
});

/** What only `base` may touch, so that tests can replace it. */
const RESERVED: [what: string, pattern: RegExp][] = [
  ['node:child_process', /from 'node:child_process'/],
  ['Date.now()', /\bDate\.now\(/],
  ['Math.random()', /\bMath\.random\(/],
  ['setTimeout()', /(?<![.\w])setTimeout\(/],
  ['setInterval()', /(?<![.\w])setInterval\(/],
];

test('clocks, randomness and processes are reached through base', () => {
  const wrong: string[] = [];
  for (const file of files) {
    if (file.startsWith('src/base/') || isTest(file)) continue;
    const text = readFileSync(join(root, file), 'utf8').replace(/^import type .*$/gm, '');
    for (const [what, pattern] of RESERVED) {
      if (pattern.test(text)) wrong.push(`${file} uses ${what}`);
    }
  }
  assert.deepEqual(wrong, []);
});

/** A message or pattern that clients match is not broken over lines; nothing else is longer. */
const LITERAL = /(['"`]).{40,}\1|\/.{60,}\/[a-z]*[,;)]/;
const COLUMNS_MAX = 110;
const LINES_MAX = 500;

test('lines and files keep their limits', () => {
  const wrong: string[] = [];
  for (const file of [...files, ...globSync('{test,bench,tools}/**/*.ts', { cwd: root })]) {
    if (file.includes('generated')) continue;
    const lines = readFileSync(join(root, file), 'utf8').trimEnd().split('\n');
    if (lines.length > LINES_MAX) wrong.push(`${file} has ${lines.length} lines`);
    for (const [index, line] of lines.entries()) {
      if (line.length <= COLUMNS_MAX || LITERAL.test(line)) continue;
      wrong.push(`${file}:${index + 1} has ${line.length} columns`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('no test is skipped, switched off or run alone', () => {
  const pattern = /\b(?:test|it|describe)\.(?:skip|only|todo)\b|\bskip: *true/;
  const tests = globSync('{src,test,bench}/**/*.ts', { cwd: root });
  const wrong = tests.filter(
    (file) =>
      !file.endsWith('layers.test.ts') && pattern.test(readFileSync(join(root, file), 'utf8')),
  );
  assert.deepEqual(wrong, []);
});
