import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../api/object.ts';
import type { Tenant, TenantSpec } from '../../api/tenancy.ts';
import { seededRandom } from '../../base/random.ts';
import type { Transport } from '../../client/transport.ts';
import { pass } from '../../client/testing.fake.ts';
import { configMap, pod } from '../testing/harness.ts';
import { startTenantHarness, tenant } from '../testing/tenants.ts';
import type { TenantHarness } from '../testing/tenants.ts';

const TENANTS = '/apis/hypernetes.io/v1/tenants';
const NAMESPACES = '/api/v1/namespaces';
const MERGE = { type: 'application/merge-patch+json' };

/** Namespaces have the account that pods run as; the tenant is the one their names begin with. */
async function addNamespace(api: TenantHarness, name: string, as: Transport): Promise<void> {
  await api.want('POST', NAMESPACES, { metadata: { name } }, { as });
  const account = { metadata: { name: 'default' } };
  await api.want('POST', `${NAMESPACES}/${name}/serviceaccounts`, account);
}

async function acme(hard: Record<string, string>) {
  const api = await startTenantHarness();
  await api.createTenant('acme', { quota: { hard } });
  const as = api.as('acme');
  for (const name of ['acme', 'acme-web']) await addNamespace(api, name, as);
  const create = (resource: string, object: KubeObject, namespace = 'acme', query = '') =>
    api.send('POST', `${NAMESPACES}/${namespace}/${resource}${query}`, object, { as });
  return { api, as, create };
}

const claim = (name: string, storage: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'PersistentVolumeClaim',
  metadata: { name },
  spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage } } },
});

const sized = (name: string, cpu: string, memory = '64Mi') =>
  pod(name, {
    spec: { containers: [{ name: 'c', image: 'x', resources: { requests: { cpu, memory } } }] },
  });

