import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Secret } from '../../api/types.generated.ts';
import { createBootstrapToken } from '../../auth/bootstrap-tokens.ts';
import { seededRandom } from '../../base/random.ts';
import { SECRETS } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import { runBootstrapTokenCleaner } from './index.ts';

const HOUR_MS = 3600 * 1000;

test('a bootstrap token goes when its time has come, and no sooner', async (t) => {
  const { api, clock, pass } = startTestCluster(t, [runBootstrapTokenCleaner]);
  const { secret } = createBootstrapToken({ clock, random: seededRandom(1), lifetimeMs: HOUR_MS });
  api.put(SECRETS, secret as Secret);
  await pass(HOUR_MS - 5000);
  assert.equal(api.all(SECRETS).length, 1);
  await pass(10_000);
  assert.equal(api.all(SECRETS).length, 0);
});

test('a token whose time is moved on lives until then', async (t) => {
  const { api, clock, pass } = startTestCluster(t, [runBootstrapTokenCleaner]);
  const options = { clock, random: seededRandom(1) };
  const { secret } = createBootstrapToken({ ...options, lifetimeMs: HOUR_MS });
  api.put(SECRETS, secret as Secret);
  await pass(HOUR_MS / 2);
  const longer = createBootstrapToken({ ...options, lifetimeMs: 3 * HOUR_MS }).secret as Secret;
  api.put(SECRETS, { ...(secret as Secret), data: longer.data });
  await pass(2 * HOUR_MS);
  assert.equal(api.all(SECRETS).length, 1);
  await pass(2 * HOUR_MS);
  assert.equal(api.all(SECRETS).length, 0);
});

test('only tokens that have a time are cleaned, in their namespace alone', async (t) => {
  const { api, clock, pass } = startTestCluster(t, [runBootstrapTokenCleaner]);
  const { secret } = createBootstrapToken({ clock, random: seededRandom(1), lifetimeMs: 1000 });
  const token = secret as Secret;
  const { expiration: _expiration, ...endless } = token.data ?? {};
  const named = (name: string, more: object): Secret => ({
    ...token,
    metadata: { name, namespace: 'kube-system' },
    ...more,
  });
  api.put(SECRETS, named('endless', { data: endless }));
  api.put(SECRETS, named('opaque', { type: 'Opaque' }));
  api.put(SECRETS, named('elsewhere', { metadata: { name: 'elsewhere', namespace: 'ns' } }));
  const broken = { ...token.data, expiration: Buffer.from('soon').toString('base64') };
  api.put(SECRETS, named('broken', { data: broken }));
  await pass(60_000);
  const left = api.all(SECRETS).map(({ metadata }) => metadata.name);
  assert.deepEqual(left.sort(), ['elsewhere', 'endless', 'opaque']);
});
