import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { createServer } from 'node:tls';
import { IDENTITY_CACHE_MS } from '../../src/api/identity.ts';
import type { IdentityProvider } from '../../src/api/identity.ts';
import { createCa, createCaSigner, createKey } from '../../src/auth/pki.ts';
import { systemClock } from '../../src/base/clock.ts';
import { describeError } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { identityConformance } from '../../src/identity/conformance.ts';
import type { IdentityHarness } from '../../src/identity/conformance.ts';
import { createKeystoneProvider } from '../../src/identity/keystone/provider.ts';
import type { KeystoneOptions } from '../../src/identity/keystone/provider.ts';
import { createApiHarness } from '../../src/identity/testing/api-harness.ts';
import type { ApiCall } from '../../src/identity/testing/api-harness.ts';
import { startKeystone } from './support/keystone.ts';
import type { KeystoneLogin, TestKeystone } from './support/keystone.ts';

const sleep = (ms: number) => systemClock.sleep(ms);

let keystone: TestKeystone;
before(async () => {
  keystone = await startKeystone();
});
after(() => keystone?.[Symbol.asyncDispose]());

function credentialsOf(login: KeystoneLogin) {
  const { username, password, domain, project } = login;
  const scope = { kind: 'project' as const, project, domain };
  return { kind: 'password' as const, username, userDomain: domain, password, scope };
}

function provide(options: Partial<KeystoneOptions> = {}): IdentityProvider {
  const credentials = credentialsOf(keystone.service);
  const pollIntervalMs = 1_000;
  return createKeystoneProvider({
    url: keystone.url,
    credentials,
    pollIntervalMs,
    ...options,
  });
}

