import { badRequest, notAuthorized } from '../errors.ts';
import type { Assignment } from '../records.ts';
import { descendants, reach, withImplied } from '../rights.ts';
import type { IdentityState } from '../state.ts';
import type { Call, Reply, Route } from './call.ts';
import { listReply, queryFlag } from './call.ts';

/** What an expanded list may grow to; a narrower question has a shorter answer. */
const ASSIGNMENTS_MAX = 10_000;

/** An assignment as it is stored, or one of those that it amounts to. */
interface Shown extends Omit<Assignment, 'id'> {
  /** The group by which it came to its user. */
  throughGroupId?: string;
  /** Where it is stored. */
  source: Assignment;
}

type Filter = (shown: Shown) => boolean;

/** Keystone's filters by the names of its query. */
const FILTERS: Record<string, (value: string) => Filter> = {
  'user.id': (id) => (one) => one.actorKind === 'user' && one.actorId === id,
  'group.id': (id) => (one) => one.actorKind === 'group' && one.actorId === id,
  'role.id': (id) => (one) => one.roleId === id,
  'scope.domain.id': (id) => (one) => one.targetKind === 'domain' && one.targetId === id,
  'scope.system': () => (one) => one.targetKind === 'system',
  'scope.OS-INHERIT:inherited_to': () => (one) => one.inherited,
};

function filtersOf(call: Call): Filter[] {
  const { query, identity } = call;
  const filters = Object.entries(FILTERS).flatMap(([name, make]) => {
    const value = query.get(name);
    return value === null ? [] : [make(value)];
  });
  const projectId = query.get('scope.project.id');
  if (projectId !== null) {
    const below = queryFlag(call, 'include_subtree')
      ? descendants(identity.state, projectId).map(({ id }) => id)
      : [];
    const projects = new Set([projectId, ...below]);
    filters.push((one) => one.targetKind === 'project' && projects.has(one.targetId));
  }
  return filters;
}

/** One by one, so that a list which would be too long is not made. */
function* expand(state: IdentityState, source: Assignment): Generator<Shown> {
  const actors: { actorId: string; throughGroupId?: string }[] =
    source.actorKind === 'user'
      ? [{ actorId: source.actorId }]
      : state
          .membershipsOfGroup(source.actorId)
          .map(({ userId }) => ({ actorId: userId, throughGroupId: source.actorId }));
  const targetKind = source.inherited ? 'project' : source.targetKind;
  const roleIds = withImplied(state, [source.roleId]);
  for (const targetId of reach(state, source, targetKind)) {
    for (const actor of actors) {
      for (const roleId of roleIds) {
        const where = { targetKind, targetId, inherited: false } as const;
        yield { roleId, actorKind: 'user', ...actor, ...where, source };
      }
    }
  }
}

function collect(call: Call, effective: boolean): Shown[] {
  const { state } = call.identity;
  const filters = filtersOf(call);
  const shown: Shown[] = [];
  for (const source of state.tables.assignments.all()) {
    const { id: _, ...direct } = source;
    for (const one of effective ? expand(state, source) : [{ ...direct, source }]) {
      if (!call.policy.readAssignment({ id: source.id, ...one })) continue;
      if (!filters.every((fits) => fits(one))) continue;
      if (shown.length === ASSIGNMENTS_MAX) {
        throw badRequest(`The list has more than ${ASSIGNMENTS_MAX} entries: filter it further.`);
      }
      shown.push(one);
    }
  }
  return shown;
}

function list(call: Call): Reply {
  const { policy, query, caller } = call;
  const { scope, roles } = caller.session;
  const admin = roles.some(({ name }) => name === 'admin');
  const ownScope = scope.kind === 'project' && admin;
  if (!policy.systemReader && policy.domainId === undefined && !ownScope) {
    throw notAuthorized(call.action);
  }
  const effective = queryFlag(call, 'effective') ?? false;
  if (effective && query.has('group.id')) {
    throw badRequest('Combining effective and group filter will always result in an empty list.');
  }
  if (effective && query.has('scope.OS-INHERIT:inherited_to')) {
    throw badRequest(
      'Combining effective and inherited filter will always result in an empty list.',
    );
  }
  const withNames = queryFlag(call, 'include_names') ?? false;
  const items = collect(call, effective).map((one) => render(call, one, withNames));
  return listReply(call, 'role_assignments', items);
}

function render(call: Call, shown: Shown, withNames: boolean) {
  const { tables } = call.identity.state;
  const place = (record: { id: string; name: string; domainId?: string } | undefined) => {
    if (!record || !withNames) return {};
    const domain = record.domainId === undefined ? undefined : tables.domains.get(record.domainId);
    return { name: record.name, ...(domain && { domain: { id: domain.id, name: domain.name } }) };
  };
  const { actorKind, actorId, targetKind, targetId, roleId } = shown;
  const actor = actorKind === 'user' ? tables.users.get(actorId) : tables.groups.get(actorId);
  const target =
    targetKind === 'project' ? tables.projects.get(targetId) : tables.domains.get(targetId);
  const scope: Record<string, unknown> =
    targetKind === 'system'
      ? { system: { all: true } }
      : { [targetKind]: { id: targetId, ...place(target) } };
  if (shown.inherited) scope['OS-INHERIT:inherited_to'] = 'projects';
  const links: Record<string, string> = { assignment: call.baseUrl + pathOf(shown.source) };
  if (shown.throughGroupId !== undefined) {
    links['membership'] = `${call.baseUrl}/groups/${shown.throughGroupId}/users/${actorId}`;
  }
  return {
    scope,
    role: { id: roleId, ...place(tables.roles.get(roleId)) },
    [actorKind]: { id: actorId, ...place(actor) },
    links,
  };
}

function pathOf(assignment: Assignment): string {
  const { targetKind, targetId, actorKind, actorId, roleId, inherited } = assignment;
  const target = targetKind === 'system' ? '/system' : `/${targetKind}s/${targetId}`;
  const path = `${target}/${actorKind}s/${actorId}/roles/${roleId}`;
  return inherited ? `/OS-INHERIT${path}/inherited_to_projects` : path;
}

export const ASSIGNMENT_ROUTES: Route[] = [
  {
    method: 'GET',
    path: '/role_assignments',
    action: 'identity:list_role_assignments',
    handle: list,
  },
];
