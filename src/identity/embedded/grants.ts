import type { Random } from '../../base/random.ts';
import { compositeId } from './accounts.ts';
import { newId } from './directory.ts';
import type { Serial } from './directory.ts';
import { badRequest, conflict, forbidden, notFound } from './errors.ts';
import type { Assignment, Role } from './records.ts';
import { actorExists, withImplied } from './rights.ts';
import { LIMITS } from './settings.ts';
import type { IdentityState } from './state.ts';

/** The roles that are always there, from most to least; each implies the next. */
export const BUILT_IN_ROLES = ['admin', 'member', 'reader'] as const;

export type GrantRef = Omit<Assignment, 'id'>;

/** Roles, what they imply, and who has them where. */
export interface Grants {
  createRole(role: Omit<Role, 'id'>): Promise<Role>;
  updateRole(id: string, changes: Partial<Omit<Role, 'id'>>): Promise<Role>;
  deleteRole(id: string): Promise<void>;
  /** @throws KeystoneError 403 where it would close a circle */
  imply(priorRoleId: string, impliedRoleId: string): Promise<void>;
  /** Whether it did. */
  unimply(priorRoleId: string, impliedRoleId: string): Promise<boolean>;
  implies(priorRoleId: string, impliedRoleId: string): boolean;
  /** Present already is fine. @throws KeystoneError 404 for an unknown id */
  grant(ref: GrantRef): Promise<void>;
  /** Whether there was one. */
  revoke(ref: GrantRef): Promise<boolean>;
  find(ref: GrantRef): Assignment | undefined;
}

export function createGrants(options: {
  state: IdentityState;
  random: Random;
  serial: Serial;
}): Grants {
  const { state, random, serial } = options;
  const { roles, implications, assignments, projects, domains } = state.tables;

  const checkRoleName = (id: string, name: string) => {
    const holder = roles.all().find((role) => role.name === name);
    if (holder && holder.id !== id) {
      throw conflict('role', `Duplicate entry found with name ${name}`);
    }
  };
  const idOf = (ref: GrantRef) =>
    compositeId(
      ref.roleId,
      ref.actorKind,
      ref.actorId,
      ref.targetKind,
      ref.targetId,
      ref.inherited ? 'inherited' : 'direct',
    );
  const builtIn = (id: string) => {
    const { name } = roles.require(id);
    return (BUILT_IN_ROLES as readonly string[]).includes(name);
  };

  return {
    createRole: (role) =>
      serial(async () => {
        const record = { id: newId(random), ...role };
        checkRoleName(record.id, record.name);
        await roles.create(record);
        return record;
      }),
    updateRole: (id, changes) =>
      serial(async () => {
        const { name } = roles.require(id);
        if (changes.name !== undefined && changes.name !== name && builtIn(id)) {
          throw forbidden(`The role ${name} is built in and cannot be renamed.`);
        }
        if (changes.name !== undefined) checkRoleName(id, changes.name);
        return roles.update(id, (role) => ({ ...role, ...changes }));
      }),
    deleteRole: (id) =>
      serial(async () => {
        if (builtIn(id)) throw forbidden('A built-in role cannot be deleted.');
        await roles.remove(id);
        for (const assignment of assignments.all()) {
          if (assignment.roleId === id) await assignments.remove(assignment.id);
        }
        for (const { id: own, priorRoleId, impliedRoleId } of implications.all()) {
          if (priorRoleId === id || impliedRoleId === id) await implications.remove(own);
        }
      }),
    imply: (priorRoleId, impliedRoleId) =>
      serial(async () => {
        roles.require(priorRoleId);
        roles.require(impliedRoleId);
        if (withImplied(state, [impliedRoleId]).has(priorRoleId)) {
          throw forbidden(
            `Role ${priorRoleId} cannot imply ${impliedRoleId}: that implies the former already.`,
          );
        }
        const id = compositeId(priorRoleId, impliedRoleId);
        await implications.create({ id, priorRoleId, impliedRoleId });
      }),
    unimply: (priorRoleId, impliedRoleId) =>
      implications.remove(compositeId(priorRoleId, impliedRoleId)),
    implies: (priorRoleId, impliedRoleId) =>
      implications.get(compositeId(priorRoleId, impliedRoleId)) !== undefined,
    grant: (ref) =>
      serial(async () => {
        const { roleId, actorKind, actorId, targetKind, targetId } = ref;
        roles.require(roleId);
        if (!actorExists(state, actorKind, actorId)) throw notFound(actorKind, actorId);
        if (targetKind === 'project') projects.require(targetId);
        if (targetKind === 'domain') domains.require(targetId);
        await assignments.create({ id: idOf(ref), ...ref });
      }),
    revoke: (ref) => assignments.remove(idOf(ref)),
    find: (ref) => assignments.get(idOf(ref)),
  };
}

/** Keystone's rule for names: not empty, not only spaces; and nothing that cannot be shown. */
export function checkName(
  field: string,
  name: string,
  lengthMax: number = LIMITS.nameLength,
): void {
  if (name.trim() === '' || name.length > lengthMax) {
    const limit = `1 to ${lengthMax} characters that are not all spaces`;
    throw badRequest(`Invalid input for field '${field}': it needs ${limit}.`);
  }
  if (/\p{Cc}/u.test(name)) {
    throw badRequest(`Invalid input for field '${field}': it holds a control character.`);
  }
}
