import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalMicroTime, canonicalTime, formatGoDuration, humanDuration } from './time.ts';

test('canonicalTime() is in UTC and in seconds', () => {
  assert.equal(canonicalTime('2026-11-21T03:10:00Z'), '2026-11-21T03:10:00Z');
  assert.equal(canonicalTime('2026-11-21T03:10:00.999Z'), '2026-11-21T03:10:00Z');
  assert.equal(canonicalTime('2026-11-21T03:10:00+02:00'), '2026-11-21T01:10:00Z');
  for (const bad of ['', 'now', '2026-13-01T00:00:00Z', '2026-02-30T00:00:00Z', '2026-11-21']) {
    assert.equal(canonicalTime(bad), undefined, bad);
  }
});

test('canonicalMicroTime() has six digits', () => {
  assert.equal(canonicalMicroTime('2026-11-21T03:10:00.1Z'), '2026-11-21T03:10:00.100000Z');
});

test('humanDuration() steps from seconds to years', () => {
  const second = 1000;
  const minute = 60 * second;
  const hour = 60 * minute;
  const day = 24 * hour;
  const table: [number, string][] = [
    [0, '0s'],
    [119 * second, '119s'],
    [120 * second, '2m'],
    [150 * second, '2m30s'],
    [10 * minute + 5 * second, '10m'],
    [179 * minute, '179m'],
    [3 * hour, '3h'],
    [3 * hour + 4 * minute, '3h4m'],
    [8 * hour + 4 * minute, '8h'],
    [47 * hour, '47h'],
    [48 * hour, '2d'],
    [50 * hour, '2d2h'],
    [8 * day + 5 * hour, '8d'],
    [729 * day, '729d'],
    [730 * day, '2y'],
    [765 * day, '2y35d'],
    [365 * 8 * day, '8y'],
    [-10 * second, '<invalid>'],
  ];
  for (const [ms, wanted] of table) assert.equal(humanDuration(ms), wanted);
});

test('formatGoDuration() writes as Go does', () => {
  assert.equal(formatGoDuration(0n), '0s');
  assert.equal(formatGoDuration(1_500_000n), '1.5ms');
  assert.equal(formatGoDuration(300_000_000_000n), '5m0s');
  assert.equal(formatGoDuration(-3_600_000_000_000n), '-1h0m0s');
});
