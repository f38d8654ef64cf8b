import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  configKey,
  dns1035Label,
  dns1123Label,
  dns1123Subdomain,
  environmentName,
  labelValue,
  pathSegment,
  portName,
  qualifiedName,
} from './names.ts';

const grammars: [string, (name: string) => string[], string[], string[]][] = [
  [
    'dns1123Label',
    dns1123Label,
    ['a', '1', 'a-b', 'a'.repeat(63)],
    ['', 'A', '-a', 'a.b', 'a'.repeat(64)],
  ],
  ['dns1035Label', dns1035Label, ['a', 'a-1'], ['1a', '', 'a'.repeat(64)]],
  ['dns1123Subdomain', dns1123Subdomain, ['a.b', '1.2.3.4'], ['', 'a..b', 'a_b', 'a'.repeat(254)]],
  [
    'qualifiedName',
    qualifiedName,
    ['a', 'A_b.c', 'x.y/Z'],
    ['', '/a', 'a/', 'a/b/c', 'a b', 'X/a'],
  ],
  ['labelValue', labelValue, ['', 'A', 'a_b.c-d'], ['-a', 'a b', 'a'.repeat(64)]],
  ['configKey', configKey, ['a', '.a', 'A_b-c.d'], ['', '.', '..', '..a', 'a/b', 'a'.repeat(254)]],
  ['pathSegment', pathSegment, ['system:node', 'A b'], ['.', '..', 'a/b', 'a%b']],
  ['portName', portName, ['http', 'a-1'], ['', '80', 'HTTP', '-a', 'a--b', 'a'.repeat(16)]],
  ['environmentName', environmentName, ['A', 'a.b-c', '1A'], ['', 'a=b', 'é', 'a\nb']],
];

for (const [name, grammar, good, bad] of grammars) {
  test(`${name}() tells good names from bad`, () => {
    for (const value of good) assert.deepEqual(grammar(value), [], value);
    for (const value of bad) assert.notEqual(grammar(value).length, 0, JSON.stringify(value));
  });
}

test('a name of three megabytes is refused in time', () => {
  const long = `${'a-'.repeat(1_500_000)}_`;
  for (const [, grammar] of grammars) assert.ok(Array.isArray(grammar(long)));
});
