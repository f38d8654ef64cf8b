import assert from 'node:assert/strict';
import type { IdentityToken } from '../../api/identity.ts';
import type { Login, Scope } from '../conformance.ts';
import { PASSWORD } from './world.ts';
import type { Check, Person, World } from './world.ts';

/* What every identity provider promises of tokens, and of how they lose their worth. */

export function tokenChecks(check: Check): void {
  check('a token for a project tells user, project, roles and times', async (world) => {
    const { user, projectId, token } = await world.newPerson();
    const got = await world.valid(token);
    assert.deepEqual(got.user, { ...user, domain: world.domain });
    assert.deepEqual(got.methods, ['password']);
    assert.ok(got.scope.kind === 'project');
    assert.deepEqual(got.scope.project, await world.provider.getProject(projectId));
    assert.deepEqual(got.groups, []);
    assert.equal(got.accessRules, undefined);
    assert.equal(got.applicationCredentialId, undefined);
    assert.ok(got.expiresAtMs - got.issuedAtMs >= 1_000);
  });

  check('tokens for nothing, a domain and the system tell so', async (world) => {
    const { user, login } = await world.newUser();
    const { domain } = world;
    const id = user.id;
    const on = { kind: 'domain' as const, id: domain.id };
    await world.assign({ kind: 'user', id, role: 'reader', on });
    await world.assign({ kind: 'user', id, role: 'admin', on: 'system' });
    const scopes: [Scope | undefined, IdentityToken['scope'], string[]][] = [
      [undefined, { kind: 'unscoped' }, []],
      ['unscoped', { kind: 'unscoped' }, []],
      [{ domainId: domain.id }, { kind: 'domain', domain }, ['reader']],
      [{ system: true }, { kind: 'system' }, ['admin', 'member', 'reader']],
    ];
    for (const [scope, wanted, roles] of scopes) {
      const got = await world.valid(await world.issueToken(login, scope));
      assert.deepEqual(got.scope, wanted);
      assert.deepEqual([...got.roles].sort(), roles);
    }
  });

  check('a token that was got for a token names both methods', async (world) => {
    const { projectId, login } = await world.newPerson();
    const token = await world.issueToken(login, 'unscoped');
    const second = await world.issueToken({ method: 'token', token }, { projectId });
    const got = await world.valid(second);
    assert.deepEqual([...got.methods].sort(), ['password', 'token']);
    assert.equal(got.scope.kind, 'project');
    assert.ok(got.expiresAtMs <= (await world.valid(token)).expiresAtMs);
  });

  check('an application credential gives its roles and its rules, and no more', async (world) => {
    const { user, token, projectId } = await world.newPerson('admin');
    const rules = [{ service: 'kubernetes', method: 'GET', path: '/api/v1/pods' }];
    const wanted = { name: world.fresh('ci'), roles: ['reader'], accessRules: rules };
    const { id, secret } = await world.createApplicationCredential(token, user.id, wanted);
    const login: Login = { method: 'application_credential', id, secret };
    const got = await world.valid(await world.issueToken(login));
    assert.deepEqual(got.methods, ['application_credential']);
    assert.equal(got.applicationCredentialId, id);
    assert.deepEqual(got.accessRules, rules);
    assert.deepEqual(got.roles, ['reader']);
    assert.ok(got.scope.kind === 'project' && got.scope.project.id === projectId);
    const open = { name: world.fresh('open') };
    const all = await world.createApplicationCredential(token, user.id, open);
    const full = await world.valid(await world.issueToken({ ...login, ...all }));
    assert.equal(full.accessRules, undefined);
    assert.deepEqual([...full.roles].sort(), ['admin', 'member', 'reader']);
  });

  check('a token is recognised by its form, and nobody else’s is', async (world) => {
    const { token } = await world.newPerson();
    const { provider } = world;
    assert.ok(provider.recognises(token));
    const part = (claims: unknown) => Buffer.from(JSON.stringify(claims)).toString('base64url');
    const jwt = [{ alg: 'RS256' }, { iss: 'https://kubernetes', sub: 'system:x' }, 1].map(part);
    const foreign = [jwt.join('.'), 'abcdef.0123456789abcdef', '', 'x', 'ü', 'a'.repeat(100_000)];
    for (const other of foreign) assert.equal(provider.recognises(other), false, other);
  });

  check('a token that was changed anywhere is refused', async (world) => {
    const { token } = await world.newPerson();
    await world.valid(token);
    const places = [10, 0.3, 0.6, 0.9].map((at) => (at < 1 ? Math.floor(token.length * at) : at));
    for (const at of places) {
      const other = token[at] === 'A' ? 'B' : 'A';
      const changed = token.slice(0, at) + other + token.slice(at + 1);
      assert.equal(await world.provider.validate(changed), undefined, `changed at ${at}`);
    }
    assert.equal(await world.provider.validate(token.slice(0, -4)), undefined);
    await world.valid(token);
  });

  check('many may ask for one token at once, and each may give up', async (world) => {
    const { token, user } = await world.newPerson();
    const gone = AbortSignal.abort(new Error('gone'));
    const asked = Array.from({ length: 64 }, () => world.valid(token));
    await assert.rejects(world.provider.validate(token, gone), { message: 'gone' });
    for (const got of await Promise.all(asked)) assert.equal(got.user.id, user.id);
  });
}

