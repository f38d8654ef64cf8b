import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, nextAddress, parseAddress, parseCidr } from './address.ts';

test('parseAddress() takes four octets and nothing else', () => {
  for (const text of ['0.0.0.0', '10.88.0.1', '255.255.255.255']) {
    assert.equal(formatAddress(parseAddress(text)), text);
  }
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.-4',
    '1.2.3.4 ',
    'x',
    '::1',
  ]) {
    assert.throws(() => parseAddress(text), { name: 'NetworkError', reason: 'Invalid' }, text);
  }
});

test('parseCidr() refuses host bits and lengths that make no sense', () => {
  assert.equal(parseCidr('10.0.0.0/12').broadcast, parseAddress('10.15.255.255'));
  for (const text of [
    '10.0.0.1/24',
    '10.0.0.0/8',
    '10.0.0.0/30',
    '10.0.0.0',
    '10.0.0.0/x',
    '10.0.0.0/024',
  ]) {
    assert.throws(() => parseCidr(text), { name: 'NetworkError', reason: 'Invalid' }, text);
  }
});

test('nextAddress() goes round and skips what is taken', () => {
  const range = parseCidr('10.0.0.0/29');
  const at = (text: string) => parseAddress(text);
  const taken = new Set([at('10.0.0.1'), at('10.0.0.4')]);
  assert.equal(nextAddress(range, taken, at('10.0.0.3')), at('10.0.0.5'));
  assert.equal(nextAddress(range, taken, at('10.0.0.6')), at('10.0.0.2'));
  assert.equal(nextAddress(range, taken, at('192.0.2.1')), at('10.0.0.2'));
  const all = new Set([1, 2, 3, 4, 5, 6].map((n) => range.network + n));
  assert.equal(nextAddress(range, all, at('10.0.0.1')), undefined);
});
