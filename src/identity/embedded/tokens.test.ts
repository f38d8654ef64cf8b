import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IdentityRig } from './testing/rig.ts';
import { startRig } from './testing/rig.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { KeystoneError } from './errors.ts';
import type { GrantRef } from './grants.ts';
import { LIMITS } from './settings.ts';

const HOUR_MS = 3_600_000;
const PASSWORD = 'password of alice';

async function setUp(options: Parameters<typeof startRig>[0] = {}) {
  const rig = await startRig(options);
  const { accounts, directory, grants, state } = rig.identity;
  const project = await directory.createProject({
    ...{ name: 'web', domainId: 'default', description: '', enabled: true, tags: [] },
  });
  const user = await accounts.createUser({
    ...{ name: 'alice', domainId: 'default', enabled: true, options: {}, password: PASSWORD },
  });
  const role = (name: string) => {
    const found = state.tables.roles.all().find((one) => one.name === name);
    return found?.id ?? assert.fail(name);
  };
  const assignment: GrantRef = {
    ...{ actorKind: 'user' as const, actorId: user.id },
    ...{ targetKind: 'project' as const, targetId: project.id },
    ...{ roleId: role('member'), inherited: false },
  };
  await grants.grant(assignment);
  const login = () => rig.login('alice', PASSWORD, { project: { id: project.id } });
  return { ...rig, project, user, role, assignment, loginAlice: login };
}

const rolesOf = (rig: IdentityRig, token: string) =>
  rig.identity.validate(token)?.session.roles.map(({ name }) => name);

test('a token lives exactly as long as it says', async () => {
  const rig = await setUp();
  const token = await rig.loginAlice();
  await rig.clock.advance(HOUR_MS - 1);
  assert.deepEqual(rolesOf(rig, token), ['member', 'reader']);
  await rig.clock.advance(1);
  assert.equal(rig.identity.validate(token), undefined);
  await rig.close();
});

test('a server whose clock is behind takes tokens of the near future only', async () => {
  const rig = await setUp();
  const at = rig.clock.nowMs();
  const token = await rig.loginAlice();
  const behind = await startRig({ store: rig.store, clock: new FakeClock(at - 60_001) });
  assert.equal(behind.identity.validate(token), undefined);
  await behind.clock.advance(1);
  assert.ok(behind.identity.validate(token));
  await behind.close();
  await rig.close();
});

test('what ends a session ends its tokens, and they do not come back', async (t) => {
  type World = Awaited<ReturnType<typeof setUp>>;
  const domain = (enabled: boolean) => (rig: World) =>
    rig.identity.directory.updateDomain('default', { enabled });
  const cases: Record<string, [(rig: World) => unknown, ((rig: World) => unknown)?]> = {
    'the user is disabled': [
      (rig) => rig.identity.accounts.updateUser(rig.user.id, { enabled: false }),
      (rig) => rig.identity.accounts.updateUser(rig.user.id, { enabled: true }),
    ],
    'the project is disabled': [
      (rig) => rig.identity.directory.updateProject(rig.project.id, { enabled: false }),
      (rig) => rig.identity.directory.updateProject(rig.project.id, { enabled: true }),
    ],
    'the domain is disabled': [domain(false), domain(true)],
    'the password is replaced': [
      (rig) => rig.identity.accounts.updateUser(rig.user.id, { password: 'another one' }),
      (rig) => rig.identity.accounts.updateUser(rig.user.id, { password: PASSWORD }),
    ],
    'the user changes the password': [
      (rig) => rig.identity.accounts.changePassword(rig.user.id, PASSWORD, 'another one'),
    ],
    'the token is revoked': [
      async (rig) => {
        for (const token of tokens) {
          const found = rig.identity.validate(token);
          if (found) await rig.identity.revokeToken(found);
        }
      },
    ],
    'the user is deleted': [(rig) => rig.identity.directory.deleteUser(rig.user.id)],
    'the project is deleted': [(rig) => rig.identity.directory.deleteProject(rig.project.id)],
  };
  let tokens: string[] = [];
  for (const [what, [end, undo]] of Object.entries(cases)) {
    await t.test(what, async () => {
      const rig = await setUp();
      tokens = [await rig.loginAlice()];
      assert.ok(rig.identity.validate(tokens[0] ?? ''));
      await end(rig);
      for (const token of tokens) assert.equal(rig.identity.validate(token), undefined);
      if (what !== 'the token is revoked') await assert.rejects(rig.loginAlice(), /authentication/);
      await undo?.(rig);
      for (const token of tokens) assert.equal(rig.identity.validate(token), undefined);
      if (undo) assert.ok(rig.identity.validate(await rig.loginAlice()));
      await rig.close();
    });
  }
});

