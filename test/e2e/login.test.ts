import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { execute } from '../../src/base/exec.ts';
import { createHttpsTransport } from '../../src/client/https.ts';
import { parseOpenrc } from '../../src/cli/openrc.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { installOpenstack, openstack, openstackJson } from './support/openstack.ts';
import { createPerson } from './support/person.ts';
import type { Person } from './support/person.ts';
import { startTerminal } from './support/session.ts';

/** Logging in and managing tenants, as the people of two tenants and an operator do. */
let root: string;
let cluster: TestCluster;
let kubectl: Kubectl;
let operator: Person;
let alice: Person;
let bob: Person;
let server: string;
let fingerprint: string;

/** One request of kubectl's, without its looking for what the server has. */
const MINE = '/api/v1/namespaces/beta/configmaps/mine';

const PASSWORDS = { alice: 'wonderland-1865', bob: 'builder-of-1999' };

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'login-'));
  [cluster] = await Promise.all([startCluster(), installOpenstack()]);
  const kubectls = await findKubectls(cluster.kubeconfig, join(root, 'cache'));
  kubectl = kubectls.reduce((best, one) => (one.minor > best.minor ? one : best));
  [operator, alice, bob] = await Promise.all([
    createPerson(root, 'operator', kubectl),
    createPerson(root, 'alice', kubectl),
    createPerson(root, 'bob', kubectl),
  ]);
  server = `https://127.0.0.1:${cluster.apiPort}`;
  const { stdout } = await cluster.cli('whoami', '--json');
  fingerprint = (JSON.parse(stdout) as { caFingerprint: string }).caFingerprint;
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

/** What every login of this file says, beside who it is. */
const where = () => [
  ...['--server', server, '--ca-fingerprint', fingerprint],
  ...(kubectl.minor < 22 ? ['--exec-version', 'v1beta1'] : []),
];

const passwordOf = (person: Person) =>
  person.file('password', `${PASSWORDS[person.name as keyof typeof PASSWORDS]}\n`);

const logIn = async (person: Person, ...more: string[]) =>
  person.ok(
    ...['login', ...where(), '--user', person.name, '--password-file', await passwordOf(person)],
    ...more,
  );

const contextOf = (tenant: string) => `${tenant}@127.0.0.1-${cluster.apiPort}`;

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

