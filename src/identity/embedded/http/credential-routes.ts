import { badRequest, forbidden, notFound } from '../errors.ts';
import type { AccessRule, ApplicationCredential } from '../records.ts';
import type { NewCredential } from '../credentials.ts';
import { PASSWORD_BYTES_MAX } from '../passwords.ts';
import { LIMITS } from '../settings.ts';
import type { Call, Reply, Route } from './call.ts';
import { allow, filtered, listReply, NO_CONTENT, param } from './call.ts';
import { readBody, readFields } from './fields.ts';
import type { FieldRules } from './fields.ts';
import { renderCredential } from './render.ts';

const FIELDS: FieldRules = {
  name: { type: 'name', required: true, lengthMax: 255 },
  description: { type: 'text', nullable: true },
  secret: { type: 'string', nullable: true, lengthMax: PASSWORD_BYTES_MAX },
  roles: { type: 'array' },
  expires_at: { type: 'string', nullable: true, lengthMax: 64 },
  unrestricted: { type: 'boolean' },
  access_rules: { type: 'array' },
};

const RULE_FIELDS: FieldRules = {
  id: { type: 'id' },
  service: { type: 'string', lengthMax: LIMITS.userNameLength },
  method: { type: 'string', lengthMax: 16 },
  path: { type: 'string', lengthMax: 128 },
};

const METHOD = /^[A-Z]+$/;
/** Of a secret that the caller chose: nobody types it, so it has no reason to be short. */
const SECRET_LENGTH_MIN = 16;

/** Credentials are their user's own; operators see them and can take them away. */
function own(call: Call): string {
  const userId = param(call, 'user_id');
  allow(call, userId === call.policy.userId);
  return userId;
}

/**
 * A credential that was made to be restricted makes no other: with one it would outlive its own
 * end. Nor does one with access rules, as the other could have none.
 */
function checkUnrestricted(call: Call): void {
  const { credential } = call.caller.session;
  if (credential && (!credential.unrestricted || credential.accessRules)) {
    throw forbidden(
      'A restricted application credential cannot create or delete application credentials.',
    );
  }
}

function readTime(value: string): number {
  const form = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z?$/;
  const ms = form.test(value) ? Date.parse(value.replace(/Z?$/, 'Z')) : NaN;
  if (Number.isNaN(ms)) {
    const wanted = 'it needs the form YYYY-MM-DDThh:mm:ss, in UTC';
    throw badRequest(`Invalid input for field 'application_credential.expires_at': ${wanted}.`);
  }
  return ms;
}

function readRoles(value: unknown[]): NonNullable<NewCredential['roles']> {
  const at = 'application_credential.roles';
  if (value.length === 0 || value.length > LIMITS.rolesPerCredential) {
    const limit = `1 to ${LIMITS.rolesPerCredential} roles`;
    throw badRequest(`Invalid input for field '${at}': it needs ${limit}, or to be absent.`);
  }
  return value.map((item, i) => {
    const rules = { id: { type: 'id' }, name: { type: 'string', lengthMax: 255 } } as const;
    const { id, name } = readFields(item, `${at}[${i}]`, rules);
    if (id !== undefined) return { id: id as string };
    if (name !== undefined) return { name: name as string };
    throw badRequest(`Invalid input for field '${at}[${i}]': it needs an id or a name.`);
  });
}

function readRules(value: unknown[]): NonNullable<NewCredential['accessRules']> {
  const at = 'application_credential.access_rules';
  if (value.length > LIMITS.accessRulesPerCredential) {
    const limit = `it has more than ${LIMITS.accessRulesPerCredential} rules`;
    throw badRequest(`Invalid input for field '${at}': ${limit}.`);
  }
  return value.map((item, i) => {
    const read = readFields(item, `${at}[${i}]`, RULE_FIELDS) as Partial<AccessRule>;
    const { id, service, method, path } = read;
    if (id !== undefined) return { id };
    if (service === undefined || method === undefined || path === undefined) {
      const needs = 'it needs service, method and path, or the id of a rule';
      throw badRequest(`Invalid input for field '${at}[${i}]': ${needs}.`);
    }
    if (!METHOD.test(method) || !path.startsWith('/')) {
      const needs = 'method needs upper-case letters, path a leading slash';
      throw badRequest(`Invalid input for field '${at}[${i}]': ${needs}.`);
    }
    return { service, method, path };
  });
}

