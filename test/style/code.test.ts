import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const files = globSync('{src,bench,test,tools}/**/*.ts', { cwd: root })
  .filter((file) => !file.includes('generated'))
  .sort();
const sources = new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]));

/** Types are the shapes of what is exported with them; src/api is there for whoever needs it. */
const EXPORTED_VALUE = /^export (?:async )?(?:function\*?|const|let) ([\w$]+)/gm;

/** A part that is not wired to the others yet exports what they will need. */
function isInUse(part: string): boolean {
  const entry = new RegExp(`from '[./]*/${part}/|import\\('[./]*/${part}/`);
  return [...sources].some(([file, text]) => !file.includes(`/${part}/`) && entry.test(text));
}

test('what is exported is imported somewhere', () => {
  const users = new Map<string, Set<string>>();
  for (const [file, text] of sources) {
    for (const [word] of text.matchAll(/[A-Za-z_$][\w$]*/g)) {
      const set = users.get(word) ?? new Set();
      users.set(word, set.add(file));
    }
  }
  const unused: string[] = [];
  const parts = new Set(files.map((file) => /^src\/(\w+)\//.exec(file)?.[1] ?? ''));
  const checked = [...parts].filter((part) => part && part !== 'api' && isInUse(part));
  for (const [file, text] of sources) {
    if (!checked.some((part) => file.startsWith(`src/${part}/`))) continue;
    for (const [, name = ''] of text.matchAll(EXPORTED_VALUE)) {
      if (users.get(name)?.size === 1) unused.push(`${file} exports ${name}`);
    }
  }
  assert.deepEqual(unused, []);
});

const FUNCTION_LINES_MAX = 70;
const STATEMENT = /^\s*(?:\} )?(?:if|else|for|while|switch|catch|try|do|finally)\b/;
const FUNCTION = /(?:=>|\)(?:: [^=]*)?) \{$/;

interface Open {
  line: number;
  indent: number;
  own: number;
}

/** How many lines each function has, those of functions inside of it not counted. */
function functionLengths(text: string): Open[] {
  const done: Open[] = [];
  const open: Open[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const indent = line.search(/\S/);
    const top = open.at(-1);
    if (top && indent >= 0 && indent <= top.indent && /^\s*[}\])]/.test(line)) {
      top.own += 1;
      done.push(top);
      open.pop();
    } else if (FUNCTION.test(line) && !STATEMENT.test(line)) {
      open.push({ line: index + 1, indent, own: 1 });
    } else if (top) {
      top.own += 1;
    }
  }
  return done;
}

test('functionLengths() counts the lines of each function alone', () => {
  const text = ['function a() {', '  b(() => {', '    c();', '  });', '  if (d) {', '  }', '}'];
  const lengths = functionLengths(text.join('\n')).map(({ line, own }) => [line, own]);
  assert.deepEqual(lengths, [
    [2, 3],
    [1, 4],
  ]);
});

test('functions of the product keep their limit', () => {
  const long: string[] = [];
  for (const [file, text] of sources) {
    if (!file.startsWith('src/') || file.endsWith('.test.ts')) continue;
    for (const { line, own } of functionLengths(text)) {
      if (own > FUNCTION_LINES_MAX) long.push(`${file}:${line} has ${own} lines`);
    }
  }
  assert.deepEqual(long, []);
});
