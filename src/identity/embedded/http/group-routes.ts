import { forbidden, notAuthorized, notFound } from '../errors.ts';
import type { Group, User } from '../records.ts';
import type { Call, Reply, Route } from './call.ts';
import { allow, filtered, listReply, NO_CONTENT, param, visible } from './call.ts';
import { optional, readBody } from './fields.ts';
import type { FieldRules } from './fields.ts';
import { homeDomain } from './home-domain.ts';
import { renderGroup, renderUser } from './render.ts';

const FIELDS: FieldRules = {
  name: { type: 'name', required: true },
  domain_id: { type: 'id', nullable: true },
  description: { type: 'text', nullable: true },
};

const reply = (call: Call, group: Group, status = 200): Reply => ({
  status,
  body: { group: renderGroup(call.baseUrl, group) },
});

function find(call: Call): Group {
  const id = param(call, 'group_id');
  const group = call.identity.state.tables.groups.get(id);
  return visible(call, 'group', id, group, ({ domainId }) => call.policy.readDomain(domainId));
}

function list(call: Call): Reply {
  const { systemReader, domainId, readDomain } = call.policy;
  if (!systemReader && domainId === undefined) throw notAuthorized(call.action);
  const all = call.identity.state.tables.groups.all().filter((group) => readDomain(group.domainId));
  const kept = filtered(call, all, {
    name: (group) => group.name,
    domain_id: (group) => group.domainId,
  });
  return listReply(
    call,
    'groups',
    kept.map((group) => renderGroup(call.baseUrl, group)),
  );
}

async function create(call: Call): Promise<Reply> {
  const fields = readBody(call.body, 'group', FIELDS);
  const domainId = (fields['domain_id'] as string | null | undefined) ?? homeDomain(call);
  allow(call, call.policy.adminDomain(domainId));
  const group = await call.identity.directory.createGroup({
    name: fields['name'] as string,
    domainId,
    description: (fields['description'] as string | null | undefined) ?? '',
  });
  return reply(call, group, 201);
}

async function update(call: Call): Promise<Reply> {
  const group = find(call);
  allow(call, call.policy.adminGroup(group));
  const { name, description, domain_id: domainId } = readBody(call.body, 'group', optional(FIELDS));
  if (domainId !== undefined && domainId !== group.domainId) {
    throw forbidden('Update of `domain_id` is not allowed.');
  }
  const changed = await call.identity.directory.updateGroup(group.id, {
    ...(name !== undefined && { name: name as string }),
    ...(description !== undefined && { description: (description as string | null) ?? '' }),
  });
  return reply(call, changed);
}

async function remove(call: Call): Promise<Reply> {
  const group = find(call);
  allow(call, call.policy.adminGroup(group));
  await call.identity.directory.deleteGroup(group.id);
  return NO_CONTENT;
}

function members(call: Call): Reply {
  const { id } = find(call);
  const { state } = call.identity;
  const users = state
    .membershipsOfGroup(id)
    .flatMap(({ userId }) => state.tables.users.get(userId) ?? [])
    .map((user) => renderUser(call.baseUrl, user));
  return listReply(call, 'users', users, `/groups/${id}/users`);
}

/** The user in the path; one of another domain is for operators only. */
function findMember(call: Call): User {
  const id = param(call, 'user_id');
  const user = call.identity.state.tables.users.get(id);
  return visible(call, 'user', id, user, ({ domainId }) => call.policy.readDomain(domainId));
}

async function addMember(call: Call): Promise<Reply> {
  const group = find(call);
  allow(call, call.policy.adminGroup(group));
  await call.identity.accounts.addMember(group.id, findMember(call).id);
  return NO_CONTENT;
}

async function removeMember(call: Call): Promise<Reply> {
  const group = find(call);
  allow(call, call.policy.adminGroup(group));
  const userId = param(call, 'user_id');
  const was = await call.identity.accounts.removeMember(group.id, userId);
  if (!was) throw notFound('user in group', `${userId}/${group.id}`);
  return NO_CONTENT;
}

function checkMember(call: Call): Reply {
  const { id } = find(call);
  const userId = param(call, 'user_id');
  if (!call.identity.accounts.isMember(id, userId)) {
    throw notFound('user in group', `${userId}/${id}`);
  }
  return NO_CONTENT;
}

const ONE = '/groups/{group_id}';
const MEMBER = `${ONE}/users/{user_id}`;

export const GROUP_ROUTES: Route[] = [
  { method: 'GET', path: '/groups', action: 'identity:list_groups', handle: list },
  { method: 'POST', path: '/groups', action: 'identity:create_group', handle: create },
  {
    method: 'GET',
    path: ONE,
    action: 'identity:get_group',
    handle: (call) => reply(call, find(call)),
  },
  { method: 'PATCH', path: ONE, action: 'identity:update_group', handle: update },
  { method: 'DELETE', path: ONE, action: 'identity:delete_group', handle: remove },
  {
    method: 'GET',
    path: `${ONE}/users`,
    action: 'identity:list_users_in_group',
    handle: members,
  },
  { method: 'PUT', path: MEMBER, action: 'identity:add_user_to_group', handle: addMember },
  {
    method: 'DELETE',
    path: MEMBER,
    action: 'identity:remove_user_from_group',
    handle: removeMember,
  },
  { method: 'GET', path: MEMBER, action: 'identity:check_user_in_group', handle: checkMember },
];
