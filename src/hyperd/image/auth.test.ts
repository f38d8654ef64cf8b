import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import type { NetworkInterfaceInfo } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { basicAuthorization, parseChallenges, parseToken } from './auth.ts';
import { isNodeAddress } from './http.ts';
import { openImageStore } from './index.ts';
import { ImageError } from './store.ts';
import type { RegistryCredential } from './store.ts';
import { plainRegistries, publish } from './testing/upstream.ts';
import { ALICE, MALLORY, requireAuthorization, useRegistries } from './testing/registries-rig.ts';

/** Who may pull what, by which credential, from registries that are strict or hostile. */
const rig = useRegistries();
const { open, plain } = rig;

test('a private image is for those who could pull it, a public one for everyone', async () => {
  requireAuthorization(rig.upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  const registries = plainRegistries([rig.upstream.host, rig.other.host]);
  const { pull, store, directory } = await open(registries);
  const mayUse = (name: string, credentials: RegistryCredential[], from = store) =>
    from.mayUse({ reference: name, credentials });
  const name = `${rig.upstream.host}/app:1`;
  await pull('app:1', [MALLORY, ALICE]);
  assert.equal(mayUse(name, [ALICE]), true);
  assert.equal(mayUse(name, [MALLORY, ALICE]), true);
  for (const reference of [name, `${rig.upstream.host}/app@${rig.image.digest}`, rig.image.id]) {
    assert.equal(mayUse(reference, []), false, reference);
    assert.equal(mayUse(reference, [MALLORY]), false, 'it came with the right one, and is not');
  }
  const text = await readFile(join(directory, 'images.json'), 'utf8');
  assert.ok(!text.includes(ALICE.password), 'the credential itself is not written down');

  publish(rig.other, 'app', '1', rig.image);
  await pull('app:1', [ALICE], rig.other.host);
  assert.equal(mayUse(`${rig.other.host}/app:1`, []), true, 'nobody was asked for a credential');
  assert.equal(mayUse(name, []), false, 'the same image is private where it was private');
  await store.close();
  const again = await openImageStore({ directory, registries, clock: systemClock, log: silentLog });
  assert.equal(mayUse(name, [ALICE], again), true);
  assert.equal(mayUse(name, [MALLORY], again), false);
  rig.upstream.intercept = () => false;
  await again.pull({ reference: name, credentials: [] });
  assert.equal(mayUse(name, [MALLORY], again), true, 'it has become public');
  await again.close();
});

test('basic authentication: each credential is tried, the right one is found and kept', async () => {
  requireAuthorization(rig.upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  const { pull } = await plain();
  const denied = {
    name: 'ImageError',
    reason: 'Unauthorized',
    message: /failed to pull image ".*\/app:1": .*pull access denied/,
  };
  await assert.rejects(pull('app:1'), denied);
  await assert.rejects(pull('app:1', [MALLORY]), denied);
  assert.equal((await pull('app:1', [MALLORY, ALICE])).id, rig.image.id);
  rig.upstream.requests = [];
  await pull('app:1', [ALICE]);
  assert.equal(rig.upstream.requests.length, 1, 'without being asked again');
  await assert.rejects(
    pull('app:1', [MALLORY]),
    denied,
    'an image that is present is no secret key',
  );
});

test("the node's own credential is tried after those of the pull", async () => {
  requireAuthorization(rig.upstream, basicAuthorization(ALICE), 'Basic realm="test"');
  const credential = { credential: ALICE };
  const { pull } = await open(
    plainRegistries([rig.upstream.host], { [rig.upstream.host]: credential }),
  );
  assert.equal((await pull('app:1', [MALLORY])).id, rig.image.id);
});

test('bearer tokens: anonymous, by password, by identity token', async () => {
  const asked: { url: URL; authorization: string | undefined; body: string }[] = [];
  rig.other.intercept = (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString('utf8');
      const url = new URL(request.url as string, rig.other.origin);
      asked.push({ url, authorization: request.headers.authorization, body });
      response.end(
        JSON.stringify(request.method === 'POST' ? { access_token: 'T' } : { token: 'T' }),
      );
    });
    return true;
  };
  const challenge = `Bearer realm="${rig.other.origin}/token?x=1",service="reg,istry",scope="ignored"`;
  const cases: { credentials: RegistryCredential[]; authorization?: string; body: RegExp }[] = [
    { credentials: [], body: /^$/ },
    { credentials: [ALICE], authorization: basicAuthorization(ALICE), body: /^$/ },
    {
      credentials: [{ username: '<token>', password: 'identity' }],
      body: /grant_type=refresh_token.*refresh_token=identity&scope=repository%3Aapp%3Apull&service=/,
    },
  ];
  for (const { credentials, authorization, body } of cases) {
    asked.length = 0;
    requireAuthorization(rig.upstream, 'Bearer T', challenge);
    const { pull } = await plain();
    assert.equal((await pull('app:1', credentials)).id, rig.image.id);
    assert.equal(asked.length, 1, 'one token serves all requests');
    const [token] = asked;
    assert.equal(token?.authorization, authorization);
    assert.match(token?.body ?? '', body);
    if (body.test('')) {
      assert.equal(token?.url.searchParams.get('scope'), 'repository:app:pull');
      assert.equal(token?.url.searchParams.get('service'), 'reg,istry');
      assert.equal(token?.url.searchParams.get('x'), '1');
    }
  }
});

