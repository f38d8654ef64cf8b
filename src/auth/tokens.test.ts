import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject, ObjectMeta } from '../api/object.ts';
import { StatusError } from '../api/status.ts';
import { FakeClock } from '../base/clock.fake.ts';
import { seededRandom } from '../base/random.ts';
import { peerIdentity } from './authenticators.ts';
import {
  createBootstrapToken,
  formatJoinToken,
  parseJoinToken,
  verifyBootstrapToken,
} from './bootstrap-tokens.ts';
import { createKey } from './pki.ts';
import { createServiceAccountTokens, SERVICE_ACCOUNT_ISSUER } from './service-account-tokens.ts';

function setUp() {
  const clock = new FakeClock();
  const objects = new Map<string, ObjectMeta>([
    ['serviceaccounts/ns/app', { uid: 'u1' }],
    ['pods/ns/p', { uid: 'u2' }],
    ['nodes//n', { uid: 'u3' }],
  ]);
  const tokens = createServiceAccountTokens({
    privateKey: createKey(),
    clock,
    random: seededRandom(1),
    lookup: (resource, namespace, name) => objects.get(`${resource}/${namespace}/${name}`),
  });
  return { clock, objects, tokens };
}

const binding = {
  namespace: 'ns',
  serviceAccount: { name: 'app', uid: 'u1' },
  pod: { name: 'p', uid: 'u2' },
  node: { name: 'n', uid: 'u3' },
  audiences: [],
  expirationSeconds: 3600,
};

const unauthorized = (why: RegExp) => (error: unknown) => {
  assert.ok(error instanceof StatusError && error.reason === 'Unauthorized');
  assert.equal(error.message, 'Unauthorized');
  assert.match(String((error.cause as Error).message), why);
  return true;
};

test('a service account token names its user, pod and node', async () => {
  const { tokens } = setUp();
  const { token } = await tokens.issue(binding);
  const verified = await tokens.verify(token);
  assert.equal(verified?.user.name, 'system:serviceaccount:ns:app');
  assert.equal(verified?.user.uid, 'u1');
  assert.deepEqual(verified?.user.groups, [
    'system:serviceaccounts',
    'system:serviceaccounts:ns',
    'system:authenticated',
  ]);
  assert.deepEqual(verified?.user.extra['authentication.kubernetes.io/pod-name'], ['p']);
  assert.deepEqual(verified?.audiences, [SERVICE_ACCOUNT_ISSUER]);
});

test('a service account token ends with its time, its account or its pod', async () => {
  const { tokens, clock, objects } = setUp();
  const { token } = await tokens.issue(binding);
  objects.set('pods/ns/p', { uid: 'other' });
  await assert.rejects(tokens.verify(token), unauthorized(/pods object is gone/));
  objects.set('pods/ns/p', { uid: 'u2', deletionTimestamp: '2026-01-01T00:00:00Z' });
  assert.ok(await tokens.verify(token));
  await clock.advance(61_000);
  await assert.rejects(tokens.verify(token), unauthorized(/being deleted/));
  objects.set('pods/ns/p', { uid: 'u2' });
  objects.delete('serviceaccounts/ns/app');
  await assert.rejects(tokens.verify(token), unauthorized(/serviceaccounts object is gone/));
  objects.set('serviceaccounts/ns/app', { uid: 'u1' });
  assert.ok(await tokens.verify(token));
  await clock.advance(3600_000);
  await assert.rejects(tokens.verify(token), unauthorized(/expired/));
});

test('a service account token is good for its audience alone', async () => {
  const { tokens } = setUp();
  const { token } = await tokens.issue({ ...binding, audiences: ['vault', 'db'] });
  await assert.rejects(tokens.verify(token), unauthorized(/another audience/));
  assert.deepEqual((await tokens.verify(token, ['db', 'x']))?.audiences, ['db']);
});

