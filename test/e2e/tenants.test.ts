import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { PoolStatus } from '../../src/api/hyperd.ts';
import type { Tenant } from '../../src/api/tenancy.ts';
import type { ContainerStatus, Pod } from '../../src/api/types.generated.ts';
import { demoImage, pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createHyperdClient } from '../../src/client/hyperd.ts';
import type { HyperdClient } from '../../src/client/hyperd.ts';
import { PODS, TENANTS } from '../../src/client/resources.ts';
import { buildImage, pushImage } from '../../src/hyperd/registry/build.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { hostState, templateFiles, vmUids } from './support/leftovers.ts';
import type { HostState } from './support/leftovers.ts';
import { waitFor } from './support/wait.ts';

/**
 * Goal: a tenant with VMs of its own is suspended, resumed and deleted, and afterwards the machine,
 * the cluster and the identity service have nothing of it. Method: one cluster, two pods, kubectl;
 * what is left is found by looking at the machine.
 */
let cluster: TestCluster;
let hyperd: HyperdClient;
let kubectl: Kubectl;
/** The machine with the neighbour's pod and nothing else. */
let alone: Machine;
const uids = new Set<number>();
const POOL_TIMEOUT_MS = 60_000;

before(async () => {
  cluster = await startCluster();
  hyperd = createHyperdClient(join(cluster.dataDir, 'run/hyperd.sock'));
  const found = await findKubectls(cluster.kubeconfig, join(cluster.dataDir, 'kubectl-cache'));
  kubectl = found.at(-1) as Kubectl;
  assert.ok(kubectl, 'kubectl is needed');
  const image = await pushDemoImage(cluster.registryPort);
  await cluster.client.create(PODS, pod('default', 'neighbour', image));
  await until('default', 'neighbour', isReady);
  await poolsAre(isFull);
  alone = await machine();
  await apply([
    {
      ...{ apiVersion: 'hypernetes.io/v1', kind: 'Tenant', metadata: { name: 'acme' } },
      spec: { displayName: 'Acme', quota: { hard: { pods: '3', namespaces: '2' } } },
    },
    {
      ...{ apiVersion: 'v1', kind: 'Namespace' },
      metadata: { name: 'acme-web', labels: { 'hypernetes.io/tenant': 'acme' } },
    },
  ]);
  await waitFor(cluster.client, TENANTS, { name: 'acme' }, (tenant) => phase(tenant) === 'Active');
  const own = `localhost:${cluster.registryPort}/acme/job:1`;
  const label = { labels: { of: 'acme' } };
  const spec = await demoImage();
  await pushImage(own, await buildImage({ ...spec, config: { ...spec.config, ...label } }));
  await apply([pod('acme-web', 'job', own)]);
  await until('acme-web', 'job', isReady);
});
after(async () => {
  hyperd?.close();
  await cluster[Symbol.asyncDispose]();
});

async function apply(objects: object[]): Promise<void> {
  const file = join(cluster.dataDir, 'objects.json');
  await writeFile(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
  // The namespace's default account comes a moment after the namespace.
  for (let attempt = 1; ; attempt += 1) {
    const { exitCode, stderr } = await kubectl(['apply', '-f', file]);
    if (exitCode === 0) return;
    assert.ok(attempt < 20 && stderr.includes('serviceaccount'), stderr);
  }
}

/** It would have ended for good, were it not for its tenant's suspension. */
function pod(namespace: string, name: string, image: string): Pod {
  const script = 'trap "exit 0" TERM; date >> /tmp/began; while :; do sleep 1; done';
  return {
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { namespace, name } },
    spec: {
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 5,
      containers: [{ name: 'main', image, command: ['/bin/sh', '-c', script] }],
    },
  };
}

const until = (namespace: string, name: string, holds: (pod: Pod) => boolean) =>
  waitFor(cluster.client, PODS, { namespace, name }, (one) => one !== undefined && holds(one));
const phase = (tenant: Tenant | undefined) => tenant?.status?.phase;
const main = (one: Pod) => one.status?.containerStatuses?.[0] as ContainerStatus | undefined;
const isReady = (one: Pod) => main(one)?.ready === true;
const hasVm = (one: Pod) =>
  one.status?.conditions?.some(
    ({ type, status }) => type === 'PodReadyToStartContainers' && status === 'True',
  );