test('a quota is over all namespaces of the tenant, and says what does not fit', async () => {
  const { api, create } = await acme({ pods: '2', 'requests.cpu': '1', namespaces: '2' });
  await using _ = api;
  assert.equal((await create('pods', sized('a', '500m'))).code, 201);
  const large = await create('pods', sized('b', '600m'), 'acme-web');
  assert.equal(large.code, 403);
  assert.match(
    large.text,
    /exceeded tenant quota: requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1"/,
  );
  assert.equal((await create('pods', sized('b', '100m'), 'acme-web')).code, 201);
  const third = await create('pods', sized('c', '100m'));
  assert.match(third.text, /requested: pods=1, used: pods=2, limited: pods=2"/);
  const silent = await create('pods', pod('d'));
  assert.match(silent.text, /failed tenant quota: must specify requests.cpu for: c/);
  const namespace = { metadata: { name: 'acme-third' } };
  const more = await api.send('POST', NAMESPACES, namespace, { as: api.as('acme') });
  assert.match(more.text, /requested: namespaces=1, used: namespaces=2, limited: namespaces=2"/);
});

test('what ends or is deleted makes room; what fails or is rehearsed takes none', async () => {
  const { api, create } = await acme({ pods: '1', 'count/configmaps': '1' });
  await using _ = api;
  assert.equal((await create('pods', pod('a'), 'acme', '?dryRun=All')).code, 201);
  assert.equal((await create('pods', { ...pod('Bad Name') })).code, 422);
  assert.equal((await create('pods', pod('a'))).code, 201);
  assert.equal((await create('pods', pod('a'))).code, 409, 'the same again would take no more');
  assert.equal((await create('pods', pod('b'), 'acme', '?dryRun=All')).code, 403);
  const status = { status: { phase: 'Succeeded' } };
  await api.want('PATCH', `${NAMESPACES}/acme/pods/a/status`, status, MERGE);
  assert.equal((await create('pods', pod('b'), 'acme-web')).code, 201);
  await api.want('DELETE', `${NAMESPACES}/acme-web/pods/b?gracePeriodSeconds=0`);
  assert.equal((await create('pods', pod('c'))).code, 201);
  assert.equal((await create('configmaps', configMap('one'))).code, 201);
  assert.equal((await create('configmaps', configMap('two'), 'acme-web')).code, 403);
});

test('a claim that grows is counted with what it grows by', async () => {
  const { api, as, create } = await acme({ 'requests.storage': '10Gi' });
  await using _ = api;
  await create('persistentvolumeclaims', claim('a', '4Gi'));
  await create('persistentvolumeclaims', claim('b', '4Gi'), 'acme-web');
  const path = `${NAMESPACES}/acme/persistentvolumeclaims/a`;
  await api.want('PATCH', `${path}/status`, { status: { phase: 'Bound' } }, MERGE);
  const grow = (storage: string) =>
    api.send('PATCH', path, { spec: { resources: { requests: { storage } } } }, { as, ...MERGE });
  const refused = await grow('7Gi');
  assert.match(
    refused.text,
    /requested: requests.storage=3Gi, used: requests.storage=8Gi, limited: requests.storage=10Gi"/,
  );
  assert.equal((await grow('6Gi')).code, 200);
  assert.equal((await create('persistentvolumeclaims', claim('c', '1'))).code, 403);
});

test('a pod that is resized is counted with what it grows by', async () => {
  const { api, as, create } = await acme({ 'requests.cpu': '1' });
  await using _ = api;
  await create('pods', sized('a', '400m'));
  await create('pods', sized('b', '400m'), 'acme-web');
  const resize = (cpu: string, query = '') => {
    const containers = [{ name: 'c', resources: { requests: { cpu } } }];
    const type = 'application/strategic-merge-patch+json';
    const path = `${NAMESPACES}/acme/pods/a/resize${query}`;
    return api.send('PATCH', path, { spec: { containers } }, { as, type });
  };
  const refused = await resize('700m');
  assert.equal(refused.code, 403);
  assert.match(
    refused.text,
    /requested: requests.cpu=300m, used: requests.cpu=800m, limited: requests.cpu=1"/,
  );
  assert.equal((await resize('700m', '?dryRun=All')).code, 403);
  assert.equal((await resize('600m')).code, 200);
  assert.equal((await create('pods', sized('c', '1m'))).code, 403);
  assert.equal((await resize('300m')).code, 200);
  assert.equal((await create('pods', sized('c', '300m'))).code, 201);
  const other = api.send('GET', `${NAMESPACES}/acme/pods/a/resize`, undefined, { as: api.as('b') });
  assert.equal((await other).code, 403);
});

test('64 clients race for the last units: exactly those are handed out', async () => {
  const { api, as, create } = await acme({ pods: '10', 'requests.storage': '20Gi' });
  await using _ = api;
  const clients = Array.from({ length: 64 }, (_, index) => index);
  const where = (index: number) => (index % 2 ? 'acme' : 'acme-web');
  const pods = await Promise.all(
    clients.map((index) => create('pods', pod(`p${index}`), where(index))),
  );
  assert.equal(pods.filter(({ code }) => code === 201).length, 10);
  assert.equal(pods.filter(({ code }) => code === 403).length, 54);

  for (const index of clients.slice(0, 8)) {
    await create('persistentvolumeclaims', claim(`c${index}`, '1Gi'));
    const path = `${NAMESPACES}/acme/persistentvolumeclaims/c${index}/status`;
    await api.want('PATCH', path, { status: { phase: 'Bound' } }, MERGE);
  }
  // 12 GiB are left, for creations and for growth by one, which several want of the same claim.
  const answers = await Promise.all(
    clients.map((index) => {
      if (index % 2) return create('persistentvolumeclaims', claim(`n${index}`, '1Gi'));
      const path = `${NAMESPACES}/acme/persistentvolumeclaims/c${index % 8}`;
      const spec = { resources: { requests: { storage: `${2 + (index % 3)}Gi` } } };
      return api.send('PATCH', path, { spec }, { as, ...MERGE });
    }),
  );
  const { items } = await api.want<{ items: KubeObject[] }>(
    'GET',
    '/api/v1/persistentvolumeclaims',
  );
  const total = items.reduce((sum, { spec }) => {
    const { resources } = spec as { resources: { requests: { storage: string } } };
    return sum + Number.parseInt(resources.requests.storage, 10);
  }, 0);
  assert.equal(total, 20, answers.map(({ code }) => code).join(' '));
});

test('the memory of the VM beside its containers counts, and nobody changes how much', async () => {
  const { api, as, create } = await acme({ 'requests.memory': '300Mi' });
  await using _ = api;
  const annotations = { 'hypernetes.io/vm-overhead-memory': String(60 << 20) };
  await api.want('POST', '/api/v1/nodes', { metadata: { name: 'n1', annotations } });
  const forged = sized('a', '1m', '100Mi');
  forged.metadata.annotations = { 'hypernetes.io/vm-overhead-memory': '1' };
  assert.equal((await create('pods', forged)).code, 201);
  const path = `${NAMESPACES}/acme/pods/a`;
  const metadata = { annotations: { 'hypernetes.io/vm-overhead-memory': null } };
  const changed = await api.send('PATCH', path, { metadata }, { as, ...MERGE });
  assert.deepEqual(
    changed.body.metadata?.annotations?.['hypernetes.io/vm-overhead-memory'],
    String(60 << 20),
  );
  const second = await create('pods', sized('b', '1m', '100Mi'));
  assert.match(
    second.text,
    /requested: requests.memory=160Mi, used: requests.memory=160Mi, limited: requests.memory=300Mi"/,
  );
  assert.equal((await create('pods', sized('b', '1m', '80Mi'))).code, 201);
});

test('a limit below what is used is taken with a warning and lets nothing more in', async () => {
  const { api, create } = await acme({ pods: '5' });
  await using _ = api;
  for (const name of ['a', 'b', 'c']) assert.equal((await create('pods', pod(name))).code, 201);
  const spec = { quota: { hard: { pods: '2', 'count/configmaps': '0' } } };
  await create('configmaps', configMap('one'));
  const lowered = await api.send('PATCH', `${TENANTS}/acme`, { spec }, MERGE);
  assert.equal(lowered.code, 200, lowered.text);
  assert.match(lowered.headers.warning ?? '', /hard\[pods\]: 2 is less than what is used: 3/);
  assert.match(lowered.headers.warning ?? '', /hard\[count\/configmaps\]: 0 is less/);
  assert.equal((await create('pods', pod('d'))).code, 403);
  assert.equal((await create('configmaps', configMap('two'))).code, 403);
  const labels = { metadata: { labels: { still: 'changeable' } } };
  assert.equal((await api.send('PATCH', `${NAMESPACES}/acme/pods/a`, labels, MERGE)).code, 200);
  const wrong = { quota: { hard: { podz: '2' } } };
  assert.equal((await api.send('PATCH', `${TENANTS}/acme`, { spec: wrong }, MERGE)).code, 422);
  const limits = Array.from({ length: 101 }, (_, index) => [`count/kind${index}.example.org`, '1']);
  const many = { quota: { hard: Object.fromEntries(limits) as Record<string, string> } };
  assert.equal((await api.send('PATCH', `${TENANTS}/acme`, { spec: many }, MERGE)).code, 422);
});

test('sub-tenants share what their parent has', async () => {
  const { api, as, create } = await acme({ pods: '10', tenants: '2' });
  await using _ = api;
  const give = (name: string, hard: Record<string, string>) =>
    api.send('POST', TENANTS, tenant(name, { quota: { hard } }), { as });
  const silent = await give('acme-dev', {});
  assert.match(silent.text, /the tenant above has limits for pods, tenants: set them/);
  const greedy = await give('acme-dev', { pods: '11', tenants: '0' });
  assert.match(greedy.text, /exceeded tenant quota: requested: pods=11, used: pods=0, limited: po/);
  assert.equal((await give('acme-dev', { pods: '8', tenants: '1' })).code, 201);
  // 8 are given away, 2 are left; the sub-tenant and the one that it may have are both counted.
  assert.equal((await create('pods', pod('a'))).code, 201);
  assert.equal((await create('pods', pod('b'))).code, 201);
  assert.equal((await create('pods', pod('c'))).code, 403);
  const other = await give('acme-ops', { pods: '0', tenants: '0' });
  assert.match(other.text, /requested: tenants=1, used: tenants=2, limited: tenants=2/);
  const dev = api.as('acme-dev');
  const grow = { spec: { quota: { hard: { pods: '9' } } } };
  assert.equal((await api.send('PATCH', `${TENANTS}/acme-dev`, grow, { as, ...MERGE })).code, 403);
  assert.equal(
    (await api.send('PATCH', `${TENANTS}/acme-dev`, grow, { as: dev, ...MERGE })).code,
    403,
  );
  await api.want('DELETE', `${NAMESPACES}/acme/pods/a?gracePeriodSeconds=0`);
  assert.equal((await api.send('PATCH', `${TENANTS}/acme-dev`, grow, { as, ...MERGE })).code, 200);
  assert.equal((await create('pods', pod('d'))).code, 403);
});

test('the tenant says within two seconds what it uses', async () => {
  const { api, create } = await acme({ pods: '10', 'requests.storage': '10Gi' });
  await using _ = api;
  const told = async () => (await api.want<Tenant>('GET', `${TENANTS}/acme`)).status?.quota ?? {};
  await create('pods', pod('a'));
  await create('persistentvolumeclaims', claim('a', '4Gi'), 'acme-web');
  await pass(api.clock, 2000);
  const hard = { pods: '10', 'requests.storage': '10Gi' };
  assert.deepEqual(await told(), { hard, used: { pods: '1', 'requests.storage': '4Gi' } });
  await api.want('DELETE', `${NAMESPACES}/acme/pods/a?gracePeriodSeconds=0`);
  const spec = { quota: { hard: { 'requests.storage': null, namespaces: '3' } } };
  await api.want('PATCH', `${TENANTS}/acme`, { spec }, MERGE);
  await pass(api.clock, 2000);
  assert.deepEqual(await told(), {
    hard: { pods: '10', namespaces: '3' },
    used: { pods: '0', namespaces: '2' },
  });
});

/** A tree of tenants: `acme`, two below it, and two below each of those. */
const TREE = ['acme', 'acme-a', 'acme-b', 'acme-a-x', 'acme-a-y', 'acme-b-x', 'acme-b-y'];
const parentOf = (name: string) => name.slice(0, name.lastIndexOf('-'));
const CLASSES = ['c1', 'c2', 'c3'];

test('no sequence of operations lets a sub-tenant exceed what is above it', async () => {
  const seed = Number(process.env.SEED ?? 20261);
  const random = seededRandom(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random.next() * list.length)] as T;
  const api = await startTenantHarness();
  await using _ = api;
  for (const name of CLASSES) {
    const path = '/apis/node.k8s.io/v1/runtimeclasses';
    await api.want('POST', path, { metadata: { name }, handler: 'vm' });
  }
  await api.createTenant('acme', { quota: { hard: { pods: '6' } } });
  await addNamespace(api, 'acme', api.as('acme'));
  const actor = (name: string) => pick([api.transport, api.as('acme'), api.as(parentOf(name))]);
  const someSpec = (): TenantSpec => ({
    ...(random.next() < 0.8 ? { quota: { hard: { pods: String(pick([0, 1, 2, 3, 5])) } } } : {}),
    ...(random.next() < 0.5
      ? { allowed: { runtimeClasses: CLASSES.filter(() => random.next() < 0.6) } }
      : {}),
  });
  let number = 0;
  const place = (name: string) => {
    const runtimeClassName = pick([undefined, ...CLASSES]);
    const object = pod(`p${(number += 1)}`, { spec: { runtimeClassName } });
    return api.send('POST', `${NAMESPACES}/${name}/pods`, object, { as: api.as(name) });
  };
  const operations: ((name: string) => Promise<unknown>)[] = [
    async (name) => {
      if (name === 'acme') return;
      const as = actor(name);
      const object = tenant(name, { ...someSpec(), parent: parentOf(name) });
      const answer = await api.send('POST', TENANTS, object, { as });
      if (answer.code === 201) await addNamespace(api, name, api.as(name));
    },
    (name) => {
      const { quota = null, allowed = null } = someSpec();
      const as = name === 'acme' ? api.transport : actor(name);
      const spec = { quota, allowed };
      return api.send('PATCH', `${TENANTS}/${name}`, { spec }, { as, ...MERGE });
    },
    async (name) => {
      const path = `${NAMESPACES}/${name}/pods`;
      const { items = [] } = (await api.send('GET', path)).body;
      const victim = items[0]?.metadata?.name;
      if (victim) await api.send('DELETE', `${path}/${victim}?gracePeriodSeconds=0`);
    },
  ];
  const usedBefore = new Map<string, number>();
  for (let step = 0; step < 120; step += 1) {
    if (step % 2) await pick(operations)(pick(TREE));
    // Several at a time: what races must not slip through together.
    else await Promise.all(Array.from({ length: 4 }, () => place(pick(TREE))));
    await check(api, usedBefore, `seed ${seed}, step ${step}`);
  }
});

async function check(api: TenantHarness, before: Map<string, number>, where: string) {
  const tenants = await api.want<{ items: KubeObject[] }>('GET', TENANTS);
  const pods = await api.want<{ items: KubeObject[] }>('GET', '/api/v1/pods');
  for (const { metadata, spec } of tenants.items) {
    const name = metadata.name ?? '';
    const { quota, allowed } = spec as TenantSpec;
    const within = pods.items.filter(
      ({ metadata: { namespace = '' } }) => namespace === name || namespace.startsWith(`${name}-`),
    );
    const hard = Number(quota?.hard?.pods ?? Number.POSITIVE_INFINITY);
    // A limit may be set below what is used; from there it only goes down.
    const most = Math.max(hard, before.get(name) ?? 0);
    assert.ok(within.length <= most, `${name} has ${within.length} pods of ${hard}: ${where}`);
    before.set(name, within.length);
    for (const { metadata: made, spec: podSpec } of within) {
      const { runtimeClassName } = podSpec as { runtimeClassName?: string };
      if (!runtimeClassName || !allowed?.runtimeClasses) continue;
      const key = `${made.namespace}/${made.name}`;
      if (!before.has(key)) {
        assert.ok(allowed.runtimeClasses.includes(runtimeClassName), `${key}: ${where}`);
      }
    }
  }
  for (const { metadata } of pods.items) before.set(`${metadata.namespace}/${metadata.name}`, 1);
}
