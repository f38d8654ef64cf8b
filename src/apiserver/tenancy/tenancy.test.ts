import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../api/object.ts';
import type { Transport } from '../../client/transport.ts';
import { configMap } from '../testing/harness.ts';
import { startTenantHarness, tenant } from '../testing/tenants.ts';
import type { TenantHarness } from '../testing/tenants.ts';

const TENANTS = '/apis/hypernetes.io/v1/tenants';
const NAMESPACES = '/api/v1/namespaces';
const MERGE = { type: 'application/merge-patch+json' };

const namespace = (name: string, owner?: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name, ...(owner ? { labels: { 'hypernetes.io/tenant': owner } } : {}) },
});

/** acme and globex, each with two namespaces and a ConfigMap in each. */
async function twoTenants(nodes?: 'hidden' | 'sanitised') {
  const api = await startTenantHarness(nodes);
  const { metadata } = await api.want('GET', '/api/v1/configmaps');
  const people: Record<string, Transport> = {};
  for (const name of ['acme', 'globex']) {
    await api.createTenant(name);
    const as = (people[name] = api.as(name));
    for (const each of [name, `${name}-web`]) {
      await api.want('POST', NAMESPACES, namespace(each), { as });
      await api.want('POST', `${NAMESPACES}/${each}/configmaps`, configMap('settings'), { as });
    }
  }
  const [acme, globex] = [people.acme as Transport, people.globex as Transport];
  return { api, acme, globex, before: metadata.resourceVersion };
}

const namesIn = (items: KubeObject[] | undefined) =>
  (items ?? []).map(({ metadata }) =>
    [metadata.namespace, metadata.name].filter(Boolean).join('/'),
  );

async function list(api: TenantHarness, target: string, as: Transport): Promise<string[]> {
  const answer = await api.send('GET', target, undefined, { as });
  assert.equal(answer.code, 200, answer.text);
  return namesIn(answer.body.items);
}

test('lists over everything show a tenant its own, page by page and at old revisions', async () => {
  const { api, acme, globex } = await twoTenants();
  await using _ = api;
  assert.deepEqual(await list(api, NAMESPACES, acme), ['acme', 'acme-web']);
  assert.deepEqual(await list(api, '/api/v1/configmaps', acme), [
    'acme/settings',
    'acme-web/settings',
  ]);
  const first = await api.want<{ metadata: Record<string, unknown>; items: KubeObject[] }>(
    'GET',
    '/api/v1/configmaps?limit=1',
    undefined,
    { as: acme },
  );
  assert.deepEqual(namesIn(first.items), ['acme/settings']);
  assert.equal(first.metadata.remainingItemCount, 1);
  const token = String(first.metadata.continue);
  const next = `/api/v1/configmaps?limit=10&continue=${encodeURIComponent(token)}`;
  assert.deepEqual(await list(api, next, acme), ['acme-web/settings']);
  // Somebody else's place to go on from shows nobody else's objects.
  assert.deepEqual(await list(api, next, globex), ['globex/settings', 'globex-web/settings']);
  const old = `/api/v1/configmaps?resourceVersion=${first.metadata.resourceVersion}&resourceVersionMatch=Exact`;
  assert.deepEqual(await list(api, old, acme), ['acme/settings', 'acme-web/settings']);
  assert.equal((await list(api, '/api/v1/configmaps', api.transport)).length, 4);
});

test('watches show a tenant its own, from now and from the past', async () => {
  const { api, acme, globex, before } = await twoTenants();
  await using _ = api;
  const events: string[] = [];
  const watcher = await api.watch(`/api/v1/configmaps?watch=true&resourceVersion=${before}`, {
    as: acme,
  });
  await api.want('POST', `${NAMESPACES}/globex/configmaps`, configMap('late'), { as: globex });
  await api.want('DELETE', `${NAMESPACES}/globex/configmaps/settings`, undefined, { as: globex });
  await api.want('POST', `${NAMESPACES}/acme/configmaps`, configMap('late'), { as: acme });
  while (!events.includes('ADDED acme/late')) {
    const { type, object } = await watcher.next();
    events.push(`${type} ${object.metadata.namespace}/${object.metadata.name}`);
  }
  await watcher.stop();
  assert.deepEqual(events, ['ADDED acme/settings', 'ADDED acme-web/settings', 'ADDED acme/late']);
});

