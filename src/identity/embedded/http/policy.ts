import type { Assignment, Group, Project, User } from '../records.ts';
import { actorsOf, lineage } from '../rights.ts';
import type { Session } from '../sessions.ts';
import type { IdentityState } from '../state.ts';

/**
 * Who may do what with identities. A role reaches as far as the scope it is used in: the system,
 * one domain, or one project and those below it. A role on a project says nothing about anything
 * else, whatever the project is called.
 */
export interface Policy {
  readonly userId: string;
  systemAdmin: boolean;
  systemReader: boolean;
  /** Read or manage everything in a domain. */
  readDomain(domainId: string): boolean;
  adminDomain(domainId: string): boolean;
  /** The domain of a domain-scoped reader or admin: what its lists show. */
  readonly domainId: string | undefined;
  /**
   * Change a user or group: for its domain's admins, unless it has rights on the system. Who can
   * set somebody's password, or join a group, can do whatever they can.
   */
  adminUser(user: User): boolean;
  adminGroup(group: Group): boolean;
  /** See a project: its readers, those above it, and whoever works in it. */
  readProject(project: Project): boolean;
  /** Give and take roles on a project. */
  adminProject(project: Project): boolean;
  readAssignment(assignment: Assignment): boolean;
  /** Nobody gives a role that it does not have itself, where it is. */
  mayGrantRole(roleId: string): boolean;
}

export function policyOf(state: IdentityState, session: Session): Policy {
  const { scope, roles, user } = session;
  const roleNames = new Set(roles.map(({ name }) => name));
  const roleIds = new Set(roles.map(({ id }) => id));
  const admin = roleNames.has('admin');
  const reader = roleNames.has('reader');
  const systemAdmin = scope.kind === 'system' && admin;
  const systemReader = scope.kind === 'system' && reader;
  const domainId = scope.kind === 'domain' && reader ? scope.domain.id : undefined;

  const readDomain = (id: string) => systemReader || id === domainId;
  const adminDomain = (id: string) => systemAdmin || (admin && id === domainId);
  const onSystem = (actorId: string) =>
    state.assignmentsOfActor(actorId).some(({ targetKind }) => targetKind === 'system');
  const below = (project: Project) =>
    scope.kind === 'project' &&
    lineage(state, project).some((above) => above.id === scope.project.id);
  const adminProject = (project: Project) =>
    adminDomain(project.domainId) || (admin && below(project));

  return {
    userId: user.id,
    systemAdmin,
    systemReader,
    domainId,
    readDomain,
    adminDomain,
    adminUser: (target) =>
      systemAdmin || (adminDomain(target.domainId) && !actorsOf(state, target.id).some(onSystem)),
    adminGroup: (group) => systemAdmin || (adminDomain(group.domainId) && !onSystem(group.id)),
    readProject: (project) =>
      readDomain(project.domainId) ||
      (scope.kind === 'project' && scope.project.id === project.id) ||
      (admin && below(project)),
    adminProject,
    readAssignment({ targetKind, targetId }) {
      if (systemReader) return true;
      if (targetKind === 'system') return false;
      if (targetKind === 'domain') return readDomain(targetId);
      const project = state.tables.projects.get(targetId);
      return project !== undefined && (readDomain(project.domainId) || adminProject(project));
    },
    mayGrantRole: (roleId) => systemAdmin || roleIds.has(roleId),
  };
}
