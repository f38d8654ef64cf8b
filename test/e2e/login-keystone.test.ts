import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openKeystone } from '../../src/cli/login/keystone.ts';
import { formatOpenrc } from '../../src/cli/openrc.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { startKeystone } from './support/keystone.ts';
import type { KeystoneLogin, TestKeystone } from './support/keystone.ts';
import { findKubectls } from './support/kubectl.ts';
import { createPerson } from './support/person.ts';
import type { Person } from './support/person.ts';

/** The same commands where people come from a Keystone of Debian's. */
let root: string;
let keystone: TestKeystone;
let cluster: TestCluster;
let operator: Person;
let alice: Person;
/** Of the cluster, and for a kubectl that is old. */
let where: string[];

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'login-'));
  keystone = await startKeystone();
  const credentials = join(root, 'service.openrc');
  const { service } = keystone;
  const project = { OS_PROJECT_NAME: service.project, OS_PROJECT_DOMAIN_NAME: service.domain };
  await writeFile(credentials, openrcOf(service, project), { mode: 0o600 });
  cluster = await startCluster([
    ...['--keystone', keystone.url, '--keystone-credentials', credentials],
  ]);
  const kubectls = await findKubectls(cluster.kubeconfig, join(root, 'cache'));
  const kubectl = kubectls.reduce((best, one) => (one.minor > best.minor ? one : best));
  operator = await createPerson(root, 'operator', kubectl);
  alice = await createPerson(root, 'alice', kubectl);
  const { stdout } = await cluster.cli('whoami', '--json');
  const { caFingerprint } = JSON.parse(stdout) as { caFingerprint: string };
  where = [
    ...['--server', `https://127.0.0.1:${cluster.apiPort}`, '--ca-fingerprint', caFingerprint],
    ...(kubectl.minor < 22 ? ['--exec-version', 'v1beta1'] : []),
  ];
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await keystone?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

function openrcOf({ username, password, domain }: KeystoneLogin, scope: Record<string, string>) {
  return formatOpenrc({
    ...{ OS_AUTH_URL: keystone.url, OS_USERNAME: username, OS_PASSWORD: password },
    ...{ OS_USER_DOMAIN_NAME: domain, ...scope },
  });
}

test('an operator of Keystone makes people and tenants', async () => {
  const openrc = await operator.file(
    'openrc',
    openrcOf(keystone.admin, { OS_SYSTEM_SCOPE: 'all' }),
  );
  const said = await operator.ok('login', ...where, '--openrc', openrc);
  assert.match(said, /Logged in as admin@Default for the whole system/);
  const password = await operator.file('password', 'wonderland-1865');
  await operator.ok('user', 'create', 'alice', '--password-file', password);
  assert.match(await operator.ok('user', 'list'), /^alice +Default +yes +[0-9a-f]{32}$/m);
  await operator.ok('tenant', 'create', 'acme', '--wait');
  await operator.ok('role', 'grant', 'member', '--user', 'alice', '--tenant', 'acme');
  const roles = await operator.ok('role', 'list', '--user', 'alice');
  assert.match(roles, /^member +alice@Default +User +acme$/m);
  const recover = await cluster.cli('identity', 'recover');
  assert.match(recover.stderr, /its administrator is recovered there/);
});

test('who has logged in is renewed, and logged out with the password that Keystone wants', async () => {
  const password = await alice.file('password', 'wonderland-1865');
  const who = ['--auth-url', keystone.url, '--user', 'alice', '--password-file', password];
  const said = await alice.ok('login', ...where, ...who, '--remember', '1d');
  assert.match(said, /Logged in as alice@Default for tenant acme with .*member.*renewed by itself/);
  const made = await alice.kubectl('create', 'namespace', 'acme');
  assert.equal(made.exitCode, 0, made.stderr);
  const folder = '.config/hypernetes/profiles';
  const name = (await readdir(join(alice.home, folder))).find((file) => file.endsWith('.token'));
  const file = join(folder, name ?? '');
  await alice.file(file, (await alice.read(file)).replace(/"expiresAtMs":\d+/, '"expiresAtMs":1'));
  const seen = await alice.kubectl('get', 'namespaces', '-o', 'name');
  assert.equal(seen.stdout, 'namespace/acme\n', seen.stderr);
  assert.match(await alice.read(file), /"methods":\["application_credential"\]/);
  await alice.ok('logout', '--password-file', password);
  assert.deepEqual(await readdir(join(alice.home, folder)), []);
  assert.deepEqual(await credentialsOfAlice(), []);
});

/** The application credentials that Keystone has of her. */
async function credentialsOfAlice(): Promise<unknown[]> {
  const service = openKeystone(keystone.url, undefined);
  try {
    const user = { name: 'alice', domain: { name: 'Default' } };
    const proof = { kind: 'password' as const, user, password: 'wonderland-1865' };
    const { value, user: self } = await service.authenticate(proof);
    const path = `/users/${self.id}/application_credentials`;
    const body = await service.ask(value, { method: 'GET', path });
    return body['application_credentials'] as unknown[];
  } finally {
    service.close();
  }
}
