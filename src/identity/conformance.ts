import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { IDENTITY_CACHE_MS } from '../api/identity.ts';
import type { IdentityProvider, IdentityToken, NamedId } from '../api/identity.ts';

/** Who logs in, in one of the ways that both services know. */
export type Login =
  | { method: 'password'; username: string; password: string; domain: string }
  | { method: 'token'; token: string }
  | { method: 'application_credential'; id: string; secret: string };

/** What a token is for; an application credential has its own. */
export type Scope = { projectId: string } | { domainId: string } | { system: true } | 'unscoped';

/** What an administrator and users do at an identity service, so that the suite can look on. */
export interface IdentityHarness {
  provider: IdentityProvider;
  /** The one that is there from the start. */
  domain: NamedId;
  createDomain(name: string): Promise<NamedId>;
  createUser(name: string, password: string, domainId: string): Promise<NamedId>;
  createGroup(name: string, domainId: string): Promise<NamedId>;
  addToGroup(groupId: string, userId: string): Promise<void>;
  removeFromGroup(groupId: string, userId: string): Promise<void>;
  assign(assignment: {
    kind: 'user' | 'group';
    id: string;
    /** `admin`, `member` or `reader`; each implies those after it. */
    role: string;
    on: { kind: 'project' | 'domain'; id: string } | 'system';
    isInherited?: boolean;
  }): Promise<void>;
  update(
    kind: 'user' | 'project' | 'domain',
    id: string,
    changes: { name?: string; enabled?: boolean; password?: string },
  ): Promise<void>;
  remove(kind: 'user' | 'project', id: string): Promise<void>;
  issueToken(login: Login, scope?: Scope): Promise<string>;
  revokeToken(token: string): Promise<void>;
  /** @param token of that user, scoped to the project that the credential shall be for */
  createApplicationCredential(
    token: string,
    userId: string,
    wanted: {
      name: string;
      roles?: string[];
      accessRules?: { service: string; method: string; path: string }[];
    },
  ): Promise<{ id: string; secret: string }>;
  removeApplicationCredential(token: string, userId: string, id: string): Promise<void>;
  /** Lets time pass; returns when it has. */
  advance(ms: number): Promise<void>;
}

export interface IdentityUnderTest {
  harness: IdentityHarness;
  dispose(): Promise<void>;
}

const PASSWORD = 'correct horse battery staple';
/** How often it is looked whether a change has come through. */
const LOOK_MS = 250;
/** Beside the time that is promised: the change itself and the last question take theirs. */
const SLACK_MS = 2_500;

/** A user who is a member of a project of its own, with a token for it. */
interface Person {
  user: NamedId;
  projectId: string;
  login: Login;
  token: string;
}

interface World extends IdentityHarness {
  /** A name that no other test has. */
  fresh(stem: string): string;
  newProject(parentId?: string): Promise<NamedId>;
  newUser(stem?: string): Promise<{ user: NamedId; login: Login }>;
  newPerson(role?: string): Promise<Person>;
  valid(token: string): Promise<IdentityToken>;
  /** Until `done` says so of what the token stands for; fails after the time that is promised. */
  until(token: string, done: (now: IdentityToken | undefined) => boolean): Promise<void>;
}

function createWorld(harness: IdentityHarness): World {
  const { provider, domain } = harness;
  const run = randomBytes(4).toString('hex');
  let count = 0;
  const fresh = (stem: string) => `${stem}-${run}-${(count += 1)}`;

  const valid = async (token: string) =>
    (await provider.validate(token)) ?? assert.fail('a token that is good is refused');
  const newProject = (parentId?: string) =>
    provider.createProject({
      name: fresh('project'),
      domainId: domain.id,
      enabled: true,
      ...(parentId === undefined ? {} : { parentId }),
    });
  const newUser = async (stem = 'user') => {
    const user = await harness.createUser(fresh(stem), PASSWORD, domain.id);
    const who = { username: user.name, password: PASSWORD, domain: domain.name };
    return { user, login: { method: 'password', ...who } satisfies Login as Login };
  };
  return {
    ...harness,
    fresh,
    valid,
    newProject,
    newUser,
    async newPerson(role = 'member') {
      const [{ user, login }, project] = await Promise.all([newUser(), newProject()]);
      const on = { kind: 'project' as const, id: project.id };
      await harness.assign({ kind: 'user', id: user.id, role, on });
      const token = await harness.issueToken(login, { projectId: project.id });
      return { user, projectId: project.id, login, token };
    },
    async until(token, done) {
      const startMs = performance.now();
      for (let passedMs = 0; ; passedMs += LOOK_MS) {
        if (done(await provider.validate(token))) return;
        const isLate = Math.max(passedMs, performance.now() - startMs);
        assert.ok(isLate <= IDENTITY_CACHE_MS + SLACK_MS, 'it is not seen in time');
        await harness.advance(LOOK_MS);
      }
    },
  };
}