export function roleChecks(check: Check): void {
  check('roles come from implication, from groups and from projects above', async (world) => {
    const [{ user, login }, above] = await Promise.all([world.newUser(), world.newProject()]);
    const below = await world.newProject(above.id);
    const group = await world.createGroup(world.fresh('group'), world.domain.id);
    await world.addToGroup(group.id, user.id);
    const on = (id: string) => ({ kind: 'project' as const, id });
    await world.assign({ kind: 'group', id: group.id, role: 'reader', on: on(above.id) });
    const member = { kind: 'user' as const, id: user.id, role: 'member', on: on(above.id) };
    await world.assign({ ...member, isInherited: true });
    const rolesOn = async (projectId: string) => {
      const got = await world.valid(await world.issueToken(login, { projectId }));
      return [...got.roles].sort();
    };
    assert.deepEqual(await rolesOn(above.id), ['reader']);
    assert.deepEqual(await rolesOn(below.id), ['member', 'reader']);
  });

  check('groups are named with their domains', async (world) => {
    const { user, login } = await world.newUser('Größe & 大=%2F');
    const domain = await world.createDomain(world.fresh('domain'));
    const here = await world.createGroup(world.fresh('größe & 大=%2F'), world.domain.id);
    const there = await world.createGroup(world.fresh('there'), domain.id);
    await world.addToGroup(here.id, user.id);
    await world.addToGroup(there.id, user.id);
    const got = await world.valid(await world.issueToken(login));
    const wanted = [
      { name: here.name, domain: world.domain.name },
      { name: there.name, domain: domain.name },
    ];
    const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
    assert.deepEqual([...got.groups].sort(byName), wanted.sort(byName));
    assert.equal(got.user.name, user.name);
  });
}

/** How a token that was good loses its worth. */
const WITHDRAWALS: Record<string, (world: World, person: Person) => Promise<void>> = {
  'the token is revoked': (world, { token }) => world.revokeToken(token),
  'its user is disabled': (world, { user }) => world.update('user', user.id, { enabled: false }),
  'its user is deleted': (world, { user }) => world.remove('user', user.id),
  'its user has a new password': (world, { user }) =>
    world.update('user', user.id, { password: 'another horse' }),
  'its project is disabled': (world, { projectId }) =>
    world.update('project', projectId, { enabled: false }),
  'its project is deleted': (world, { projectId }) => world.provider.deleteProject(projectId),
  'its last role is lost': (world, { projectId, user }) =>
    world.provider.revoke({
      ...{ projectId, kind: 'User', name: user.name, domain: world.domain.name, role: 'member' },
    }),
};

export function withdrawalChecks(check: Check): void {
  check('what was taken away is refused within the promised time', async (world) => {
    const control = await world.newPerson();
    const outcomes = Object.entries(WITHDRAWALS).map(async ([what, withdraw]) => {
      const person = await world.newPerson();
      await world.valid(person.token);
      await withdraw(world, person);
      await world
        .until(person.token, (now) => now === undefined)
        .catch((cause: unknown) => Promise.reject(new Error(what, { cause })));
    });
    await Promise.all(outcomes);
    await world.valid(control.token);
  });

  check(
    'a domain, an application credential, a group that goes takes its tokens',
    async (world) => {
      const domain = await world.createDomain(world.fresh('domain'));
      const user = await world.createUser(world.fresh('user'), PASSWORD, domain.id);
      const who = { username: user.name, password: PASSWORD, domain: domain.name };
      const foreign = await world.issueToken({ method: 'password', ...who });
      await world.valid(foreign);

      const owner = await world.newPerson();
      const wanted = { name: world.fresh('ci') };
      const made = await world.createApplicationCredential(owner.token, owner.user.id, wanted);
      const robot = await world.issueToken({ method: 'application_credential', ...made });
      await world.valid(robot);

      const grouped = await world.newPerson();
      const group = await world.createGroup(world.fresh('group'), world.domain.id);
      await world.addToGroup(group.id, grouped.user.id);
      const token = await world.issueToken(grouped.login, { projectId: grouped.projectId });
      assert.equal((await world.valid(token)).groups.length, 1);

      await world.update('domain', domain.id, { enabled: false });
      await world.removeApplicationCredential(owner.token, owner.user.id, made.id);
      await world.removeFromGroup(group.id, grouped.user.id);
      await Promise.all([
        world.until(foreign, (now) => now === undefined),
        world.until(robot, (now) => now === undefined),
        // The service may end the token, or only the membership.
        world.until(token, (now) => (now?.groups.length ?? 0) === 0),
      ]);
      await world.valid(owner.token);
    },
  );

  check('new names and lost roles are seen within the promised time', async (world) => {
    const { user, projectId, token } = await world.newPerson('admin');
    const assignment = { projectId, kind: 'User' as const, name: user.name };
    const domain = world.domain.name;
    await world.provider.grant({ ...assignment, domain, role: 'reader' });
    assert.ok((await world.valid(token)).roles.includes('admin'));
    const name = world.fresh('renamed');
    await world.update('project', projectId, { name });
    await world.provider.revoke({ ...assignment, domain, role: 'admin' });
    await world.until(
      token,
      (now) =>
        now === undefined ||
        (now.scope.kind === 'project' &&
          now.scope.project.name === name &&
          now.roles.join() === 'reader'),
    );
  });
}
