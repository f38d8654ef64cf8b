import { after, before, describe, test } from 'node:test';
import type { IdentityProvider, NamedId } from '../api/identity.ts';
import { assignmentChecks, changeChecks, projectChecks } from './testing/project-checks.ts';
import { roleChecks, tokenChecks, withdrawalChecks } from './testing/token-checks.ts';
import { createWorld } from './testing/world.ts';
import type { Check, World } from './testing/world.ts';

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
