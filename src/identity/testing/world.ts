import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { IDENTITY_CACHE_MS } from '../../api/identity.ts';
import type { IdentityToken, NamedId } from '../../api/identity.ts';
import type { IdentityHarness, Login } from '../conformance.ts';

export const PASSWORD = 'correct horse battery staple';
/** How often it is looked whether a change has come through. */
export const LOOK_MS = 250;
/** Beside the time that is promised: the change itself and the last question take theirs. */
const SLACK_MS = 2_500;

/** A user who is a member of a project of its own, with a token for it. */
export interface Person {
  user: NamedId;
  projectId: string;
  login: Login;
  token: string;
}

export interface World extends IdentityHarness {
  /** A name that no other test has. */
  fresh(stem: string): string;
  newProject(parentId?: string): Promise<NamedId>;
  newUser(stem?: string): Promise<{ user: NamedId; login: Login }>;
  newPerson(role?: string): Promise<Person>;
  valid(token: string): Promise<IdentityToken>;
  /** Until `done` says so of what the token stands for; fails after the time that is promised. */
  until(token: string, done: (now: IdentityToken | undefined) => boolean): Promise<void>;
}

export function createWorld(harness: IdentityHarness): World {
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

export type Check = (what: string, body: (world: World) => Promise<void>) => void;