test('a forged or unsigned token is refused, and a foreign one is left to others', async () => {
  const { tokens } = setUp();
  const other = setUp();
  const { token } = await other.tokens.issue(binding);
  await assert.rejects(tokens.verify(token), unauthorized(/signature/));
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const payload = encode({ iss: SERVICE_ACCOUNT_ISSUER });
  await assert.rejects(tokens.verify(`${encode({ alg: 'none' })}.${payload}.`), unauthorized(/./));
  assert.equal(await tokens.verify(`a.${encode({ iss: 'https://else' })}.b`), undefined);
  assert.equal(await tokens.verify('opaque'), undefined);
  assert.equal(await tokens.verify('.'.repeat(100_000)), undefined);
});

test('the key set verifies what the issuer signs', async () => {
  const { tokens } = setUp();
  const { token } = await tokens.issue(binding);
  const jose = await import('jose');
  const result = await jose.jwtVerify(token, jose.createLocalJWKSet(tokens.jwks() as never), {
    currentDate: new Date(Date.UTC(2026, 0, 1)),
  });
  assert.equal(result.payload.iss, tokens.openidConfiguration().issuer);
});

test('a join token is the fingerprint and the bearer token', () => {
  const hash = 'ab'.repeat(32);
  const text = formatJoinToken(hash, 'abcdef.0123456789abcdef');
  assert.deepEqual(parseJoinToken(text), {
    caSha256: hash,
    bearerToken: 'abcdef.0123456789abcdef',
  });
  for (const bad of ['', 'abcdef.0123456789abcdef', `${hash}::abcdef.short`, `${hash}:x`]) {
    assert.throws(() => parseJoinToken(bad), /Cannot read join token/);
  }
});

test('a bootstrap token is good until it expires, for authentication, with its own secret', () => {
  const clock = new FakeClock();
  const { bearerToken, secret } = createBootstrapToken({ clock, random: seededRandom(7) });
  const lookup =
    (changes: Record<string, string | undefined> = {}) =>
    (_ns: string, name: string) => {
      if (name !== secret.metadata.name) return undefined;
      const data = { ...(secret.data as Record<string, string>) };
      for (const [key, value] of Object.entries(changes)) {
        if (value === undefined) delete data[key];
        else data[key] = Buffer.from(value).toString('base64');
      }
      return { ...secret, data } as KubeObject;
    };
  const user = verifyBootstrapToken(bearerToken, lookup(), clock);
  assert.equal(user?.name, `system:bootstrap:${bearerToken.slice(0, 6)}`);
  assert.ok(user?.groups.includes('system:bootstrappers:hypernetes:nodes'));
  assert.equal(verifyBootstrapToken('other', lookup(), clock), undefined);
  const wrong = `${bearerToken.slice(0, 7)}${'0'.repeat(16)}`;
  assert.throws(() => verifyBootstrapToken(wrong, lookup(), clock), unauthorized(/wrong/));
  const cases: [Record<string, string | undefined>, RegExp][] = [
    [{ expiration: '2026-01-01T00:00:00Z' }, /expired/],
    [{ expiration: 'soon' }, /not a time/],
    [{ 'usage-bootstrap-authentication': undefined }, /not for authentication/],
    [{ 'auth-extra-groups': 'system:masters' }, /not allowed/],
    [{ 'token-id': 'zzzzzz' }, /ids differ/],
    [{ 'token-secret': '' }, /no token-secret/],
  ];
  for (const [changes, why] of cases) {
    assert.throws(
      () => verifyBootstrapToken(bearerToken, lookup(changes), clock),
      unauthorized(why),
    );
  }
});

test('a peer is who its certificate names, and nobody where it names several', () => {
  const peer = (subject: object) => peerIdentity({ subject: subject as never });
  assert.deepEqual(peer({ CN: 'bob', O: 'dev' }), { commonName: 'bob', organizations: ['dev'] });
  assert.equal(peer({ CN: ['a', 'b'] }), undefined);
  assert.equal(peer({ O: 'system:masters' }), undefined);
});
