import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { silentLog } from '../../../base/log.ts';
import { BASE_URL, startRig } from '../testing/rig.ts';
import type { IdentityRig } from '../testing/rig.ts';
import { BODY_BYTES_MAX, createIdentityApi, isIdentityPath } from './api.ts';

let rig: IdentityRig;
/** Two domains of strangers, each with an admin, a project and a member who is its admin. */
interface Side {
  domainId: string;
  projectId: string;
  belowId: string;
  userId: string;
  groupId: string;
  /** Admin of the domain, of the project, reader of the project, and a token for nothing. */
  domainAdmin: string;
  projectAdmin: string;
  reader: string;
  unscoped: string;
}
let a: Side;
let b: Side;
const roleId = (name: string) =>
  rig.identity.state.tables.roles.all().find((role) => role.name === name)?.id ?? '';

before(async () => {
  rig = await startRig();
  a = await makeSide('a');
  b = await makeSide('b');
});
after(() => rig.close());

async function created(path: string, kind: string, fields: object): Promise<string> {
  const answer = await rig.call('POST', path, { token: rig.admin, body: { [kind]: fields } });
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  return answer.body[kind].id;
}

async function makeSide(name: string): Promise<Side> {
  const domainId = await created('/domains', 'domain', { name });
  const common = { domain_id: domainId };
  const projectId = await created('/projects', 'project', { name: 'p', ...common });
  const below = { name: 'below', parent_id: projectId, ...common };
  const belowId = await created('/projects', 'project', below);
  const groupId = await created('/groups', 'group', { name: 'g', ...common });
  const user = async (userName: string, path: string, role: string) => {
    const fields = { name: userName, password: `password ${userName}`, ...common };
    const id = await created('/users', 'user', fields);
    const grant = `${path}/users/${id}/roles/${roleId(role)}`;
    assert.equal((await rig.call('PUT', grant, { token: rig.admin })).status, 204);
    return id;
  };
  await user('domain-admin', `/domains/${domainId}`, 'admin');
  const userId = await user('project-admin', `/projects/${projectId}`, 'admin');
  await user('reader', `/projects/${projectId}`, 'reader');
  const login = (userName: string, scope: unknown) =>
    rig.login(userName, `password ${userName}`, scope, domainId);
  const onProject = { project: { id: projectId } };
  return {
    ...{ domainId, projectId, belowId, userId, groupId },
    domainAdmin: await login('domain-admin', { domain: { id: domainId } }),
    projectAdmin: await login('project-admin', onProject),
    reader: await login('reader', onProject),
    unscoped: await login('reader', 'unscoped'),
  };
}

