import type {
  AuthenticationRequest,
  DomainRef,
  Identity,
  UserRef,
  WantedScope,
} from '../authenticate.ts';
import { badRequest, unauthorized } from '../errors.ts';
import { LIMITS } from '../settings.ts';
import { METHODS } from '../token-codec.ts';
import { readFields } from './fields.ts';
import type { FieldRules } from './fields.ts';

/** Wrong names are not an error of form: they just match nobody. */
const ID = { type: 'string', lengthMax: LIMITS.userNameLength } as const;
const OBJECT = { type: 'object' } as const;
const SECRET = { type: 'string', required: true } as const;

/** @throws KeystoneError 400 that names the field, 401 for a method that is not offered */
export function readAuthentication(body: unknown): AuthenticationRequest {
  const outer = readFields(body, 'body', { auth: { type: 'object', required: true } });
  const auth = outer['auth'] as Record<string, unknown>;
  const rawScope = auth['scope'];
  const unscoped = rawScope === 'unscoped';
  const { identity } = readFields({ ...auth, scope: unscoped ? undefined : rawScope }, 'auth', {
    identity: { type: 'object', required: true },
    scope: { type: 'object' },
  });
  const request: AuthenticationRequest = { identity: readIdentity(identity) };
  if (unscoped) request.scope = { kind: 'unscoped' };
  else if (rawScope !== undefined) request.scope = readScope(rawScope);
  return request;
}

function readIdentity(value: unknown): Identity {
  const given = value as Record<string, unknown>;
  const methods = given['methods'];
  if (!Array.isArray(methods) || methods.length !== 1) {
    const limit = 'it needs to be a list of exactly one method';
    throw badRequest(`Invalid input for field 'auth.identity.methods': ${limit}.`);
  }
  const method: unknown = methods[0];
  const at = `auth.identity.${String(method).slice(0, LIMITS.nameLength)}`;
  const known = METHODS.find((name) => name === method);
  if (!known) {
    const shown = JSON.stringify(method)?.slice(0, LIMITS.nameLength);
    const offered = METHODS.join(', ');
    throw unauthorized(
      `Attempted to authenticate with an unsupported method: ${shown}; there are: ${offered}.`,
    );
  }
  const rules = {
    methods: { type: 'array' },
    [known]: { type: 'object', required: true },
  } as const;
  const { [known]: details } = readFields(given, 'auth.identity', rules as FieldRules);
  return READERS[known](details, at);
}

const READERS: Record<(typeof METHODS)[number], (value: unknown, at: string) => Identity> = {
  password(value, at) {
    const { user } = readFields(value, at, { user: { type: 'object', required: true } });
    const { password, ...ref } = user as Record<string, unknown>;
    const checked = readFields({ password }, `${at}.user`, { password: SECRET });
    return {
      method: 'password',
      user: readUser(ref, `${at}.user`),
      password: checked['password'] as string,
    };
  },
  token(value, at) {
    const { id } = readFields(value, at, { id: SECRET });
    return { method: 'token', token: id as string };
  },
  application_credential(value, at) {
    const read = readFields(value, at, { id: ID, name: ID, user: OBJECT, secret: SECRET });
    const secret = read['secret'] as string;
    const credential =
      read['id'] === undefined
        ? { name: needed(read['name'], `${at}.name`), user: readUser(read['user'], `${at}.user`) }
        : { id: read['id'] as string };
    return { method: 'application_credential', credential, secret };
  },
};

function needed(value: unknown, at: string): string {
  if (value === undefined) {
    throw badRequest(`Invalid input for field '${at}': it is required where there is no id.`);
  }
  return value as string;
}

function readUser(value: unknown, at: string): UserRef {
  const read = readFields(value, at, { id: ID, name: ID, domain: OBJECT });
  if (read['id'] !== undefined) return { id: read['id'] as string };
  const name = needed(read['name'], `${at}.name`);
  return { name, domain: readDomain(read['domain'], `${at}.domain`) };
}

function readDomain(value: unknown, at: string): DomainRef {
  const read = readFields(value, at, { id: ID, name: ID });
  if (read['id'] !== undefined) return { id: read['id'] as string };
  return { name: needed(read['name'], `${at}.name`) };
}

const SCOPE_RULES: FieldRules = { project: OBJECT, domain: OBJECT, system: OBJECT };

function readScope(value: unknown): WantedScope {
  const read = readFields(value, 'auth.scope', SCOPE_RULES);
  const [kind, ...more] = Object.keys(read);
  if (kind === undefined || more.length > 0) {
    const limit = 'it needs exactly one of project, domain and system';
    throw badRequest(`Invalid input for field 'auth.scope': ${limit}.`);
  }
  if (kind === 'domain') return { kind, domain: readDomain(read['domain'], 'auth.scope.domain') };
  if (kind === 'system') {
    const at = 'auth.scope.system';
    const { all } = readFields(read['system'], at, { all: { type: 'boolean', required: true } });
    if (all !== true) throw badRequest(`Invalid input for field '${at}.all': it can only be true.`);
    return { kind };
  }
  const at = 'auth.scope.project';
  const project = readFields(read['project'], at, { id: ID, name: ID, domain: OBJECT });
  if (project['id'] !== undefined) {
    return { kind: 'project', project: { id: project['id'] as string } };
  }
  const name = needed(project['name'], `${at}.name`);
  const domain = readDomain(project['domain'], `${at}.domain`);
  return { kind: 'project', project: { name, domain } };
}
