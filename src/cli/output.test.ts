import assert from 'node:assert/strict';
import { test } from 'node:test';
import { age, describe } from './output.ts';
import { table } from './table.ts';

test('a table has its columns below each other, and nothing in it moves the cursor', () => {
  const rows = [
    ['acme', 'Active'],
    ['b\x1b[2J\nfake', '\x9b31m'],
  ];
  assert.equal(
    table(['NAME', 'PHASE'], rows),
    'NAME         PHASE\nacme         Active\nb?[2J?fake   ?31m\n',
  );
});

test('describe() leaves out what is not known', () => {
  const text = describe({ Name: 'acme', 'Display name': undefined, Phase: 'Active' });
  assert.equal(text, 'Name    acme\nPhase   Active\n');
  assert.equal(describe({ Name: undefined }), '');
});

test('age() is of the largest unit that fits twice', () => {
  const nowMs = Date.UTC(2030, 0, 10);
  const ages = [
    ['2030-01-09T23:59:59Z', '1s'],
    ['2030-01-09T23:58:01Z', '119s'],
    ['2030-01-09T22:01:00Z', '119m'],
    ['2030-01-08T01:00:00Z', '47h'],
    ['2030-01-01T00:00:00Z', '9d'],
    ['2030-02-01T00:00:00Z', '0s'],
  ] as const;
  for (const [timestamp, expected] of ages) assert.equal(age(timestamp, nowMs), expected);
  assert.equal(age(undefined), '<unknown>');
});