test('a token that has run out is replaced', async () => {
  let current = 0;
  rig.upstream.intercept = (request, response) => {
    if (request.url?.startsWith('/token')) {
      current += 1;
      response.end(JSON.stringify({ token: `T${current}`, expires_in: 3600 }));
      return true;
    }
    if (request.headers.authorization === `Bearer T${current}` && current > 0) return false;
    response
      .writeHead(401, { 'www-authenticate': `Bearer realm="${rig.upstream.origin}/token"` })
      .end();
    return true;
  };
  const { pull } = await plain();
  await pull('app:1');
  assert.equal(current, 1);
  current = 7;
  await pull('app:1');
  assert.equal(current, 8);
});

test('useless challenges and token servers are an error, not a loop', async () => {
  const { pull } = await plain();
  const challenges = [
    'Bearer realm="not a url"',
    'Bearer',
    'Negotiate',
    '',
    'Basic realm="x"',
    `Bearer realm="${rig.other.origin}/no-token"`,
    `Bearer realm="http://user:pass@${rig.other.host}/t"`,
  ];
  rig.other.intercept = (_request, response) => {
    response.end('{"token":"a\\r\\nx: y"}');
    return true;
  };
  for (const challenge of challenges) {
    requireAuthorization(rig.upstream, 'never', challenge);
    await assert.rejects(pull('app:1'), { reason: 'Unauthorized' }, challenge);
  }
  assert.ok(rig.upstream.requests.length <= 2 * challenges.length);
});

test('parseChallenges() and parseToken() take what servers send', () => {
  const challenges = parseChallenges(
    'Negotiate, Bearer realm="https://a/b?c=d,e", service=x , scope="a\\"b", Basic realm="r"',
  );
  assert.deepEqual(
    challenges.map(({ scheme }) => scheme),
    ['negotiate', 'bearer', 'basic'],
  );
  assert.deepEqual(
    [...(challenges[1]?.parameters ?? [])],
    [
      ['realm', 'https://a/b?c=d,e'],
      ['service', 'x'],
      ['scope', 'a"b'],
    ],
  );
  const long = 'a'.repeat(100_000);
  assert.ok(parseChallenges(long).length <= 1);
  assert.deepEqual(parseToken('{"token":"t","expires_in":120}'), {
    value: 't',
    lifetimeMs: 120_000,
  });
  for (const body of ['', 'null', '[]', '{"token":5}', '{"token":"a b"}', '{}'])
    assert.equal(parseToken(body), undefined, body);
  assert.ok(new ImageError('Unreachable', 'x').transient);
});

test('the addresses that the node has are no more open to pulls than its loopback', () => {
  const own = (address: string, family: 'IPv4' | 'IPv6'): NetworkInterfaceInfo =>
    ({ address, family, internal: false }) as NetworkInterfaceInfo;
  const interfaces = {
    eth0: [own('192.0.2.7', 'IPv4'), own('2001:db8::7', 'IPv6')],
    hn0: [own('10.9.0.1', 'IPv4')],
  };
  for (const address of [
    '192.0.2.7',
    '::ffff:192.0.2.7',
    '2001:db8:0::7',
    '10.9.0.1',
    '127.1.1.1',
  ]) {
    assert.ok(isNodeAddress(address, interfaces), address);
  }
  for (const address of ['192.0.2.8', '2001:db8::8', 'registry.example']) {
    assert.ok(!isNodeAddress(address, interfaces), address);
  }
});
