import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startRig } from './testing/rig.ts';

const project = (name: string, parentId?: string) => ({
  ...{ name, domainId: 'default', description: '', enabled: true, tags: [] },
  ...(parentId !== undefined && { parentId }),
});

test('of many that make one name at once, one does', async () => {
  const rig = await startRig();
  const { directory, accounts, state } = rig.identity;
  const projects = Array.from({ length: 64 }, () => directory.createProject(project('race')));
  const user = { name: 'race', domainId: 'default', enabled: true, options: {} };
  const users = Array.from({ length: 64 }, () => accounts.createUser(user));
  for (const attempts of [projects, users]) {
    const outcomes = await Promise.allSettled(attempts as Promise<unknown>[]);
    const failed = outcomes.filter((one) => one.status === 'rejected');
    assert.equal(failed.length, 63);
    assert.ok(failed.every((one) => one.reason.code === 409));
  }
  assert.equal(state.projectsByName('default', 'race').length, 1);
  assert.equal(state.usersByName('default', 'race').length, 1);
  await rig.close();
});

test('two servers that make one name at once keep one', async () => {
  const rig = await startRig();
  const other = await startRig({ store: rig.store, clock: rig.clock });
  const servers = [rig, other].map(({ identity }) => identity);
  const outcomes = await Promise.allSettled(
    Array.from({ length: 20 }, (_, i) =>
      (servers[i % 2] ?? rig.identity).directory.createProject(project('race')),
    ),
  );
  await rig.clock.advance(1);
  const made = outcomes.filter((one) => one.status === 'fulfilled');
  assert.equal(made.length, 1);
  for (const { state } of servers) {
    assert.deepEqual(
      state.projectsByName('default', 'race').map(({ id }) => id),
      [made[0]?.value.id],
    );
  }
  await other.close();
  await rig.close();
});

test('the tree of projects is as deep as allowed, keeps its domain and has no circle', async () => {
  const rig = await startRig();
  const { directory, state } = rig.identity;
  const line = [await directory.createProject(project('level-1'))];
  for (let level = 2; level <= 4; level += 1) {
    line.push(await directory.createProject(project(`level-${level}`, line.at(-1)?.id)));
  }
  await assert.rejects(directory.createProject(project('level-5', line.at(-1)?.id)), { code: 403 });
  const [top, second] = line;
  assert.ok(top && second);
  const up = directory.updateProject(top.id, { parentId: second.id });
  await assert.rejects(up, /Update of `parent_id` is not allowed/);
  await assert.rejects(directory.updateProject(top.id, { parentId: top.id }), { code: 403 });
  await assert.rejects(directory.deleteProject(top.id), /not a leaf/);
  const domain = await directory.createDomain({ name: 'd', description: '', enabled: true });
  const foreign = { ...project('x', top.id), domainId: domain.id };
  await assert.rejects(directory.createProject(foreign), { code: 403 });
  await directory.updateProject(top.id, { enabled: false });
  await assert.rejects(directory.createProject(project('y', second.id)), /disabled project/);
  assert.equal(state.childrenOf(top.id).length, 1);
  await rig.close();
});

test('nothing is left of what is deleted', async () => {
  const rig = await startRig();
  const { directory, accounts, grants, credentials, state } = rig.identity;
  const sizes = () => Object.values(state.tables).map(({ size }) => size);
  const before = sizes();
  const domain = await directory.createDomain({ name: 'd', description: '', enabled: true });
  const domainId = domain.id;
  const top = await directory.createProject({ ...project('top'), domainId });
  const below = await directory.createProject({ ...project('below', top.id), domainId });
  const password = 'a password';
  const named = { domainId, enabled: true, options: {}, password };
  const user = await accounts.createUser({ name: 'u', ...named });
  const group = await directory.createGroup({ name: 'g', domainId, description: '' });
  await accounts.addMember(group.id, user.id);
  const roleId = state.tables.roles.all()[0]?.id ?? '';
  const actor = { roleId, actorKind: 'group', actorId: group.id } as const;
  const onTop = { targetKind: 'project', targetId: top.id } as const;
  await grants.grant({ ...actor, ...onTop, inherited: true });
  await grants.grant({ ...actor, targetKind: 'domain', targetId: domainId, inherited: false });
  const scope = { project: { id: below.id } };
  const token = await rig.login('u', password, scope, domainId);
  await assert.rejects(rig.login('u', 'wrong', scope, domainId));
  const { session } = rig.identity.validate(token) ?? assert.fail();
  await credentials.create(session, { name: 'c', unrestricted: false });
  await assert.rejects(directory.deleteDomain(domainId), /disable it first/);
  await directory.updateDomain(domainId, { enabled: false });
  await directory.deleteDomain(domainId);
  assert.equal(rig.identity.validate(token), undefined);
  assert.deepEqual(sizes(), before);
  await rig.close();
});

test('roles imply no circle, and those built in stay', async () => {
  const rig = await startRig();
  const { grants, state } = rig.identity;
  const [admin, member, reader] = ['admin', 'member', 'reader'].map(
    (name) => state.tables.roles.all().find((role) => role.name === name)?.id ?? '',
  );
  assert.ok(admin && member && reader);
  for (const prior of [reader, member]) {
    await assert.rejects(grants.imply(prior, admin), { code: 403 });
  }
  await assert.rejects(grants.imply(admin, admin), { code: 403 });
  await assert.rejects(grants.deleteRole(admin), { code: 403 });
  await assert.rejects(grants.updateRole(admin, { name: 'boss' }), { code: 403 });
  await rig.close();
});

test('a new start changes nothing, and the way back in works', async () => {
  const rig = await startRig();
  const admin = rig.identity.state.usersByName('default', 'admin')[0] ?? assert.fail();
  await rig.identity.directory.deleteUser(admin.id);
  const again = await startRig({ store: rig.store, clock: rig.clock });
  assert.equal(again.adminPassword, '');
  assert.deepEqual(again.identity.state.usersByName('default', 'admin'), []);
  const { adminPassword } = await again.identity.recoverAdmin();
  await again.login('admin', adminPassword, { system: { all: true } });
  const second = await again.identity.recoverAdmin();
  await assert.rejects(again.login('admin', adminPassword), /authentication/);
  await again.login('admin', second.adminPassword, { system: { all: true } });
  await again.close();
  await rig.close();
});
