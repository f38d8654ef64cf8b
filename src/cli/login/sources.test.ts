import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseServer, serverInCatalog } from './address.ts';
import { refuseSecrets } from './secrets.ts';
import { formatFingerprint, parseFingerprint } from './server-ca.ts';
import { proofOf, readVariables, scopeWish } from './sources.ts';
import { parseLimits } from '../tenant/quota.ts';
import { parseMember } from '../tenant/member.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sources-'));
});
after(() => rm(folder, { recursive: true }));

test('secrets on the command line are refused, and not repeated', () => {
  const refused = [
    ['login', '--password=hunter2'],
    ['login', '--user', 'a', '--password', 'hunter2'],
    ['login', '--os-password=hunter2'],
    ['--data-dir', '/x', 'user', 'create', 'a', '--passwd=hunter2'],
    ['login', '--token=hunter2'],
    ['login', '--application-credential-secret=hunter2'],
  ];
  for (const args of refused) {
    assert.throws(
      () => refuseSecrets(args),
      ({ message }: Error) =>
        /Cannot take a secret with --/.test(message) && !message.includes('hunter2'),
      args.join(' '),
    );
  }
  const fine = [
    ['login', '--password-file', 'x', '--token-file=y'],
    ['login', '--application-credential-secret-file', 'x', '--password-stdin'],
    ['node', '--server', 'x', '--token', 'y'],
    ['tenant', 'create', 'password'],
    [],
  ];
  for (const args of fine) refuseSecrets(args);
});

test('a password is read from a file, of which only the last newline is left out', async () => {
  const file = join(folder, 'password');
  await writeFile(file, ' pass word \n\n');
  const proof = await proofOf({ user: 'alice', passwordFile: file }, {}, undefined);
  assert.deepEqual(proof, {
    kind: 'password',
    user: { name: 'alice', domain: { name: 'Default' } },
    password: ' pass word \n',
  });
  await writeFile(file, '\n');
  await assert.rejects(proofOf({ user: 'a', passwordFile: file }, {}, undefined), /is empty/);
  await writeFile(file, 'x'.repeat(5000));
  await assert.rejects(proofOf({ user: 'a', passwordFile: file }, {}, undefined), /4096 bytes/);
});

test('variables say who, unless an option does: nobody gets the password of another', async () => {
  const variables = { OS_USERNAME: 'admin', OS_PASSWORD: 'secret', OS_SYSTEM_SCOPE: 'all' };
  const proof = await proofOf({}, variables, undefined);
  assert.equal(proof.kind === 'password' && proof.password, 'secret');
  assert.deepEqual(scopeWish({}, {}, variables), { kind: 'system' });
  await assert.rejects(
    proofOf({ user: 'alice' }, variables, undefined),
    /there is no terminal. Name a file with --password-file/,
  );
  assert.equal(scopeWish({}, { user: 'alice' }, variables), undefined);
  const project = { kind: 'project', project: 'acme' };
  assert.deepEqual(scopeWish({ tenant: 'acme' }, {}, variables), project);
});

test('a token and an application credential are taken from variables and files', async () => {
  assert.deepEqual(await proofOf({}, { OS_TOKEN: 'abc' }, undefined), {
    ...{ kind: 'token', token: 'abc' },
  });
  const credential = {
    OS_APPLICATION_CREDENTIAL_ID: 'id',
    OS_APPLICATION_CREDENTIAL_SECRET: 'secret',
  };
  const expected = { kind: 'credential', id: 'id', secret: 'secret' };
  assert.deepEqual(await proofOf({}, credential, undefined), expected);
  const file = join(folder, 'secret');
  await writeFile(file, 'secret\n');
  const flags = { applicationCredentialId: 'id', applicationCredentialSecretFile: file };
  assert.deepEqual(await proofOf(flags, {}, undefined), expected);
});

test('options that contradict each other are refused', async () => {
  const both = { passwordFile: 'a', tokenFile: 'b' };
  await assert.rejects(proofOf(both, {}, undefined), /--password-file and --token-file together/);
  const lonely = { applicationCredentialSecretFile: 'a' };
  await assert.rejects(proofOf(lonely, {}, undefined), /without --application-credential-id/);
  assert.throws(() => scopeWish({ tenant: 'a', system: true }, {}, {}), /choose one/);
  await assert.rejects(proofOf({}, {}, undefined), /nobody is named/);
});

test('an openrc file is read in place of the environment', async () => {
  const path = join(folder, 'openrc');
  await writeFile(path, "export OS_USERNAME='alice'\nrm -rf /\n");
  assert.deepEqual(await readVariables(path, { OS_PASSWORD: 'other' }), { OS_USERNAME: 'alice' });
  const env = { OS_PASSWORD: 'own', HOME: '/' };
  assert.deepEqual(await readVariables(undefined, env), { OS_PASSWORD: 'own' });
  await assert.rejects(readVariables(join(folder, 'none'), {}), /Cannot read --openrc/);
});

test('parseServer() takes an address, and nothing but https', () => {
  assert.equal(parseServer('10.0.0.1:6443'), 'https://10.0.0.1:6443');
  assert.equal(parseServer('https://[::1]:6443/'), 'https://[::1]:6443');
  for (const text of ['http://a', 'https://u:p@a', 'https://a/b', 'https://', 'a b']) {
    assert.throws(() => parseServer(text), /Cannot use the server/, text);
  }
});

test('the cluster is found in the catalogue of the identity service', () => {
  const endpoints = [
    { interface: 'admin', url: 'https://no.example' },
    { interface: 'public', url: 'https://10.0.0.1:6443' },
  ];
  const catalog = [{ type: 'identity' }, { type: 'kubernetes', endpoints }];
  assert.equal(serverInCatalog(catalog), 'https://10.0.0.1:6443');
  assert.equal(serverInCatalog([]), undefined);
  assert.equal(serverInCatalog([{ type: 'kubernetes' }]), undefined);
});

test('a fingerprint is read in the ways that people write it', () => {
  const digits = '0123456789abcdef'.repeat(4);
  const colons = digits.toUpperCase().replace(/..(?=.)/g, '$&:');
  for (const text of [digits, `sha256:${digits}`, colons, `sha256 Fingerprint=${colons}`]) {
    assert.equal(parseFingerprint(text), digits, text);
  }
  assert.equal(parseFingerprint(formatFingerprint(digits)), digits);
  for (const text of ['', 'sha256:', digits.slice(1), `${digits}0`, digits.replace('0', 'g')]) {
    assert.throws(() => parseFingerprint(text), /Cannot use the fingerprint/, text);
  }
});

test('limits and members are written in a word', () => {
  const { set, lifted } = parseLimits(['pods=10,requests.cpu=500m', 'count/secrets=3', 'nodes-']);
  assert.deepEqual(set, { pods: '10', 'requests.cpu': '500m', 'count/secrets': '3' });
  assert.deepEqual(lifted, ['nodes']);
  for (const word of ['pods', '=3', 'pods=', '-']) {
    assert.throws(() => parseLimits([word]), /Cannot read the limit/, word);
  }
  assert.deepEqual(parseMember('a@b.example@corp', 'User', 'admin'), {
    ...{ kind: 'User', name: 'a@b.example', domain: 'corp', role: 'admin' },
  });
  assert.deepEqual(parseMember('dev', 'Group', 'reader'), {
    ...{ kind: 'Group', name: 'dev', role: 'reader' },
  });
  for (const text of ['', '@corp', 'alice@']) {
    assert.throws(() => parseMember(text, 'User', 'admin'), /Cannot read the member/, text);
  }
});