describe('who may do what', () => {
  test('a request is refused to those whom it does not concern, and allowed to one', async () => {
    const put = (path: string) => ['PUT', path] as const;
    const cases: [
      what: string,
      request: readonly [method: string, path: string, body?: unknown],
      refused: string[],
      allowed: string,
    ][] = [
      ['list domains', ['GET', '/domains'], [a.projectAdmin, a.reader, a.unscoped], rig.admin],
      [
        'see a foreign domain',
        ['GET', `/domains/${b.domainId}`],
        [a.domainAdmin, a.reader],
        b.reader,
      ],
      ['list users', ['GET', '/users'], [a.projectAdmin, a.reader, a.unscoped], a.domainAdmin],
      [
        'see a user',
        ['GET', `/users/${b.userId}`],
        [a.domainAdmin, a.projectAdmin, b.reader],
        b.projectAdmin,
      ],
      [
        'set a password',
        ['PATCH', `/users/${b.userId}`, { user: { description: 'x' } }],
        [a.domainAdmin, a.projectAdmin, b.projectAdmin, b.reader],
        b.domainAdmin,
      ],
      [
        'see a project',
        ['GET', `/projects/${b.projectId}`],
        [a.domainAdmin, a.projectAdmin, a.reader, b.unscoped],
        b.reader,
      ],
      [
        'rename a project',
        ['PATCH', `/projects/${b.projectId}`, { project: { description: 'x' } }],
        [a.domainAdmin, b.projectAdmin, b.reader],
        b.domainAdmin,
      ],
      [
        'give a role on a project',
        put(`/projects/${b.projectId}/users/${b.userId}/roles/${roleId('member')}`),
        [a.domainAdmin, a.projectAdmin, b.reader, b.unscoped],
        b.projectAdmin,
      ],
      [
        'give a role below a project',
        put(`/projects/${b.belowId}/users/${b.userId}/roles/${roleId('member')}`),
        [a.domainAdmin, b.reader],
        b.projectAdmin,
      ],
      [
        'give a role on a domain',
        put(`/domains/${b.domainId}/users/${b.userId}/roles/${roleId('reader')}`),
        [a.domainAdmin, b.projectAdmin],
        b.domainAdmin,
      ],
      [
        'give a role on the system',
        put(`/system/groups/${b.groupId}/roles/${roleId('reader')}`),
        [a.domainAdmin, b.domainAdmin, b.projectAdmin],
        rig.admin,
      ],
      [
        'join a group that has a role on the system',
        put(`/groups/${b.groupId}/users/${b.userId}`),
        [a.domainAdmin, b.domainAdmin, b.projectAdmin],
        rig.admin,
      ],
      [
        'set the password of somebody who then has a role on the system',
        ['PATCH', `/users/${b.userId}`, { user: { description: 'y' } }],
        [b.domainAdmin],
        rig.admin,
      ],
      ['make a role', ['POST', '/roles', { role: { name: 'r' } }], [b.domainAdmin], rig.admin],
      ['list services', ['GET', '/services'], [b.domainAdmin, b.reader], rig.admin],
      [
        'list the assignments of all',
        ['GET', '/role_assignments'],
        [b.reader, b.unscoped],
        b.projectAdmin,
      ],
    ];
    for (const [what, [method, path, body], refused, allowed] of cases) {
      for (const token of refused) {
        const { status } = await rig.call(method, path, { token, body });
        assert.ok([403, 404].includes(status), `${what}: ${status}`);
      }
      const { status } = await rig.call(method, path, { token: allowed, body });
      assert.ok([200, 201, 204].includes(status), `${what}, allowed: ${status}`);
    }
  });

  test('what is foreign is answered as what is absent', async () => {
    const nowhere = 'f'.repeat(32);
    const paths = [
      (id: string) => ['GET', `/users/${id}`, b.userId],
      (id: string) => ['GET', `/projects/${id}`, b.projectId],
      (id: string) => ['GET', `/groups/${id}`, b.groupId],
      (id: string) => [
        'PUT',
        `/projects/${a.projectId}/users/${id}/roles/${roleId('reader')}`,
        b.userId,
      ],
      (id: string) => ['GET', `/users/${id}/application_credentials`, b.userId],
    ];
    for (const token of [a.domainAdmin, a.projectAdmin, a.reader]) {
      for (const make of paths) {
        const [, , existing = ''] = make('');
        const ask = async (id: string) => {
          const [method = '', path = ''] = make(id);
          const answer = await rig.call(method, path, { token });
          return JSON.stringify(answer.body).replaceAll(id, 'ID') + answer.status;
        };
        assert.equal(await ask(existing), await ask(nowhere));
      }
    }
  });

  test('lists show what concerns their reader', async () => {
    const ids = async (token: string, path: string, kind: string) =>
      (await rig.call('GET', path, { token })).body[kind].map((one: { id: string }) => one.id);
    assert.deepEqual(await ids(a.reader, '/projects', 'projects'), [a.projectId]);
    const own = [a.projectId, a.belowId];
    assert.deepEqual((await ids(a.projectAdmin, '/projects', 'projects')).sort(), own.sort());
    const users = await ids(a.domainAdmin, '/users', 'users');
    assert.ok(users.includes(a.userId) && !users.includes(b.userId));
    const foreign = await ids(a.domainAdmin, `/users?domain_id=${b.domainId}`, 'users');
    assert.deepEqual(foreign, []);
    for (const query of [
      '',
      '?effective',
      '?include_subtree=1',
      `?scope.project.id=${b.projectId}`,
    ]) {
      const path = `/role_assignments${query}`;
      const { body } = await rig.call('GET', path, { token: a.projectAdmin });
      assert.ok(!JSON.stringify(body).includes(b.domainId), query);
      for (const { scope } of body.role_assignments) assert.ok(own.includes(scope.project.id));
    }
  });

  test('nobody gives a role that it does not have', async () => {
    const special = await created('/roles', 'role', { name: 'special' });
    const path = `/projects/${a.projectId}/users/${a.userId}/roles/${special}`;
    for (const token of [a.projectAdmin, a.domainAdmin]) {
      assert.equal((await rig.call('PUT', path, { token })).status, 403);
    }
    assert.equal((await rig.call('PUT', path, { token: rig.admin })).status, 204);
    assert.equal((await rig.call('PUT', path, { token: a.projectAdmin })).status, 204);
  });

  test('tokens are validated and revoked by their own user or an operator', async () => {
    const about = (method: string, token: string, subject: string) =>
      rig.call(method, '/auth/tokens', { token, headers: { 'x-subject-token': subject } });
    const foreign = await about('GET', b.projectAdmin, a.reader);
    const nonsense = await about('GET', b.projectAdmin, 'hnt_nonsense');
    assert.deepEqual([foreign.status, foreign.body], [403, nonsense.body]);
    assert.equal((await about('DELETE', b.domainAdmin, a.reader)).status, 403);
    assert.equal((await about('GET', rig.admin, 'hnt_nonsense')).status, 404);
    assert.equal((await about('GET', a.unscoped, a.reader)).body.token.project.id, a.projectId);
    const head = await about('HEAD', rig.admin, a.reader);
    assert.deepEqual([head.status, head.body], [200, undefined]);
  });
});

