import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../base/random.ts';
import { JSON_DEPTH_MAX, parseJson } from './json.ts';
import { parseYaml, YAML_BYTES_MAX } from './yaml.ts';

test('parseJson() tells duplicate keys with their paths', () => {
  const text = '{"a":{"b":1,"b":2},"l":[{},{"x":"}:,\\"","x":1}],"\\u0061":0}';
  assert.deepEqual(parseJson(text).duplicates, ['a.b', 'l[1].x', 'a']);
  assert.deepEqual(parseJson('{"a":{"b":1},"c":{"b":1}}').duplicates, []);
});

test('parseJson() bounds the depth and refuses __proto__', () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
  parseJson(nested(JSON_DEPTH_MAX));
  assert.throws(() => parseJson(nested(JSON_DEPTH_MAX + 1)), /nesting exceeds 200 levels/);
  assert.throws(() => parseJson('['.repeat(3_000_000)), /nesting exceeds/);
  assert.throws(() => parseJson('{"a":{"__proto__":{"x":1}}}'), /"__proto__" is not allowed/);
  assert.throws(() => parseJson('{"\\u005f_proto__":1}'), /"__proto__" is not allowed/);
});

test('parseJson() agrees with JSON.parse on every mutation of a text', () => {
  const seed = 7;
  const random = seededRandom(seed);
  const base = '{"kind":"Pod","a":[1,2.5e3,{"b":null}],"s":"\\"q\\\\","t":{"u":true}}';
  for (let round = 0; round < 20_000; round += 1) {
    const at = Math.floor(random.next() * base.length);
    const inserted = String.fromCharCode(32 + Math.floor(random.next() * 95));
    const text = base.slice(0, at) + inserted + base.slice(at + (random.next() < 0.5 ? 1 : 0));
    let wanted: unknown;
    try {
      wanted = JSON.parse(text);
    } catch {
      assert.throws(() => parseJson(text), SyntaxError, `seed ${seed}: ${text}`);
      continue;
    }
    assert.deepEqual(parseJson(text).value, wanted, `seed ${seed}: ${text}`);
  }
});

test('parseYaml() reads a document and tells duplicates', () => {
  const parsed = parseYaml('kind: Pod\nspec:\n  a: 1\n  a: 2\n  l: [{x: 1, x: 2}]\n');
  assert.deepEqual(parsed.duplicates, ['spec.a', 'spec.l[0].x']);
  assert.deepEqual(parsed.value, { kind: 'Pod', spec: { a: 2, l: [{ x: 2 }] } });
  assert.deepEqual(parseYaml('a: &x {b: 1}\nc: *x\n').value, { a: { b: 1 }, c: { b: 1 } });
});

test('parseYaml() refuses bombs', () => {
  const laughs = ['a0: &a0 [lol, lol]'];
  for (let level = 1; level < 20; level += 1) {
    laughs.push(
      `a${level}: &a${level} [${Array(9)
        .fill(`*a${level - 1}`)
        .join(', ')}]`,
    );
  }
  assert.throws(() => parseYaml(laughs.join('\n')), /aliases cannot be resolved/);
  assert.throws(() => parseYaml('['.repeat(100_000)), SyntaxError);
  assert.throws(() => parseYaml('- '.repeat(100_000)), SyntaxError);
  assert.throws(() => parseYaml('x'.repeat(YAML_BYTES_MAX + 1)), /exceeds the limit/);
  assert.throws(() => parseYaml('__proto__: {a: 1}'), /"__proto__" is not allowed/);
  assert.throws(() => parseYaml('a: b: c'), SyntaxError);
});