test('what is anothers is refused in the words for what does not exist', async () => {
  const { api, acme } = await twoTenants();
  await using _ = api;
  const answers = async (method: string, target: (name: string) => string, body?: unknown) => {
    const [there, absent] = await Promise.all(
      ['globex', 'nobody'].map(async (name) => {
        const answer = await api.send(method, target(name), body, { as: acme, ...MERGE });
        return { code: answer.code, text: answer.text.replaceAll(name, 'NAME') };
      }),
    );
    assert.deepEqual(there, absent, `${method} ${target('…')}`);
    assert.equal(there?.code, 403);
  };
  await answers('GET', (name) => `${NAMESPACES}/${name}`);
  await answers('DELETE', (name) => `${NAMESPACES}/${name}`);
  await answers('PATCH', (name) => `${NAMESPACES}/${name}`, { metadata: { labels: { a: 'b' } } });
  await answers('GET', (name) => `${NAMESPACES}/${name}/configmaps`);
  await answers('GET', (name) => `${NAMESPACES}/${name}/configmaps/settings`);
  await answers('GET', (name) => `${NAMESPACES}/${name}/configmaps?watch=true`);
  await answers('DELETE', (name) => `${NAMESPACES}/${name}/configmaps`);
  await answers('GET', (name) => `${TENANTS}/${name}`);
  await answers('GET', (name) => `${NAMESPACES}?fieldSelector=metadata.name%3D${name}`);
});

test('a namespace belongs to the tenant whose user makes it, for ever', async () => {
  const { api, acme } = await twoTenants();
  await using _ = api;
  const made = await api.want('GET', `${NAMESPACES}/acme`, undefined, { as: acme });
  assert.equal(made.metadata.labels?.['hypernetes.io/tenant'], 'acme');
  const create = (object: KubeObject, as?: Transport) =>
    api.send('POST', NAMESPACES, object, as ? { as } : {});
  const refusals: [KubeObject, RegExp, Transport?][] = [
    [namespace('acme-x', 'globex'), /has to be "acme"/, acme],
    [namespace('globex-x'), /called "acme" or "acme-…"/, acme],
    [namespace('kube-public'), /called "acme" or "acme-…"/, acme],
    [namespace('acme-y'), /the name is one of the tenant "acme"/],
    [namespace('other', 'acme'), /called "acme" or "acme-…"/],
    [namespace('other', 'nobody'), /there is no tenant "nobody"/],
  ];
  for (const [object, message, as] of refusals) {
    const answer = await create(object, as);
    assert.equal(answer.code, 403, answer.text);
    assert.match(answer.body.message ?? '', message);
  }
  const steal = { metadata: { labels: { 'hypernetes.io/tenant': 'globex' } } };
  for (const as of [acme, api.transport]) {
    const target = `${NAMESPACES}/acme`;
    for (const path of [target, `${target}/status`]) {
      const answer = await api.send('PATCH', path, steal, { as, ...MERGE });
      assert.equal(answer.code, 403, `${path}: ${answer.text}`);
    }
  }
});