test('below a project that is disabled nothing can be used', async () => {
  const rig = await setUp();
  const { directory, grants } = rig.identity;
  const common = { domainId: 'default', description: '', enabled: true, tags: [] };
  const below = await directory.createProject({ name: 'x', parentId: rig.project.id, ...common });
  await grants.grant({ ...rig.assignment, targetId: below.id });
  const login = () => rig.login('alice', PASSWORD, { project: { id: below.id } });
  const token = await login();
  await directory.updateProject(rig.project.id, { enabled: false });
  assert.equal(rig.identity.validate(token), undefined);
  await assert.rejects(login(), /authentication/);
  await directory.updateProject(rig.project.id, { enabled: true });
  assert.equal(rig.identity.validate(token), undefined);
  assert.ok(rig.identity.validate(await login()));
  await rig.close();
});

test('roles are those of now, and a token without any has ended', async () => {
  const rig = await setUp();
  const token = await rig.loginAlice();
  await rig.identity.grants.grant({ ...rig.assignment, roleId: rig.role('admin') });
  assert.deepEqual(rolesOf(rig, token)?.sort(), ['admin', 'member', 'reader']);
  await rig.identity.grants.revoke({ ...rig.assignment, roleId: rig.role('admin') });
  assert.deepEqual(rolesOf(rig, token)?.sort(), ['member', 'reader']);
  await rig.identity.grants.revoke(rig.assignment);
  assert.equal(rig.identity.validate(token), undefined);
  await rig.close();
});

test('a token made from another ends with it and lives no longer', async () => {
  const rig = await setUp();
  const first = await rig.login('alice', PASSWORD, 'unscoped');
  await rig.clock.advance(HOUR_MS / 2);
  const rescope = (token: string) =>
    rig.identity.authenticate({
      identity: { method: 'token', token },
      scope: { kind: 'project', project: { id: rig.project.id } },
    });
  const second = await rescope(first);
  const third = await rescope(second.token);
  const sibling = await rig.loginAlice();
  assert.deepEqual(third.claims.methods, ['password', 'token']);
  assert.equal(third.claims.chainId, rig.identity.validate(first)?.claims.auditId);
  assert.equal(third.claims.expiresAtMs, rig.identity.validate(first)?.claims.expiresAtMs);
  await rig.identity.revokeToken(second);
  assert.equal(rig.identity.validate(second.token), undefined);
  assert.ok(rig.identity.validate(third.token) && rig.identity.validate(first));
  await rig.call('DELETE', '/auth/tokens', { token: first, headers: { 'x-subject-token': first } });
  for (const token of [first, third.token]) assert.equal(rig.identity.validate(token), undefined);
  assert.ok(rig.identity.validate(sibling));
  await assert.rejects(rescope(first), { code: 401 });
  await rig.clock.advance(HOUR_MS);
  await rig.identity.maintain();
  assert.equal(rig.identity.state.tables.revocations.size, 0);
  await rig.close();
});

test('who revokes without end loses all tokens, and the list stays short', async () => {
  const rig = await setUp();
  const first = await rig.login('alice', PASSWORD, 'unscoped');
  const identity = { method: 'token', token: first } as const;
  for (let i = 0; i < LIMITS.revocationsPerUser; i += 1) {
    await rig.identity.revokeToken(await rig.identity.authenticate({ identity }));
  }
  assert.ok(rig.identity.validate(first));
  await rig.identity.revokeToken(await rig.identity.authenticate({ identity }));
  assert.equal(rig.identity.validate(first), undefined);
  assert.equal(rig.identity.state.tables.revocations.size, 0);
  assert.ok(rig.identity.validate(await rig.loginAlice()));
  await rig.close();
});

