import assert from 'node:assert/strict';
import type { IdentityProvider, NamedId } from '../../api/identity.ts';
import type { IdentityHarness, Login, Scope } from '../conformance.ts';

/** One request to a Keystone API, wherever that is served. */
export type ApiCall = (request: {
  method: string;
  /** Below `/v3`, with its query. */
  path: string;
  headers: Record<string, string>;
  body?: unknown;
}) => Promise<{ status: number; headers: Record<string, string>; body: unknown }>;

export interface ApiHarnessOptions {
  provider: IdentityProvider;
  call: ApiCall;
  /** Somebody with the role admin on the whole system. */
  admin: { username: string; password: string; domain: string };
  /** Lets time pass; returns when it has. */
  advance: (ms: number) => Promise<void>;
}

type Fields = Record<string, unknown>;

const OK = [200, 201, 204];

/** Prepares what the suite needs through the API that both identity services serve. */
export async function createApiHarness(options: ApiHarnessOptions): Promise<IdentityHarness> {
  const { provider, admin } = options;

  const send = async (method: string, path: string, token: string, body?: unknown) => {
    const headers = { 'x-auth-token': token };
    const answer = await options.call({ method, path, headers, body });
    const said = JSON.stringify(answer.body);
    assert.ok(OK.includes(answer.status), `${method} ${path}: ${answer.status} ${said}`);
    return answer.body as Record<string, Fields>;
  };

  const issueToken = async (login: Login, scope?: Scope): Promise<string> => {
    const body = { auth: { identity: identityOf(login), ...scopeOf(scope) } };
    const path = '/auth/tokens?nocatalog';
    const answer = await options.call({ method: 'POST', path, headers: {}, body });
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    return answer.headers['x-subject-token'] ?? assert.fail('no token in the answer');
  };

  const login: Login = { method: 'password', ...admin };
  const adminToken = await issueToken(login, { system: true });
  const asAdmin = (method: string, path: string, body?: unknown) =>
    send(method, path, adminToken, body);
  const create = async (kind: string, fields: Fields): Promise<NamedId> => {
    const answer = await asAdmin('POST', `/${kind}s`, { [kind]: fields });
    const { id, name } = answer[kind] as unknown as NamedId;
    return { id, name };
  };
  const idOf = async (kind: string, name: string): Promise<string> => {
    const answer = await asAdmin('GET', `/${kind}s?name=${encodeURIComponent(name)}`);
    const found = (answer[`${kind}s`] as unknown as NamedId[]).find((item) => item.name === name);
    return found?.id ?? assert.fail(`no ${kind} "${name}"`);
  };

  const roleIds = new Map<string, string>();

  return {
    provider,
    domain: { id: await idOf('domain', admin.domain), name: admin.domain },
    createDomain: (name) => create('domain', { name }),
    createUser: (name, password, domainId) =>
      create('user', { name, password, domain_id: domainId }),
    createGroup: (name, domainId) => create('group', { name, domain_id: domainId }),
    async addToGroup(groupId, userId) {
      await asAdmin('PUT', `/groups/${groupId}/users/${userId}`);
    },
    async removeFromGroup(groupId, userId) {
      await asAdmin('DELETE', `/groups/${groupId}/users/${userId}`);
    },
    async assign({ kind, id, role, on, isInherited }) {
      const roleId = roleIds.get(role) ?? (await idOf('role', role));
      roleIds.set(role, roleId);
      const where = on === 'system' ? 'system' : `${on.kind}s/${on.id}`;
      const prefix = isInherited ? '/OS-INHERIT' : '';
      const suffix = isInherited ? '/inherited_to_projects' : '';
      await asAdmin('PUT', `${prefix}/${where}/${kind}s/${id}/roles/${roleId}${suffix}`);
    },
    async update(kind, id, changes) {
      await asAdmin('PATCH', `/${kind}s/${id}`, { [kind]: changes });
    },
    async remove(kind, id) {
      await asAdmin('DELETE', `/${kind}s/${id}`);
    },
    issueToken,
    async revokeToken(token) {
      const headers = { 'x-auth-token': adminToken, 'x-subject-token': token };
      const answer = await options.call({ method: 'DELETE', path: '/auth/tokens', headers });
      assert.equal(answer.status, 204, JSON.stringify(answer.body));
    },
    async createApplicationCredential(token, userId, wanted) {
      const { name, roles, accessRules } = wanted;
      const fields = {
        name,
        ...(roles ? { roles: roles.map((role) => ({ name: role })) } : {}),
        ...(accessRules ? { access_rules: accessRules } : {}),
      };
      const path = `/users/${userId}/application_credentials`;
      const answer = await send('POST', path, token, { application_credential: fields });
      const { id, secret } = answer['application_credential'] as { id: string; secret: string };
      return { id, secret };
    },
    async removeApplicationCredential(token, userId, id) {
      await send('DELETE', `/users/${userId}/application_credentials/${id}`, token);
    },
    advance: options.advance,
  };
}

function identityOf(login: Login): Fields {
  switch (login.method) {
    case 'password': {
      const { username: name, password, domain } = login;
      const user = { name, password, domain: { name: domain } };
      return { methods: ['password'], password: { user } };
    }
    case 'token':
      return { methods: ['token'], token: { id: login.token } };
    case 'application_credential': {
      const { id, secret } = login;
      return { methods: ['application_credential'], application_credential: { id, secret } };
    }
  }
}

function scopeOf(scope: Scope | undefined): Fields {
  if (scope === undefined) return {};
  if (scope === 'unscoped') return { scope: 'unscoped' };
  if ('system' in scope) return { scope: { system: { all: true } } };
  if ('domainId' in scope) return { scope: { domain: { id: scope.domainId } } };
  return { scope: { project: { id: scope.projectId } } };
}