test('sub-tenants are below their parent, by name and in every right', async () => {
  const { api, acme, globex } = await twoTenants();
  await using _ = api;
  await api.want('POST', TENANTS, tenant('acme-dev'), { as: acme });
  assert.deepEqual(await list(api, TENANTS, acme), ['acme', 'acme-dev']);
  assert.deepEqual(await list(api, TENANTS, api.as('acme-dev')), ['acme-dev']);
  assert.deepEqual(await list(api, TENANTS, globex), ['globex']);
  const refusals: [KubeObject, RegExp, Transport?][] = [
    [tenant('globex-a', { parent: 'globex' }), /has to be "acme" or a tenant below it/, acme],
    [tenant('acme-a', { projectID: 'p' }), /chosen by the operator alone/, acme],
    [tenant('acme-web'), /has namespaces of that name/, acme],
    [tenant('acme-top'), /would be those of the tenant "acme"/],
    [tenant('kube'), /namespaces called "kube" or "kube-…" already/],
    [tenant('glo', { parent: 'nobody' }), /spec.parent/],
    [tenant('nobody-x', { parent: 'nobody' }), /there is no tenant "nobody"/],
  ];
  for (const [object, message, as] of refusals) {
    const answer = await api.send('POST', TENANTS, object, as ? { as } : {});
    assert.ok(answer.code === 403 || answer.code === 422, answer.text);
    assert.match(answer.body.message ?? '', message);
  }
  const change = async (name: string, spec: object, as: Transport) =>
    (await api.send('PATCH', `${TENANTS}/${name}`, { spec }, { as, ...MERGE })).code;
  assert.equal(await change('acme', { quota: { hard: { pods: '9' } } }, acme), 403);
  assert.equal(await change('acme', { displayName: 'Acme' }, acme), 200);
  assert.equal(await change('acme-dev', { quota: { hard: { pods: '9' } } }, acme), 200);
  assert.equal(await change('acme-dev', { parent: 'globex' }, api.transport), 422);
  const deleted = (name: string, as: Transport) =>
    api.send('DELETE', `${TENANTS}/${name}`, undefined, { as });
  assert.equal((await deleted('acme', acme)).code, 403);
  assert.equal((await deleted('acme-dev', acme)).code, 200);
});

test('what is shared is what a tenant may use, and nodes are shown in part or not at all', async () => {
  const { api, acme } = await twoTenants('sanitised');
  await using _ = api;
  const storageClass = (name: string) => ({ metadata: { name }, provisioner: 'example.org/disk' });
  const classes = '/apis/storage.k8s.io/v1/storageclasses';
  for (const name of ['fast', 'slow']) await api.want('POST', classes, storageClass(name));
  assert.deepEqual(await list(api, classes, acme), ['fast', 'slow']);
  const spec = { allowed: { storageClasses: ['slow'] } };
  await api.want('PATCH', `${TENANTS}/acme`, { spec }, MERGE);
  assert.deepEqual(await list(api, classes, acme), ['slow']);
  assert.equal((await api.send('GET', `${classes}/fast`, undefined, { as: acme })).code, 404);
  const claim = {
    metadata: { name: 'data' },
    spec: {
      accessModes: ['ReadWriteOnce'],
      storageClassName: 'fast',
      resources: { requests: { storage: '1Gi' } },
    },
  };
  const refused = await api.send('POST', `${NAMESPACES}/acme/persistentvolumeclaims`, claim, {
    as: acme,
  });
  assert.match(refused.body.message ?? '', /spec.storageClassName: the tenant may not use "fast"/);

  const node = {
    metadata: { name: 'n1', labels: { secret: 'yes', 'kubernetes.io/arch': 'amd64' } },
    spec: { podCIDR: '10.0.0.0/24' },
    status: { capacity: { cpu: '64' }, images: [{ names: ['globex/app'], sizeBytes: 1 }] },
  };
  await api.want('POST', '/api/v1/nodes', node);
  const shown = await api.send('GET', '/api/v1/nodes', undefined, { as: acme });
  for (const hidden of ['secret', '10.0.0.0', '"cpu"', 'globex']) {
    assert.ok(!shown.text.includes(hidden), `${hidden} in ${shown.text}`);
  }
  assert.deepEqual(await list(api, '/api/v1/nodes?labelSelector=secret%3Dyes', acme), []);
  const roles = '/apis/rbac.authorization.k8s.io/v1/clusterroles';
  const names = await list(api, roles, acme);
  assert.deepEqual(names, ['admin', 'cluster-admin', 'edit', 'view']);
});

