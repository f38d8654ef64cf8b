import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const documents = globSync(['*.md', 'docs/**/*.md', 'guest/*.md', 'jail/*.md'], { cwd: root });
const textOf = (file: string) => readFileSync(join(root, file), 'utf8');

/** `src/store/store.ts`, `guest/`, `test/e2e`: from the root of the project. */
const PATH = /`((?:bench|docs|guest|jail|src|test|tools)\/[\w./-]*)`/g;
/** `[words](docs/registries.md)`, but no address of another host and no place in the same page. */
const LINK = /\]\(([^)#:]+)(?:#[^)]*)?\)/g;
/** `path.ts` alone: a neighbour of a file that is named before it. */
const NEIGHBOUR = /`([\w-]+\.(?:ts|c|h))`/g;

test('every path that the documents name exists', () => {
  const missing: string[] = [];
  for (const document of documents) {
    const text = textOf(document);
    for (const [, path = ''] of text.matchAll(PATH)) {
      if (!existsSync(join(root, path))) missing.push(`${document} names ${path}`);
    }
    for (const [, path = ''] of text.matchAll(LINK)) {
      if (!existsSync(join(root, dirname(document), path))) {
        missing.push(`${document} links to ${path}`);
      }
    }
  }
  assert.deepEqual(missing, []);
});

test('a file that the architecture names without its folder lies beside the one before it', () => {
  const missing: string[] = [];
  let folder = '';
  const any = new RegExp(`${PATH.source}|${NEIGHBOUR.source}`, 'g');
  for (const [, path, neighbour] of textOf('ARCHITECTURE.md').matchAll(any)) {
    if (path) folder = dirname(path);
    else if (neighbour && !existsSync(join(root, folder, neighbour))) {
      missing.push(`${folder}/${neighbour}`);
    }
  }
  assert.deepEqual(missing, []);
});

test('the map of the architecture has a row for every folder', () => {
  const map = textOf('ARCHITECTURE.md');
  const parts = readdirSync(join(root, 'src')).map((name) => `src/${name}`);
  const others = ['bench', 'guest', 'jail', 'test', 'tools'];
  const missing = [...parts, ...others].filter((folder) => !map.includes(`\`${folder}\``));
  assert.deepEqual(missing, []);
});

test('every benchmark and stage of the tests that the documents name exists', () => {
  const benchmarks = new Set(readdirSync(join(root, 'bench')).map((name) => name.slice(0, -3)));
  const missing: string[] = [];
  for (const document of documents) {
    for (const [, name = ''] of textOf(document).matchAll(/hypernetes bench ([a-z][\w-]*)/g)) {
      if (!benchmarks.has(name)) missing.push(`${document} names the benchmark ${name}`);
    }
    for (const [, name = ''] of textOf(document).matchAll(/hypernetes test ([a-z][\w-]*)/g)) {
      const stage = new RegExp(`name: '${name}'`);
      if (!stage.test(textOf('test/run.ts'))) missing.push(`${document} names the stage ${name}`);
    }
  }
  assert.deepEqual(missing, []);
});