const OWNER = 'tenant/acme';
const isFull = ({ waiting, making, wanted }: PoolStatus) => making === 0 && waiting === wanted;
const isAcmes = ({ owner }: { owner: string }) => owner === OWNER;

/** Resolves when there is a pool, and all are as wanted. */
async function poolsAre(holds: (pool: PoolStatus) => boolean): Promise<PoolStatus[]> {
  const deadlineMs = systemClock.monotonicMs() + POOL_TIMEOUT_MS;
  for (;;) {
    const pools = await hyperd.pools();
    if (pools.length > 0 && pools.every(holds)) return pools;
    assert.ok(systemClock.monotonicMs() < deadlineMs, JSON.stringify(pools));
    await systemClock.sleep(100);
  }
}

/** Everything of the cluster, the templates of all its tenants included. */
interface Machine extends HostState {
  templates: string[];
}

async function machine(): Promise<Machine> {
  for (const uid of await vmUids(cluster.dataDir)) uids.add(uid);
  const state = await hostState(cluster.dataDir, uids);
  return { ...state, templates: (await templateFiles(cluster.dataDir)).sort() };
}

/** What was not there before. */
function more(now: Machine, before: Machine): Record<string, string[]> {
  const kinds = Object.keys(now) as (keyof Machine)[];
  const added = kinds.map((kind) => {
    const known = new Set(before[kind]);
    // What this test writes, and pushes into the registry, is the test's.
    const isKept = (one: string) => /^(?:hyperd\/registry\/|kubectl-cache|objects\.json)/.test(one);
    const fresh = now[kind].filter((one) => !known.has(one) && !isKept(one));
    return [kind, fresh] as const;
  });
  return Object.fromEntries(added.filter(([, list]) => list.length > 0));
}

/** Names of the projects, asked of the identity service as its administrator. */
async function projects(): Promise<string[]> {
  const text = await readFile(join(cluster.dataDir, 'server/admin.openrc'), 'utf8');
  const secret = /OS_PASSWORD=['"]?([^'"\n]+)/.exec(text)?.[1] ?? '';
  const user = { name: 'admin', domain: { id: 'default' }, password: secret };
  const identity = { methods: ['password'], password: { user } };
  const login = await cluster.transport.request({
    ...{ method: 'POST', path: '/identity/v3/auth/tokens' },
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ auth: { identity, scope: { system: { all: true } } } }),
  });
  for await (const _ of login.body);
  const token = login.headers['x-subject-token'] ?? '';
  const list = await cluster.transport.request({
    ...{ method: 'GET', path: '/identity/v3/projects' },
    headers: { 'x-auth-token': token },
  });
  const chunks: Uint8Array[] = [];
  for await (const chunk of list.body) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  assert.equal(list.status, 200, body);
  return (JSON.parse(body) as { projects: { name: string }[] }).projects.map(({ name }) => name);
}

test('kubectl shows a tenant, what it has and what it uses', async () => {
  const used = (tenant: Tenant | undefined) => tenant?.status?.quota?.used?.pods === '1';
  await waitFor(cluster.client, TENANTS, { name: 'acme' }, used, 2_000);
  const shown = await kubectl.ok(['get', 'tenants', '-o', 'wide']);
  assert.match(shown, /^NAME +STATUS +NAMESPACES +AGE +PARENT +PROJECT +QUOTA/);
  assert.match(shown, /\nacme +Active +1 +\S+ +<none> +[0-9a-f]{32} +namespaces: 1\/2, pods: 1\/3/);
  assert.ok((await projects()).includes('acme'));
});

