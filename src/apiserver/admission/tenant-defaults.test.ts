import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../api/object.ts';
import type { TenantSpec } from '../../api/tenancy.ts';
import { pod } from '../testing/harness.ts';
import { startTenantHarness, tenant } from '../testing/tenants.ts';

const TENANTS = '/apis/hypernetes.io/v1/tenants';
const NAMESPACES = '/api/v1/namespaces';
const SUSPENDED = 'hypernetes.io/suspended';
const MERGE = { type: 'application/merge-patch+json' };

async function acme(spec: TenantSpec = {}) {
  const api = await startTenantHarness();
  await api.createTenant('acme', spec);
  const as = api.as('acme');
  const namespace = await api.want('POST', NAMESPACES, { metadata: { name: 'acme' } }, { as });
  const account = { metadata: { name: 'default' } };
  await api.want('POST', `${NAMESPACES}/acme/serviceaccounts`, account);
  return { api, as, namespace, pods: `${NAMESPACES}/acme/pods` };
}

test('pods and namespaces of a tenant get what it has as its defaults', async () => {
  const { api, as, namespace, pods } = await acme({
    defaults: {
      runtimeClassName: 'small',
      resources: { cpu: '100m', memory: '64Mi' },
      podSecurity: 'baseline',
    },
  });
  await using _ = api;
  assert.equal(namespace.metadata.labels?.['pod-security.kubernetes.io/enforce'], 'baseline');
  const overhead = { podFixed: { memory: '40Mi' } };
  const runtimeClass = { metadata: { name: 'small' }, handler: 'vm', overhead };
  await api.want('POST', '/apis/node.k8s.io/v1/runtimeclasses', runtimeClass);
  const containers = [
    { name: 'a', image: 'x' },
    { name: 'b', image: 'x', resources: { limits: { cpu: '2' }, requests: { memory: '1Gi' } } },
  ];
  const made = await api.want('POST', pods, pod('p', { spec: { containers } }), { as });
  const spec = made.spec as {
    runtimeClassName: string;
    overhead: unknown;
    containers: { resources: { requests: unknown } }[];
  };
  assert.equal(spec.runtimeClassName, 'small');
  assert.deepEqual(spec.overhead, overhead.podFixed);
  assert.deepEqual(
    spec.containers.map(({ resources }) => resources.requests),
    [
      { cpu: '100m', memory: '64Mi' },
      { cpu: '2', memory: '1Gi' },
    ],
  );
});

test('pods say whose they are, and nobody else makes them say it', async () => {
  const { api, as, pods } = await acme();
  await using _ = api;
  const forged = { 'hypernetes.io/tenant': 'other', mine: 'x' };
  const made = await api.want('POST', pods, pod('a', { metadata: { annotations: forged } }), {
    as,
  });
  const said = { 'hypernetes.io/tenant': 'acme', mine: 'x' };
  const { ['hypernetes.io/tenant']: tenant, mine } = made.metadata.annotations ?? {};
  assert.deepEqual({ 'hypernetes.io/tenant': tenant, mine }, said);
  const removal = { metadata: { annotations: { 'hypernetes.io/tenant': null } } };
  const changed = await api.want('PATCH', `${pods}/a`, removal, { as, ...MERGE });
  assert.equal(changed.metadata.annotations?.['hypernetes.io/tenant'], 'acme');
  const free = `${NAMESPACES}/default/pods`;
  const operators = await api.want('POST', free, pod('a', { metadata: { annotations: forged } }));
  assert.equal(operators.metadata.annotations?.['hypernetes.io/tenant'], undefined);
});

test('pods say that their tenant is suspended, and nobody else makes them say it', async () => {
  const { api, as, pods } = await acme();
  await using _ = api;
  const annotated = pod('a', { metadata: { annotations: { [SUSPENDED]: 'forged' } } });
  await api.want('POST', pods, annotated, { as });
  const said = async (name: string) =>
    (await api.want('GET', `${pods}/${name}`)).metadata.annotations?.[SUSPENDED];
  assert.equal(await said('a'), undefined);
  const suspend = (suspended: boolean) =>
    api.want('PATCH', `${TENANTS}/acme`, { spec: { suspended } }, MERGE);
  await suspend(true);
  await api.want('POST', pods, pod('b'));
  const now = new Date(api.clock.nowMs()).toISOString();
  assert.equal(await said('b'), now);
  const touch = (name: string, value: string | null) => {
    const metadata = { annotations: { [SUSPENDED]: value } };
    return api.want('PATCH', `${pods}/${name}/status`, { metadata }, MERGE);
  };
  await touch('a', 'whatever');
  await touch('b', null);
  assert.deepEqual([await said('a'), await said('b')], [now, now]);
  await suspend(false);
  await touch('a', 'whatever');
  assert.equal(await said('a'), undefined);
});

test('a tenant does not go before what it has, whoever takes its finalizer away', async () => {
  const { api, as, pods } = await acme();
  await using _ = api;
  await api.want('POST', TENANTS, tenant('acme-dev'), { as });
  await api.want('POST', pods, pod('a'), { as });
  const free = (name: string, who = api.transport) =>
    api.send(
      'PATCH',
      `${TENANTS}/${name}`,
      { metadata: { finalizers: null } },
      {
        ...MERGE,
        as: who,
      },
    );
  const kept = await free('acme');
  assert.deepEqual(kept.body.metadata?.finalizers, ['hypernetes.io/tenant']);
  for (const name of ['acme-dev', 'acme']) {
    assert.equal((await api.send('DELETE', `${TENANTS}/${name}`)).code, 200);
    assert.equal((await api.send('DELETE', `${TENANTS}/${name}`)).code, 200, 'twice');
  }
  assert.match((await free('acme-dev', as)).text, /is the system's to remove/);
  const refused = await free('acme');
  assert.match(refused.text, /still has 1 namespaces, 1 pods, 1 serviceaccounts, 1 sub-tenants/);
  assert.match((await api.send('POST', pods, pod('b'))).text, /"acme\\" is being deleted/);
  assert.equal((await free('acme-dev')).code, 200);
  assert.equal((await api.send('GET', `${TENANTS}/acme-dev`)).code, 404);
});

test("a sub-tenant uses no class that is not everybody's above it", async () => {
  const { api, as } = await acme({ allowed: { runtimeClasses: ['a', 'b'] } });
  await using _ = api;
  const create = (
    name: string,
    runtimeClasses: string[] | undefined,
  ): Promise<{ text: string; code: number }> =>
    api.send('POST', TENANTS, tenant(name, runtimeClasses ? { allowed: { runtimeClasses } } : {}), {
      as,
    });
  assert.match((await create('acme-x', ['a', 'c'])).text, /the tenant above may not use \\"c\\"/);
  assert.equal((await create('acme-x', undefined)).code, 201);
  for (const name of ['a', 'b', 'c']) {
    const runtimeClass = { metadata: { name }, handler: 'vm' };
    await api.want('POST', '/apis/node.k8s.io/v1/runtimeclasses', runtimeClass);
  }
  const shown = await api.want<{ items: KubeObject[] }>(
    'GET',
    '/apis/node.k8s.io/v1/runtimeclasses',
    undefined,
    { as: api.as('acme-x') },
  );
  assert.deepEqual(
    shown.items.map(({ metadata }) => metadata.name),
    ['a', 'b'],
  );
});
