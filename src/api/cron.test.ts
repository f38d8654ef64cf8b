import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSchedule } from './cron.ts';

const AFTER = '2026-03-10T12:34:56Z';

function next(schedule: string, after = AFTER, timeZone?: string): string {
  const ms = parseSchedule(schedule, timeZone).nextMs(Date.parse(after));
  return ms === undefined ? 'never' : new Date(ms).toISOString().replace(':00.000Z', '');
}

for (const [schedule, wanted] of [
  ['* * * * *', '2026-03-10T12:35'],
  ['*/5 * * * *', '2026-03-10T12:35'],
  ['5/20 * * * *', '2026-03-10T12:45'],
  ['30 3 * * *', '2026-03-11T03:30'],
  ['0 0 1 1 *', '2027-01-01T00:00'],
  ['0 9-17/4 * * mon-fri', '2026-03-10T13:00'],
  ['0 0 13 * fri', '2026-03-13T00:00'],
  ['0 0 29 2 ?', '2028-02-29T00:00'],
  ['0 0 31 feb *', 'never'],
  ['0 0 1,15 * *', '2026-03-15T00:00'],
  ['@hourly', '2026-03-10T13:00'],
  ['@weekly', '2026-03-15T00:00'],
] as const) {
  test(`after ${AFTER}, "${schedule}" is next at ${wanted}`, () => {
    assert.equal(next(schedule), wanted);
  });
}

test('@every counts from the last time', () => {
  const { nextMs } = parseSchedule('@every 1h30m');
  assert.equal(nextMs(0), 5_400_000);
});

test("a time zone's clock is followed over its changes", () => {
  const zone = 'Europe/Berlin';
  assert.equal(next('0 3 * * *', '2026-03-28T12:00:00Z', zone), '2026-03-29T01:00');
  assert.equal(next('0 0 * * *', '2026-03-29T12:00:00Z', zone), '2026-03-29T22:00');
  assert.equal(next('0 0 * * *', '2026-10-25T12:00:00Z', zone), '2026-10-25T23:00');
});

for (const [schedule, message] of [
  ['nope', /expected exactly 5 fields, found 1: \[nope\]/],
  ['60 * * * *', /end of range \(60\) above maximum \(59\): 60/],
  ['* * 0 * *', /beginning of range \(0\) below minimum \(1\): 0/],
  ['5-1 * * * *', /beginning of range \(5\) beyond end of range \(1\): 5-1/],
  ['*/0 * * * *', /step of range should be a positive number/],
  ['x * * * *', /failed to parse int from x/],
  ['@nope', /unrecognized descriptor: @nope/],
  ['@every x', /invalid duration "x"/],
] as const) {
  test(`"${schedule}" is refused`, () => {
    assert.throws(() => parseSchedule(schedule), { name: 'SyntaxError', message });
  });
}
