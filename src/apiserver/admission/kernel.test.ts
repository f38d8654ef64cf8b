import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../api/object.ts';
import type { TenantSpec } from '../../api/tenancy.ts';
import { pod } from '../testing/harness.ts';
import { startTenantHarness, tenant } from '../testing/tenants.ts';

const KERNEL = 'hypernetes.io/kernel';
const CLASSES = '/apis/node.k8s.io/v1/runtimeclasses';
const NAMESPACES = '/api/v1/namespaces';
const TENANTS = '/apis/hypernetes.io/v1/tenants';
const MERGE = { type: 'application/merge-patch+json' };

/** A tenant with a namespace, classes for two kernels and the default one, and one for neither. */
async function acme(spec: TenantSpec = {}) {
  const api = await startTenantHarness();
  await api.createTenant('acme', spec);
  const as = api.as('acme');
  await api.want('POST', NAMESPACES, { metadata: { name: 'acme' } }, { as });
  for (const namespace of ['acme', 'default']) {
    const account = { metadata: { name: 'default' } };
    await api.send('POST', `${NAMESPACES}/${namespace}/serviceaccounts`, account);
  }
  const handlers = { fast: 'hypernetes-fast', slow: 'hypernetes-slow', plain: 'hypernetes' };
  for (const [name, handler] of Object.entries({ ...handlers, other: 'runc' })) {
    await api.want('POST', CLASSES, { metadata: { name }, handler });
  }
  let count = 0;
  const make = (annotation?: string, runtimeClassName?: string, namespace = 'acme') => {
    const object = pod(`p${(count += 1)}`, {
      spec: { ...(runtimeClassName ? { runtimeClassName } : {}) },
      metadata: annotation === undefined ? {} : { annotations: { [KERNEL]: annotation } },
    });
    const path = `${NAMESPACES}/${namespace}/pods`;
    return api.send('POST', path, object, namespace === 'acme' ? { as } : {});
  };
  return { api, as, make };
}

const kernelOf = ({ text }: { text: string }) =>
  (JSON.parse(text) as KubeObject).metadata.annotations?.[KERNEL];

test("a pod's kernel is its annotation's, its class's or its namespace's", async () => {
  const { api, as, make } = await acme({ allowed: { kernels: ['own', 'ours'] } });
  await using _ = api;
  assert.equal(kernelOf(await make()), undefined);
  assert.equal(kernelOf(await make('own')), 'own');
  assert.equal(kernelOf(await make(undefined, 'fast')), 'fast');
  const annotations = { [KERNEL]: 'ours' };
  const path = `${NAMESPACES}/acme`;
  await api.want('PATCH', path, { metadata: { annotations } }, { ...MERGE, as });
  assert.equal(kernelOf(await make()), 'ours');
  assert.equal(kernelOf(await make('own')), 'own');
  assert.equal(kernelOf(await make(undefined, 'slow')), 'slow');
  assert.equal(kernelOf(await make(undefined, 'other')), 'ours');
  assert.equal(kernelOf(await make(undefined, 'plain')), undefined, 'the default, and no other');
  assert.equal(kernelOf(await make('fast', 'fast')), 'fast', 'who says it twice says the same');
  for (const runtimeClass of ['slow', 'plain']) {
    assert.match((await make('own', runtimeClass)).text, /and that of the runtime class/);
  }
});

test('a tenant asks for kernels that it is allowed, and for no others', async () => {
  const { api, as, make } = await acme();
  await using _ = api;
  const refused = await make('own');
  assert.equal(refused.code, 403);
  assert.match(refused.text, /hypernetes.io\/kernel\]: the tenant may not use \\"own\\"/);
  const annotations = { [KERNEL]: 'own' };
  const patch = { metadata: { annotations } };
  assert.equal((await api.send('PATCH', `${NAMESPACES}/acme`, patch, { ...MERGE, as })).code, 403);
  const child = { metadata: { name: 'acme-x', annotations } };
  assert.equal((await api.send('POST', NAMESPACES, child, { as })).code, 403);
  assert.equal((await make('own', undefined, 'default')).code, 201, 'operators may');
  // What the operator wrote into the namespace is not allowed by that.
  await api.want('PATCH', `${TENANTS}/acme`, { spec: { allowed: { kernels: ['own'] } } }, MERGE);
  await api.want('PATCH', `${NAMESPACES}/acme`, patch, { ...MERGE, as });
  assert.equal(kernelOf(await make()), 'own');
  await api.want('PATCH', `${TENANTS}/acme`, { spec: { allowed: { kernels: [] } } }, MERGE);
  assert.equal((await make()).code, 403);
});

test('a class is allowed by the list of classes, whatever kernel it stands for', async () => {
  const { api, make } = await acme({ allowed: { runtimeClasses: ['fast'], kernels: ['slow'] } });
  await using _ = api;
  assert.equal((await make(undefined, 'fast')).code, 201);
  assert.equal((await make(undefined, 'slow')).code, 403);
  assert.equal((await make('slow')).code, 201);
});

test('a sub-tenant is allowed no kernel that the one above it is not', async () => {
  const { api, as } = await acme({ allowed: { kernels: ['a'] } });
  await using _ = api;
  const create = (kernels: string[]) =>
    api.send('POST', TENANTS, tenant('acme-x', { allowed: { kernels } }), { as });
  assert.match((await create(['b'])).text, /the tenant above may not use \\"b\\"/);
  assert.equal((await create(['a'])).code, 201);
  await api.createTenant('globex');
  const below = tenant('globex-x', { allowed: { kernels: ['a'] } });
  const refused = await api.send('POST', TENANTS, below, { as: api.as('globex') });
  assert.match(refused.text, /the tenant above may not use/, 'no list allows none');
});

test('the kernel of a pod stays as it was chosen', async () => {
  const { api, as, make } = await acme({ allowed: { kernels: ['a', 'b'] } });
  await using _ = api;
  await make('a');
  const path = `${NAMESPACES}/acme/pods/p1`;
  const write = (value: string | null) =>
    api.send('PATCH', path, { metadata: { annotations: { [KERNEL]: value } } }, { ...MERGE, as });
  assert.match((await write('b')).text, /chosen when the pod is made and cannot be changed/);
  assert.equal(kernelOf(await write(null)), 'a', 'who leaves it out does not take it away');
  await make();
  const other = `${NAMESPACES}/acme/pods/p2`;
  const patch = { metadata: { annotations: { [KERNEL]: 'a' } } };
  assert.equal((await api.send('PATCH', other, patch, { ...MERGE, as })).code, 403);
});

test('what is no name of a kernel is refused', async () => {
  const { api, make } = await acme();
  await using _ = api;
  for (const name of ['', '../x', 'A B', 'x'.repeat(41)]) {
    assert.match((await make(name, undefined, 'default')).text, /must be 1 to 40 of/, name);
  }
});
