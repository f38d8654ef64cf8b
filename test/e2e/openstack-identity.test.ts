import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { createIdentityApi } from '../../src/identity/embedded/http/api.ts';
import { serveIdentityApi } from '../../src/identity/embedded/http/serve.ts';
import type { IdentityServer } from '../../src/identity/embedded/http/serve.ts';
import { openEmbeddedIdentity } from '../../src/identity/embedded/service.ts';
import type { EmbeddedIdentity } from '../../src/identity/embedded/service.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import {
  installOpenstack,
  openstack,
  openstackJson,
  openstackSession,
} from './support/openstack.ts';
import type { OpenstackUser } from './support/openstack.ts';

/**
 * Goal: the real `openstack` command manages the embedded identity service. Method: an operator, a
 * domain's admin and a project's member work as they would at a Keystone, over HTTP.
 */
const ALICE_PASSWORD = 'Álice’s-first-pässword';

type Row = Record<string, unknown>;

let server: IdentityServer;
let identity: EmbeddedIdentity;
let operator: OpenstackUser;
let directory: string;
const store = createMemoryStore();

before(async () => {
  await installOpenstack();
  directory = await mkdtemp(join(tmpdir(), 'openstack-'));
  server = await serveIdentityApi();
  const baseUrl = `${server.origin}/identity/v3`;
  const parts = { store, clock: systemClock, random: systemRandom, log: silentLog };
  identity = await openEmbeddedIdentity(parts);
  const urls = { identity: baseUrl, kubernetes: 'https://127.0.0.1:6443' };
  const { adminPassword = '' } = await identity.bootstrap(urls);
  server.use(createIdentityApi({ identity, log: silentLog, baseUrl }));
  operator = person('admin', adminPassword, { OS_SYSTEM_SCOPE: 'all' }, 'Default');
});

after(async () => {
  await server.close();
  await identity.close();
  await store.close();
  await rm(directory, { recursive: true });
});

function person(
  name: string,
  password: string,
  scope: Record<string, string>,
  domain = 'acme',
): OpenstackUser {
  return {
    env: {
      OS_AUTH_URL: `${server.origin}/identity/v3`,
      OS_USERNAME: name,
      OS_PASSWORD: password,
      OS_USER_DOMAIN_NAME: domain,
      ...scope,
    },
  };
}

const WEB = { OS_PROJECT_NAME: 'web', OS_PROJECT_DOMAIN_NAME: 'acme' };
const alice = (scope: Record<string, string> = WEB) => person('alice', ALICE_PASSWORD, scope);

const rows = (value: unknown) => value as Row[];
const names = (value: unknown) => rows(value).map((row) => row['Name']);

