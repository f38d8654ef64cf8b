import { notFound } from '../errors.ts';
import type { GrantRef } from '../grants.ts';
import type { ActorKind, TargetKind } from '../records.ts';
import { SYSTEM_ID } from '../records.ts';
import type { Call, Reply, Route } from './call.ts';
import { allow, listReply, NO_CONTENT, param, visible } from './call.ts';
import { renderRole } from './render.ts';

/*
 * Giving roles: the same five operations for users and groups, on projects, domains and the
 * system, there and inherited. What differs is the path and who may.
 */

interface Place {
  targetKind: TargetKind;
  actorKind: ActorKind;
  inherited: boolean;
}

/** The target in the path, if the caller may see who has roles on it. */
function findTarget(call: Call, { targetKind }: Place): string {
  const { policy, identity } = call;
  if (targetKind === 'system') {
    allow(call, policy.systemReader);
    return SYSTEM_ID;
  }
  const id = param(call, 'target_id');
  if (targetKind === 'domain') {
    const domain = identity.state.tables.domains.get(id);
    return visible(call, 'domain', id, domain, () => policy.readDomain(id)).id;
  }
  const project = identity.state.tables.projects.get(id);
  return visible(
    call,
    'project',
    id,
    project,
    (found) => policy.readDomain(found.domainId) || policy.adminProject(found),
  ).id;
}

/** Whether the caller may give and take roles on a target that it may see. */
function mayGrant(call: Call, { targetKind }: Place, targetId: string): boolean {
  const { policy, identity } = call;
  if (targetKind === 'system') return policy.systemAdmin;
  if (targetKind === 'domain') return policy.adminDomain(targetId);
  const project = identity.state.tables.projects.get(targetId);
  return project !== undefined && policy.adminProject(project);
}

function refOf(call: Call, place: Place, targetId: string): GrantRef {
  const [roleId, actorId] = [param(call, 'role_id'), param(call, 'actor_id')];
  return { roleId, actorId, targetId, ...place };
}

/**
 * People outside the target's domain are given roles by operators only, and are not found by
 * others: a project's admin cannot ask who exists.
 */
function checkActor(call: Call, ref: GrantRef): void {
  const { users, groups, projects } = call.identity.state.tables;
  const actor = ref.actorKind === 'user' ? users.get(ref.actorId) : groups.get(ref.actorId);
  const domainId =
    ref.targetKind === 'project' ? projects.get(ref.targetId)?.domainId : ref.targetId;
  const reachable = call.policy.systemAdmin || actor?.domainId === domainId;
  if (!actor || !reachable) throw notFound(ref.actorKind, ref.actorId);
}

async function grant(call: Call, place: Place): Promise<Reply> {
  const targetId = findTarget(call, place);
  const ref = refOf(call, place, targetId);
  allow(call, mayGrant(call, place, targetId));
  call.identity.state.tables.roles.require(ref.roleId);
  allow(call, call.policy.mayGrantRole(ref.roleId));
  checkActor(call, ref);
  await call.identity.grants.grant(ref);
  return NO_CONTENT;
}

const missing = (ref: GrantRef) =>
  notFound('role assignment', `role ${ref.roleId} of ${ref.actorKind} ${ref.actorId}`);

async function revoke(call: Call, place: Place): Promise<Reply> {
  const targetId = findTarget(call, place);
  const ref = refOf(call, place, targetId);
  allow(call, mayGrant(call, place, targetId) && call.policy.mayGrantRole(ref.roleId));
  if (!(await call.identity.grants.revoke(ref))) throw missing(ref);
  return NO_CONTENT;
}

function check(call: Call, place: Place): Reply {
  const ref = refOf(call, place, findTarget(call, place));
  if (!call.identity.grants.find(ref)) throw missing(ref);
  return NO_CONTENT;
}

function list(call: Call, place: Place): Reply {
  const targetId = findTarget(call, place);
  const { state } = call.identity;
  const roles = state
    .assignmentsBetween(param(call, 'actor_id'), targetId)
    .filter((one) => one.actorKind === place.actorKind && one.inherited === place.inherited)
    .flatMap(({ roleId }) => state.tables.roles.get(roleId) ?? [])
    .map((role) => renderRole(call.baseUrl, role));
  return listReply(call, 'roles', roles);
}

function routesAt(place: Place): Route[] {
  const { targetKind, actorKind, inherited } = place;
  const target = targetKind === 'system' ? '/system' : `/${targetKind}s/{target_id}`;
  const prefix = inherited ? '/OS-INHERIT' : '';
  const suffix = inherited ? '/inherited_to_projects' : '';
  const all = `${prefix}${target}/${actorKind}s/{actor_id}/roles`;
  const one = `${all}/{role_id}${suffix}`;
  const [what, whose] =
    targetKind === 'system' ? ['system_grant', `_for_${actorKind}`] : ['grant', ''];
  const on = (handle: (call: Call, at: Place) => Reply | Promise<Reply>) => (call: Call) =>
    handle(call, place);
  return [
    {
      method: 'GET',
      path: all + suffix,
      action: `identity:list_${what}s${whose}`,
      handle: on(list),
    },
    { method: 'GET', path: one, action: `identity:check_${what}${whose}`, handle: on(check) },
    { method: 'PUT', path: one, action: `identity:create_${what}${whose}`, handle: on(grant) },
    { method: 'DELETE', path: one, action: `identity:revoke_${what}${whose}`, handle: on(revoke) },
  ];
}

const ACTORS: ActorKind[] = ['user', 'group'];

export const GRANT_ROUTES: Route[] = ACTORS.flatMap((actorKind) => [
  ...routesAt({ targetKind: 'system', actorKind, inherited: false }),
  ...(['project', 'domain'] as const).flatMap((targetKind) =>
    [false, true].flatMap((inherited) => routesAt({ targetKind, actorKind, inherited })),
  ),
]);
