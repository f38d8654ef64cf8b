import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLineCache } from './line-cache.ts';

test('a line is made once for each owner and key, and forgotten for newer ones', () => {
  const cache = createLineCache(30);
  let made = 0;
  const get = (owner: object, key: string) =>
    cache.get(owner, key, () => {
      made += 1;
      return new Uint8Array(10);
    });
  const [a, b, c] = [{}, {}, {}];
  get(a, 'x');
  get(a, 'x');
  assert.equal(made, 1);
  get(a, 'y');
  get(b, 'x');
  assert.equal(made, 3);
  get(c, 'x');
  assert.equal(made, 4);
  get(b, 'x');
  get(c, 'x');
  assert.equal(made, 4);
  get(a, 'x');
  assert.equal(made, 5);
});
