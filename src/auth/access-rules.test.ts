import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accessRulesAllow } from './access-rules.ts';

test('access rules name requests, one by one or as families', () => {
  const cases: [rule: string, path: string, allowed: boolean][] = [
    ['/v3/users', '/v3/users', true],
    ['/v3/users', '/v3/users/', true],
    ['/v3/users', '/v3/users/1', false],
    ['/v3/users/*', '/v3/users/1', true],
    ['/v3/users/{user_id}', '/v3/users/1', true],
    ['/v3/users/*', '/v3/users/1/groups', false],
    ['/v3/**', '/v3/users/1/groups', true],
    ['/v3/**', '/v3', true],
    ['/v3/**/groups', '/v3/users/1/groups', true],
    ['/v3/**/groups', '/v3/users/1/projects', false],
    ['**', '/anything/at/all', true],
    ['/v3/u*', '/v3/users', false],
    ['/v3/**', '/v3/../secret', false],
    ['/v3/**', '/v3//users', false],
    ['/v3/**', '/v3/./users', false],
  ];
  for (const [path, asked, allowed] of cases) {
    const rules = [{ service: 'identity', method: 'GET', path }];
    assert.equal(accessRulesAllow(rules, 'identity', 'GET', asked), allowed, `${path} ${asked}`);
    assert.equal(accessRulesAllow(rules, 'identity', 'POST', asked), false);
    assert.equal(accessRulesAllow(rules, 'kubernetes', 'GET', asked), false);
  }
  assert.equal(accessRulesAllow([], 'identity', 'GET', '/v3'), false);
});

test('no pattern makes matching slow', () => {
  const rules = [{ service: 's', method: 'GET', path: `/${'**/a/'.repeat(60)}b` }];
  const startMs = performance.now();
  assert.equal(accessRulesAllow(rules, 's', 'GET', `/${'a/'.repeat(300)}c`), false);
  assert.ok(performance.now() - startMs < 2_000);
});
