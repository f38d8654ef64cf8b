import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../base/random.ts';
import { parseAssignments, parseGroups, parseProject, parseToken } from './parse.ts';
import { tokenBody } from './testing/scripted.ts';

const DOMAIN = { id: 'default', name: 'Default' };
const WHO = { id: 'u1', name: 'alice', domain: DOMAIN };
const RULES = [{ id: 'x', service: 'kubernetes', method: 'GET', path: '/api' }];

const SAMPLES: [parse: (body: unknown) => unknown, body: unknown][] = [
  [parseToken, tokenBody({ application_credential: { id: 'a', access_rules: RULES } })],
  [parseToken, tokenBody({ project: undefined, system: { all: true } })],
  [
    parseProject,
    { id: 'p', name: 'x', domain_id: 'default', parent_id: 'q', enabled: true, description: 'd' },
  ],
  [parseGroups, { groups: [{ id: 'g', name: 'x', domain_id: 'default' }] }],
  [
    parseAssignments,
    { role_assignments: [{ role: { id: 'r', name: 'member' }, user: WHO, scope: {} }] },
  ],
];

const VALUES = [null, true, 0, -1, '', '../x', 'x'.repeat(300), [], [null], {}, { all: 1 }, '\n'];

/** The sample with one value, anywhere in it, replaced or left out. */
function mutate(value: unknown, pick: (max: number) => number): unknown {
  const isBranch = typeof value === 'object' && value !== null;
  const keys = isBranch ? Object.keys(value) : [];
  if (!isBranch || keys.length === 0 || pick(4) === 0) return VALUES[pick(VALUES.length)];
  const copy: Record<string, unknown> = structuredClone(value) as Record<string, unknown>;
  const key = keys[pick(keys.length)] ?? '';
  copy[key] = mutate(copy[key], pick);
  return Array.isArray(value) ? Object.values(copy) : copy;
}

test('whatever Keystone answers is understood or refused, and every id stays an id', () => {
  const seed = (process.env['SEED'] && Number(process.env['SEED'])) || 20260101;
  const random = seededRandom(seed);
  const pick = (max: number) => Math.floor(random.next() * max);
  let understood = 0;
  let refused = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const [parse, body] = SAMPLES[pick(SAMPLES.length)] ?? assert.fail();
    const mutated = mutate(body, pick);
    try {
      const text = JSON.stringify(parse(mutated)) ?? '';
      assert.doesNotMatch(text, /"(id|parentId|domainId)":"[^"]*[/\n]/, `seed ${seed}: ${text}`);
      understood += 1;
    } catch (error) {
      const { name, stack } = error as Error;
      assert.equal(name, 'IdentityUnavailableError', `seed ${seed}, round ${round}: ${stack}`);
      refused += 1;
    }
  }
  assert.ok(understood > 1_000 && refused > 1_000, `${understood} understood, ${refused} refused`);
});

test('parseToken() gives no roles to a token for nothing, and sees domains that are projects', () => {
  const unscoped = parseToken(tokenBody({ project: null }));
  assert.deepEqual([unscoped.scope, unscoped.roles], [{ kind: 'unscoped' }, []]);
  const domain = { id: 'd1', name: 'corp' };
  const acting = tokenBody({ is_domain: true, project: { ...domain, domain: null } });
  assert.deepEqual(parseToken(acting).scope, { kind: 'domain', domain });
});
