import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { createMemoryStore } from '../../store/memory.ts';
import { descendants, effectiveRoles, lineage, SYSTEM, targetsOf } from './rights.ts';
import type { Target } from './rights.ts';
import { openState } from './state.ts';
import type { IdentityState } from './state.ts';

async function withState(body: (state: IdentityState) => Promise<void>): Promise<void> {
  const clock = new FakeClock();
  const store = createMemoryStore({ clock });
  const closing = new AbortController();
  await body(openState({ store, clock, log: silentLog, signal: closing.signal }));
  closing.abort();
  await store.close();
}

const USERS = ['u0', 'u1', 'u2'];
const GROUPS = ['g0', 'g1'];
const ROLES = ['r0', 'r1', 'r2', 'r3', 'r4'];
const DOMAINS = ['d0', 'd1'];
const PROJECTS = Array.from({ length: 8 }, (_, i) => `p${i}`);

/** A world of facts, as plain lists. */
function makeWorld(seed: number) {
  const random = seededRandom(seed);
  const pick = <T>(items: readonly T[]) => items[Math.floor(random.next() * items.length)] as T;
  const some = <T>(count: number, make: () => T) => Array.from({ length: count }, make);
  const projects: { id: string; domainId: string; parentId?: string; depth: number }[] = [];
  for (const id of PROJECTS) {
    const parent = random.next() < 0.7 ? pick([undefined, ...projects]) : undefined;
    if (parent && parent.depth < 3) {
      const { domainId, id: parentId } = parent;
      projects.push({ id, domainId, parentId, depth: parent.depth + 1 });
    } else projects.push({ id, domainId: pick(DOMAINS), depth: 0 });
  }
  const target = (): Target =>
    pick([
      SYSTEM,
      { kind: 'domain', id: pick(DOMAINS) },
      { kind: 'project', id: pick(PROJECTS) },
      { kind: 'project', id: pick(PROJECTS) },
    ]);
  return {
    projects,
    memberships: some(3, () => ({ userId: pick(USERS), groupId: pick(GROUPS) })),
    // Circles are possible here: the data may have been made by something else.
    implications: some(5, () => ({ priorRoleId: pick(ROLES), impliedRoleId: pick(ROLES) })),
    assignments: some(8, () => {
      const where = target();
      const inherited = where.kind !== 'system' && random.next() < 0.4;
      const isGroup = random.next() < 0.4;
      const actorKind = isGroup ? ('group' as const) : ('user' as const);
      const actorId = isGroup ? pick(GROUPS) : pick(USERS);
      return { roleId: pick(ROLES), actorKind, actorId, where, inherited };
    }),
  };
}

type World = ReturnType<typeof makeWorld>;

/** What Keystone's documentation says, word by word and slowly: repeat until nothing is new. */
function expectedRoles(world: World, userId: string, target: Target): string[] {
  const roles = new Set<string>();
  const isAbove = (aboveId: string, projectId: string): boolean => {
    const project = world.projects.find(({ id }) => id === projectId);
    if (!project) return false;
    if (project.parentId === undefined) return project.domainId === aboveId;
    return (
      project.parentId === aboveId ||
      project.domainId === aboveId ||
      isAbove(aboveId, project.parentId)
    );
  };
  for (const { roleId, actorKind, actorId, where, inherited } of world.assignments) {
    const isActor =
      actorKind === 'user'
        ? actorId === userId
        : world.memberships.some((one) => one.userId === userId && one.groupId === actorId);
    const isThere = inherited
      ? target.kind === 'project' && isAbove(where.id, target.id)
      : where.kind === target.kind && where.id === target.id;
    if (isActor && isThere) roles.add(roleId);
  }
  for (let before = -1; before !== roles.size;) {
    before = roles.size;
    for (const { priorRoleId, impliedRoleId } of world.implications) {
      if (roles.has(priorRoleId)) roles.add(impliedRoleId);
    }
  }
  return [...roles].sort();
}

async function load(state: IdentityState, world: World): Promise<void> {
  const { tables } = state;
  const common = { description: '', enabled: true, epoch: 0 };
  await Promise.all([
    ...DOMAINS.map((id) => tables.domains.put({ id, name: id, ...common })),
    ...world.projects.map(({ depth: _, ...project }) =>
      tables.projects.put({ ...project, name: project.id, tags: [], ...common }),
    ),
    ...ROLES.map((id) => tables.roles.put({ id, name: id, description: '' })),
    ...world.memberships.map((one, i) => tables.memberships.put({ id: `m${i}`, ...one })),
    ...world.implications.map((one, i) => tables.implications.put({ id: `i${i}`, ...one })),
    ...world.assignments.map(({ where, ...one }, i) =>
      tables.assignments.put({ id: `a${i}`, targetKind: where.kind, targetId: where.id, ...one }),
    ),
  ]);
}

test('effective roles are what the rules say, whatever the world', async () => {
  const seed = randomInt(2 ** 31);
  console.log(`seed ${seed}`);
  for (let round = 0; round < 60; round += 1) {
    const world = makeWorld(seed + round);
    await withState(async (state) => {
      await load(state, world);
      const targets: Target[] = [
        SYSTEM,
        ...DOMAINS.map((id): Target => ({ kind: 'domain', id })),
        ...PROJECTS.map((id): Target => ({ kind: 'project', id })),
      ];
      for (const userId of USERS) {
        for (const target of targets) {
          const wanted = expectedRoles(world, userId, target);
          const got = [...effectiveRoles(state, userId, target)].sort();
          const what = `seed ${seed + round}: ${userId} on ${target.kind} ${target.id}`;
          assert.deepEqual(got, wanted, what);
          const isListed = targetsOf(state, userId, target.kind).includes(target.id);
          assert.equal(isListed, wanted.length > 0, what);
        }
      }
    });
  }
});

test('a circle in a damaged tree ends every walk', async () => {
  await withState(async (state) => {
    const common = { domainId: 'd', description: '', enabled: true, tags: [], epoch: 0 };
    const { projects } = state.tables;
    await projects.put({ id: 'a', name: 'a', parentId: 'b', ...common });
    await projects.put({ id: 'b', name: 'b', parentId: 'a', ...common });
    await projects.put({ id: 'c', name: 'c', parentId: 'c', ...common });
    const project = (id: string) => projects.require(id);
    assert.deepEqual(
      lineage(state, project('a')).map(({ id }) => id),
      ['a', 'b'],
    );
    assert.deepEqual(lineage(state, project('c')), [project('c')]);
    assert.deepEqual(new Set(descendants(state, 'a').map(({ id }) => id)), new Set(['a', 'b']));
    assert.deepEqual([...effectiveRoles(state, 'u', { kind: 'project', id: 'a' })], []);
  });
});
