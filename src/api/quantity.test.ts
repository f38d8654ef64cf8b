import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../base/random.ts';
import {
  addQuantities,
  canonicalQuantity,
  compareQuantities,
  parseQuantity,
  QUANTITY_SYNTAX_ERROR,
  quantityMillis,
  quantityValue,
  tryParseQuantity,
} from './quantity.ts';

test('canonicalQuantity() prints what Kubernetes prints', () => {
  const table: [string, string][] = [
    ['0', '0'],
    ['0Ki', '0'],
    ['-0', '0'],
    ['1', '1'],
    ['1000m', '1'],
    ['0.5', '500m'],
    ['.5', '500m'],
    ['1.', '1'],
    ['100m', '100m'],
    ['1500m', '1500m'],
    ['1024Mi', '1Gi'],
    ['1.5Gi', '1536Mi'],
    ['1000Ki', '1000Ki'],
    ['512', '512'],
    ['0.5Ki', '512'],
    ['1000', '1k'],
    ['1000000', '1M'],
    ['1e3', '1e3'],
    ['12e5', '1200e3'],
    ['1E', '1E'],
    ['1Ei', '1Ei'],
    ['-1.5k', '-1500'],
    ['+3', '3'],
    ['0.0000000001', '1n'],
    ['1u', '1u'],
    ['123456789', '123456789'],
  ];
  for (const [given, wanted] of table) {
    assert.deepEqual(canonicalQuantity(given), { ok: true, text: wanted }, given);
  }
});

test('tryParseQuantity() refuses what is no quantity', () => {
  for (const bad of [
    '',
    ' ',
    'abc',
    '1.2.3',
    '--1',
    '1 Gi',
    '1e',
    'Gi',
    '.',
    '1'.repeat(65),
    '1e99',
  ]) {
    assert.equal(typeof tryParseQuantity(bad), 'string', bad);
  }
  assert.equal(tryParseQuantity('x'), QUANTITY_SYNTAX_ERROR);
  assert.throws(() => parseQuantity('1Zi'), /unable to parse quantity's suffix/);
});

test('arithmetic is exact and keeps the format', () => {
  assert.equal(addQuantities('1Gi', '512Mi'), '1536Mi');
  assert.equal(addQuantities('100m', '900m'), '1');
  assert.equal(compareQuantities('1000m', '1'), 0);
  assert.equal(compareQuantities('1Gi', '1G'), 1);
  assert.equal(compareQuantities('-1', '0'), -1);
  assert.equal(quantityMillis('1.5'), 1500);
  assert.equal(quantityMillis('1u'), 1);
  assert.equal(quantityValue('1.5Gi'), 1610612736);
  assert.equal(quantityValue('1m'), 1);
});

test('a canonical text is its own canonical text', () => {
  const seed = 20261121;
  const random = seededRandom(seed);
  const suffixes = ['', 'n', 'u', 'm', 'k', 'M', 'G', 'T', 'Ki', 'Mi', 'Gi', 'Ti', 'e3', 'e-3'];
  for (let round = 0; round < 5000; round += 1) {
    const suffix = suffixes[Math.floor(random.next() * suffixes.length)];
    const given = `${(random.next() * 10 ** Math.floor(random.next() * 6)).toFixed(3)}${suffix}`;
    const once = canonicalQuantity(given);
    assert.ok(once.ok, given);
    assert.deepEqual(canonicalQuantity(once.text), once, `seed ${seed}: ${given}`);
    // A binary fraction below 1 is the one amount whose text rounds it.
    if (!suffix?.endsWith('i')) assert.equal(compareQuantities(once.text, given), 0, given);
  }
});
