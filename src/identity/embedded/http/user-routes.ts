import { badRequest, forbidden, notAuthorized } from '../errors.ts';
import type { User, UserOptions } from '../records.ts';
import { targetsOf } from '../rights.ts';
import { LIMITS } from '../settings.ts';
import type { NewUser } from '../accounts.ts';
import type { Call, Reply, Route } from './call.ts';
import { allow, filtered, listReply, NO_CONTENT, param, visible } from './call.ts';
import { optional, readBody, readFields } from './fields.ts';
import type { FieldRules } from './fields.ts';
import { homeDomain } from './home-domain.ts';
import { renderGroup, renderProject, renderUser } from './render.ts';

const FIELDS: FieldRules = {
  name: { type: 'name', required: true, lengthMax: LIMITS.userNameLength },
  domain_id: { type: 'id', nullable: true },
  password: { type: 'string', nullable: true },
  default_project_id: { type: 'id', nullable: true },
  description: { type: 'text', nullable: true },
  email: { type: 'text', nullable: true },
  enabled: { type: 'boolean' },
  options: { type: 'object' },
};

const OPTION = { type: 'boolean', nullable: true } as const;
const OPTIONS: FieldRules = {
  ignore_lockout_failure_attempts: OPTION,
  ignore_password_expiry: OPTION,
  ignore_change_password_upon_first_use: OPTION,
  lock_password: OPTION,
};

const reply = (call: Call, user: User, status = 200): Reply => ({
  status,
  body: { user: renderUser(call.baseUrl, user) },
});

const mayRead = (call: Call) => (user: User) =>
  call.policy.readDomain(user.domainId) || user.id === call.policy.userId;

function find(call: Call): User {
  const id = param(call, 'user_id');
  return visible(call, 'user', id, call.identity.state.tables.users.get(id), mayRead(call));
}

function list(call: Call): Reply {
  const { systemReader, domainId, readDomain } = call.policy;
  if (!systemReader && domainId === undefined) throw notAuthorized(call.action);
  const all = call.identity.state.tables.users.all().filter((user) => readDomain(user.domainId));
  const kept = filtered(call, all, {
    name: (user) => user.name,
    domain_id: (user) => user.domainId,
    enabled: (user) => user.enabled,
  });
  return listReply(
    call,
    'users',
    kept.map((user) => renderUser(call.baseUrl, user)),
  );
}

/** The fields of a body that say something, in the service's words; `null` takes a value away. */
function changesFrom(fields: Record<string, unknown>, before: UserOptions): Partial<NewUser> {
  const changes: Record<string, unknown> = {};
  const names = {
    name: 'name',
    email: 'email',
    description: 'description',
    enabled: 'enabled',
    default_project_id: 'defaultProjectId',
    password: 'password',
  };
  for (const [field, name] of Object.entries(names)) {
    if (fields[field] !== undefined) changes[name] = fields[field] ?? undefined;
  }
  if (fields['options'] !== undefined) {
    const given = readFields(fields['options'], 'user.options', OPTIONS);
    const merged = Object.entries({ ...before, ...given }).filter(([, value]) => value !== null);
    changes['options'] = Object.fromEntries(merged);
  }
  return changes;
}

async function create(call: Call): Promise<Reply> {
  const fields = readBody(call.body, 'user', FIELDS);
  const domainId = (fields['domain_id'] as string | null | undefined) ?? homeDomain(call);
  allow(call, call.policy.adminDomain(domainId));
  const changes = changesFrom(fields, {});
  const user = await call.identity.accounts.createUser({
    enabled: true,
    options: {},
    ...changes,
    name: fields['name'] as string,
    domainId,
  });
  return reply(call, user, 201);
}

async function update(call: Call): Promise<Reply> {
  const user = find(call);
  allow(call, call.policy.adminUser(user));
  const fields = readBody(call.body, 'user', optional(FIELDS));
  const domainId = fields['domain_id'];
  if (domainId !== undefined && domainId !== user.domainId) {
    throw forbidden('Update of `domain_id` is not allowed.');
  }
  if (fields['password'] === null) {
    throw badRequest("Invalid input for field 'user.password': it cannot be taken away.");
  }
  const changes = changesFrom(fields, user.options);
  return reply(call, await call.identity.accounts.updateUser(user.id, changes));
}

async function remove(call: Call): Promise<Reply> {
  const user = find(call);
  allow(call, call.policy.adminUser(user));
  await call.identity.directory.deleteUser(user.id);
  return NO_CONTENT;
}

/** Needs no token, so that an expired password can be changed: knowing it is enough. */
async function changePassword(call: Call): Promise<Reply> {
  const fields = readBody(call.body, 'user', {
    original_password: { type: 'string', required: true },
    password: { type: 'string', required: true },
  });
  const { original_password: original, password } = fields as Record<string, string>;
  const id = param(call, 'user_id');
  await call.identity.accounts.changePassword(id, original ?? '', password ?? '', call.source);
  return NO_CONTENT;
}

function groupsOf(call: Call): Reply {
  const { id } = find(call);
  const { state } = call.identity;
  const groups = state.membershipsOfUser(id).flatMap(({ groupId }) => {
    const group = state.tables.groups.get(groupId);
    return group ? [renderGroup(call.baseUrl, group)] : [];
  });
  return listReply(call, 'groups', groups, `/users/${id}/groups`);
}

function projectsOf(call: Call): Reply {
  const { id } = find(call);
  const { state } = call.identity;
  const own = id === call.policy.userId;
  const projects = targetsOf(state, id, 'project')
    .flatMap((projectId) => state.tables.projects.get(projectId) ?? [])
    .filter((project) => own || call.policy.readProject(project))
    .map((project) => renderProject(call.baseUrl, project));
  return listReply(call, 'projects', projects, `/users/${id}/projects`);
}

const ONE = '/users/{user_id}';

export const USER_ROUTES: Route[] = [
  { method: 'GET', path: '/users', action: 'identity:list_users', handle: list },
  { method: 'POST', path: '/users', action: 'identity:create_user', handle: create },
  {
    method: 'GET',
    path: ONE,
    action: 'identity:get_user',
    handle: (call) => reply(call, find(call)),
  },
  { method: 'PATCH', path: ONE, action: 'identity:update_user', handle: update },
  { method: 'DELETE', path: ONE, action: 'identity:delete_user', handle: remove },
  {
    method: 'POST',
    path: `${ONE}/password`,
    open: true,
    action: 'identity:change_password',
    handle: changePassword,
  },
  {
    method: 'GET',
    path: `${ONE}/groups`,
    action: 'identity:list_groups_for_user',
    handle: groupsOf,
  },
  {
    method: 'GET',
    path: `${ONE}/projects`,
    action: 'identity:list_user_projects',
    handle: projectsOf,
  },
];