test('a suspended tenant changes nothing; its sub-tenants neither', async () => {
  const { api, acme } = await twoTenants();
  await using _ = api;
  await api.want('POST', TENANTS, tenant('acme-dev'), { as: acme });
  await api.want('PATCH', `${TENANTS}/acme`, { spec: { suspended: true } }, MERGE);
  const dev = api.as('acme-dev');
  for (const as of [acme, dev]) {
    const answer = await api.send('POST', NAMESPACES, namespace('acme-dev-a'), { as });
    assert.match(answer.body.message ?? '', /tenant "acme(-dev)?" is suspended/);
  }
  assert.deepEqual(await list(api, '/api/v1/configmaps', acme), [
    'acme/settings',
    'acme-web/settings',
  ]);
});

test('rights inside a tenant work as always, and name nobody outside', async () => {
  const { api, acme } = await twoTenants();
  await using _ = api;
  const rbac = '/apis/rbac.authorization.k8s.io/v1';
  const binding = {
    metadata: { name: 'readers' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'view' },
    subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'admin@globex' }],
  };
  const path = `${rbac}/namespaces/acme/rolebindings`;
  await api.want('POST', path, binding, { as: acme });
  const read = `${NAMESPACES}/acme/configmaps`;
  assert.equal((await api.send('GET', read, undefined, { as: api.as('globex') })).code, 403);
  const accounts = `${NAMESPACES}/acme/serviceaccounts`;
  const acting = { 'impersonate-user': 'system:serviceaccount:acme:robot' };
  await api.want('POST', accounts, { metadata: { name: 'robot' } }, { as: acme });
  const who = await api.want<{ status: { userInfo: { username: string } } }>(
    'POST',
    '/apis/authentication.k8s.io/v1/selfsubjectreviews',
    {},
    { as: acme, headers: acting },
  );
  assert.equal(who.status.userInfo.username, 'system:serviceaccount:acme:robot');
  for (const user of ['system:serviceaccount:globex:default', 'admin', 'system:kube-scheduler']) {
    const headers = { 'impersonate-user': user };
    const answer = await api.send('GET', NAMESPACES, undefined, { as: acme, headers });
    assert.equal(answer.code, 403, user);
  }
  const operatorActs = { 'impersonate-user': 'bob@x', 'impersonate-group': 'tenant:acme:admin' };
  const seen = await api.send('GET', NAMESPACES, undefined, { headers: operatorActs });
  assert.deepEqual(namesIn(seen.body.items), ['acme', 'acme-web']);
});

test('an object of a tenant has a bounded number of fields and items', async () => {
  const { api, acme } = await twoTenants();
  await using _ = api;
  const data = Object.fromEntries(Array.from({ length: 10_001 }, (_, index) => [`k${index}`, '']));
  const path = `${NAMESPACES}/acme/configmaps`;
  const large = { ...configMap('large'), data };
  const refused = await api.send('POST', path, large, { as: acme });
  assert.equal(refused.code, 413);
  assert.match(refused.body.message ?? '', /at most 10000 fields and items/);
  await api.want('POST', path, large);
  assert.equal(
    (await api.send('PATCH', `${path}/settings`, { data }, { as: acme, ...MERGE })).code,
    413,
  );
});

test('owners, events, addresses and classes lie inside of the tenant', async () => {
  const { api, acme } = await twoTenants();
  await using _ = api;
  const refuse = async (path: string, body: object, message: RegExp) => {
    const answer = await api.send('POST', `${NAMESPACES}/acme/${path}`, body, { as: acme });
    assert.equal(answer.code, 403, answer.text);
    assert.match(answer.body.message ?? '', message);
  };
  const owner = { apiVersion: 'v1', kind: 'Node', name: 'n1', uid: 'x' };
  const metadata = { name: 'x', ownerReferences: [owner] };
  await refuse('configmaps', { metadata }, /not owned by a Node/);
  const involvedObject = { kind: 'Pod', namespace: 'globex', name: 'p' };
  await refuse(
    'events',
    { metadata: { name: 'x' }, involvedObject },
    /has to be that of the event/,
  );
  const spec = { externalIPs: ['192.0.2.1'], ports: [{ port: 80 }] };
  await refuse('services', { metadata: { name: 'x' }, spec }, /do not choose addresses of nodes/);
});
