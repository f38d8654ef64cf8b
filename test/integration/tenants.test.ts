import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, test } from 'node:test';
import { createApiServer } from '../../src/apiserver/server.ts';
import type { ApiServer } from '../../src/apiserver/server.ts';
import { createTenantDirectory } from '../../src/apiserver/tenancy/directory.ts';
import type { UserInfo } from '../../src/api/auth.ts';
import { isStatus } from '../../src/api/status.ts';
import type { Tenant, TenantSpec } from '../../src/api/tenancy.ts';
import type { Namespace, Pod } from '../../src/api/types.generated.ts';
import { defaultRbacObjects } from '../../src/auth/default-roles.ts';
import { createCa, createCaSigner, createKey } from '../../src/auth/pki.ts';
import { createRbac, createUnionAuthorizer } from '../../src/auth/rbac.ts';
import { tenantPartition } from '../../src/auth/tenant-scope.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLog, silentLog } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { createClient } from '../../src/client/client.ts';
import type { Client } from '../../src/client/client.ts';
import {
  CONFIG_MAPS,
  DEPLOYMENTS,
  NAMESPACES,
  NODES,
  PODS,
  SERVICE_ACCOUNTS,
  TENANTS,
} from '../../src/client/resources.ts';
import { startControllers } from '../../src/controllers/index.ts';
import { runScheduler } from '../../src/scheduler/scheduler.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import type { Store } from '../../src/store/store.ts';

/** Goal: what a tenant has comes, stops and goes as a whole, with all parts but the node's. */
const ending = new AbortController();
const complaints: string[] = [];
let store: Store;
let server: ApiServer;
let running: Promise<unknown>;
let admin: Client;

const user = (name: string, ...groups: string[]): UserInfo => ({
  ...{ name, uid: '', groups, extra: {} },
});

before(async () => {
  const clock = systemClock;
  const random = systemRandom;
  const rbac = createRbac();
  store = createMemoryStore({ clock, partitionOf: tenantPartition });
  server = await createApiServer({
    ...{ store, clock, random, log: silentLog, rbac },
    tenants: createTenantDirectory(store),
    authenticators: [],
    authorizer: createUnionAuthorizer([rbac]),
    bootstrapObjects: defaultRbacObjects(),
  });
  admin = createClient(server.loopback(user('admin', 'system:masters')), { userAgent: 'admin' });
  const caKey = createKey();
  const caCert = createCa(caKey, { clock, random });
  const log = createLog({
    component: 'controllers',
    level: 'warn',
    write: (line) => void complaints.push(line),
  });
  const common = { clock, random, log, signal: ending.signal };
  const schedulerUser = server.loopback(user('system:kube-scheduler'));
  running = Promise.all([
    startControllers({
      ...common,
      transport: server.loopback(user('system:kube-controller-manager')),
      signer: createCaSigner({ caCert, caKey, clock, random }),
    }),
    runScheduler({ ...common, client: createClient(schedulerUser, { userAgent: 'scheduler' }) }),
  ]);
  const allocatable = { cpu: '8', memory: '16Gi', pods: '100' };
  const node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n1' } };
  await admin.create(NODES, { ...node, status: { allocatable } });
  await admin.patch(NODES, { name: 'n1' }, 'merge', { spec: { taints: null } });
});

after(async () => {
  ending.abort();
  await running;
  await server.close();
  await store.close();
  const forbidden = complaints.filter((line) => /forbidden/i.test(line));
  assert.deepEqual(forbidden, [], 'the default roles suffice');
});

async function eventually<T>(what: string, look: () => Promise<T>): Promise<NonNullable<T>> {
  const deadlineMs = performance.now() + 20_000;
  for (;;) {
    const value = await look();
    if (value) return value as NonNullable<T>;
    if (performance.now() > deadlineMs) {
      assert.fail(`${what} did not happen. Logged: ${complaints.slice(-5).join('')}`);
    }
    await sleep(50);
  }
}

const find = (name: string) =>
  admin.get(TENANTS, { name }).catch((error: unknown) => {
    if (isStatus(error, 'NotFound')) return undefined;
    throw error;
  });

const condition = (tenant: Tenant | undefined, type: string) =>
  tenant?.status?.conditions?.find((one) => one.type === type);

async function makeTenant(name: string, spec: TenantSpec = {}): Promise<void> {
  const head = { apiVersion: 'hypernetes.io/v1', kind: 'Tenant' };
  await admin.create(TENANTS, { ...head, metadata: { name }, spec });
  for (const namespace of [name, `${name}-web`]) {
    const metadata = { name: namespace, labels: { 'hypernetes.io/tenant': name } };
    const made = { apiVersion: 'v1', kind: 'Namespace', metadata } as Namespace;
    await admin.create(NAMESPACES, made);
    await eventually('the default account', () =>
      admin.get(SERVICE_ACCOUNTS, { namespace, name: 'default' }).catch(() => undefined),
    );
  }
}

