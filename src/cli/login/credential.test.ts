import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { currentToken, execCredential, readExecInfo } from './credential.ts';
import type { CredentialContext } from './credential.ts';
import { configDirectory, openProfiles, profileName } from './profiles.ts';
import type { Profile, ProfileStore, StoredToken } from './profiles.ts';
import type { RenewalProof } from './renew.ts';

let folder: string;
let profiles: ProfileStore;
beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), 'profiles-')), 'hypernetes');
  profiles = openProfiles(folder);
});
afterEach(() => rm(join(folder, '..'), { recursive: true }));

const PROFILE: Profile = {
  version: 1,
  id: 'login-1',
  name: 'acme@host',
  server: 'https://10.0.0.1:6443',
  caCert: 'pem',
  authUrl: 'https://10.0.0.1:6443/identity/v3',
  user: { id: 'u1', name: 'alice', domain: 'Default' },
  scope: { kind: 'project', id: 'p1', name: 'acme', domain: 'Default' },
  tenant: 'acme',
  kubeconfig: { path: '/nowhere', context: 'acme@host' },
};
const REMEMBERED: Profile = {
  ...PROFILE,
  credential: { id: 'c1', secret: 'hidden', isOurs: true },
};

const MINUTE_MS = 60_000;
const tokenFor = (leftMs: number, value = 'stored'): StoredToken => ({
  ...{ profileId: PROFILE.id, value, methods: ['password'] },
  expiresAtMs: systemClock.nowMs() + leftMs,
});

/** A context whose identity service answers with new tokens, and remembers what it was asked. */
function contextWith(over: Partial<CredentialContext> = {}) {
  const asked: RenewalProof[] = [];
  const context: CredentialContext = {
    profiles,
    clock: systemClock,
    async renew(_profile, proof) {
      asked.push(proof);
      await systemClock.sleep(20);
      return tokenFor(60 * MINUTE_MS, `renewed-${asked.length}`);
    },
    ...over,
  };
  return { context, asked };
}

test('profiles and tokens are for this user account alone', async () => {
  await profiles.write(REMEMBERED);
  await profiles.writeToken(REMEMBERED, tokenFor(MINUTE_MS));
  assert.deepEqual(await profiles.read('acme@host'), REMEMBERED);
  assert.deepEqual(await profiles.list(), [REMEMBERED]);
  for (const path of [folder, join(folder, 'profiles')]) {
    assert.equal((await stat(path)).mode & 0o777, 0o700, path);
  }
  for (const name of await readdir(join(folder, 'profiles'))) {
    assert.equal((await stat(join(folder, 'profiles', name))).mode & 0o777, 0o600, name);
  }
  await profiles.remove('acme@host');
  assert.deepEqual(await readdir(join(folder, 'profiles')), []);
  assert.equal(await profiles.read('acme@host'), undefined);
});

