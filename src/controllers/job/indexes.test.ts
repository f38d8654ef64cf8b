import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIndexes, freeIndexes, parseIndexes } from './indexes.ts';

test('indexes are written as runs and read back', () => {
  const cases: [number[], string][] = [
    [[], ''],
    [[4], '4'],
    [[1, 0], '0,1'],
    [[0, 1, 2, 5, 7, 8], '0-2,5,7,8'],
  ];
  for (const [indexes, text] of cases) {
    assert.equal(formatIndexes(indexes), text);
    assert.deepEqual([...parseIndexes(text, 10)], indexes.toSorted());
  }
});

test('what is not below the number of completions is left out, whatever its size', () => {
  assert.deepEqual([...parseIndexes('1-9999999999,x,-3,2', 3)], [1, 2]);
  assert.equal(parseIndexes('0-99999999999', 1e12).size, 100_000);
});

test('freeIndexes() gives the lowest that are not taken', () => {
  assert.deepEqual(freeIndexes(5, new Set([0, 2]), 2), [1, 3]);
  assert.deepEqual(freeIndexes(2, new Set([0]), 5), [1]);
});
