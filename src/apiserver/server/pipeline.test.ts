import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRbac } from '../../auth/rbac.ts';
import type { UserInfo } from '../../api/auth.ts';
import type { KubeList } from '../../api/object.ts';
import { NS, configMap, startHarness } from '../testing/harness.ts';
import type { Harness } from '../testing/harness.ts';

const RBAC = '/apis/rbac.authorization.k8s.io/v1';
const BOB: UserInfo = { name: 'bob', uid: '', groups: [], extra: {} };

async function startWithRbac(): Promise<Harness> {
  const rbac = createRbac();
  return startHarness({ authorizer: rbac, rbac });
}

/** Gives bob rules in the default namespace. */
async function allow(api: Harness, ...rules: object[]): Promise<void> {
  const path = `${RBAC}/namespaces/default`;
  await api.want('POST', `${path}/roles`, { metadata: { name: 'bob' }, rules });
  await api.want('POST', `${path}/rolebindings`, {
    metadata: { name: 'bob' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'bob' },
    subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'bob' }],
  });
}

test('a right to one name shows that name alone, by whatever path or selector', async () => {
  await using api = await startWithRbac();
  for (const name of ['mine', 'other']) await api.want('POST', `${NS}/configmaps`, configMap(name));
  await allow(api, {
    apiGroups: [''],
    resources: ['configmaps'],
    resourceNames: ['mine'],
    verbs: ['get', 'list', 'watch'],
  });
  const as = api.server.loopback(BOB);
  const list = (query: string) => api.send('GET', `${NS}/configmaps${query}`, undefined, { as });
  assert.equal((await list('')).code, 403);
  assert.equal((await list('?fieldSelector=metadata.name%3Dother')).code, 403);
  const mine = await list('?fieldSelector=metadata.name%3Dmine');
  assert.deepEqual(
    (mine.body as unknown as KubeList).items.map(({ metadata }) => metadata.name),
    ['mine'],
  );
  const sly = await list('?fieldSelector=metadata.name%3Dmine,metadata.name!%3Dmine');
  assert.equal((sly.body as unknown as KubeList).items.length, 0);
  const watcher = await api.watch('/api/v1/watch/namespaces/default/configmaps/mine', { as });
  assert.equal((await watcher.next()).object.metadata.name, 'mine');
  await api.want('POST', `${NS}/configmaps`, configMap('another'));
  const type = 'application/merge-patch+json';
  await api.want('PATCH', `${NS}/configmaps/mine`, { data: { k: 'v' } }, { type });
  assert.equal((await watcher.next()).object.metadata.name, 'mine');
  await watcher.stop();
  await as.close();
});

test('an update that would create needs the right to create', async () => {
  await using api = await startWithRbac();
  await allow(api, {
    apiGroups: ['coordination.k8s.io'],
    resources: ['leases'],
    verbs: ['get', 'update'],
  });
  const as = api.server.loopback(BOB);
  const path = '/apis/coordination.k8s.io/v1/namespaces/default/leases';
  const lease = { metadata: { name: 'l' }, spec: {} };
  const refused = await api.send('PUT', `${path}/l`, lease, { as });
  assert.equal(refused.code, 403);
  assert.match(refused.body.message ?? '', /cannot create resource "leases"/);
  assert.equal((await api.send('PUT', `${path}/l`, lease)).code, 201);
  await as.close();
});

test('impersonation acts as the other user, with the groups that are named', async () => {
  await using api = await startWithRbac();
  const headers = {
    'impersonate-user': 'alice',
    'impersonate-group': 'system:masters',
    'impersonate-extra-scopes': 'view',
    'impersonate-uid': '7',
  };
  const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
  const { status } = await api.want('POST', path, {}, { headers });
  assert.deepEqual((status as { userInfo: object }).userInfo, {
    username: 'alice',
    uid: '7',
    groups: ['system:masters', 'system:authenticated'],
    extra: { scopes: ['view'] },
  });
  const as = api.server.loopback(BOB);
  const refused = await api.send('POST', path, {}, { headers, as });
  assert.match(refused.body.message ?? '', /User "bob" cannot impersonate resource "users"/);
  const alone = { 'impersonate-group': 'system:masters' };
  assert.equal((await api.send('POST', path, {}, { headers: alone, as })).code, 400);
  await as.close();
});