function callTo(url: string): ApiCall {
  return async ({ method, path, headers, body }) => {
    const answer = await fetch(url + path, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return {
      status: answer.status,
      headers: Object.fromEntries(answer.headers),
      body: text.startsWith('{') ? JSON.parse(text) : text,
    };
  };
}

const harnessOf = (provider: IdentityProvider): Promise<IdentityHarness> =>
  createApiHarness({
    provider,
    call: callTo(keystone.url),
    admin: keystone.admin,
    advance: sleep,
  });

identityConformance('Keystone', async () => {
  const provider = provide();
  const harness = await harnessOf(provider);
  return { harness, dispose: () => provider.close() };
});

describe('a Keystone that misbehaves', () => {
  let provider: IdentityProvider;
  let harness: IdentityHarness;
  const token = () =>
    harness.issueToken({ method: 'password', ...keystone.admin }, { system: true });
  const isUnavailable = { name: 'IdentityUnavailableError' };

  before(async () => {
    provider = provide({ timeoutMs: 4_000 });
    harness = await harnessOf(provider);
  });
  after(() => provider?.close());

  const UNKNOWN_CA = /signature|self.signed|issuer|verify/;

  /** The time in which a promise settles. */
  const timed = async (promise: Promise<unknown>): Promise<number> => {
    const startMs = performance.now();
    await promise.catch(() => {});
    return performance.now() - startMs;
  };
  const untilAnswered = async (asked: string): Promise<void> => {
    const deadlineMs = performance.now() + 30_000;
    for (;;) {
      const answer = await provider.validate(asked).catch((error: unknown) => error as Error);
      if (!(answer instanceof Error)) return assert.ok(answer);
      assert.ok(performance.now() < deadlineMs, describeError(answer));
      await sleep(100);
    }
  };

  test('a remembered token costs less than a millisecond', async () => {
    const good = await token();
    await provider.validate(good);
    const tookMs: number[] = [];
    for (let round = 0; round < 5_000; round += 1) {
      tookMs.push(await timed(provider.validate(good)));
    }
    const [p50 = Infinity, p99] = [0.5, 0.99].map(
      (part) => tookMs.sort((a, b) => a - b)[Math.floor(tookMs.length * part)],
    );
    console.log(`validated from cache: p50 ${p50.toFixed(4)} ms, p99 ${p99?.toFixed(4)} ms`);
    assert.ok(p50 <= 0.2);
  });

  test('it stops: who is known goes on, others are told so, and it comes back', async () => {
    const [known, stranger] = await Promise.all([token(), token()]);
    await provider.validate(known);
    keystone.pause();
    try {
      await assert.rejects(provider.validate(stranger), isUnavailable);
      await sleep(IDENTITY_CACHE_MS);
      assert.ok(await provider.validate(known));
      assert.ok((await timed(provider.validate(known))) < 500);
      assert.ok((await timed(provider.validate(stranger))) < 500);
      await assert.rejects(provider.validate(stranger), isUnavailable);
      await assert.rejects(provider.listProjects(), isUnavailable);
    } finally {
      keystone.resume();
    }
    await untilAnswered(stranger);
    await harness.revokeToken(known);
    await sleep(IDENTITY_CACHE_MS);
    assert.equal(await provider.validate(known), undefined);
  });

  test('only the Keystone of the given CA and name is asked', async () => {
    const good = await token();
    await using proxy = await startTlsProxy(keystone.url, '127.0.0.1');
    await using misnamed = await startTlsProxy(keystone.url, '127.0.0.2');
    const outcome = async (url: string, caCert?: string): Promise<string> => {
      const other = provide({ url, ...(caCert === undefined ? {} : { caCert }) });
      try {
        return (await other.validate(good)) ? 'valid' : 'invalid';
      } catch (error) {
        assert.equal((error as Error).name, isUnavailable.name);
        return describeError(error);
      } finally {
        await other.close();
      }
    };
    assert.equal(await outcome(proxy.url, proxy.caCert), 'valid');
    assert.match(await outcome(proxy.url, misnamed.caCert), UNKNOWN_CA);
    assert.match(await outcome(proxy.url), UNKNOWN_CA);
    assert.match(await outcome(misnamed.url, misnamed.caCert), /does not match/);
  });

  test('the service user may be an application credential, and has to be a good one', async () => {
    const good = await token();
    const { service } = keystone;
    const login = { method: 'password' as const, ...service };
    const project = (await provider.listProjects()).find(({ name }) => name === service.project);
    const own = await harness.issueToken(login, { projectId: project?.id ?? '' });
    const userId = (await provider.validate(own))?.user.id ?? '';
    const credential = await harness.createApplicationCredential(own, userId, { name: 'cluster' });
    const kind = 'applicationCredential' as const;
    const right = provide({ credentials: { kind, ...credential } });
    const wrong = provide({ credentials: { kind, ...credential, secret: 'wrong' } });
    try {
      assert.ok(await right.validate(good));
      const refused = await wrong.validate(good).catch((error: unknown) => error as Error);
      assert.ok(refused instanceof Error && refused.name === isUnavailable.name);
      assert.match(describeError(refused), /Cannot log in to Keystone as application credential/);
    } finally {
      await right.close();
      await wrong.close();
    }
  });

  test('it dies and returns; tokens end on time, the service user’s is renewed', async () => {
    const known = await token();
    await provider.validate(known);
    await keystone.kill();
    await assert.rejects(provider.validate(`${known.slice(0, -8)}AAAAAAAA`), isUnavailable);
    assert.ok(await provider.validate(known));
    const tokenSeconds = 12;
    await keystone.restart({ tokenSeconds });
    await untilAnswered(known);
    // Its service token now lives as short as the others.
    const fresh = provide({ timeoutMs: 4_000 });
    try {
      const short = await token();
      const got = await fresh.validate(short);
      assert.ok(got && (await fresh.validate(known)));
      const leftMs = () => got.expiresAtMs - Date.now();
      while (leftMs() > 3_000) {
        assert.ok(await fresh.validate(short));
        await sleep(250);
      }
      keystone.pause();
      await sleep(leftMs() + 1_500);
      await assert.rejects(fresh.validate(short), isUnavailable);
      assert.ok(await fresh.validate(known));
      keystone.resume();
      const deadlineMs = performance.now() + 20_000;
      const isRefused = () => fresh.validate(short).then((now) => now === undefined);
      while (!(await isRefused().catch(() => false))) {
        assert.ok(performance.now() < deadlineMs);
        await sleep(100);
      }
      assert.ok(await fresh.validate(known));
    } finally {
      keystone.resume();
      await fresh.close();
    }
  });
});

/** @param host that the certificate is for */
async function startTlsProxy(target: string, host: string) {
  const options = { clock: systemClock, random: systemRandom };
  const caKey = createKey();
  const caCert = createCa(caKey, options);
  const { cert, key } = createCaSigner({ caCert, caKey, ...options }).serverPair('proxy', [host]);
  const { hostname, port } = new URL(target);
  const server = createServer({ cert, key }, (socket) => {
    const upstream = connect(Number(port), hostname);
    socket.pipe(upstream).pipe(socket);
    for (const [one, other] of [
      [socket, upstream],
      [upstream, socket],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    caCert,
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, 'close');
    },
  };
}
