import type { Random } from '../../base/random.ts';
import { conflict, forbidden, notFound } from './errors.ts';
import type { Domain, Group, Project, User } from './records.ts';
import { RECORD_KINDS } from './records.ts';
import { lineage, PROJECT_DEPTH_MAX } from './rights.ts';
import { LIMITS } from './settings.ts';
import type { IdentityState } from './state.ts';

/** As Keystone makes them: 32 hexadecimal digits. */
export const newId = (random: Random) => random.uuid().replaceAll('-', '');

/** The domain that is always there: clients assume its id. */
export const DEFAULT_DOMAIN_ID = 'default';

/** Runs changes that look before they write one after the other. */
export type Serial = <R>(change: () => Promise<R>) => Promise<R>;

export function createSerial(): Serial {
  let last: Promise<unknown> = Promise.resolve();
  return (change) => {
    const next = last.then(change, change);
    last = next.catch(() => {});
    return next;
  };
}

export interface DirectoryOptions {
  state: IdentityState;
  random: Random;
  serial: Serial;
}

export type NewDomain = Pick<Domain, 'name' | 'description' | 'enabled'>;
export type NewProjectRecord = Omit<Project, 'id' | 'epoch'>;
export type NewGroup = Omit<Group, 'id'>;

type Named = { id: string; name: string; domainId: string };
type NamedCollection = 'projects' | 'users' | 'groups';

/** Domains, projects and groups: what has a name and a place. */
export interface Directory {
  createDomain(domain: NewDomain): Promise<Domain>;
  updateDomain(id: string, changes: Partial<NewDomain>): Promise<Domain>;
  /** With everything in it; it has to be disabled before. */
  deleteDomain(id: string): Promise<void>;
  createProject(project: NewProjectRecord): Promise<Project>;
  updateProject(id: string, changes: Partial<NewProjectRecord>): Promise<Project>;
  /** With its assignments and application credentials; it may have no projects below it. */
  deleteProject(id: string): Promise<void>;
  createGroup(group: NewGroup): Promise<Group>;
  updateGroup(id: string, changes: Partial<NewGroup>): Promise<Group>;
  deleteGroup(id: string): Promise<void>;
  /**
   * Stores a record whose name nobody else in its domain has.
   * @throws KeystoneError 409
   */
  createNamed<T extends Named>(
    collection: NamedCollection,
    record: T,
    create: (record: T) => Promise<boolean>,
  ): Promise<T>;
  checkName(collection: NamedCollection, record: Named): void;
  deleteUser(id: string): Promise<void>;
}

