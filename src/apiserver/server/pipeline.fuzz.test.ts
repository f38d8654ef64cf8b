import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FakeClock } from '../../base/clock.fake.ts';
import { seededRandom } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import { deployment, pod, startHarness } from '../testing/harness.ts';

const REQUESTS = 3_000;
const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD'];
const SEGMENTS = [
  'api',
  'apis',
  'v1',
  'apps',
  'namespaces',
  'default',
  'pods',
  'deployments',
  'services',
  'nodes',
  'status',
  'scale',
  'log',
  'exec',
  'binding',
  'eviction',
  'token',
  'finalize',
  'proxy',
  'watch',
  'a',
  '..',
  '%2e%2e',
  '%00',
  '%',
  'x'.repeat(300),
  'events',
  'events.k8s.io',
  'openapi',
  'v3',
  'serviceaccounts',
  'secrets',
  'certificatesigningrequests',
  'certificates.k8s.io',
  'approval',
];
const QUERIES = [
  'watch=true&timeoutSeconds=0',
  'limit=3',
  'limit=x',
  'continue=abc',
  'resourceVersion=0',
  'resourceVersion=-1',
  'labelSelector=a%20in',
  'labelSelector=a=b',
  'fieldSelector=metadata.name=a',
  'fieldSelector===',
  'dryRun=All',
  'dryRun=x',
  'fieldValidation=Strict',
  'includeObject=All',
  'gracePeriodSeconds=99999999999999',
  'propagationPolicy=Orphan',
  'container=%00',
  'pretty=1',
];
const TYPES = [
  'application/json',
  'application/yaml',
  'application/vnd.kubernetes.protobuf',
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
  'application/json-patch+json',
  'application/apply-patch+yaml',
  ';;;',
  '',
];
const ACCEPTS = [
  '*/*',
  'application/json;as=Table;v=v1;g=meta.k8s.io',
  'application/yaml',
  ';q=',
  '',
];
const VALUES: unknown[] = [
  null,
  true,
  -1,
  1e308,
  '',
  'x',
  '\ud800',
  [],
  {},
  [null],
  { a: { b: [] } },
  '2026-13-99T00:00:00Z',
  { __proto__: 1 },
  { name: 'a' },
  '9'.repeat(400),
  Number.MAX_SAFE_INTEGER,
];

function pick<T>(random: Random, list: readonly T[]): T {
  return list[Math.floor(random.next() * list.length)] as T;
}

/** A valid object with one value somewhere in it replaced by something else. */
function mutated(random: Random): unknown {
  const base = structuredClone(pick(random, [pod('a'), deployment('a')])) as unknown;
  let at = base as Record<string, unknown>;
  for (;;) {
    const key = pick(random, Object.keys(at));
    const next = at[key];
    const isLeaf = typeof next !== 'object' || next === null || Object.keys(next).length === 0;
    if (isLeaf || random.next() < 0.3) {
      at[key] = pick(random, VALUES);
      return base;
    }
    at = next as Record<string, unknown>;
  }
}

/** Watches and waits end as time goes on; it goes on only for those. */
async function settled<T>(clock: FakeClock, promise: Promise<T>): Promise<T> {
  let isDone = false;
  const marked = promise.finally(() => void (isDone = true));
  for (let turn = 0; !isDone; turn += 1) {
    if (turn < 20) await new Promise((resolve) => setImmediate(resolve));
    else await clock.advance(500);
  }
  return marked;
}

function bodyOf(random: Random): unknown {
  const roll = random.next();
  if (roll < 0.5) return mutated(random);
  if (roll < 0.7) return pick(random, VALUES);
  if (roll < 0.85) return [{ op: 'add', path: '/spec/x', value: pick(random, VALUES) }];
  return Buffer.from(random.bytes(40)).toString('latin1');
}

test('no request, however odd, is an internal error or ends the server', async () => {
  const seed = 20_261_121;
  const random = seededRandom(seed);
  await using api = await startHarness({ limits: { watchTimeoutMinMs: 1_000 } });
  for (let i = 0; i < REQUESTS; i += 1) {
    const method = pick(random, METHODS);
    const length = 1 + Math.floor(random.next() * 7);
    const known = random.next() < 0.6 ? ['api', 'v1', 'namespaces', 'default', 'pods'] : [];
    const rest = Array.from({ length: known.length ? length % 3 : length }, () =>
      pick(random, SEGMENTS),
    );
    const query = random.next() < 0.5 ? pick(random, QUERIES) : '';
    const target = `/${[...known, ...rest].join('/')}${query ? `?${query}` : ''}`;
    const hasBody = method !== 'GET' && method !== 'HEAD';
    const sent = api.send(method, target, hasBody ? bodyOf(random) : undefined, {
      type: pick(random, TYPES),
      headers: { accept: pick(random, ACCEPTS) },
    });
    const answer = await settled(api.clock, sent);
    const isExpected = answer.code < 500 || answer.code === 503 || answer.code === 504;
    assert.ok(isExpected, `seed ${seed}, request ${i}: ${method} ${target}: ${answer.text}`);
  }
});
