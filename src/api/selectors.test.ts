import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  formatLabelSelector,
  matchesLabels,
  matchesLabelSelector,
  parseFieldSelector,
  parseLabelSelector,
} from './selectors.ts';

test('parseLabelSelector() reads every operator', () => {
  const labels = { app: 'web', tier: 'front', n: '5', empty: '' };
  const table: [string, boolean][] = [
    ['', true],
    ['app', true],
    ['!app', false],
    ['app=web', true],
    ['app==web,tier!=back', true],
    ['app = web , tier = back', false],
    ['app in (web, api),tier notin (back)', true],
    ['missing notin (x)', true],
    ['missing in (x)', false],
    ['missing!=x', true],
    ['n>4', true],
    ['n<5', false],
    ['app>4', false],
    ['empty=', true],
    ['empty in ()', true],
    ['toString', false],
    ['example.com/key,!other', false],
  ];
  for (const [selector, wanted] of table) {
    assert.equal(matchesLabels(parseLabelSelector(selector), labels), wanted, selector);
  }
});

test('parseLabelSelector() answers 400 to what it cannot read', () => {
  const bad = ['=a', 'a=b c', 'a in b', 'a in (b', 'a,,b', 'a,', 'a b', '!', 'a=@', 'a>x', '/a=b'];
  for (const text of bad) {
    assert.throws(() => parseLabelSelector(text), { code: 400, reason: 'BadRequest' }, text);
  }
  assert.throws(() => parseLabelSelector('a,'.repeat(20_000)), { code: 400 });
});

test('matchesLabelSelector() tells no selector from an empty one', () => {
  assert.equal(matchesLabelSelector(undefined, {}), false);
  assert.equal(matchesLabelSelector({}, {}), true);
  const expressions = { matchExpressions: [{ key: 'a', operator: 'In', values: ['1'] }] };
  assert.equal(matchesLabelSelector(expressions, { a: '1' }), true);
  const unknown = { matchExpressions: [{ key: 'a', operator: 'Like', values: ['1'] }] };
  assert.equal(matchesLabelSelector(unknown, { a: '1' }), false);
});

test('formatLabelSelector() prints as kubectl shows it', () => {
  assert.equal(formatLabelSelector({}), '<none>');
  const selector = {
    matchLabels: { b: '2', a: '1' },
    matchExpressions: [
      { key: 'c', operator: 'NotIn', values: ['y', 'x'] },
      { key: 'd', operator: 'DoesNotExist' },
    ],
  };
  assert.equal(formatLabelSelector(selector), 'a=1,b=2,c notin (x,y),!d');
});

test('field selectors unescape', () => {
  assert.deepEqual(parseFieldSelector('metadata.name=a\\,b,status.phase!=Running,spec.nodeName='), [
    { field: 'metadata.name', operator: '=', value: 'a,b' },
    { field: 'status.phase', operator: '!=', value: 'Running' },
    { field: 'spec.nodeName', operator: '=', value: '' },
  ]);
  assert.throws(() => parseFieldSelector('metadata.name'), { code: 400 });
});
