import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Store } from '../../store/store.ts';
import type {
  ApplicationCredential,
  Assignment,
  Group,
  Membership,
  Project,
  Records,
  Revocation,
  User,
} from './records.ts';
import { RECORD_KINDS } from './records.ts';
import { openTable } from './table.ts';
import type { Table } from './table.ts';

/** All records of the identity service in memory, with the lookups that its rules need. */
export interface IdentityState {
  readonly tables: { readonly [C in keyof Records]: Table<Records[C]> };
  /** Oldest first: the first one has the name. */
  usersByName(domainId: string, name: string): User[];
  groupsByName(domainId: string, name: string): Group[];
  projectsByName(domainId: string, name: string): Project[];
  usersOfDomain(domainId: string): User[];
  groupsOfDomain(domainId: string): Group[];
  projectsOfDomain(domainId: string): Project[];
  /** The projects right below one. */
  childrenOf(projectId: string): Project[];
  membershipsOfUser(userId: string): Membership[];
  membershipsOfGroup(groupId: string): Membership[];
  assignmentsOfActor(actorId: string): Assignment[];
  assignmentsOnTarget(targetId: string): Assignment[];
  /** What one actor has on one target. */
  assignmentsBetween(actorId: string, targetId: string): Assignment[];
  revocationsOfUser(userId: string): Revocation[];
  credentialsOfUser(userId: string): ApplicationCredential[];
  impliedBy(roleId: string): string[];
  /** Grows with every change to anything that rights are computed from. */
  readonly rightsVersion: number;
}

export interface StateOptions {
  store: Store;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
}

const named = (domainId: string, name: string) => `${domainId}\0${name}`;

const RIGHTS: (keyof Records)[] = [
  'projects',
  'memberships',
  'roles',
  'implications',
  'assignments',
];

export function openState(options: StateOptions): IdentityState {
  const collections = Object.keys(RECORD_KINDS) as (keyof Records)[];
  const tables = Object.fromEntries(
    collections.map((collection) => [collection, openTable(collection, options)]),
  ) as unknown as IdentityState['tables'];
  const { users, groups, projects, memberships, assignments } = tables;

  const byName = {
    users: users.index((user) => named(user.domainId, user.name)),
    groups: groups.index((group) => named(group.domainId, group.name)),
    projects: projects.index((project) => named(project.domainId, project.name)),
  };
  const implied = tables.implications.index((implication) => implication.priorRoleId);
  const between = assignments.index((one) => named(one.actorId, one.targetId));

  let rightsVersion = 0;
  for (const collection of RIGHTS) {
    tables[collection].onChange(() => {
      rightsVersion += 1;
    });
  }
  return {
    tables,
    usersByName: (domainId, name) => byName.users(named(domainId, name)),
    groupsByName: (domainId, name) => byName.groups(named(domainId, name)),
    projectsByName: (domainId, name) => byName.projects(named(domainId, name)),
    usersOfDomain: users.index((user) => user.domainId),
    groupsOfDomain: groups.index((group) => group.domainId),
    projectsOfDomain: projects.index((project) => project.domainId),
    childrenOf: projects.index((project) => project.parentId),
    membershipsOfUser: memberships.index((membership) => membership.userId),
    membershipsOfGroup: memberships.index((membership) => membership.groupId),
    assignmentsOfActor: assignments.index((assignment) => assignment.actorId),
    assignmentsOnTarget: assignments.index((assignment) => assignment.targetId),
    assignmentsBetween: (actorId, targetId) => between(named(actorId, targetId)),
    revocationsOfUser: tables.revocations.index((revocation) => revocation.userId),
    credentialsOfUser: tables.applicationcredentials.index((credential) => credential.userId),
    impliedBy: (roleId) => implied(roleId).map((implication) => implication.impliedRoleId),
    get rightsVersion() {
      return rightsVersion;
    },
  };
}
