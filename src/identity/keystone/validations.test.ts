import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IDENTITY_CACHE_MS, IdentityUnavailableError } from '../../api/identity.ts';
import type { IdentityToken } from '../../api/identity.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import { createOutage } from './outage.ts';
import { createValidations } from './validations.ts';
import { createLru } from './lru.ts';
import { isKeystoneToken } from './token-form.ts';

const LIFE_MS = 3_600_000;
const GRACE_MS = 600_000;
const away = () => new IdentityUnavailableError('away');

/** A Keystone of which a test says what it does, and counts what it is asked. */
function stage(options: { validationsPerS?: number; skewMs?: number } = {}) {
  const clock = new FakeClock();
  const { skewMs = 0 } = options;
  const keystone = {
    asked: 0,
    probed: 0,
    isAway: false,
    isValid: true,
    /** Every question but the probe fails. */
    isFailing: false,
    gate: Promise.resolve(),
  };
  const outage = createOutage({
    probe() {
      keystone.probed += 1;
      return keystone.isAway ? Promise.reject(away()) : Promise.resolve();
    },
    clock,
    log: silentLog,
  });
  const endsAtMs = clock.nowMs() + skewMs + LIFE_MS;
  const token: IdentityToken = {
    user: { id: 'u1', name: 'alice', domain: { id: 'default', name: 'Default' } },
    methods: ['password'],
    issuedAtMs: clock.nowMs() + skewMs,
    expiresAtMs: endsAtMs,
    scope: { kind: 'unscoped' },
    roles: [],
    groups: [],
  };
  const validations = createValidations({
    async describe() {
      keystone.asked += 1;
      await keystone.gate;
      if (keystone.isAway || keystone.isFailing) throw away();
      const isOver = clock.nowMs() + skewMs >= endsAtMs;
      return keystone.isValid && !isOver ? token : undefined;
    },
    keystoneNowMs: () => clock.nowMs() + skewMs,
    outage,
    outageGraceMs: GRACE_MS,
    validationsPerS: options.validationsPerS ?? 1_000,
    clock,
    log: silentLog,
  });
  return { clock, keystone, validations, outage };
}

test('a token is asked about once while its answer is fresh, by all together', async () => {
  const { clock, keystone, validations } = stage();
  await Promise.all(Array.from({ length: 100 }, () => validations.validate('a')));
  await clock.advance(IDENTITY_CACHE_MS * 0.5);
  assert.ok(await validations.validate('a'));
  assert.equal(keystone.asked, 1);
});

test('a token in use is refreshed before anybody waits, and one out of use is not', async () => {
  const { clock, keystone, validations } = stage();
  await validations.validate('a');
  await clock.advance(IDENTITY_CACHE_MS * 0.7);
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  keystone.gate = gate;
  assert.ok(await validations.validate('a'));
  assert.ok(await validations.validate('a'));
  open();
  await clock.advance(IDENTITY_CACHE_MS * 0.5);
  assert.ok(await validations.validate('a'));
  assert.equal(keystone.asked, 2);
  await clock.advance(IDENTITY_CACHE_MS * 10);
  assert.equal(keystone.asked, 2);
});

test('no answer is older than promised', async () => {
  const { clock, keystone, validations } = stage();
  await validations.validate('a');
  keystone.isValid = false;
  await clock.advance(IDENTITY_CACHE_MS - 1);
  await validations.validate('b');
  await clock.advance(1);
  assert.equal(await validations.validate('a'), undefined);
});

test('a refused token is not asked about again at once, and may become good', async () => {
  const { clock, keystone, validations } = stage();
  keystone.isValid = false;
  for (let round = 0; round < 10; round += 1) await validations.validate('a');
  assert.equal(keystone.asked, 1);
  keystone.isValid = true;
  await clock.advance(2_000);
  assert.ok(await validations.validate('a'));
});

test('while Keystone is away, known tokens go on within the grace, others do not', async () => {
  const { clock, keystone, validations, outage } = stage();
  await validations.validate('a');
  keystone.isAway = true;
  await clock.advance(IDENTITY_CACHE_MS);
  assert.ok(await validations.validate('a'));
  await assert.rejects(validations.validate('b'), { name: 'IdentityUnavailableError' });
  const { asked } = keystone;
  await clock.advance(GRACE_MS - IDENTITY_CACHE_MS - 1);
  assert.ok(await validations.validate('a'));
  assert.equal(keystone.asked, asked, 'only the probe asks');
  await clock.advance(1);
  await assert.rejects(validations.validate('a'), { name: 'IdentityUnavailableError' });
  keystone.isAway = false;
  await clock.advance(2_000);
  assert.equal(outage.cause, undefined);
  assert.ok(await validations.validate('b'));
  assert.ok(await validations.validate('a'));
});

