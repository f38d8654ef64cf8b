import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createShares } from './shares.ts';

const user = (name: string) => ({ name, uid: '', groups: [], extra: {} });

test('a user gets no more than a share, and all together no more than there is', () => {
  const shares = createShares(3, 2);
  const first = shares.take(user('a'));
  assert.ok(first);
  assert.ok(shares.take(user('a')));
  assert.equal(shares.take(user('a')), undefined);
  assert.ok(shares.take(user('b')));
  assert.equal(shares.hasRoom(user('c')), false);
  first();
  first();
  assert.ok(shares.take(user('c')), 'a place is given back once');
  assert.equal(shares.take(user('d')), undefined);
});

test('the service accounts of a namespace have one share', () => {
  const shares = createShares(10, 1);
  assert.ok(shares.take(user('system:serviceaccount:mine:a')));
  assert.equal(shares.take(user('system:serviceaccount:mine:b')), undefined);
  assert.ok(shares.take(user('system:serviceaccount:other:a')));
});

test('a tenant has one share, however many users it makes, and a user half of it', () => {
  const shares = createShares(100, 4);
  const of = (name: string) => ({ ...user(name), tenant: 'acme' });
  assert.ok(shares.take(of('a')) && shares.take(of('a')));
  assert.equal(shares.take(of('a')), undefined);
  const last = shares.take(of('b')) && shares.take(of('c'));
  assert.ok(last);
  assert.equal(shares.take(of('d')), undefined);
  assert.ok(shares.take({ ...user('a'), tenant: 'globex' }));
  last();
  assert.ok(shares.take(of('d')));
});