const pod = (namespace: string, name: string): Pod => ({
  ...{ apiVersion: 'v1', kind: 'Pod', metadata: { namespace, name } },
  spec: { containers: [{ name: 'c', image: 'busybox' }] },
});

test('pods of a suspended tenant are marked, and wait for a node until it is resumed', async () => {
  await makeTenant('acme');
  await admin.create(PODS, pod('acme', 'before'));
  const read = (name: string) => admin.get(PODS, { namespace: 'acme', name });
  await eventually('a node', async () => (await read('before')).spec?.nodeName);
  await admin.patch(TENANTS, { name: 'acme' }, 'merge', { spec: { suspended: true } });
  await admin.create(PODS, pod('acme', 'after'));
  const isMarked = async (name: string) =>
    Boolean((await read(name)).metadata.annotations?.['hypernetes.io/suspended']);
  assert.ok(await isMarked('after'), 'at once');
  await eventually('the mark', () => isMarked('before'));
  await eventually('the phase', async () => (await find('acme'))?.status?.phase === 'Suspended');
  // The scheduler has seen it by now: what it wakes up for after it is another pod.
  await makeTenant('umbrella');
  await admin.create(PODS, pod('umbrella', 'other'));
  const other = () => admin.get(PODS, { namespace: 'umbrella', name: 'other' });
  await eventually('a node', async () => (await other()).spec?.nodeName);
  assert.equal((await read('after')).spec?.nodeName, undefined);
  await admin.patch(TENANTS, { name: 'acme' }, 'merge', { spec: { suspended: false } });
  await eventually('a node', async () => (await read('after')).spec?.nodeName);
  assert.deepEqual([await isMarked('before'), await isMarked('after')], [false, false]);
});

test('a deleted tenant goes with all that it has, and another keeps its own', async () => {
  await makeTenant('globex');
  await makeTenant('initech');
  const labels = { app: 'web' };
  for (const namespace of ['globex', 'globex-web', 'initech']) {
    const metadata = { namespace, name: 'settings' };
    await admin.create(CONFIG_MAPS, { apiVersion: 'v1', kind: 'ConfigMap', metadata });
    await admin.create(DEPLOYMENTS, {
      ...{ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { namespace, name: 'web' } },
      spec: {
        ...{ replicas: 2, selector: { matchLabels: labels } },
        template: {
          metadata: { labels },
          spec: { containers: [{ name: 'c', image: 'x' }], terminationGracePeriodSeconds: 0 },
        },
      },
    });
  }
  const pods = async (namespace: string) => (await admin.list(PODS, { namespace })).items;
  await eventually('replicas', async () => (await pods('globex')).length === 2);
  await admin.delete(TENANTS, { name: 'globex' });
  await admin.delete(TENANTS, { name: 'globex' });
  // There is no kubelet: pods that have a node are ended here.
  const end = async () => {
    for (const { metadata } of [...(await pods('globex')), ...(await pods('globex-web'))]) {
      const { namespace, name = '' } = metadata;
      if (!metadata.deletionTimestamp) continue;
      await admin.delete(PODS, { namespace, name }, { gracePeriodSeconds: 0 }).catch(() => {});
    }
    return (await find('globex')) === undefined;
  };
  await eventually('the end of the tenant', end);
  for (const resource of ['namespaces', 'pods', 'configmaps', 'apps/deployments', 'events']) {
    assert.deepEqual(store.list(resource, { partition: 'globex' }).entries, [], resource);
  }
  assert.equal((await pods('initech')).length, 2);
  assert.equal((await find('initech'))?.status?.phase, 'Active');
});

test('sub-tenants hold their parent, and the parent says so', async () => {
  await makeTenant('hooli');
  await makeTenant('hooli-labs', { parent: 'hooli' });
  await admin.delete(TENANTS, { name: 'hooli' });
  const held = await eventually('the condition', async () => {
    const found = condition(await find('hooli'), 'SubTenantsRemaining');
    return found?.status === 'True' ? found : undefined;
  });
  assert.equal(held.message, '1 sub-tenants have to be deleted first: hooli-labs');
  assert.equal((await find('hooli'))?.status?.phase, 'Terminating');
  await admin.delete(TENANTS, { name: 'hooli-labs' });
  await eventually(
    'the end of both',
    async () => !(await find('hooli')) && !(await find('hooli-labs')),
  );
});

test('a tenant that is deleted while it is being made is gone', async () => {
  for (let round = 0; round < 5; round += 1) {
    const name = `brief${round}`;
    const head = { apiVersion: 'hypernetes.io/v1', kind: 'Tenant' };
    await admin.create(TENANTS, { ...head, metadata: { name }, spec: {} });
    await sleep(round);
    await admin.delete(TENANTS, { name });
    await eventually('the end', async () => !(await find(name)));
  }
});