test('an operator logs in with the openrc file, and makes people and tenants', async () => {
  const openrc = join(cluster.dataDir, 'server/admin.openrc');
  const exec = kubectl.minor < 22 ? ['--exec-version', 'v1beta1'] : [];
  const said = await operator.ok('login', '--openrc', openrc, ...exec);
  assert.match(said, /Logged in as admin@Default for the whole system with admin/);
  const nodes = await operator.kubectl('get', 'nodes', '-o', 'name');
  assert.match(nodes.stdout, /^node\//, nodes.stderr);
  for (const person of [alice, bob]) {
    await operator.ok('user', 'create', person.name, '--password-file', await passwordOf(person));
  }
  await operator.ok('tenant', 'create', 'acme', '--admin', 'alice', '--quota', 'pods=3', '--wait');
  await operator.ok('tenant', 'create', 'beta', '--admin', 'bob', '--member', 'alice', '--wait');
  const roles = await operator.ok('role', 'list', '--tenant', 'beta');
  assert.match(roles, /^admin +bob@Default +User +beta$/m);
  assert.match(await operator.ok('tenant', 'list'), /^acme +Active +0 +- /m);
  const refused = await operator.fails('login', '--openrc', openrc, '--remember');
  assert.match(refused, /Cannot remember a login for the whole system/);
});

test('a server is not believed to be who it says, and nothing is written where login fails', async () => {
  const password = await passwordOf(alice);
  const who = ['--user', 'alice', '--password-file', password];
  const unknown = await alice.fails('login', '--server', server, ...who);
  assert.ok(unknown.includes(fingerprint), unknown);
  const other = `sha256:${'ab'.repeat(32)}`;
  const wrong = await alice.fails(
    ...['login', '--server', server, '--ca-fingerprint', other, ...who],
  );
  assert.match(wrong, /Nothing was sent/);
  const bad = await alice.file('bad', 'not-it');
  const refused = await alice.fails(
    ...['login', ...where(), '--user', 'alice', '--password-file', bad],
  );
  assert.match(refused, /the user or password is wrong, or the account "alice@Default" is locked/);
  const nobody = await alice.fails(
    ...['login', ...where(), '--user', 'nobody', '--password-file', bad],
  );
  assert.equal(nobody.replace('nobody', 'alice'), refused, 'who exists is not told');
  const stranger = await alice.fails(
    ...['login', ...where(), ...who, '--tenant', 'gamma', '--remember'],
  );
  assert.match(stranger, /you have no role there. You have one on acme, beta/);
  const secret = await alice.fails('login', ...where(), '--user', 'alice', '--password=hunter2');
  assert.match(secret, /Cannot take a secret with --password:/);
  assert.doesNotMatch(secret, /hunter2/);
  assert.deepEqual((await readdir(alice.home)).sort(), ['bad', 'password']);
});

test('people of two tenants work with kubectl, each in their own', async () => {
  const foreign = 'apiVersion: v1\nkind: Config\ncontexts: [{name: work, context: {}}]\n';
  await alice.ok(
    'login',
    ...where(),
    '--user',
    'alice',
    '--password-file',
    await passwordOf(alice),
    '--tenant',
    'acme',
    '--kubeconfig',
    await alice.file('mine', `# hers\n${foreign}`),
  );
  assert.match(await alice.read('mine'), /# hers\n[^]*name: work/);
  await logIn(alice, '--tenant', 'acme', '--remember', '2d');
  const json = JSON.parse(await logIn(bob, '--json')) as Record<string, unknown>;
  assert.equal(json['tenant'], 'beta', 'the only one that bob has a role on');
  assert.equal(json['context'], contextOf('beta'));
  for (const person of [alice, bob]) {
    for (const path of await filesBelow(join(person.home, '.config'))) {
      assert.equal((await stat(path)).mode & 0o777, 0o600, path);
    }
    assert.equal((await stat(person.kubeconfig)).mode & 0o777, 0o600);
    assert.equal((await stat(join(person.home, '.config/hypernetes'))).mode & 0o777, 0o700);
    const tenant = person === alice ? 'acme' : 'beta';
    const made = await person.kubectl('create', 'namespace', tenant);
    assert.equal(made.exitCode, 0, made.stderr);
    await person.kubectl('create', 'configmap', 'mine', '--from-literal=a=b');
    const seen = await person.kubectl(
      'get',
      'configmaps',
      '-A',
      '-o',
      'name',
      '--field-selector=metadata.name=mine',
    );
    assert.equal(seen.stdout, 'configmap/mine\n');
    const namespaces = await person.kubectl('get', 'namespaces', '-o', 'name');
    assert.equal(namespaces.stdout, `namespace/${tenant}\n`);
  }
  const across = await bob.kubectl('-n', 'acme', 'get', 'configmaps');
  assert.match(across.stderr, /Forbidden.*"bob@Default" cannot list resource "configmaps"/);
  const who = JSON.parse(await alice.ok('whoami', '--json')) as Record<string, unknown>;
  assert.equal(who['user'], 'alice@Default');
  assert.equal(who['tenant'], 'acme');
  assert.deepEqual(who['roles'], ['admin', 'member', 'reader']);
  assert.equal(who['caFingerprint'], fingerprint);
});

test('a login that is remembered renews itself, for many kubectls at once', async () => {
  const token = join(alice.home, '.config/hypernetes/profiles', `${contextOf('acme')}.token`);
  const before = await alice.read(token.slice(alice.home.length + 1));
  await writeFile(token, before.replace(/"expiresAtMs":\d+/, '"expiresAtMs":1'));
  const answers = await Promise.all(
    Array.from({ length: 6 }, () => alice.kubectl('get', 'configmap', 'mine', '-o', 'name')),
  );
  for (const { stdout, stderr } of answers) assert.equal(stdout, 'configmap/mine\n', stderr);
  const renewed = JSON.parse(await alice.read(token.slice(alice.home.length + 1))) as {
    methods: string[];
  };
  assert.deepEqual(renewed.methods, ['application_credential']);
});

test('a login that is not remembered says how to log in again', async () => {
  const token = join(bob.home, '.config/hypernetes/profiles', `${contextOf('beta')}.token`);
  const before = await bob.read(token.slice(bob.home.length + 1));
  await writeFile(token, before.replace(/"expiresAtMs":\d+/, '"expiresAtMs":1'));
  const expired = await bob.kubectl('get', 'configmaps');
  assert.notEqual(expired.exitCode, 0);
  const again = new RegExp(`expired at 1970.*hypernetes login --context ${contextOf('beta')}`);
  assert.match(expired.stderr, again);
  const exec = kubectl.minor < 22 ? ['--exec-version', 'v1beta1'] : [];
  await bob.ok(
    'login',
    '--context',
    contextOf('beta'),
    '--password-file',
    await passwordOf(bob),
    ...exec,
  );
  assert.equal((await bob.kubectl('get', 'configmap', 'mine', '-o', 'name')).exitCode, 0);
});

test('quota and members are shown and changed', async () => {
  assert.match(await alice.ok('quota', 'show'), /^RESOURCE +USED +HARD\s+pods +0 +3$/m);
  const own = await alice.fails('quota', 'set', 'acme', 'pods=100');
  assert.match(own, /tenants|quota/i);
  await operator.ok('quota', 'set', 'acme', 'namespaces=2', 'pods-');
  const quota = JSON.parse(await alice.ok('quota', 'show', '--json')) as { hard: object };
  assert.deepEqual(quota.hard, { namespaces: '2' });
  const members = await alice.ok('tenant', 'members', 'acme', '--add', 'bob', '--role', 'reader');
  assert.match(members, /^bob +Default +User +reader$/m);
  assert.doesNotMatch(await alice.ok('tenant', 'members', 'acme', '--remove', 'bob'), /bob/);
  assert.match(await alice.fails('user', 'list'), /not authorized.*identity:list_users/);
  assert.match(await bob.fails('tenant', 'show', 'acme'), /no tenant|forbidden/i);
});

test('tenant use goes on in another tenant, and back', async () => {
  await logIn(alice, '--tenant', 'acme', '--remember', '1d');
  await alice.ok('tenant', 'use', 'beta');
  assert.match(await alice.ok('whoami'), /^Renewed until +20/m, 'as the login that it comes from');
  const there = await alice.kubectl('get', 'namespaces', '-o', 'name');
  assert.equal(there.stdout, 'namespace/beta\n', there.stderr);
  await alice.ok('tenant', 'use', 'acme');
  const back = await alice.kubectl('get', 'configmaps', '-A', '-o', 'name');
  assert.match(back.stdout, /configmap\/mine/);
  assert.match(await alice.fails('tenant', 'use', 'gamma'), /you have no role there/);
});

test('what the openstack client makes is good for logging in', async () => {
  const env = {
    OS_AUTH_URL: `${server}/identity/v3`,
    OS_CACERT: join(cluster.dataDir, 'server/pki/ca.crt'),
    ...{ OS_USERNAME: 'bob', OS_USER_DOMAIN_NAME: 'Default', OS_PASSWORD: PASSWORDS.bob },
    ...{ OS_PROJECT_NAME: 'beta', OS_PROJECT_DOMAIN_NAME: 'Default' },
  };
  const carol = await createPerson(root, 'carol', kubectl);
  const made = (await openstackJson(
    { env },
    ...['application', 'credential', 'create', 'ci', '--role', 'reader'],
  )) as { id: string; secret: string };
  await carol.ok(
    ...['login', ...where(), '--application-credential-id', made.id],
    ...['--application-credential-secret-file', await carol.file('secret', made.secret)],
  );
  const seen = await carol.kubectl('get', 'configmap', 'mine', '-o', 'name');
  assert.equal(seen.stdout, 'configmap/mine\n', seen.stderr);
  const written = await carol.kubectl('delete', 'configmap', 'mine');
  assert.match(written.stderr, /Forbidden/, 'it was given the role of a reader');
  const { id: token } = (await openstackJson({ env }, 'token', 'issue')) as { id: string };
  await carol.ok('login', ...where(), '--token-file', await carol.file('token', token));
  const allowed = await carol.kubectl('auth', 'can-i', 'delete', 'configmaps');
  assert.equal(allowed.stdout.trim(), 'yes', allowed.stderr);
  await carol.ok('logout');
  const left = await openstack({ env }, 'application', 'credential', 'show', made.id);
  assert.equal(left.exitCode, 0, 'what login did not make, logout does not remove');
});

test('at a terminal the server is shown and the password asked for, and ctrl-C ends it', async () => {
  const dora = await createPerson(root, 'dora', kubectl);
  const main = join(import.meta.dirname, '../../src/cli/main.ts');
  const { HOME, HYPERNETES_DATA_DIR } = dora.env as Record<string, string>;
  const command = [
    ...[`HOME=${HOME}`, `HYPERNETES_DATA_DIR=${HYPERNETES_DATA_DIR}`, process.execPath, main],
    ...['login', '--server', server, '--user', 'alice', '--tenant', 'acme'],
  ];
  const size = { rows: 24, columns: 200 };
  {
    await using terminal = await startTerminal('env', command, size);
    await terminal.until(/Trust it\?/);
    assert.ok(terminal.output.includes(fingerprint));
    terminal.send('y\r');
    await terminal.until(/Password: /);
    terminal.send('\x03');
    assert.equal(await terminal.exited, 130);
  }
  assert.deepEqual(await readdir(dora.home), []);
  await using terminal = await startTerminal('env', command, size);
  await terminal.until(/Trust it\?/);
  terminal.send('y\r');
  await terminal.until(/Password: /);
  terminal.send(`${PASSWORDS.alice}\r`);
  await terminal.until(/Logged in as alice@Default for tenant acme/);
  assert.equal(await terminal.exited, 0);
  assert.ok(!terminal.output.includes(PASSWORDS.alice), 'the password is not shown');
});

test('logging out ends the token and the credential, and leaves what was there before', async () => {
  await logIn(alice, '--tenant', 'acme', '--remember');
  const folder = join(alice.home, '.config/hypernetes/profiles');
  const file = join('.config/hypernetes/profiles', `${contextOf('acme')}.token`);
  const { value: token } = JSON.parse(await alice.read(file)) as { value: string };
  const statusOf = async () => {
    const transport = createHttpsTransport({ server, caCert: cluster.access.caCert, token });
    try {
      const path = '/api/v1/namespaces/acme/configmaps/mine';
      const { status, body } = await transport.request({ method: 'GET', path });
      for await (const _ of body);
      return status;
    } finally {
      await transport.close();
    }
  };
  assert.equal(await statusOf(), 200);
  await alice.ok('logout', '--all');
  assert.equal(await statusOf(), 401);
  assert.deepEqual(await readdir(folder), []);
  assert.doesNotMatch(await alice.read('.kube/config'), /hypernetes/);
  const env = {
    OS_AUTH_URL: `${server}/identity/v3`,
    OS_CACERT: join(cluster.dataDir, 'server/pki/ca.crt'),
    ...{ OS_USERNAME: 'alice', OS_USER_DOMAIN_NAME: 'Default', OS_PASSWORD: PASSWORDS.alice },
    ...{ OS_PROJECT_NAME: 'acme', OS_PROJECT_DOMAIN_NAME: 'Default' },
  };
  const left = await openstackJson({ env }, 'application', 'credential', 'list');
  assert.deepEqual(left, []);
  assert.match(await alice.fails('logout'), /Nobody is logged in/);
});

test('passwords are changed, and disabled people are out', async () => {
  await logIn(bob, '--tenant', 'beta');
  const fresh = await bob.file('fresh', 'another-of-2001\n');
  const again = [
    'login',
    ...where(),
    '--user',
    'bob',
    '--password-file',
    fresh,
    '--tenant',
    'beta',
  ];
  const current = ['--current-password-file', await passwordOf(bob)];
  await bob.ok('user', 'set-password', ...current, '--password-file', fresh);
  const old = await bob.kubectl('get', '--raw', MINE);
  assert.match(old.stderr, /does not accept its token any more/, 'tokens end with the password');
  await bob.ok(...again);
  assert.equal((await bob.kubectl('get', 'configmaps')).exitCode, 0);
  await bob.ok('login', ...again.slice(1), '--remember');
  await operator.ok('user', 'set-password', 'bob', '--password-file', fresh);
  await bob.kubectl('get', '--raw', MINE);
  const renewed = await bob.kubectl('get', '--raw', MINE);
  assert.equal(renewed.exitCode, 0, `what is remembered outlives the token: ${renewed.stderr}`);
  await operator.ok('user', 'disable', 'bob');
  assert.notEqual((await bob.kubectl('get', '--raw', MINE)).exitCode, 0);
  const out = await bob.fails(...again);
  assert.match(out, /locked or disabled/);
  await operator.ok('user', 'enable', 'bob');
  await bob.ok(...again);
});

test('a tenant is suspended, resumed and deleted, and the steps are told', async () => {
  await operator.ok('tenant', 'suspend', 'beta', '--wait');
  const refused = await bob.kubectl('create', 'configmap', 'more');
  assert.match(refused.stderr, /suspended/);
  await operator.ok('tenant', 'resume', 'beta', '--wait');
  const more = await bob.kubectl('create', 'configmap', 'more');
  assert.equal(more.exitCode, 0, more.stderr);
  assert.match(await operator.fails('tenant', 'delete', 'beta'), /say --yes if it is meant/);
  const told = await operator.ok('tenant', 'delete', 'beta', '--yes', '--wait');
  assert.match(told, /NamespacesRemaining=False NothingLeft[^]*tenant "beta" is gone\n$/);
  assert.notEqual((await bob.kubectl('get', '--raw', MINE)).exitCode, 0);
  assert.match(await operator.fails('tenant', 'show', 'beta'), /There is no tenant "beta"/);
});

test('the administrator is recovered when the password is lost', async () => {
  const path = join(cluster.dataDir, 'server/admin.openrc');
  assert.match((await cluster.cli('identity', 'recover')).stdout, /has its password in/);
  const before = parseOpenrc((await execute('cat', [path])).stdout);
  await rm(path);
  const careful = await cluster.cli('identity', 'recover');
  assert.equal(careful.exitCode, 1);
  assert.match(careful.stderr, /admin.openrc is gone.*Say --yes/);
  const { exitCode, stderr } = await cluster.cli('identity', 'recover', '--yes');
  assert.equal(exitCode, 0, stderr);
  const now = parseOpenrc((await execute('cat', [path])).stdout);
  assert.notEqual(now['OS_PASSWORD'], before['OS_PASSWORD']);
  await operator.ok('login', '--openrc', path);
  assert.match(await operator.ok('tenant', 'list'), /^acme /m);
});
