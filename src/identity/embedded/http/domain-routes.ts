import { badRequest, notAuthorized } from '../errors.ts';
import type { Domain } from '../records.ts';
import type { Call, Reply, Route } from './call.ts';
import { allow, filtered, listReply, NO_CONTENT, param, visible } from './call.ts';
import { optional, readBody } from './fields.ts';
import type { FieldRules } from './fields.ts';
import { renderDomain } from './render.ts';

const FIELDS: FieldRules = {
  name: { type: 'name', required: true },
  description: { type: 'text', nullable: true },
  enabled: { type: 'boolean' },
  options: { type: 'object' },
};

/** People are `<name>@<domain>` to Kubernetes: where the domain begins has to be plain. */
function checkDomainName(name: unknown): void {
  if (typeof name !== 'string' || !name.includes('@')) return;
  throw badRequest("Invalid input for field 'domain.name': it may not have an @.");
}

const reply = (call: Call, domain: Domain, status = 200): Reply => ({
  status,
  body: { domain: renderDomain(call.baseUrl, domain) },
});

/** One's own domain is no secret: its name stands in every token. */
const mayRead = (call: Call) => (domain: Domain) =>
  call.policy.readDomain(domain.id) || domain.id === call.caller.session.user.domainId;

function list(call: Call): Reply {
  const { systemReader, domainId } = call.policy;
  if (!systemReader && domainId === undefined) throw notAuthorized(call.action);
  const all = call.identity.state.tables.domains.all().filter(mayRead(call));
  const kept = filtered(call, all, {
    name: (domain) => domain.name,
    enabled: (domain) => domain.enabled,
  });
  return listReply(
    call,
    'domains',
    kept.map((domain) => renderDomain(call.baseUrl, domain)),
  );
}

async function create(call: Call): Promise<Reply> {
  allow(call, call.policy.systemAdmin);
  const fields = readBody(call.body, 'domain', FIELDS);
  checkDomainName(fields['name']);
  const domain = await call.identity.directory.createDomain({
    name: fields['name'] as string,
    description: (fields['description'] as string | null | undefined) ?? '',
    enabled: (fields['enabled'] as boolean | undefined) ?? true,
  });
  return reply(call, domain, 201);
}

function find(call: Call): Domain {
  const id = param(call, 'domain_id');
  const domain = call.identity.state.tables.domains.get(id);
  return visible(call, 'domain', id, domain, mayRead(call));
}

async function update(call: Call): Promise<Reply> {
  const { id } = find(call);
  allow(call, call.policy.systemAdmin);
  const { name, description, enabled } = readBody(call.body, 'domain', optional(FIELDS));
  checkDomainName(name);
  const domain = await call.identity.directory.updateDomain(id, {
    ...(name !== undefined && { name: name as string }),
    ...(description !== undefined && { description: (description as string | null) ?? '' }),
    ...(enabled !== undefined && { enabled: enabled as boolean }),
  });
  return reply(call, domain);
}

async function remove(call: Call): Promise<Reply> {
  const { id } = find(call);
  allow(call, call.policy.systemAdmin);
  await call.identity.directory.deleteDomain(id);
  return NO_CONTENT;
}

const ONE = '/domains/{domain_id}';

export const DOMAIN_ROUTES: Route[] = [
  { method: 'GET', path: '/domains', action: 'identity:list_domains', handle: list },
  { method: 'POST', path: '/domains', action: 'identity:create_domain', handle: create },
  {
    method: 'GET',
    path: ONE,
    action: 'identity:get_domain',
    handle: (call) => reply(call, find(call)),
  },
  { method: 'PATCH', path: ONE, action: 'identity:update_domain', handle: update },
  { method: 'DELETE', path: ONE, action: 'identity:delete_domain', handle: remove },
];