type Check = (what: string, body: (world: World) => Promise<void>) => void;

/** What every identity provider promises. `make` is called once: services are slow to start. */
export function identityConformance(name: string, make: () => Promise<IdentityUnderTest>): void {
  describe(`identity: ${name}`, () => {
    let under: IdentityUnderTest | undefined;
    let world: World;
    before(async () => {
      under = await make();
      world = createWorld(under.harness);
    });
    after(() => under?.dispose());
    const check: Check = (what, body) => void test(what, () => body(world));
    tokenChecks(check);
    roleChecks(check);
    withdrawalChecks(check);
    projectChecks(check);
    assignmentChecks(check);
    changeChecks(check);
  });
}

function tokenChecks(check: Check): void {
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

function roleChecks(check: Check): void {
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

function withdrawalChecks(check: Check): void {
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

const HOSTILE_IDS = [
  '',
  '.',
  '..',
  '../users',
  'a/b',
  'a?b',
  'a#b',
  '%2e%2e',
  'ü',
  'a'.repeat(999),
];

function projectChecks(check: Check): void {
  check('projects are made, found, changed and deleted', async ({ provider, domain, fresh }) => {
    const names = [fresh('Größe & 大=%2F'), fresh('second')] as const;
    const wanted = { domainId: domain.id, enabled: true, description: 'for tests' };
    const made = await provider.createProject({ ...wanted, name: names[0] });
    const { id, ...rest } = made;
    assert.deepEqual(rest, { name: names[0], domain, description: 'for tests', enabled: true });
    assert.deepEqual(await provider.getProject(id), made);
    const changes = { name: names[1], description: '', enabled: false };
    const changed = { id, domain, ...changes };
    assert.deepEqual(await provider.updateProject(id, changes), changed);
    const inList = async () => (await provider.listProjects()).filter((item) => item.id === id);
    assert.deepEqual(await inList(), [changed]);
    await provider.deleteProject(id);
    await provider.deleteProject(id);
    assert.equal(await provider.getProject(id), undefined);
    assert.deepEqual(await inList(), []);
    await assert.rejects(provider.updateProject(id, { name: 'x' }), isNotFound);
  });

  check('a name is given once in each domain', async (world) => {
    const { provider, domain } = world;
    const name = world.fresh('taken');
    const first = await provider.createProject({ name, domainId: domain.id, enabled: true });
    const other = await world.newProject();
    const again = provider.createProject({ name, domainId: domain.id, enabled: true });
    await assert.rejects(again, { name: 'IdentityConflictError' });
    const renamed = provider.updateProject(other.id, { name });
    await assert.rejects(renamed, { name: 'IdentityConflictError' });
    const elsewhere = await world.createDomain(world.fresh('domain'));
    const twin = await provider.createProject({ name, domainId: elsewhere.id, enabled: true });
    assert.notEqual(twin.id, first.id);
    assert.deepEqual(twin.domain, elsewhere);
  });

  check('projects are below projects, and are deleted from below', async (world) => {
    const above = await world.newProject();
    const below = await world.newProject(above.id);
    const { provider } = world;
    assert.equal((await provider.getProject(below.id))?.parentId, above.id);
    assert.equal((await provider.getProject(above.id))?.parentId, undefined);
    const early = provider.deleteProject(above.id);
    await assert.rejects(early, { name: 'IdentityConflictError' });
    await provider.deleteProject(below.id);
    await provider.deleteProject(above.id);
  });

  check('a project needs a domain and a parent that exist', async (world) => {
    const missing = 'f'.repeat(32);
    const name = world.fresh('orphan');
    const { provider, domain } = world;
    const noDomain = provider.createProject({ name, domainId: missing, enabled: true });
    await assert.rejects(noDomain, isNotFound);
    const wanted = { name, domainId: domain.id, parentId: missing, enabled: true };
    await assert.rejects(provider.createProject(wanted), isNotFound);
    assert.ok((await provider.listProjects()).every((project) => project.name !== name));
  });

  check('domains are no projects, and ids are never paths', async (world) => {
    const { provider, domain } = world;
    const domain2 = await world.createDomain(world.fresh('domain'));
    const ids = (await provider.listProjects()).map(({ id }) => id);
    assert.ok(!ids.includes(domain.id) && !ids.includes(domain2.id));
    for (const id of [domain.id, ...HOSTILE_IDS]) {
      assert.equal(await provider.getProject(id), undefined, id);
    }
    for (const id of HOSTILE_IDS) {
      await provider.deleteProject(id);
      await assert.rejects(provider.updateProject(id, { name: 'x' }), isNotFound, id);
      assert.deepEqual(await provider.listAssignments(id), [], id);
    }
  });
}

const isNotFound = { name: 'IdentityNotFoundError' };

function assignmentChecks(check: Check): void {
  check('roles are granted and taken by name, twice as well as once', async (world) => {
    const { provider, domain } = world;
    const [{ user }, project] = await Promise.all([world.newUser(), world.newProject()]);
    const group = await world.createGroup(world.fresh('group'), domain.id);
    const common = { projectId: project.id, domain: domain.name };
    const one = { ...common, kind: 'User' as const, name: user.name, role: 'member' };
    const two = { ...common, kind: 'Group' as const, name: group.name, role: 'admin' };
    for (const assignment of [one, two, one]) await provider.grant(assignment);
    const listed = await provider.listAssignments(project.id);
    const order = (a: { kind: string }, b: { kind: string }) => (a.kind < b.kind ? 1 : -1);
    assert.deepEqual(listed.sort(order), [one, two]);
    for (const assignment of [one, one]) await provider.revoke(assignment);
    assert.deepEqual(await provider.listAssignments(project.id), [two]);
    await world.remove('user', user.id);
    const again = await world.createUser(user.name, PASSWORD, domain.id);
    assert.notEqual(again.id, user.id);
    await provider.grant(one);
    assert.deepEqual((await provider.listAssignments(project.id)).sort(order), [one, two]);
  });

  check('what a grant names has to exist', async (world) => {
    const { provider, domain } = world;
    const [{ user }, project] = await Promise.all([world.newUser(), world.newProject()]);
    const common = { projectId: project.id, domain: domain.name };
    const good = { ...common, kind: 'User' as const, name: user.name, role: 'member' };
    const wrong = [
      { name: 'nobody' },
      { role: 'emperor' },
      { domain: 'nowhere' },
      { kind: 'Group' as const },
      { projectId: 'f'.repeat(32) },
      { projectId: '../../users' },
    ];
    for (const change of wrong) {
      const assignment = provider.grant({ ...good, ...change });
      await assert.rejects(assignment, isNotFound, JSON.stringify(change));
    }
    assert.deepEqual(await provider.listAssignments(project.id), []);
  });

  check('what is only handed down is not assigned here', async (world) => {
    const [{ user }, project] = await Promise.all([world.newUser(), world.newProject()]);
    const on = { kind: 'project' as const, id: project.id };
    const who = { kind: 'user' as const, id: user.id, on };
    await world.assign({ ...who, role: 'admin', isInherited: true });
    await world.assign({ ...who, role: 'reader' });
    const listed = await world.provider.listAssignments(project.id);
    assert.deepEqual(
      listed.map(({ role }) => role),
      ['reader'],
    );
  });
}

/** A change that somebody else made is heard of. */
const HEARD_WITHIN_MS = 30_000;

function changeChecks(check: Check): void {
  check('what happens to projects is told, until nobody wants to know', async (world) => {
    const ended = new AbortController();
    let told = 0;
    world.provider.onProjectsChanged(() => (told += 1), ended.signal);
    const heard = async (what: string, change: () => Promise<void>) => {
      await world.advance(LOOK_MS * 4);
      const before = told;
      await change();
      for (let passedMs = 0; told === before; passedMs += LOOK_MS) {
        assert.ok(passedMs < HEARD_WITHIN_MS, what);
        await world.advance(LOOK_MS);
      }
    };
    let id = '';
    await heard('made', async () => void (id = (await world.newProject()).id));
    await heard('renamed', () => world.update('project', id, { name: world.fresh('new') }));
    await heard('disabled', () => world.update('project', id, { enabled: false }));
    await heard('deleted', () => world.remove('project', id));
    ended.abort();
    const before = told;
    await world.newProject();
    await world.advance(LOOK_MS * 4);
    assert.equal(told, before);
  });
}