test('keys rotate without ending tokens, and go when nothing of theirs can live', async () => {
  const rig = await setUp();
  const { keys, state } = rig.identity;
  const set = () => state.tables.tokenkeys.all()[0]?.keys.map((key) => key.state);
  assert.deepEqual(set(), ['staged', 'primary']);
  const staged = state.tables.tokenkeys.all()[0]?.keys[0]?.number;
  const token = await rig.loginAlice();
  await keys.rotate();
  assert.equal(keys.primary().number, staged);
  assert.deepEqual(set(), ['staged', 'primary', 'retired']);
  assert.ok(rig.identity.validate(token));
  const newer = await rig.loginAlice();
  await keys.rotate();
  assert.ok(rig.identity.validate(token) && rig.identity.validate(newer));
  await rig.clock.advance(3 * HOUR_MS);
  await rig.identity.maintain();
  assert.deepEqual(set(), ['staged', 'primary']);
  const before = keys.primary().number;
  await rig.clock.advance(7 * 24 * HOUR_MS);
  await rig.identity.maintain();
  assert.notEqual(keys.primary().number, before);
  await rig.close();
});

test('servers on one store agree on tokens, keys and revocations', async () => {
  const rig = await setUp();
  const other = await startRig({ store: rig.store, clock: rig.clock });
  assert.equal(other.adminPassword, '');
  const token = await rig.loginAlice();
  assert.ok(other.identity.validate(token));
  await other.identity.keys.rotate();
  await rig.clock.advance(1);
  const newer = await other.login('alice', PASSWORD, { project: { id: rig.project.id } });
  assert.ok(rig.identity.validate(newer));
  const found = other.identity.validate(token) ?? assert.fail();
  await other.identity.revokeToken(found);
  await rig.clock.advance(1);
  assert.equal(rig.identity.validate(token), undefined);
  await other.close();
  const third = await startRig({ store: rig.store, clock: rig.clock });
  assert.equal(third.identity.validate(token), undefined);
  assert.ok(third.identity.validate(newer));
  await third.close();
  await rig.close();
});

test('a credential has at most what its user still has', async () => {
  const rig = await setUp();
  await rig.identity.grants.grant({ ...rig.assignment, roleId: rig.role('admin') });
  const { session } = rig.identity.validate(await rig.loginAlice()) ?? assert.fail();
  const { credentials } = rig.identity;
  const expiresAtMs = rig.clock.nowMs() + HOUR_MS / 2;
  const options = { name: 'ci', unrestricted: false, expiresAtMs };
  const made = await credentials.create(session, { ...options, roles: [{ name: 'admin' }] });
  const login = () =>
    rig.identity.authenticate({
      identity: {
        method: 'application_credential',
        credential: { id: made.credential.id },
        secret: made.secret,
      },
    });
  const { token, claims } = await login();
  assert.equal(claims.expiresAtMs, expiresAtMs);
  assert.deepEqual(rolesOf(rig, token), ['admin']);
  await rig.identity.grants.revoke({ ...rig.assignment, roleId: rig.role('admin') });
  assert.equal(rig.identity.validate(token), undefined);
  await assert.rejects(login(), { code: 401 });
  await rig.identity.grants.grant({ ...rig.assignment, roleId: rig.role('admin') });
  assert.ok(rig.identity.validate(token));
  const exchange = { identity: { method: 'token', token } as const };
  await assert.rejects(rig.identity.authenticate(exchange), { code: 403 });
  await credentials.delete(made.credential.id);
  assert.equal(rig.identity.validate(token), undefined);
  await assert.rejects(
    credentials.create(session, { ...options, roles: [{ name: 'nothing' }] }),
    (error) => error instanceof KeystoneError && error.code === 400,
  );
  await rig.close();
});