test('every answer can be found again by its audit id, and failures are Statuses', async () => {
  await using api = await startWithRbac();
  const fine = await api.send('GET', '/version');
  assert.match(fine.headers['audit-id'] ?? '', /^[0-9a-f-]{36}$/);
  assert.equal((fine.body as Record<string, unknown>).minor, '35');
  const failed = await api.send('GET', `${NS}/pods/none`);
  assert.notEqual(failed.headers['audit-id'], fine.headers['audit-id']);
  assert.deepEqual(failed.body, {
    apiVersion: 'v1',
    kind: 'Status',
    metadata: {},
    status: 'Failure',
    message: 'pods "none" not found',
    reason: 'NotFound',
    details: { name: 'none', group: '', kind: 'pods' },
    code: 404,
  });
  const odd = await api.send('BREW', '/');
  assert.equal(odd.code, 405);
});

test('kinds and methods that somebody invents share one counter', async () => {
  await using api = await startHarness();
  for (let index = 0; index < 20; index += 1) {
    const letter = String.fromCharCode(97 + index);
    await api.send('GET', `${NS}/invented${letter}`);
    await api.send(`BREW${letter}`, `${NS}/pods`);
  }
  const { text } = await api.send('GET', '/metrics');
  assert.ok(!/invented|BREW/.test(text));
  assert.match(text, /resource="unknown",verb="list",code="404"\} 20$/m);
});

test('health, metrics, discovery and documents are there', async () => {
  await using api = await startHarness();
  for (const path of ['/healthz', '/livez', '/readyz']) {
    assert.equal((await api.send('GET', path)).text, 'ok');
  }
  assert.match((await api.send('GET', '/readyz?verbose')).text, /readyz check passed/);
  assert.match((await api.send('GET', '/metrics')).text, /^apiserver_request_total\{/m);
  const v2 = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';
  const all = await api.send('GET', '/apis', undefined, { headers: { accept: v2 } });
  assert.equal(all.headers['content-type'], v2);
  assert.equal(all.body.kind, 'APIGroupDiscoveryList');
  assert.equal((await api.send('GET', '/apis')).body.kind, 'APIGroupList');
  assert.equal((await api.send('GET', '/api')).body.kind, 'APIVersions');
  assert.equal((await api.send('GET', '/apis/apps/v1')).body.kind, 'APIResourceList');
  const index = await api.want<{ paths: Record<string, { serverRelativeURL: string }> }>(
    'GET',
    '/openapi/v3',
  );
  const url = index.paths['apis/apps/v1']?.serverRelativeURL ?? '';
  const document = await api.send('GET', url);
  assert.equal(document.headers['cache-control'], 'public, immutable');
  const again = { headers: { 'if-none-match': document.headers.etag ?? '' } };
  assert.equal((await api.send('GET', url, undefined, again)).code, 304);
});

test('rights in one namespace do not reach another by a path through it', async () => {
  await using api = await startWithRbac();
  await api.want('POST', '/api/v1/namespaces', { metadata: { name: 'other' } });
  await allow(api, { apiGroups: ['*'], resources: ['*'], verbs: ['*'] });
  const as = api.server.loopback(BOB);
  const through = `${NS}/namespaces`;
  const label = { metadata: { labels: { mine: 'yes' } } };
  const type = 'application/merge-patch+json';
  const attempts: [string, string, unknown?][] = [
    ['GET', through],
    ['GET', `${through}/other`],
    ['GET', `/api/v1/watch/namespaces/default/namespaces/other`],
    ['POST', through, { metadata: { name: 'new' } }],
    ['PATCH', `${through}/other`, label],
    ['PATCH', `${through}/other/status`, label],
    ['PUT', `${through}/other/finalize`, { metadata: { name: 'other' }, spec: {} }],
    ['DELETE', `${through}/other`],
    ['DELETE', through],
  ];
  for (const [method, path, body] of attempts) {
    const { code, text } = await api.send(method, path, body, { as, type });
    assert.ok(code === 404 || code === 405, `${method} ${path}: ${code} ${text}`);
  }
  const { metadata, status } = await api.want('GET', '/api/v1/namespaces/other');
  assert.equal(metadata.labels?.mine, undefined);
  assert.deepEqual(status, { phase: 'Active' });
  assert.equal((await api.send('GET', NS, undefined, { as })).code, 200);
  await as.close();
});

test('a right to create one name creates no other one', async () => {
  await using api = await startWithRbac();
  const resources = ['configmaps'];
  await allow(api, { apiGroups: [''], resources, resourceNames: ['mine'], verbs: ['*'] });
  const as = api.server.loopback(BOB);
  const sly = await api.send('POST', `${NS}/configmaps/mine`, configMap('other'), { as });
  assert.equal(sly.code, 405);
  assert.equal((await api.send('GET', `${NS}/configmaps/other`)).code, 404);
  await as.close();
});