async function create(call: Call): Promise<Reply> {
  own(call);
  checkUnrestricted(call);
  const fields = readBody(call.body, 'application_credential', FIELDS);
  const { description, secret, roles, expires_at: expires, access_rules: rules } = fields;
  if (typeof secret === 'string' && secret.length < SECRET_LENGTH_MIN) {
    const limit = `it needs at least ${SECRET_LENGTH_MIN} characters`;
    throw badRequest(`Invalid input for field 'application_credential.secret': ${limit}.`);
  }
  const made = await call.identity.credentials.create(call.caller.session, {
    name: fields['name'] as string,
    unrestricted: (fields['unrestricted'] as boolean | undefined) ?? false,
    ...(typeof description === 'string' && { description }),
    ...(typeof secret === 'string' && { secret }),
    ...(Array.isArray(roles) && { roles: readRoles(roles) }),
    ...(typeof expires === 'string' && { expiresAtMs: readTime(expires) }),
    ...(Array.isArray(rules) && { accessRules: readRules(rules) }),
  });
  const shown = renderCredential(call.baseUrl, call.identity.state, made.credential);
  return { status: 201, body: { application_credential: { ...shown, secret: made.secret } } };
}

function find(call: Call, mayAlways: boolean): ApplicationCredential {
  const userId = param(call, 'user_id');
  allow(call, mayAlways || userId === call.policy.userId);
  const id = param(call, 'credential_id');
  const found = call.identity.state.credentialsOfUser(userId).find((one) => one.id === id);
  if (!found) throw notFound('application credential', id);
  return found;
}

function show(call: Call): Reply {
  const credential = find(call, call.policy.systemReader);
  const shown = renderCredential(call.baseUrl, call.identity.state, credential);
  return { status: 200, body: { application_credential: shown } };
}

function list(call: Call): Reply {
  const userId = param(call, 'user_id');
  allow(call, userId === call.policy.userId || call.policy.systemReader);
  const { state } = call.identity;
  const all = filtered(call, state.credentialsOfUser(userId), { name: ({ name }) => name });
  const shown = all.map((one) => renderCredential(call.baseUrl, state, one));
  const path = `/users/${userId}/application_credentials`;
  return listReply(call, 'application_credentials', shown, path);
}

async function remove(call: Call): Promise<Reply> {
  const own = call.caller.session.credential;
  // Keystone refuses this too; whoever logs out without a password would leave it behind.
  if (own?.id !== param(call, 'credential_id') || own.accessRules) checkUnrestricted(call);
  const credential = find(call, call.policy.systemAdmin);
  await call.identity.credentials.delete(credential.id);
  return NO_CONTENT;
}

const rulesPath = (userId: string) => `/users/${userId}/access_rules`;

function listRules(call: Call): Reply {
  const userId = param(call, 'user_id');
  allow(call, userId === call.policy.userId || call.policy.systemReader);
  const rules = filtered(call, call.identity.credentials.accessRulesOf(userId), {
    service: (rule) => rule.service,
    method: (rule) => rule.method,
    path: (rule) => rule.path,
  });
  return listReply(call, 'access_rules', rules, rulesPath(userId));
}

function findRule(call: Call): AccessRule {
  const userId = param(call, 'user_id');
  allow(call, userId === call.policy.userId || call.policy.systemReader);
  const id = param(call, 'access_rule_id');
  const rule = call.identity.credentials.accessRulesOf(userId).find((one) => one.id === id);
  if (!rule) throw notFound('access rule', id);
  return rule;
}

function removeRule(call: Call): Reply {
  own(call);
  const { id } = findRule(call);
  throw forbidden(`Unable to delete access rule ${id}: it is in use by an application credential.`);
}

const ALL = '/users/{user_id}/application_credentials';
const ONE = `${ALL}/{credential_id}`;
const RULES = '/users/{user_id}/access_rules';
const RULE = `${RULES}/{access_rule_id}`;

export const CREDENTIAL_ROUTES: Route[] = [
  { method: 'GET', path: ALL, action: 'identity:list_application_credentials', handle: list },
  { method: 'POST', path: ALL, action: 'identity:create_application_credential', handle: create },
  { method: 'GET', path: ONE, action: 'identity:get_application_credential', handle: show },
  { method: 'DELETE', path: ONE, action: 'identity:delete_application_credential', handle: remove },
  { method: 'GET', path: RULES, action: 'identity:list_access_rules', handle: listRules },
  {
    method: 'GET',
    path: RULE,
    action: 'identity:get_access_rule',
    handle: (call) => ({ status: 200, body: { access_rule: findRule(call) } }),
  },
  { method: 'DELETE', path: RULE, action: 'identity:delete_access_rule', handle: removeRule },
];