test('memory of VMs that wait counts, and gives way to pods', async () => {
  const limit = (memory: string | null) =>
    kubectl.ok([
      ...['patch', 'tn', 'acme', '--type=merge', '-p'],
      JSON.stringify({ spec: { quota: { hard: { 'limits.memory': memory } } } }),
    ]);
  const usedMib = (tenant: Tenant | undefined) =>
    Number(/^(\d+)Mi$/.exec(tenant?.status?.quota?.used?.['limits.memory'] ?? '')?.[1] ?? 0);
  const isUsed = (holds: (mib: number) => boolean) =>
    waitFor(cluster.client, TENANTS, { name: 'acme' }, (one) => holds(usedMib(one)), 30_000);
  await poolsAre(isFull);
  assert.ok((await hyperd.pools()).some((pool) => isAcmes(pool) && pool.waiting > 0));
  const { overhead } = await hyperd.info();
  await limit('4Gi');
  // The pod has no limit: it counts with what its VM costs, and so does what waits for its like.
  const withPool = usedMib(await isUsed((mib) => mib > 2 * overhead.memoryMib));
  await limit(`${overhead.memoryMib + 10}Mi`);
  await poolsAre((pool) => !isAcmes(pool) || pool.waiting + pool.making === 0);
  const alone = usedMib(await isUsed((mib) => mib > 0 && mib < withPool));
  assert.equal(alone, overhead.memoryMib);
  await limit(null);
  await poolsAre(isFull);
  assert.ok((await hyperd.pools()).some((pool) => isAcmes(pool) && pool.waiting > 0));
});

test('a suspended tenant has no VM, and everything goes on when it is resumed', async () => {
  await kubectl.ok(['patch', 'tn', 'acme', '--type=merge', '-p', '{"spec":{"suspended":true}}']);
  const stopped = await until(
    ...([
      'acme-web',
      'job',
      (one: Pod) => Boolean(main(one)?.state?.waiting) && !hasVm(one),
    ] as const),
  );
  assert.equal(stopped?.status?.phase, 'Running');
  assert.match(
    await kubectl.ok(['get', 'pod', '-n', 'acme-web']),
    /job +0\/1 +TenantSuspended +0 /,
  );
  await poolsAre((pool) => (isAcmes(pool) ? pool.waiting + pool.making === 0 : isFull(pool)));
  // One that waited is out of the pool before it has ended.
  const deadlineMs = systemClock.monotonicMs() + POOL_TIMEOUT_MS;
  for (;;) {
    const { processes, devices } = more(await machine(), alone);
    if (processes === undefined && devices === undefined) break;
    assert.ok(systemClock.monotonicMs() < deadlineMs, JSON.stringify([processes, devices]));
    await systemClock.sleep(100);
  }
  assert.match(await kubectl.ok(['get', 'tenant', 'acme']), /acme +Suspended /);
  await kubectl.ok(['patch', 'tn', 'acme', '--type=merge', '-p', '{"spec":{"suspended":false}}']);
  const again = await until('acme-web', 'job', isReady);
  assert.equal(again && main(again)?.restartCount, 1);
  const began = 'until [ -s /tmp/began ]; do usleep 50000; done; cat /tmp/began';
  const exec = ['exec', '-n', 'acme-web', 'job', '--', 'sh', '-c', began];
  assert.match(await kubectl.ok(exec), /\w/);
});

test('a deleted tenant leaves nothing on the machine, in the cluster and at identity', async () => {
  const before = await machine();
  const seen = more(before, alone);
  for (const kind of ['processes', 'templates', 'files', 'devices']) {
    assert.ok((seen[kind]?.length ?? 0) > 0, `${kind} would be seen`);
  }
  assert.ok(
    (await hyperd.images()).some(({ usedBy }) => usedBy.includes(OWNER)),
    'an image would be seen',
  );
  await kubectl.ok(['delete', 'tenant', 'acme', '--timeout=90s']);
  assert.deepEqual(more(await machine(), alone), {});
  for (const kind of ['namespaces', 'pods', 'events', 'configmaps', 'tenants', 'leases']) {
    const names = await kubectl.ok(['get', kind, '-A', '-o', 'name']);
    assert.doesNotMatch(names, /acme/, kind);
  }
  assert.ok(!(await projects()).includes('acme'));
  const neighbour = await cluster.client.get(PODS, { namespace: 'default', name: 'neighbour' });
  assert.equal(main(neighbour)?.restartCount, 0);
});