describe('the openstack client', () => {
  test('an operator sets up a domain with projects, people and roles', async () => {
    const { values, errors } = await openstackSession(operator, [
      'token issue -f json',
      'domain create acme -f json',
      'project create --domain acme --description Shop web -f json',
      'project create --domain acme --parent web web-test --tag beta -f json',
      `user create --domain acme --password ${ALICE_PASSWORD} --email a@acme alice -f json`,
      'user create --domain acme --password bobs-password bob -f json',
      'group create --domain acme devs -f json',
      'group add user --group-domain acme --user-domain acme devs alice',
      'role create deployer -f json',
      'implied role create member --implied-role deployer -f json',
      'role add --project web --project-domain acme --group devs --group-domain acme member',
      'role add --inherited --project web --project-domain acme --user alice --user-domain acme admin',
      'role add --domain acme --user bob --user-domain acme admin',
      'project list --domain acme -f json',
      'project show --domain acme --parents web-test -f json',
      'user list --group devs --domain acme -f json',
      'role assignment list --names --effective --user alice --user-domain acme -f json',
      'role assignment list --names --domain acme -f json',
    ]);
    assert.equal(errors, '');
    const [token, domain, web, webTest] = values;
    assert.match(String(token?.['id']), /^hnt_/);
    assert.equal(token?.['system'], 'all');
    assert.equal(web?.['parent_id'], domain?.['id']);
    assert.equal(webTest?.['parent_id'], web?.['id']);
    assert.deepEqual(webTest?.['tags'], ['beta']);
    const [projects, shown, members, effective, onDomain] = values.slice(-5);
    assert.deepEqual(names(projects), ['web', 'web-test']);
    assert.deepEqual(shown?.['parents'], { [String(web?.['id'])]: null });
    assert.deepEqual(names(members), ['alice']);
    const pairs = rows(effective).map((row) => `${String(row['Role'])} ${String(row['Project'])}`);
    const onWeb = ['deployer', 'member', 'reader'].map((role) => `${role} web@acme`);
    const below = ['admin', 'deployer', 'member', 'reader'].map((role) => `${role} web-test@acme`);
    assert.deepEqual(pairs.sort(), [...onWeb, ...below].sort());
    assert.deepEqual(
      rows(onDomain).map((row) => [row['Role'], row['User']]),
      [['admin', 'bob@acme']],
    );
  });

  test('a member sees the catalogue and own projects, and nothing of the operator’s', async () => {
    const { values, errors } = await openstackSession(alice(), [
      'catalog list -f json',
      'project list --my-projects -f json',
      'project list -f json',
      'domain list -f json',
      'user list -f json',
      'role assignment list -f json',
      'project create mine -f json',
    ]);
    const [catalog, mine, visible, ...more] = values;
    assert.deepEqual(
      rows(catalog).map((row) => row['Type']),
      ['identity', 'kubernetes'],
    );
    assert.deepEqual(names(mine).sort(), ['web', 'web-test']);
    assert.deepEqual(names(visible), ['web']);
    assert.deepEqual(more, []);
    assert.equal(errors.match(/\(HTTP 403\)/g)?.length, 4, errors);
  });

  test('a project’s admin gives roles on it and below, and only those it has', async () => {
    const here = { OS_PROJECT_NAME: 'web-test', OS_PROJECT_DOMAIN_NAME: 'acme' };
    const bob = identity.state.tables.users.all().find(({ name }) => name === 'bob');
    const project = identity.state.tables.projects.all().find(({ name }) => name === 'web');
    const below = identity.state.tables.projects.all().find(({ name }) => name === 'web-test');
    assert.ok(bob && project && below);
    const { values, errors } = await openstackSession(alice(here), [
      `role add --project ${below.id} --user ${bob.id} reader`,
      `role assignment list --project ${below.id} --user ${bob.id} -f json`,
      `role remove --project ${below.id} --user ${bob.id} reader`,
      `role add --project ${project.id} --user ${bob.id} reader`,
    ]);
    assert.equal(rows(values[0]).length, 1);
    assert.match(errors, /^No project with a name or ID of '[0-9a-f]{32}' exists\.\s*$/);
    assert.deepEqual(identity.state.assignmentsBetween(bob.id, below.id), []);
    assert.deepEqual(identity.state.assignmentsBetween(bob.id, project.id), []);
  });

  test('a domain’s admin manages its domain and no other', async () => {
    const bob = person('bob', 'bobs-password', { OS_DOMAIN_NAME: 'acme' });
    const { values, errors } = await openstackSession(bob, [
      'user create --password carols-password carol -f json',
      'user set --disable carol',
      'user list -f json',
      'user delete carol',
      'user set --disable admin --domain default',
      'project list -f json',
      'domain create other -f json',
    ]);
    const domain = identity.state.tables.domains.all().find(({ name }) => name === 'acme');
    assert.equal(values[0]?.['domain_id'], domain?.id);
    assert.deepEqual(names(values[1]).sort(), ['alice', 'bob', 'carol']);
    assert.deepEqual(names(values[2]), ['web', 'web-test']);
    assert.match(errors, /No user with a name or ID of 'admin'|HTTP 40[34]/);
    assert.ok(identity.state.usersByName('default', 'admin')[0]?.enabled);
    assert.ok(!identity.state.tables.domains.all().some(({ name }) => name === 'other'));
  });

  test('application credentials log in with what they were given', async () => {
    const file = join(directory, 'rules.json');
    const rule = { service: 'identity', method: 'GET', path: '/v3/auth/catalog' };
    await writeFile(file, JSON.stringify([rule]));
    const { values, errors } = await openstackSession(alice(), [
      'application credential create ci --role reader --expiration 2100-01-01T00:00:00 -f json',
      `application credential create narrow --access-rules ${file} -f json`,
      'application credential list -f json',
      'access rule list -f json',
      'application credential create wide --role admin -f json',
      'application credential create brief -f json',
      'application credential delete brief',
      'application credential show brief -f json',
    ]);
    const [ci, narrow, list, rules] = values;
    assert.deepEqual(names(list), ['ci', 'narrow']);
    assert.deepEqual(rows(rules)[0]?.['Path'], rule.path);
    assert.match(errors, /admin/);
    assert.match(errors, /No applicationcredential with a name or ID of 'brief'/i);
    const robot = (credential: Row | undefined): OpenstackUser => ({
      env: {
        OS_AUTH_URL: `${server.origin}/identity/v3`,
        OS_AUTH_TYPE: 'v3applicationcredential',
        OS_APPLICATION_CREDENTIAL_ID: String(credential?.['id']),
        OS_APPLICATION_CREDENTIAL_SECRET: String(credential?.['secret']),
      },
    });
    const token = (await openstackJson(robot(ci), 'token', 'issue')) as Row;
    const found = identity.validate(String(token['id']));
    assert.deepEqual(
      found?.session.roles.map(({ name }) => name),
      ['reader'],
    );
    const limited = await openstackSession(robot(narrow), [
      'catalog list -f json',
      'project list --my-projects -f json',
    ]);
    assert.equal(limited.values.length, 1);
    assert.match(limited.errors, /access rules/);
    await identity.credentials.delete(String(ci?.['id']));
    const gone = await openstack(robot(ci), 'token', 'issue');
    assert.equal(gone.exitCode, 1);
    assert.match(gone.stderr, /HTTP 401/);
  });

  test('tokens log in, and end when they are revoked or the password changes', async () => {
    const issued = (await openstackJson(alice(), 'token', 'issue')) as Row;
    const kept = await identity.authenticate({
      identity: {
        method: 'password',
        user: { name: 'alice', domain: { name: 'acme' } },
        password: ALICE_PASSWORD,
      },
    });
    const bearer = (token: unknown): OpenstackUser => ({
      env: {
        OS_AUTH_URL: `${server.origin}/identity/v3`,
        OS_AUTH_TYPE: 'v3token',
        OS_TOKEN: String(token),
        ...WEB,
      },
    });
    const again = (await openstackJson(bearer(issued['id']), 'token', 'issue')) as Row;
    assert.equal(again['project_id'], issued['project_id']);
    const revoked = await openstack(alice(), 'token', 'revoke', String(issued['id']));
    assert.equal(revoked.exitCode, 0, revoked.stderr);
    const refused = await openstack(bearer(issued['id']), 'token', 'issue');
    assert.match(refused.stderr, /HTTP 401/);
    assert.ok(identity.validate(kept.token));

    const change = ['--original-password', ALICE_PASSWORD, '--password', 'alices-second'];
    const changed = await openstack(alice(), 'user', 'password', 'set', ...change);
    assert.equal(changed.exitCode, 0, changed.stderr);
    assert.equal(identity.validate(kept.token), undefined);
    const old = await openstack(alice(), 'token', 'issue');
    assert.match(old.stderr, /HTTP 401/);
  });

  test('what was set up is taken down', async () => {
    const { values, errors } = await openstackSession(operator, [
      'role remove --domain acme --user bob --user-domain acme admin',
      'group remove user --group-domain acme --user-domain acme devs alice',
      'implied role delete member --implied-role deployer',
      'role delete deployer',
      'project delete --domain acme web-test web',
      'group delete --domain acme devs',
      'user delete --domain acme bob',
      'domain set --disable acme',
      'domain delete acme',
      'domain list -f json',
      'region create north -f json',
      'service create --name shop shopping -f json',
      'endpoint create --region north shopping public https://shop.example/ -f json',
      'endpoint list --service shopping -f json',
    ]);
    assert.equal(errors, '');
    assert.deepEqual(names(values[0]), ['Default']);
    assert.deepEqual(
      rows(values.at(-1)).map((row) => row['URL']),
      ['https://shop.example/'],
    );
    assert.deepEqual(names(await openstackJson(operator, 'role', 'list')), [
      'admin',
      'member',
      'reader',
    ]);
    const { users, projects, groups, memberships, assignments } = identity.state.tables;
    const left = [users, projects, groups, memberships, assignments].map(({ size }) => size);
    assert.deepEqual(left, [1, 1, 0, 0, 2]);
  });
});
