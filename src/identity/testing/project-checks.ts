import assert from 'node:assert/strict';
import { LOOK_MS, PASSWORD } from './world.ts';
import type { Check } from './world.ts';

/* What every identity provider promises of projects, and of who has which role on them. */

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

export function projectChecks(check: Check): void {
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

export function assignmentChecks(check: Check): void {
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

export function changeChecks(check: Check): void {
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
