import { IdentityUnavailableError } from '../../api/identity.ts';
import type { IdentityToken, NamedId } from '../../api/identity.ts';

/*
 * Keystone's answers, read strictly: a field that is missing or of another type makes the whole
 * answer unusable, and never a token without a user or a project without a name.
 */

/** Longest text of a name, id or description. Keystone's own limit is 255, of descriptions none. */
const TEXT_LENGTH_MAX = 65_536;
const NAME_LENGTH_MAX = 255;
const ITEMS_MAX = 100_000;
/** Roles, groups and access rules of one token. */
const TOKEN_ITEMS_MAX = 4096;

/** Keystone's ids: 32 or 64 hexadecimal digits, `default`, or what a driver makes up. */
const ID = /^[\w.-]{1,64}$/;

export type Fields = Record<string, unknown>;

/** Whether a text can be an id in a path. */
export const isId = (id: string): boolean => ID.test(id) && !/^\.+$/.test(id);

function nonsense(path: string, wanted: string): IdentityUnavailableError {
  return new IdentityUnavailableError(
    `Cannot use Keystone's answer: field "${path}" is not ${wanted}`,
  );
}

export function fields(value: unknown, path: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw nonsense(path, 'an object');
  }
  return value as Fields;
}

export function list(value: unknown, path: string, max = ITEMS_MAX): unknown[] {
  if (!Array.isArray(value) || value.length > max) {
    throw nonsense(path, `a list of up to ${max} items`);
  }
  return value;
}

function text(value: unknown, path: string, max = NAME_LENGTH_MAX): string {
  if (typeof value !== 'string' || value === '' || value.length > max) {
    throw nonsense(path, `a text of 1 to ${max} characters`);
  }
  return value;
}

export function id(value: unknown, path: string): string {
  if (typeof value !== 'string' || !isId(value)) throw nonsense(path, 'an id');
  return value;
}

function flag(value: unknown, path: string): boolean {
  if (typeof value !== 'boolean') throw nonsense(path, 'true or false');
  return value;
}

/** ISO 8601 in UTC, as Keystone writes it: `2026-01-01T00:00:00.000000Z`. */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/;

function time(value: unknown, path: string): number {
  const ms = typeof value === 'string' && TIME.test(value) ? Date.parse(value) : NaN;
  if (Number.isNaN(ms)) throw nonsense(path, 'a time in UTC');
  return ms;
}

export function namedId(value: unknown, path: string): NamedId {
  const item = fields(value, path);
  return { id: id(item['id'], `${path}.id`), name: text(item['name'], `${path}.name`) };
}

const isAbsent = (value: unknown): boolean => value === undefined || value === null;

/** A token as Keystone describes it; its project without what only the project's own page says. */
export interface RawToken extends Omit<IdentityToken, 'scope' | 'groups'> {
  scope:
    | { kind: 'project'; project: NamedId & { domain: NamedId } }
    | { kind: 'domain'; domain: NamedId }
    | { kind: 'system' }
    | { kind: 'unscoped' };
}

/** @param body of `GET` or `POST /auth/tokens` */
export function parseToken(body: unknown): RawToken {
  const token = fields(fields(body, '')['token'], 'token');
  const user = fields(token['user'], 'token.user');
  const domain = namedId(user['domain'], 'token.user.domain');
  const scope = parseScope(token);
  const roles = isAbsent(token['roles'])
    ? []
    : list(token['roles'], 'token.roles', TOKEN_ITEMS_MAX).map(
        (role) => namedId(role, 'token.roles[]').name,
      );
  const methods = list(token['methods'], 'token.methods', TOKEN_ITEMS_MAX);
  return {
    user: { ...namedId(user, 'token.user'), domain },
    methods: methods.map((method) => text(method, 'token.methods[]')),
    issuedAtMs: time(token['issued_at'], 'token.issued_at'),
    expiresAtMs: time(token['expires_at'], 'token.expires_at'),
    scope,
    roles: scope.kind === 'unscoped' ? [] : [...new Set(roles)],
    ...parseApplicationCredential(token['application_credential']),
  };
}

