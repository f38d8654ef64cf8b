import { badRequest, notAuthorized, notFound } from '../errors.ts';
import type { Role } from '../records.ts';
import type { Call, Reply, Route } from './call.ts';
import { allow, filtered, listReply, NO_CONTENT, param } from './call.ts';
import { optional, readBody } from './fields.ts';
import type { FieldRules } from './fields.ts';
import { renderRole } from './render.ts';

const FIELDS: FieldRules = {
  name: { type: 'name', required: true, lengthMax: 255 },
  description: { type: 'text', nullable: true },
  domain_id: { type: 'id', nullable: true },
  options: { type: 'object' },
};

const reply = (call: Call, role: Role, status = 200): Reply => ({
  status,
  body: { role: renderRole(call.baseUrl, role) },
});

/** Roles are the same for all; who grants one has to find it. */
function find(call: Call, name = 'role_id'): Role {
  if (call.caller.session.scope.kind === 'unscoped') throw notAuthorized(call.action);
  return call.identity.state.tables.roles.require(param(call, name));
}

function list(call: Call): Reply {
  if (call.caller.session.scope.kind === 'unscoped') throw notAuthorized(call.action);
  const roles = filtered(call, call.identity.state.tables.roles.all(), {
    name: (role) => role.name,
    domain_id: () => undefined,
  });
  return listReply(
    call,
    'roles',
    roles.map((role) => renderRole(call.baseUrl, role)),
  );
}

function readRole(call: Call, rules: FieldRules) {
  const fields = readBody(call.body, 'role', rules);
  if (typeof fields['domain_id'] === 'string') {
    throw badRequest(
      "Invalid input for field 'role.domain_id': roles of one domain are not offered.",
    );
  }
  const { name, description } = fields;
  return {
    ...(name !== undefined && { name: name as string }),
    ...(description !== undefined && { description: (description as string | null) ?? '' }),
  };
}

async function create(call: Call): Promise<Reply> {
  allow(call, call.policy.systemAdmin);
  const { name = '', description = '' } = readRole(call, FIELDS);
  return reply(call, await call.identity.grants.createRole({ name, description }), 201);
}

async function update(call: Call): Promise<Reply> {
  allow(call, call.policy.systemAdmin);
  const { id } = find(call);
  const changes = readRole(call, optional(FIELDS));
  return reply(call, await call.identity.grants.updateRole(id, changes));
}

async function remove(call: Call): Promise<Reply> {
  allow(call, call.policy.systemAdmin);
  await call.identity.grants.deleteRole(find(call).id);
  return NO_CONTENT;
}

const short = (call: Call, role: Role) => ({
  id: role.id,
  name: role.name,
  links: { self: `${call.baseUrl}/roles/${role.id}` },
});

function inference(call: Call, prior: Role) {
  const { state } = call.identity;
  const implied = state.impliedBy(prior.id).flatMap((id) => state.tables.roles.get(id) ?? []);
  return { prior_role: short(call, prior), implies: implied.map((role) => short(call, role)) };
}

function listImplied(call: Call): Reply {
  const prior = find(call);
  const links = { self: `${call.baseUrl}/roles/${prior.id}/implies` };
  return { status: 200, body: { role_inference: inference(call, prior), links } };
}

function listInferences(call: Call): Reply {
  if (call.caller.session.scope.kind === 'unscoped') throw notAuthorized(call.action);
  const all = call.identity.state.tables.roles
    .all()
    .map((role) => inference(call, role))
    .filter(({ implies }) => implies.length > 0);
  const links = { self: `${call.baseUrl}/role_inferences` };
  return { status: 200, body: { role_inferences: all, links } };
}

const pairReply = (call: Call, prior: Role, implied: Role, status: number): Reply => {
  const pair = { prior_role: short(call, prior), implies: short(call, implied) };
  const links = { self: `${call.baseUrl}/roles/${prior.id}/implies/${implied.id}` };
  return { status, body: { role_inference: pair, links } };
};

async function imply(call: Call): Promise<Reply> {
  allow(call, call.policy.systemAdmin);
  const [prior, implied] = [find(call), find(call, 'implied_role_id')];
  await call.identity.grants.imply(prior.id, implied.id);
  return pairReply(call, prior, implied, 201);
}

async function unimply(call: Call): Promise<Reply> {
  allow(call, call.policy.systemAdmin);
  const [prior, implied] = [find(call), find(call, 'implied_role_id')];
  const was = await call.identity.grants.unimply(prior.id, implied.id);
  if (!was) throw notFound('implied role', `${prior.id}/${implied.id}`);
  return NO_CONTENT;
}

function showImplied(call: Call): Reply {
  const [prior, implied] = [find(call), find(call, 'implied_role_id')];
  if (!call.identity.grants.implies(prior.id, implied.id)) {
    throw notFound('implied role', `${prior.id}/${implied.id}`);
  }
  return pairReply(call, prior, implied, 200);
}

const ONE = '/roles/{role_id}';
const IMPLIED = `${ONE}/implies/{implied_role_id}`;

export const ROLE_ROUTES: Route[] = [
  { method: 'GET', path: '/roles', action: 'identity:list_roles', handle: list },
  { method: 'POST', path: '/roles', action: 'identity:create_role', handle: create },
  {
    method: 'GET',
    path: ONE,
    action: 'identity:get_role',
    handle: (call) => reply(call, find(call)),
  },
  { method: 'PATCH', path: ONE, action: 'identity:update_role', handle: update },
  { method: 'DELETE', path: ONE, action: 'identity:delete_role', handle: remove },
  {
    method: 'GET',
    path: `${ONE}/implies`,
    action: 'identity:list_implied_roles',
    handle: listImplied,
  },
  { method: 'GET', path: IMPLIED, action: 'identity:get_implied_role', handle: showImplied },
  { method: 'PUT', path: IMPLIED, action: 'identity:create_implied_role', handle: imply },
  { method: 'DELETE', path: IMPLIED, action: 'identity:delete_implied_role', handle: unimply },
  {
    method: 'GET',
    path: '/role_inferences',
    action: 'identity:list_role_inference_rules',
    handle: listInferences,
  },
];
