import type { ActorKind, Assignment, Project, TargetKind } from './records.ts';
import { SYSTEM_ID } from './records.ts';
import type { IdentityState } from './state.ts';

/** Keystone's default: the domain is above the first level. */
export const PROJECT_DEPTH_MAX = 5;

/** A project and everything above it, itself first. A tree that was damaged ends the walk. */
export function lineage(state: IdentityState, project: Project): Project[] {
  const line: Project[] = [];
  let next: Project | undefined = project;
  while (next && line.length < PROJECT_DEPTH_MAX && !line.includes(next)) {
    line.push(next);
    next = next.parentId === undefined ? undefined : state.tables.projects.get(next.parentId);
  }
  return line;
}

/** Everything below a project, without itself. */
export function descendants(state: IdentityState, projectId: string): Project[] {
  const found = new Set<Project>();
  let level = state.childrenOf(projectId);
  for (let depth = 1; depth < PROJECT_DEPTH_MAX && level.length > 0; depth += 1) {
    for (const project of level) found.add(project);
    level = level.flatMap((project) => state.childrenOf(project.id));
  }
  return [...found];
}

/** Roles and all that they imply, directly or through others. */
export function withImplied(state: IdentityState, roleIds: Iterable<string>): Set<string> {
  const roles = new Set<string>();
  const pending = [...roleIds];
  for (let roleId = pending.pop(); roleId !== undefined; roleId = pending.pop()) {
    if (roles.has(roleId) || !state.tables.roles.get(roleId)) continue;
    roles.add(roleId);
    pending.push(...state.impliedBy(roleId));
  }
  return roles;
}

/** Where rights may hold. */
export interface Target {
  kind: TargetKind;
  id: string;
}

export const SYSTEM: Target = { kind: 'system', id: SYSTEM_ID };

/**
 * The assignments that give somebody rights on a target: on it, or inherited from above. What is
 * inherited from a project or domain does not hold in itself (OS-INHERIT).
 */
function assignmentsFor(
  state: IdentityState,
  actorIds: Iterable<string>,
  target: Target,
): Assignment[] {
  const project = target.kind === 'project' ? state.tables.projects.get(target.id) : undefined;
  const above = project
    ? lineage(state, project)
        .slice(1)
        .map(({ id }) => id)
    : [];
  if (project) above.push(project.domainId);
  const found: Assignment[] = [];
  for (const actorId of actorIds) {
    for (const assignment of state.assignmentsBetween(actorId, target.id)) {
      if (!assignment.inherited && assignment.targetKind === target.kind) found.push(assignment);
    }
    for (const id of above) {
      for (const assignment of state.assignmentsBetween(actorId, id)) {
        if (assignment.inherited) found.push(assignment);
      }
    }
  }
  return found;
}

/** A user and the groups it is in: all by which rights may come to it. */
export function actorsOf(state: IdentityState, userId: string): string[] {
  return [userId, ...state.membershipsOfUser(userId).map(({ groupId }) => groupId)];
}

/** Ids of the roles that a user has on a target, implied ones included. */
export function effectiveRoles(state: IdentityState, userId: string, target: Target): Set<string> {
  const assignments = assignmentsFor(state, actorsOf(state, userId), target);
  return withImplied(
    state,
    assignments.map((assignment) => assignment.roleId),
  );
}

/** The targets of a kind on which a user has any right. */
export function targetsOf(state: IdentityState, userId: string, kind: TargetKind): string[] {
  const targets = new Set<string>();
  for (const actorId of actorsOf(state, userId)) {
    for (const assignment of state.assignmentsOfActor(actorId)) {
      for (const id of reach(state, assignment, kind)) targets.add(id);
    }
  }
  return [...targets];
}

/** Where an assignment holds. */
export function reach(state: IdentityState, assignment: Assignment, kind: TargetKind): string[] {
  const { targetKind, targetId, inherited } = assignment;
  if (!inherited) return targetKind === kind ? [targetId] : [];
  if (kind !== 'project') return [];
  if (targetKind === 'domain') return state.projectsOfDomain(targetId).map(({ id }) => id);
  return descendants(state, targetId).map(({ id }) => id);
}

/** Whether records of this id exist. */
export function actorExists(state: IdentityState, kind: ActorKind, id: string): boolean {
  const { users, groups } = state.tables;
  return (kind === 'user' ? users.get(id) : groups.get(id)) !== undefined;
}