describe('what is wrong is said', () => {
  const ask = (body: unknown) => rig.call('POST', '/auth/tokens', { body });
  const login = (identity: unknown, scope?: unknown) => ask({ auth: { identity, scope } });

  test('errors have Keystone’s shape and name the field', async () => {
    const user = { name: 'x', password: 'y', domain: { id: 'default' } };
    const password = { methods: ['password'], password: { user } };
    const cases: [answer: Promise<{ status: number; body: any }>, status: number, text: RegExp][] =
      [
        [ask(undefined), 400, /'body'/],
        [ask([]), 400, /'body'/],
        [ask({}), 400, /'body.auth'/],
        [ask({ auth: {} }), 400, /'auth.identity'/],
        [ask({ auth: { identity: {}, tenantName: 1 } }), 400, /"tenantName"/],
        [login({ methods: [] }), 400, /'auth.identity.methods'/],
        [login({ methods: ['password', 'totp'] }), 400, /'auth.identity.methods'/],
        [login({ methods: ['totp'], totp: {} }), 401, /"totp"; there are: password/],
        [login({ methods: [{}] }), 401, /unsupported method/],
        [login({ methods: ['__proto__'] }), 401, /unsupported method/],
        [login({ methods: ['password'] }), 400, /'auth.identity.password'/],
        [
          login({ methods: ['password'], password: { user: { ...user, password: 1 } } }),
          400,
          /type 'number'/,
        ],
        [
          login({ methods: ['password'], password: { user: { name: 'x', password: 'y' } } }),
          400,
          /user.domain'/,
        ],
        [login(password, { project: { name: 'x' } }), 400, /'auth.scope.project.domain'/],
        [login(password, { project: {}, domain: {} }), 400, /exactly one/],
        [login(password, { system: { all: false } }), 400, /can only be true/],
        [login(password, 'everything'), 400, /'auth.scope'/],
        [login(password), 401, /requires authentication/],
        [
          login({ ...password, password: { user: { ...user, domain: { name: 'nope' } } } }),
          401,
          /requires/,
        ],
      ];
    for (const [answer, status, text] of cases) {
      const { status: got, body } = await answer;
      assert.equal(got, status, JSON.stringify(body));
      assert.deepEqual(Object.keys(body), ['error']);
      assert.deepEqual(Object.keys(body.error).sort(), ['code', 'message', 'title']);
      assert.equal(body.error.code, status);
      assert.match(body.error.message, text);
    }
  });

  test('bodies of the wrong form change nothing', async () => {
    const count = () => rig.identity.state.tables.users.size;
    const before = count();
    const wrong: [fields: object, text: RegExp][] = [
      [{}, /'user.name'/],
      [{ name: '' }, /'user.name'/],
      [{ name: ' ' }, /'user.name'/],
      [{ name: 'a\u0000b' }, /control character/],
      [{ name: 'x'.repeat(256) }, /'user.name'/],
      [{ name: 7 }, /'user.name'.*number/],
      [{ name: 'x', enabled: 'yes' }, /'user.enabled'.*string/],
      [{ name: 'x', password: 'short' }, /at least 8/],
      [{ name: 'x', shoeSize: 44 }, /"shoeSize"/],
      [{ name: 'x', options: { multi_factor_auth_enabled: true } }, /"multi_factor_auth_enabled"/],
      [{ name: 'x', domain_id: 'nowhere' }, /Could not find domain/],
      [{ name: 'admin' }, /Duplicate entry/],
    ];
    for (const [user, text] of wrong) {
      const { status, body } = await rig.call('POST', '/users', {
        token: rig.admin,
        body: { user },
      });
      assert.ok([400, 404, 409].includes(status));
      assert.match(body.error.message, text);
    }
    assert.equal(count(), before);
    const domain = { name: 'a@b' };
    const ambiguous = await rig.call('POST', '/domains', { token: rig.admin, body: { domain } });
    assert.match(ambiguous.body.error.message, /'domain.name'/);
    const answer = await rig.call('PATCH', `/users/${a.userId}`, {
      token: rig.admin,
      body: { user: { domain_id: b.domainId } },
    });
    assert.equal(answer.status, 403);
  });

  test('requests that are no requests', async () => {
    const api = createIdentityApi({ identity: rig.identity, log: silentLog, baseUrl: BASE_URL });
    const raw = async (changes: Partial<Parameters<typeof api>[0]>) => {
      const { status } = await api({
        ...{ method: 'GET', path: '/identity/v3', query: new URLSearchParams() },
        ...{ headers: { 'x-auth-token': rig.admin }, body: new Uint8Array() },
        ...changes,
      });
      return status;
    };
    const post = { method: 'POST', path: '/identity/v3/projects' };
    const deep = JSON.parse(`${'['.repeat(40)}${']'.repeat(40)}`);
    assert.equal(await raw({}), 200);
    assert.equal(await raw({ path: '/identity' }), 300);
    assert.equal(await raw({ path: '/identity/v2.0/tokens' }), 404);
    assert.equal(await raw({ path: '/identity/v3/%zz' }), 400);
    assert.equal(await raw({ path: `/identity/v3/${'x'.repeat(2_000)}` }), 400);
    assert.equal(await raw({ method: 'PURGE', path: '/identity/v3/users' }), 405);
    assert.equal(await raw({ ...post, body: Buffer.from('{') }), 400);
    assert.equal(await raw({ ...post, body: Buffer.from([0xff, 0xfe]) }), 400);
    assert.equal(await raw({ ...post, body: Buffer.alloc(BODY_BYTES_MAX + 1, ' ') }), 413);
    assert.equal(await raw({ ...post, body: Buffer.from(JSON.stringify(deep)) }), 400);
    const users = '/identity/v3/users';
    assert.equal(await raw({ path: users, headers: {} }), 401);
    assert.equal(await raw({ path: users, headers: { 'x-auth-token': [rig.admin, 'x'] } }), 401);
    assert.equal(await raw({ path: users, query: new URLSearchParams('enabled=perhaps') }), 400);
    assert.ok(isIdentityPath('/identity/v3') && isIdentityPath('/identity'));
    assert.ok(!isIdentityPath('/identityx') && !isIdentityPath('/api/identity'));
  });

  test('an access rule opens what it names and nothing beside it', async () => {
    const rules = [{ service: 'identity', method: 'GET', path: '/v3/auth/**' }];
    const path = `/users/${a.userId}/application_credentials`;
    const wanted = { name: 'narrow', unrestricted: true, access_rules: rules };
    const body = { application_credential: wanted };
    const made = await rig.call('POST', path, { token: a.projectAdmin, body });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const { id, secret, access_rules: shown } = made.body.application_credential;
    const identity = {
      methods: ['application_credential'],
      application_credential: { id, secret },
    };
    const token = (await login(identity)).headers['X-Subject-Token'] ?? '';
    assert.equal((await rig.call('GET', '/auth/projects', { token })).status, 200);
    assert.equal((await rig.call('GET', '/projects', { token })).status, 403);
    assert.equal((await rig.call('POST', path, { token, body })).status, 403);
    const rule = `/users/${a.userId}/access_rules/${shown[0].id}`;
    assert.equal((await rig.call('DELETE', rule, { token: a.projectAdmin })).status, 403);
    const scoped = await login(identity, { project: { id: a.projectId } });
    assert.equal(scoped.status, 401);
    const again = await rig.call('POST', path, { token: a.projectAdmin, body });
    assert.equal(again.status, 409);
    const foreign = `/users/${b.userId}/application_credentials`;
    assert.equal((await rig.call('POST', foreign, { token: rig.admin, body })).status, 403);
  });

  test('a restricted credential makes and deletes no other, and may end itself', async () => {
    const path = `/users/${a.userId}/application_credentials`;
    const make = (token: string, name: string, unrestricted: boolean) =>
      rig.call('POST', path, { token, body: { application_credential: { name, unrestricted } } });
    for (const unrestricted of [false, true]) {
      const made = await make(a.projectAdmin, `first-${unrestricted}`, unrestricted);
      const { id, secret } = made.body.application_credential;
      const methods = ['application_credential'];
      const identity = { methods, application_credential: { id, secret } };
      const token = (await login(identity)).headers['X-Subject-Token'] ?? '';
      const second = await make(token, `second-${unrestricted}`, true);
      assert.equal(second.status, unrestricted ? 201 : 403);
      const other = await make(a.projectAdmin, `other-${unrestricted}`, true);
      const otherPath = `${path}/${other.body.application_credential.id}`;
      const deleted = await rig.call('DELETE', otherPath, { token });
      assert.equal(deleted.status, unrestricted ? 204 : 403);
      assert.equal((await rig.call('DELETE', `${path}/${id}`, { token })).status, 204);
      assert.equal((await rig.call('GET', '/auth/projects', { token })).status, 401);
    }
  });

  test('no answer holds a hash, a key or a secret', async () => {
    const paths = [
      '/users',
      '/projects',
      '/role_assignments?include_names',
      '/domains',
      '/endpoints',
    ];
    paths.push(`/users/${a.userId}/application_credentials`, `/users/${a.userId}`);
    for (const path of paths) {
      const { body } = await rig.call('GET', path, { token: rig.admin });
      assert.doesNotMatch(JSON.stringify(body), /argon2|"hash"|"secret"|"epoch"|"passwords"/, path);
    }
  });
});
