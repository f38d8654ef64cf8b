import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeContinue, encodeContinue } from './continue.ts';

test('continue tokens come back as they were', () => {
  for (const after of [
    { namespace: 'a', name: 'b' },
    { namespace: '', name: 'node-1' },
  ]) {
    const value = { revision: 42, after };
    assert.deepEqual(decodeContinue(encodeContinue(value)), value);
  }
  const inconsistent = { revision: -1, after: { namespace: 'x', name: 'y' } };
  assert.deepEqual(decodeContinue(encodeContinue(inconsistent)), inconsistent);
});

test('decodeContinue() refuses what is not a token', () => {
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const bad = [
    'x',
    encode(null),
    encode({}),
    encode({ v: 'v1', rv: 1, start: 'a' }),
    encode({ v: 'meta.k8s.io/v1', rv: 0, start: 'a' }),
    encode({ v: 'meta.k8s.io/v1', rv: 1.5, start: 'a' }),
    encode({ v: 'meta.k8s.io/v1', rv: 1, start: '' }),
    encode({ v: 'meta.k8s.io/v1', rv: 1, start: '/etc' }),
    'a'.repeat(5000),
  ];
  for (const token of bad) assert.throws(() => decodeContinue(token), { code: 400 }, token);
});
