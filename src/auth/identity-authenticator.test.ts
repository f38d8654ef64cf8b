import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IdentityProvider, IdentityToken } from '../api/identity.ts';
import { IdentityUnavailableError } from '../api/identity.ts';
import { isStatus } from '../api/status.ts';
import { createIdentityAuthenticator } from './identity-authenticator.ts';

const DEFAULT = { id: 'default', name: 'Default' };
const PROJECT = { id: 'p1', name: 'acme', domain: DEFAULT, description: '', enabled: true };

const token = (changes: Partial<IdentityToken> = {}): IdentityToken => ({
  user: { id: 'u1', name: 'alice', domain: DEFAULT },
  methods: ['password'],
  issuedAtMs: 0,
  expiresAtMs: 1,
  scope: { kind: 'project', project: PROJECT },
  roles: ['member'],
  groups: [],
  ...changes,
});

function authenticator(answers: Record<string, IdentityToken | Error>) {
  const provider = {
    recognises: (text: string) => text.startsWith('hn-'),
    validate: (text: string) => {
      const answer = answers[text];
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
  };
  return createIdentityAuthenticator({
    provider: provider as unknown as IdentityProvider,
    tenantOfProject: ({ id }) => Promise.resolve(id === 'p1' ? 'acme' : undefined),
  });
}

const REQUEST = { method: 'GET', path: '/api/v1/namespaces/acme/pods' };

test('a token of a project acts in its tenant, with its role and those below', async () => {
  const { authenticate } = authenticator({ 'hn-1': token() });
  const found = await authenticate({ ...REQUEST, bearerToken: 'hn-1' });
  assert.deepEqual(found?.user, {
    name: 'alice@Default',
    uid: 'u1',
    tenant: 'acme',
    groups: ['tenant:acme', 'tenant:acme:member', 'tenant:acme:reader'],
    extra: { 'hypernetes.io/roles': ['member'], 'hypernetes.io/project-id': ['p1'] },
  });
});

test('a token of the system is an operator, if its role is', async () => {
  const { authenticate } = authenticator({
    'hn-admin': token({ scope: { kind: 'system' }, roles: ['admin', 'reader'] }),
    'hn-reader': token({ scope: { kind: 'system' }, roles: ['reader'] }),
    'hn-none': token({ scope: { kind: 'system' }, roles: ['other'] }),
  });
  const groupsOf = async (text: string) => {
    const found = await authenticate({ ...REQUEST, bearerToken: text });
    assert.equal(found?.user.tenant, undefined);
    return found?.user.groups;
  };
  assert.deepEqual(await groupsOf('hn-admin'), [
    'hypernetes:operators',
    'hypernetes:operator-readers',
  ]);
  assert.deepEqual(await groupsOf('hn-reader'), ['hypernetes:operator-readers']);
  assert.deepEqual(await groupsOf('hn-none'), []);
});

test('what the identity service calls somebody never makes them somebody of ours', async () => {
  const hostile = (name: string) => token({ user: { id: 'u', name, domain: DEFAULT } });
  const groups = ['system:masters', 'tenant:globex', 'hypernetes:operators', 'devs'];
  const { authenticate } = authenticator({
    'hn-1': hostile('system:kube-scheduler'),
    'hn-2': hostile('tenant:globex'),
    'hn-4': token({ user: { id: 'u', name: 'a', domain: { id: 'd', name: 'b@Default' } } }),
    'hn-3': token({ groups: groups.map((name) => ({ name, domain: 'Default' })) }),
  });
  for (const bearerToken of ['hn-1', 'hn-2', 'hn-4']) {
    const refused = authenticate({ ...REQUEST, bearerToken });
    await assert.rejects(refused, (error) => isStatus(error, 'Unauthorized'));
  }
  const found = await authenticate({ ...REQUEST, bearerToken: 'hn-3' });
  const kept = found?.user.groups.filter((group) => group.endsWith('@Default'));
  assert.deepEqual(kept, ['devs@Default']);
});

test('tokens that are invalid, unscoped, or of a project without tenant are refused by cause', async () => {
  const unknown = { ...PROJECT, id: 'p2', name: 'other' };
  const { authenticate } = authenticator({
    'hn-unscoped': token({ scope: { kind: 'unscoped' } }),
    'hn-domain': token({ scope: { kind: 'domain', domain: DEFAULT } }),
    'hn-other': token({ scope: { kind: 'project', project: unknown } }),
    'hn-away': new IdentityUnavailableError('connection refused'),
  });
  const refusal = async (bearerToken: string) => {
    const error = await authenticate({ ...REQUEST, bearerToken }).catch((thrown: Error) => thrown);
    return error instanceof Error ? error.message : 'accepted';
  };
  assert.match(await refusal('hn-none'), /invalid, expired or revoked/);
  assert.match(await refusal('hn-unscoped'), /not scoped: scope it to a project/);
  assert.match(await refusal('hn-domain'), /scoped to a domain: scope it to a project/);
  assert.match(await refusal('hn-other'), /no tenant for the project "other"/);
  assert.match(await refusal('hn-away'), /cannot be reached/);
  const away = authenticate({ ...REQUEST, bearerToken: 'hn-away' });
  await assert.rejects(away, (error) => isStatus(error, 'ServiceUnavailable'));
  assert.equal(await authenticate({ ...REQUEST, bearerToken: 'eyJ.x.y' }), undefined);
  const review = { ...REQUEST, bearerToken: 'hn-other', audiences: ['vault'] };
  assert.equal(await authenticate(review), undefined);
});

test('access rules of an application credential hold', async () => {
  const allows = async (path: string, service = 'kubernetes', method = 'GET') => {
    const accessRules = [{ service, method, path }];
    const { authenticate } = authenticator({ 'hn-1': token({ accessRules }) });
    const answer = authenticate({ ...REQUEST, bearerToken: 'hn-1' });
    return answer.then(
      () => true,
      (error) => !isStatus(error, 'Forbidden'),
    );
  };
  for (const path of [
    REQUEST.path,
    '/**',
    '/api/**',
    '/api/v1/namespaces/*/pods',
    '/api/{version}/namespaces/{namespace}/pods',
    '/**/pods',
  ]) {
    assert.equal(await allows(path), true, path);
  }
  for (const path of ['/api', '/api/*', '/api/v1/namespaces/acme', '/*/pods', '/**/secrets']) {
    assert.equal(await allows(path), false, path);
  }
  assert.equal(await allows('/**', 'compute'), false);
  assert.equal(await allows('/**', 'kubernetes', 'DELETE'), false);
  assert.equal(await allows('/**'.repeat(80) + '/nothing'), false);
});