test('a name that would leave the folder is refused', async () => {
  for (const name of ['', '../x', 'a/b', '.hidden', `${'a'.repeat(201)}`, 'a\0b', 'a\n']) {
    await assert.rejects(profiles.read(name), /not a profile's name/, JSON.stringify(name));
  }
  assert.equal(profileName('ümlaut/../acme host:6443'), 'mlaut-..-acme-host-6443');
});

test('a file that is broken or of another version says to log in again', async () => {
  await profiles.write(PROFILE);
  const path = join(folder, 'profiles/acme@host.json');
  await writeFile(path, '{"version":');
  await assert.rejects(profiles.read('acme@host'), /Cannot read ".*acme@host.json".*Log in again/);
  await writeFile(path, '{"version":99}');
  await assert.rejects(profiles.read('acme@host'), /another version of Hypernetes/);
});

test('a token belongs to one login: not to the next, nor to one that has ended', async () => {
  await profiles.write(PROFILE);
  await profiles.writeToken(PROFILE, tokenFor(MINUTE_MS));
  const next = { ...PROFILE, id: 'login-2' };
  await profiles.write(next);
  assert.equal(await profiles.readToken(next), undefined);
  await assert.rejects(profiles.writeToken(PROFILE, tokenFor(MINUTE_MS)), /logged in anew/);
  await profiles.remove(PROFILE.name);
  await profiles.writeToken(PROFILE, tokenFor(MINUTE_MS));
  assert.deepEqual(await readdir(join(folder, 'profiles')), [], 'a renewal brings nothing back');
});

test('a token with life left is used as it is', async () => {
  await profiles.write(REMEMBERED);
  await profiles.writeToken(REMEMBERED, tokenFor(2 * MINUTE_MS));
  const { context, asked } = contextWith();
  assert.equal((await currentToken(REMEMBERED, context)).value, 'stored');
  assert.equal(asked.length, 0);
});

test('a token that is about to end is renewed once, however many ask', async () => {
  await profiles.write(REMEMBERED);
  await profiles.writeToken(REMEMBERED, tokenFor(30_000));
  const { context, asked } = contextWith();
  const tokens = await Promise.all(
    Array.from({ length: 20 }, () => currentToken(REMEMBERED, context)),
  );
  assert.deepEqual(new Set(tokens.map(({ value }) => value)), new Set(['renewed-1']));
  assert.deepEqual(asked, [{ kind: 'credential', id: 'c1', secret: 'hidden', isOurs: true }]);
  const left = await readdir(join(folder, 'profiles'));
  assert.deepEqual(left.sort(), ['acme@host.json', 'acme@host.token'], 'no lock is left');
});

test('a lock that a killed process left is taken over', async () => {
  await profiles.write(REMEMBERED);
  const lock = profiles.lockPath(REMEMBERED.name);
  await writeFile(lock, '');
  const longAgo = new Date(systemClock.nowMs() - 10 * MINUTE_MS);
  await utimes(lock, longAgo, longAgo);
  const { context } = contextWith();
  assert.equal((await currentToken(REMEMBERED, context)).value, 'renewed-1');
});

test('while the service is away, what is left of the token is used; then the reason is told', async () => {
  await profiles.write(REMEMBERED);
  const away = contextWith({ renew: () => Promise.reject(new Error('it is away')) }).context;
  await profiles.writeToken(REMEMBERED, tokenFor(30_000));
  assert.equal((await currentToken(REMEMBERED, away)).value, 'stored');
  await profiles.writeToken(REMEMBERED, tokenFor(-1));
  await assert.rejects(
    currentToken(REMEMBERED, away),
    /cannot be used: it is away\. Log in again: hypernetes login --context acme@host/,
  );
});

test('a token that the server refused is renewed, or said to be refused', async () => {
  await profiles.write(REMEMBERED);
  await profiles.writeToken(REMEMBERED, tokenFor(60 * MINUTE_MS));
  assert.equal(await profiles.handOut('acme@host', 'stored', 7), false);
  assert.equal(await profiles.handOut('acme@host', 'stored', 8), false, 'another process');
  assert.equal(await profiles.handOut('acme@host', 'stored', 8), true, 'the same, again');
  assert.equal(await profiles.handOut('acme@host', 'renewed', 8), false, 'another token');
  const { context } = contextWith({ refused: 'stored' });
  await assert.rejects(
    currentToken(PROFILE, context),
    /the server does not accept its token any more\. Log in again/,
  );
  assert.equal((await currentToken(REMEMBERED, context)).value, 'renewed-1');
});

test('without a credential somebody at a terminal is asked; nobody else is', async () => {
  await profiles.write(PROFILE);
  await profiles.writeToken(PROFILE, tokenFor(-1));
  const { context, asked } = contextWith();
  await assert.rejects(currentToken(PROFILE, context), /its token expired at 20.*Log in again/);
  const questions: string[] = [];
  const terminal = {
    ask: () => Promise.reject(new Error('not a question for all to see')),
    confirm: () => Promise.resolve(false),
    askSecret: (question: string) => Promise.resolve(`answer ${questions.push(question)}`),
  };
  const token = await currentToken(PROFILE, { ...context, terminal });
  assert.equal(token.value, 'renewed-1');
  assert.deepEqual(questions, ['Password of alice@Default for https://10.0.0.1:6443: ']);
  assert.deepEqual(asked, [{ kind: 'password', password: 'answer 1' }]);
});

test('execCredential() is what kubectl reads', () => {
  const token = { ...tokenFor(0), value: 'abc', expiresAtMs: Date.UTC(2030, 0, 2, 3, 4, 5, 678) };
  assert.deepEqual(JSON.parse(execCredential(token, 'client.authentication.k8s.io/v1')), {
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    status: { token: 'abc', expirationTimestamp: '2030-01-02T03:04:05Z' },
  });
});

test('readExecInfo() answers in the version that is asked in, and asks only whom it may', () => {
  const v1 = 'client.authentication.k8s.io/v1';
  assert.deepEqual(readExecInfo(undefined), { apiVersion: v1, isInteractive: true });
  const info = (apiVersion: string, spec: unknown) => JSON.stringify({ apiVersion, spec });
  assert.deepEqual(readExecInfo(info(v1, { interactive: true })), {
    ...{ apiVersion: v1, isInteractive: true },
  });
  assert.equal(readExecInfo(info(`${v1}beta1`, {})).apiVersion, `${v1}beta1`);
  assert.equal(readExecInfo(info(v1, null)).isInteractive, false);
  assert.throws(() => readExecInfo('nonsense'), /not JSON/);
  for (const text of ['null', '3', info('v2', {})]) {
    assert.throws(() => readExecInfo(text), /Cannot answer in/, text);
  }
});

test('configDirectory() follows XDG, where it is absolute', () => {
  assert.equal(configDirectory({ XDG_CONFIG_HOME: '/c', HOME: '/h' }), '/c/hypernetes');
  assert.equal(configDirectory({ XDG_CONFIG_HOME: 'c', HOME: '/h' }), '/h/.config/hypernetes');
  assert.equal(configDirectory({ HOME: '/h' }), '/h/.config/hypernetes');
});