export function createDirectory(options: DirectoryOptions): Directory {
  const { state, random, serial } = options;
  const { tables } = state;
  const lookups = {
    projects: state.projectsByName,
    users: state.usersByName,
    groups: state.groupsByName,
  };

  const checkName = (collection: NamedCollection, { id, domainId, name }: Named) => {
    const holder = lookups[collection](domainId, name).find((other) => other.id !== id);
    if (holder) throw duplicate(RECORD_KINDS[collection], name);
  };

  /** The oldest of a name has it: where another server was faster, ours is taken back. */
  const createNamed: Directory['createNamed'] = async (collection, record, create) => {
    tables.domains.require(record.domainId);
    if (tables[collection].size >= LIMITS.recordCount) {
      throw forbidden(`There are ${LIMITS.recordCount} ${collection}, which is the limit.`);
    }
    checkName(collection, record);
    await create(record);
    const first = lookups[collection](record.domainId, record.name)[0];
    if (first && first.id !== record.id) {
      await tables[collection].remove(record.id);
      throw duplicate(RECORD_KINDS[collection], record.name);
    }
    return record;
  };

  const checkDomainName = (id: string, name: string) => {
    const holder = tables.domains.all().find((domain) => domain.name === name);
    if (holder && holder.id !== id) throw duplicate('domain', name);
  };

  const removeAssignments = async (actorOrTargetId: string) => {
    const { assignmentsOfActor, assignmentsOnTarget } = state;
    const all = [...assignmentsOfActor(actorOrTargetId), ...assignmentsOnTarget(actorOrTargetId)];
    for (const { id } of all) await tables.assignments.remove(id);
  };

  // The record itself goes first: from then on nothing that hangs on it counts.
  const removeProject = async (id: string) => {
    await tables.projects.remove(id);
    await removeAssignments(id);
    for (const credential of tables.applicationcredentials.all()) {
      if (credential.projectId === id) await tables.applicationcredentials.remove(credential.id);
    }
  };
  const removeUser = async (id: string) => {
    await tables.users.remove(id);
    await removeAssignments(id);
    for (const { id: member } of state.membershipsOfUser(id))
      await tables.memberships.remove(member);
    for (const { id: credential } of state.credentialsOfUser(id)) {
      await tables.applicationcredentials.remove(credential);
    }
    await tables.loginfailures.remove(id);
  };
  const removeGroup = async (id: string) => {
    await tables.groups.remove(id);
    await removeAssignments(id);
    for (const { id: member } of state.membershipsOfGroup(id)) {
      await tables.memberships.remove(member);
    }
  };

  return {
    checkName,
    createNamed,
    createDomain: (domain) =>
      serial(async () => {
        const record = { id: newId(random), ...domain, epoch: 0 };
        checkDomainName(record.id, record.name);
        await tables.domains.create(record);
        return record;
      }),
    updateDomain: (id, changes) =>
      serial(async () => {
        if (changes.name !== undefined) checkDomainName(id, changes.name);
        return tables.domains.update(id, (domain) => withEpoch(domain, { ...domain, ...changes }));
      }),
    deleteDomain: (id) =>
      serial(async () => {
        if (tables.domains.require(id).enabled) {
          throw forbidden('Cannot delete a domain that is enabled, please disable it first.');
        }
        if (id === DEFAULT_DOMAIN_ID) throw forbidden('The default domain cannot be deleted.');
        await tables.domains.remove(id);
        await removeAssignments(id);
        for (const project of state.projectsOfDomain(id)) await removeProject(project.id);
        for (const user of state.usersOfDomain(id)) await removeUser(user.id);
        for (const group of state.groupsOfDomain(id)) await removeGroup(group.id);
      }),
    createProject: (project) =>
      serial(async () => {
        checkParent(state, project);
        const record = { id: newId(random), ...project, epoch: 0 };
        return createNamed('projects', record, tables.projects.create);
      }),
    updateProject: (id, changes) =>
      serial(async () => {
        const before = tables.projects.require(id);
        const { parentId = before.parentId, domainId = before.domainId } = changes;
        if (parentId !== before.parentId) {
          throw forbidden('Update of `parent_id` is not allowed.');
        }
        if (domainId !== before.domainId) {
          throw forbidden('Update of `domain_id` is not allowed.');
        }
        checkName('projects', { ...before, ...changes });
        return tables.projects.update(id, (current) =>
          withEpoch(current, { ...current, ...changes }),
        );
      }),
    deleteProject: (id) =>
      serial(async () => {
        tables.projects.require(id);
        if (state.childrenOf(id).length > 0) {
          throw forbidden(`Cannot delete the project ${id}: it is not a leaf in the hierarchy.`);
        }
        await removeProject(id);
      }),
    createGroup: (group) =>
      serial(() => createNamed('groups', { id: newId(random), ...group }, tables.groups.create)),
    updateGroup: (id, changes) =>
      serial(async () => {
        const before = tables.groups.require(id);
        checkName('groups', { ...before, ...changes });
        return tables.groups.update(id, (group) => ({ ...group, ...changes }));
      }),
    deleteGroup: (id) =>
      serial(async () => {
        tables.groups.require(id);
        await removeGroup(id);
      }),
    deleteUser: (id) =>
      serial(async () => {
        tables.users.require(id);
        await removeUser(id);
      }),
  };
}

function duplicate(kind: string, name: string) {
  return conflict(kind, `Duplicate entry found with name ${name}`);
}

/** What is disabled loses its tokens for good: they do not come back when it is enabled. */
export function withEpoch<T extends Domain | Project | User>(before: T, after: T): T {
  const ends = before.enabled && !after.enabled;
  return { ...after, epoch: before.epoch + (ends ? 1 : 0) };
}

function checkParent(state: IdentityState, project: NewProjectRecord): void {
  if (project.parentId === undefined) return;
  const parent = state.tables.projects.get(project.parentId);
  if (!parent) throw notFound('project', project.parentId);
  if (parent.domainId !== project.domainId) {
    throw forbidden(`The parent project ${parent.id} belongs to another domain.`);
  }
  const above = lineage(state, parent);
  if (above.length + 1 >= PROJECT_DEPTH_MAX) {
    const limit = `Max hierarchy depth of ${PROJECT_DEPTH_MAX} levels (with the domain's)`;
    throw forbidden(`${limit} is reached for the branch of project ${parent.id}.`);
  }
  const disabled = above.find(({ enabled }) => !enabled);
  if (disabled) {
    throw forbidden(
      `Cannot create a project in a branch containing a disabled project: ${disabled.id}.`,
    );
  }
}
