import type { Transport } from '../src/client/transport.ts';
import type { DataPaths } from '../src/cli/config.ts';
import { startTenantHarness } from '../src/apiserver/testing/tenants.ts';
import type { TenantHarness } from '../src/apiserver/testing/tenants.ts';
import { describeMachine, series } from './report.ts';
import type { BenchReport, Series } from './report.ts';
import { heapBytes } from './store-pods.ts';

const TENANT_COUNT = 1_000;
const NAMESPACES_PER_TENANT = 10;
const OBJECTS_PER_TENANT = 100;
const ROUNDS = 300;
const CLIENT_COUNT = 64;
const TENANT = 't-500';

/**
 * What the others cost a tenant: its lists alone and among a thousand, its requests while another
 * floods the server, and what a tenant costs that does nothing. Over the whole server but sockets.
 */
export async function benchTenants(_: DataPaths, count = TENANT_COUNT): Promise<BenchReport> {
  const names = [...new Set([TENANT, ...Array.from({ length: count }, (_, i) => `t-${i}`)])];
  await using alone = await startTenantHarness();
  await using among = await startTenantHarness();
  await settle(alone, TENANT, OBJECTS_PER_TENANT);
  const emptyBytes = heapBytes();
  for (const name of names) await settle(among, name, name === TENANT ? 0 : 1);
  const perTenantKb = (heapBytes() - emptyBytes) / names.length / 1024;
  await fill(among, TENANT, OBJECTS_PER_TENANT);
  const one: number[] = [];
  const many: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    one.push(await timeList(alone.as(TENANT), alone));
    many.push(await timeList(among.as(TENANT), among));
  }
  return {
    name: 'tenants',
    machine: describeMachine('none'),
    series: [
      series('list a tenant’s objects, alone', one),
      series(`the same among ${names.length} tenants with ten namespaces each`, many),
      ...(await underFlood(among)),
      series('memory of a tenant with ten namespaces', [perTenantKb], 'KiB'),
    ],
    notes: [
      'Through authorization, store and encoding, without sockets and the time of a disk.',
      `The flood is ${CLIENT_COUNT} clients of one tenant that list 1,000 objects without a pause.`,
    ],
  };
}

async function settle(api: TenantHarness, name: string, objectCount: number): Promise<void> {
  await api.createTenant(name);
  const as = api.as(name);
  const namespaces = Array.from({ length: NAMESPACES_PER_TENANT }, (_, i) => `${name}-${i}`);
  for (const namespace of namespaces) {
    await api.want('POST', '/api/v1/namespaces', { metadata: { name: namespace } }, { as });
  }
  await fill(api, name, objectCount);
}

async function fill(api: TenantHarness, name: string, count: number): Promise<void> {
  const as = api.as(name);
  for (let index = 0; index < count; index += 1) {
    const path = `/api/v1/namespaces/${name}-${index % NAMESPACES_PER_TENANT}/configmaps`;
    const body = { metadata: { generateName: 'c-' }, data: { note: 'x'.repeat(200) } };
    await api.want('POST', path, body, { as });
  }
}

async function timeList(as: Transport, api: TenantHarness): Promise<number> {
  const startMs = performance.now();
  await api.want('GET', '/api/v1/configmaps', undefined, { as });
  return performance.now() - startMs;
}

/** Asks and throws away: what clients do with an answer is not the server's time. */
async function drain(as: Transport): Promise<void> {
  const path = '/api/v1/configmaps';
  const { body } = await as.request({ method: 'GET', path, query: {}, headers: {} });
  for await (const _ of body);
}

async function underFlood(api: TenantHarness): Promise<Series[]> {
  await fill(api, 't-1', 1_000);
  const quiet = api.as(TENANT);
  const alone: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) alone.push(await timeList(quiet, api));
  let isOver = false;
  const flood = Array.from({ length: CLIENT_COUNT }, async () => {
    const as = api.as('t-1');
    while (!isOver) await drain(as);
  });
  const among: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) among.push(await timeList(quiet, api));
  isOver = true;
  await Promise.all(flood);
  return [
    series('list a tenant’s objects, before a flood', alone),
    series('the same while another tenant floods', among),
  ];
}