function parseScope(token: Fields): RawToken['scope'] {
  const kinds = ['project', 'domain', 'system'].filter((kind) => !isAbsent(token[kind]));
  if (kinds.length > 1) throw nonsense('token', `scoped to one of ${kinds.join(', ')}`);
  switch (kinds[0]) {
    case 'project': {
      const project = namedId(token['project'], 'token.project');
      // A domain may act as a project; such a project has no domain above it.
      if (token['is_domain'] === true) return { kind: 'domain', domain: project };
      const above = fields(token['project'], 'token.project')['domain'];
      const domain = namedId(above, 'token.project.domain');
      return { kind: 'project', project: { ...project, domain } };
    }
    case 'domain':
      return { kind: 'domain', domain: namedId(token['domain'], 'token.domain') };
    case 'system':
      if (fields(token['system'], 'token.system')['all'] !== true) {
        throw nonsense('token.system.all', 'true');
      }
      return { kind: 'system' };
    default:
      return { kind: 'unscoped' };
  }
}

function parseApplicationCredential(
  value: unknown,
): Pick<IdentityToken, 'applicationCredentialId' | 'accessRules'> {
  if (isAbsent(value)) return {};
  const path = 'token.application_credential';
  const credential = fields(value, path);
  const applicationCredentialId = id(credential['id'], `${path}.id`);
  if (isAbsent(credential['access_rules'])) return { applicationCredentialId };
  const rules = list(credential['access_rules'], `${path}.access_rules`, TOKEN_ITEMS_MAX);
  return {
    applicationCredentialId,
    accessRules: rules.map((item) => {
      const rule = fields(item, `${path}.access_rules[]`);
      return {
        service: text(rule['service'], `${path}.access_rules[].service`),
        method: text(rule['method'], `${path}.access_rules[].method`),
        path: text(rule['path'], `${path}.access_rules[].path`),
      };
    }),
  };
}

/** A project whose domain is known by id alone. */
export interface RawProject extends NamedId {
  domainId: string;
  parentId?: string;
  description: string;
  enabled: boolean;
}

/** @returns undefined for a domain that acts as a project */
export function parseProject(value: unknown): RawProject | undefined {
  const project = fields(value, 'project');
  if (project['is_domain'] === true) return undefined;
  const domainId = id(project['domain_id'], 'project.domain_id');
  const parent = project['parent_id'];
  const description = project['description'];
  return {
    ...namedId(project, 'project'),
    domainId,
    ...(isAbsent(parent) || parent === domainId
      ? {}
      : { parentId: id(parent, 'project.parent_id') }),
    description:
      isAbsent(description) || description === ''
        ? ''
        : text(description, 'project.description', TEXT_LENGTH_MAX),
    enabled: flag(project['enabled'], 'project.enabled'),
  };
}

/** @param body of `GET /users/{id}/groups` */
export function parseGroups(body: unknown): { name: string; domainId: string }[] {
  return list(fields(body, '')['groups'], 'groups', TOKEN_ITEMS_MAX).map((item) => {
    const group = fields(item, 'groups[]');
    return {
      name: text(group['name'], 'groups[].name'),
      domainId: id(group['domain_id'], 'groups[].domain_id'),
    };
  });
}

export interface RawAssignment {
  kind: 'User' | 'Group';
  name: string;
  domain: string;
  role: string;
}

/**
 * Assignments on one project itself: what it only hands down to projects below is not among
 * them, nor what belongs to somebody who is gone (whose names are then empty).
 * @param body of `GET /role_assignments?include_names`
 */
export function parseAssignments(body: unknown): RawAssignment[] {
  const items = list(fields(body, '')['role_assignments'], 'role_assignments');
  return items.flatMap((item) => {
    const assignment = fields(item, 'role_assignments[]');
    const scope = fields(assignment['scope'], 'role_assignments[].scope');
    if (!isAbsent(scope['OS-INHERIT:inherited_to'])) return [];
    const kind = isAbsent(assignment['user']) ? 'Group' : 'User';
    const path = `role_assignments[].${kind.toLowerCase()}`;
    const who = fields(assignment[kind.toLowerCase()], path);
    if (who['name'] === '') return [];
    const role = namedId(assignment['role'], 'role_assignments[].role').name;
    const domain = namedId(who['domain'], `${path}.domain`).name;
    return [{ kind, name: namedId(who, path).name, domain, role }];
  });
}