test('a token ends on time while Keystone is away', async () => {
  const { clock, keystone, validations } = stage();
  await clock.advance(LIFE_MS - 20_000);
  await validations.validate('a');
  keystone.isAway = true;
  await clock.advance(19_999);
  assert.ok(await validations.validate('a'));
  await clock.advance(1);
  await assert.rejects(validations.validate('a'), { name: 'IdentityUnavailableError' });
});

test('a question that Keystone fails at does not make its token live on', async () => {
  const { clock, keystone, validations, outage } = stage();
  await validations.validate('a');
  keystone.isFailing = true;
  await clock.advance(IDENTITY_CACHE_MS);
  await assert.rejects(validations.validate('a'), { name: 'IdentityUnavailableError' });
  assert.equal(outage.cause, undefined);
  assert.ok(keystone.probed > 0);
});

test('those who wait are answered when Keystone is found to be away', async () => {
  const { clock, keystone, validations } = stage();
  await validations.validate('a');
  await clock.advance(IDENTITY_CACHE_MS);
  keystone.gate = new Promise(() => {});
  const known = validations.validate('a');
  const stranger = validations.validate('b');
  stranger.catch(() => {});
  keystone.isAway = true;
  await clock.advance(1_500);
  assert.ok(await known);
  await assert.rejects(stranger, { name: 'IdentityUnavailableError' });
});

test('made-up tokens are asked about so often, and known ones not less for it', async () => {
  const { clock, keystone, validations } = stage({ validationsPerS: 10 });
  await validations.validate('known');
  await clock.advance(IDENTITY_CACHE_MS);
  keystone.asked = 0;
  const flood = Array.from({ length: 1_000 }, (_, index) =>
    validations.validate(`flood-${index}`).then(
      () => true,
      () => false,
    ),
  );
  const known = validations.validate('known');
  await clock.advance(5_000);
  assert.ok(await known);
  assert.ok(keystone.asked <= 20, `${keystone.asked} questions`);
  assert.ok((await Promise.all(flood)).includes(false));
});

test('too many tokens in use: none is served longer than promised for it', async () => {
  const { clock, keystone, validations } = stage({ validationsPerS: 10 });
  for (let index = 0; index < 100; index += 1) {
    await Promise.all([validations.validate(`t${index}`), clock.advance(200)]);
  }
  await clock.advance(IDENTITY_CACHE_MS);
  keystone.isValid = false;
  const all = Array.from({ length: 100 }, (_, index) =>
    validations.validate(`t${index}`).catch(() => undefined),
  );
  await clock.advance(5_000);
  assert.deepEqual([...new Set(await Promise.all(all))], [undefined]);
});

test('a clock that differs is set off against ours', async () => {
  for (const skewMs of [-90_000, 90_000]) {
    const { clock, validations } = stage({ skewMs });
    const got = await validations.validate('a');
    assert.equal(got?.issuedAtMs, clock.nowMs());
    assert.equal(got?.expiresAtMs, clock.nowMs() + LIFE_MS);
  }
});

test('who gives up leaves the question to the others', async () => {
  const { keystone, validations } = stage();
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  keystone.gate = gate;
  const controller = new AbortController();
  const one = validations.validate('a', controller.signal);
  const other = validations.validate('a');
  controller.abort(new Error('gone'));
  await assert.rejects(one, { message: 'gone' });
  open();
  assert.ok(await other);
  assert.equal(keystone.asked, 1);
});

test('who waits when the provider is closed is told so', async () => {
  const { keystone, validations, clock } = stage();
  keystone.gate = new Promise(() => {});
  const waiting = validations.validate('a');
  waiting.catch(() => {});
  await clock.advance(0);
  validations.close();
  await assert.rejects(waiting, { name: 'IdentityUnavailableError', message: /closed/ });
});

test('createLru() keeps what was used last', () => {
  const lru = createLru<number>(2);
  lru.set('a', 1);
  lru.set('b', 2);
  lru.get('a');
  lru.set('c', 3);
  assert.deepEqual([lru.get('a'), lru.get('b'), lru.get('c'), lru.size], [1, undefined, 3, 2]);
});

test('isKeystoneToken() knows Fernet and signed tokens from those of others', () => {
  const part = (claims: unknown) => Buffer.from(JSON.stringify(claims)).toString('base64url');
  const signed = (claims: unknown) => `${part({ alg: 'ES256' })}.${part(claims)}.c2ln`;
  assert.ok(isKeystoneToken(`gAAAAABl${'x'.repeat(176)}==`));
  assert.ok(isKeystoneToken(signed({ sub: 'u', openstack_methods: ['password'] })));
  const others = [
    signed({ sub: 'u' }),
    signed({ iss: 'https://x', openstack_methods: ['password'] }),
    signed(null),
    'a.b.c',
    'gAAAAABl',
    `gAAAAABl${'x'.repeat(176)}\r\nX-Auth-Token: y`,
    `gAAAAABl${'x'.repeat(5_000)}`,
  ];
  for (const other of others) assert.equal(isKeystoneToken(other), false, other.slice(0, 80));
});
