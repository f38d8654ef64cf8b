import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import type { KubeObject } from '../../api/object.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { rfc3339 } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { openSqliteStore } from '../../store/sqlite.ts';
import { createMemoryStore } from '../../store/memory.ts';
import { DELETE } from '../../store/store.ts';
import type { Store } from '../../store/store.ts';
import { startTenantHarness } from '../testing/tenants.ts';
import { formatDecimal } from './amounts.ts';
import { startUsageMeter } from './meter.ts';
import { renderUsage } from './metrics.ts';
import { HOUR_MS, USAGE_RECORDS } from './records.ts';
import { usageCsv, usageJson, usageRows } from './report.ts';
import type { UsageQuery } from './report.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const DAY = 24 * HOUR_MS;

/** A cluster without an API: each tenant has the namespace of its name. */
function rig(startMs = Date.UTC(2026, 0, 1)) {
  const clock = new FakeClock(startMs);
  const store = createMemoryStore({ clock, partitionOf: ({ namespace }) => namespace });
  const uids: Record<string, string> = {};
  const tenants = {
    get: (name: string) => ({ metadata: { name, uid: uids[name] ?? `${name}-uid` } }) as never,
  };
  const start = (over: Store = store, at = clock) =>
    startUsageMeter({ store: over, tenants, clock: at, log: silentLog });
  const key = (tenant: string, name: string, resource = 'pods') => ({
    ...{ resource, namespace: tenant, name },
  });
  const put = (tenant: string, object: KubeObject, resource = 'pods') =>
    store.mutate(key(tenant, object.metadata.name ?? '', resource), () => object);
  const remove = (tenant: string, name: string, resource = 'pods') =>
    store.mutate(key(tenant, name, resource), () => DELETE);
  const report = (meter: ReturnType<typeof start>, more: Partial<UsageQuery> = {}) => {
    const query: UsageQuery = { step: 'hour', fromMs: 0, toMs: clock.nowMs() + DAY, ...more };
    return usageJson(usageRows(store, meter, query), query);
  };
  return { clock, store, uids, start, put, remove, report };
}

interface Draft {
  boundMs: number;
  cpu?: string;
  memory?: string;
  phase?: string;
  finishedMs?: number;
}

function runningPod(name: string, draft: Draft): KubeObject {
  const { boundMs, cpu = '250m', memory = '64Mi', phase = 'Running', finishedMs } = draft;
  const terminated = finishedMs === undefined ? undefined : { finishedAt: rfc3339(finishedMs) };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, creationTimestamp: rfc3339(boundMs) },
    spec: {
      nodeName: 'n1',
      overhead: { cpu: '50m', memory: '16Mi' },
      containers: [{ name: 'c', resources: { requests: { cpu, memory } } }],
    },
    status: {
      phase,
      conditions: [{ type: 'PodScheduled', status: 'True', lastTransitionTime: rfc3339(boundMs) }],
      containerStatuses: [{ name: 'c', state: terminated ? { terminated } : { running: {} } }],
    },
  };
}

test('a pod is counted from its binding to its end, overhead included, hour by hour', async () => {
  const { clock, start, put, report } = rig(Date.UTC(2026, 0, 1, 10, 30));
  const meter = start();
  const boundMs = clock.nowMs();
  await put('acme', runningPod('web', { boundMs }));
  await clock.advance(90 * MINUTE);
  await put('acme', runningPod('web', { boundMs, phase: 'Succeeded' }));
  await clock.advance(5 * HOUR_MS);
  const { items, total } = report(meter, { tenant: 'acme' });
  assert.deepEqual(
    items.map(({ start: from, podSeconds, cpuSeconds }) => [from, podSeconds, cpuSeconds]),
    [
      ['2026-01-01T10:00:00Z', '1800', '540'],
      ['2026-01-01T11:00:00Z', '3600', '1080'],
    ],
  );
  const bytes = BigInt(80 << 20);
  assert.equal(total.memoryByteSeconds, String(bytes * 5400n));
  await meter.close();
});

test('pods that are not bound, and those of the cluster itself, cost nobody anything', async () => {
  const { clock, store, start, put, report } = rig();
  const meter = start();
  const pending = runningPod('web', { boundMs: clock.nowMs() });
  await put('acme', { ...pending, spec: { containers: [] } });
  await store.mutate({ resource: 'pods', namespace: '', name: 'x' }, () => pending);
  await clock.advance(HOUR_MS);
  assert.deepEqual(report(meter).items, []);
  await meter.close();
});

test('a VM’s overhead that the server has written down counts, as it does for the quota', async () => {
  const { clock, start, put, report } = rig();
  const meter = start();
  const pod = runningPod('web', { boundMs: clock.nowMs(), memory: '0' });
  pod.metadata.annotations = { 'hypernetes.io/vm-overhead-memory': '1000' };
  await put('acme', pod);
  await clock.advance(10 * SECOND);
  assert.equal(report(meter).total.memoryByteSeconds, String((1000 + (16 << 20)) * 10));
  await meter.close();
});

test('claims count while they are bound, and as what they are now', async () => {
  const { clock, start, put, remove, report } = rig();
  const meter = start();
  const claim = (phase: string, storage: string): KubeObject => ({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'data' },
    spec: { resources: { requests: { storage: '1Gi' } } },
    status: { phase, capacity: { storage } },
  });
  const resource = 'persistentvolumeclaims';
  await put('acme', claim('Pending', '1Gi'), resource);
  await clock.advance(10 * SECOND);
  await put('acme', claim('Bound', '2k'), resource);
  await clock.advance(10 * SECOND);
  await put('acme', claim('Bound', '3k'), resource);
  await clock.advance(10 * SECOND);
  await remove('acme', 'data', resource);
  await clock.advance(10 * SECOND);
  assert.equal(report(meter).total.storageByteSeconds, '50000');
  await meter.close();
});

/** A store that a process holds: once the process is killed, it does nothing more. */
function held(store: Store) {
  let isKilled = false;
  let writesLeft = Infinity;
  const over: Store = {
    ...{ get: store.get.bind(store), list: store.list.bind(store), stats: store.stats.bind(store) },
    ...{ barrier: store.barrier.bind(store), close: () => Promise.resolve() },
    get revision() {
      return store.revision;
    },
    watch: (resource, options) => {
      const events = store.watch(resource, options);
      return {
        get progressRevision() {
          return events.progressRevision;
        },
        async *[Symbol.asyncIterator]() {
          for await (const event of events) {
            if (isKilled) return;
            yield event;
          }
        },
      };
    },
    mutate: (key, transform) => {
      writesLeft -= 1;
      if (isKilled || writesLeft < 0) return new Promise(() => {});
      return store.mutate(key, transform);
    },
  };
  return {
    over,
    kill: () => (isKilled = true),
    killAfterWrites: (count: number) => (writesLeft = count),
  };
}

test('over crashes at any moment nothing is lost and nothing counted twice', async (t: TestContext) => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const random = seededRandom(seed);
    const { clock, store, start, put, remove, report } = rig();
    const upTo = (max: number) => Math.floor(random.next() * max);
    const truth: Record<string, number> = {};
    const running = new Map<string, { tenant: string; name: string; boundMs: number }>();
    let number = 0;
    let holder = held(store);
    start(holder.over);
    await clock.advance(SECOND);
    for (let step = 0; step < 60; step += 1) {
      const tenant = ['acme', 'globex', 'initech'][upTo(3)] as string;
      const action = upTo(10);
      const nowMs = clock.nowMs();
      if (action < 4) {
        const name = `p${(number += 1)}`;
        running.set(name, { tenant, name, boundMs: nowMs });
        await put(tenant, runningPod(name, { boundMs: nowMs }));
      } else if (action < 7) {
        const [pod] = [...running.values()].slice(upTo(running.size));
        if (pod) {
          running.delete(pod.name);
          truth[pod.tenant] = (truth[pod.tenant] ?? 0) + nowMs - pod.boundMs;
          const { boundMs } = pod;
          // The kubelet says when it ended; then the object goes, at once or later.
          const finished = runningPod(pod.name, { boundMs, phase: 'Failed', finishedMs: nowMs });
          await put(pod.tenant, finished);
          if (upTo(2)) await remove(pod.tenant, pod.name);
        }
      } else if (action < 8) {
        // The process ends here, or in the middle of what it writes next; later comes another.
        if (upTo(2)) holder.killAfterWrites(upTo(2));
        else holder.kill();
        await clock.advance(upTo(3) * SECOND);
        holder.kill();
        await clock.advance(upTo(200) * SECOND);
        holder = held(store);
        start(holder.over);
      }
      await clock.advance(upTo(3) === 0 ? upTo(100) * SECOND : upTo(4) * SECOND);
    }
    for (const { tenant, boundMs } of running.values()) {
      truth[tenant] = (truth[tenant] ?? 0) + clock.nowMs() - boundMs;
    }
    holder.kill();
    const meter = start();
    await clock.advance(2 * SECOND);
    for (const { tenant } of running.values()) truth[tenant] = (truth[tenant] ?? 0) + 2 * SECOND;
    for (const [tenant, ms] of Object.entries(truth)) {
      const { total } = report(meter, { tenant });
      assert.equal(total.podSeconds, formatDecimal(BigInt(ms), 3), `seed ${seed}, ${tenant}`);
    }
    await meter.close();
  }
  t.diagnostic('40 histories');
});

test('a pod that was removed while nobody wrote down its end is counted to its end', async () => {
  const { clock, store, start, put, remove, report } = rig();
  const holder = held(store);
  start(holder.over);
  await clock.advance(0);
  const boundMs = clock.nowMs();
  await put('acme', runningPod('web', { boundMs }));
  await clock.advance(5 * SECOND);
  holder.kill();
  const doomed = runningPod('web', { boundMs });
  doomed.metadata.deletionTimestamp = rfc3339(clock.nowMs() + 3 * SECOND);
  await put('acme', doomed);
  await remove('acme', 'web');
  await clock.advance(MINUTE);
  const meter = start();
  await clock.advance(2 * SECOND);
  assert.equal(report(meter).total.podSeconds, '8');
  await meter.close();
});

test('what went while nobody counted is told by a store that was closed and opened again', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-usage-'));
  t.after(() => rm(directory, { recursive: true }));
  const clock = new FakeClock();
  const open = () =>
    openSqliteStore({
      ...{ path: join(directory, 'store.db'), clock, log: silentLog },
      partitionOf: ({ namespace }) => namespace,
    });
  const { start } = rig();
  const pods = (name: string) => ({ resource: 'pods', namespace: 'acme', name });
  const first = await open();
  const boundMs = clock.nowMs();
  const holder = held(first);
  start(holder.over, clock);
  holder.kill();
  for (const name of ['a', 'b']) {
    const finishedMs = boundMs + (name === 'a' ? 7 : 11) * SECOND;
    await first.mutate(pods(name), () => runningPod(name, { boundMs, finishedMs }));
    await first.mutate(pods(name), () => DELETE);
  }
  // What is kept in memory alone is gone after this.
  await first.mutate({ resource: 'events', namespace: 'acme', name: 'e' }, () => ({
    ...{ apiVersion: 'v1', kind: 'Event', metadata: { name: 'e' } },
  }));
  await first.close();
  await clock.advance(MINUTE);
  const second = await open();
  const meter = start(second, clock);
  await clock.advance(2 * SECOND);
  const query: UsageQuery = { step: 'day', fromMs: 0, toMs: clock.nowMs() };
  const { total } = usageJson(usageRows(second, meter, query), query);
  assert.equal(total.podSeconds, '18');
  await meter.close();
  await second.close();
});

test('hours become days after 60 days, and days end after 400; sums stay', async () => {
  const { clock, store, start, put, remove, report } = rig();
  let meter = start();
  await put('acme', runningPod('web', { boundMs: clock.nowMs() }));
  await clock.advance(36 * HOUR_MS);
  await remove('acme', 'web');
  await clock.advance(MINUTE);
  const total = () => report(meter, { tenant: 'acme' }).total.podSeconds;
  assert.equal(total(), String(36 * 3600));
  assert.equal(report(meter).items.length, 36);
  await meter.close();
  const later = async (ms: number) => {
    const then = new FakeClock(clock.nowMs() + ms);
    meter = start(store, then);
    await then.advance(2 * MINUTE);
    await meter.close();
  };
  await later(61 * DAY);
  assert.equal(total(), String(36 * 3600));
  assert.deepEqual(
    report(meter).items.map(({ start: from, end }) => [from, end]),
    [
      ['2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z'],
      ['2026-01-02T00:00:00Z', '2026-01-03T00:00:00Z'],
    ],
  );
  assert.equal(store.list(USAGE_RECORDS).entries.length, 1);
  await later(440 * DAY);
  assert.equal(store.list(USAGE_RECORDS).entries.length, 0);
});

test('who takes over a name does not take over what was used under it', async () => {
  const { clock, uids, start, put, remove, report } = rig();
  const meter = start();
  await put('acme', runningPod('old', { boundMs: clock.nowMs() }));
  await clock.advance(10 * SECOND);
  await remove('acme', 'old');
  uids.acme = 'second';
  await put('acme', runningPod('new', { boundMs: clock.nowMs() }));
  await clock.advance(5 * SECOND);
  const seconds = (uid?: string) =>
    report(meter, { tenant: 'acme', ...(uid ? { uid } : {}) }).total.podSeconds;
  assert.equal(seconds('second'), '5');
  assert.equal(seconds('acme-uid'), '10');
  assert.equal(seconds(), '15');
  await meter.close();
});

test('as CSV and as metrics', async () => {
  const { clock, store, start, put } = rig();
  const meter = start();
  await put('acme', runningPod('web', { boundMs: clock.nowMs(), cpu: '1', memory: '1000k' }));
  await clock.advance(10_500);
  const query: UsageQuery = { step: 'day', fromMs: 0, toMs: clock.nowMs() };
  assert.deepEqual(usageCsv(usageRows(store, meter, query)).split('\r\n'), [
    'tenant,tenantUID,start,end,podSeconds,cpuSeconds,memoryByteSeconds,storageByteSeconds,' +
      'cpuUsedSeconds,memoryUsedByteSeconds',
    'acme,acme-uid,2026-01-01T00:00:00Z,2026-01-02T00:00:00Z,10.5,11.025,186660768,0,0,0',
    '',
  ]);
  const text = renderUsage(meter);
  assert.match(text, /^hypernetes_tenant_cpu_seconds_total\{tenant="acme"\} 11\.025$/m);
  assert.match(text, /^hypernetes_tenant_pods\{tenant="acme"\} 1$/m);
  await meter.close();
});

test('more tenants than have series of their own share one', async () => {
  const { clock, start, put } = rig();
  const meter = start();
  for (let i = 0; i < 2003; i += 1) {
    await put(`t${i}`, runningPod('web', { boundMs: clock.nowMs() }));
  }
  await clock.advance(SECOND);
  const lines = renderUsage(meter).split('\n');
  assert.equal(lines.filter((line) => line.startsWith('hypernetes_tenant_pods{')).length, 2001);
  assert.ok(lines.includes('hypernetes_tenant_pods{tenant="_others"} 3'));
  await meter.close();
});

test('a tenant is told what it uses, an operator what everybody does', async () => {
  const usage = (name: string) => `/apis/hypernetes.io/v1/tenants/${name}/usage`;
  let meter: ReturnType<typeof startUsageMeter> | undefined;
  const api = await startTenantHarness('hidden', {
    usage: { accounts: (tenant?: string) => meter?.accounts(tenant) ?? [] } as never,
  });
  await using _ = api;
  const { store, clock, tenants } = api;
  meter = startUsageMeter({ store, tenants, clock, log: silentLog });
  for (const name of ['acme', 'globex']) {
    await api.createTenant(name);
    await api.want('POST', '/api/v1/namespaces', { metadata: { name } }, { as: api.as(name) });
    const key = { resource: 'pods', namespace: name, name: 'web' };
    await store.mutate(key, () => runningPod('web', { boundMs: clock.nowMs() }));
  }
  await clock.advance(30 * SECOND);
  const acme = api.as('acme', 'reader');
  const own = await api.send('GET', usage('acme'), undefined, { as: acme });
  assert.equal(own.code, 200, own.text);
  assert.match(own.text, /"podSeconds":"30"/);
  assert.ok(!own.text.includes('globex'));
  assert.equal((await api.send('GET', usage('globex'), undefined, { as: acme })).code, 403);
  const all = '/hypernetes/usage';
  assert.equal((await api.send('GET', all, undefined, { as: acme })).code, 403);
  assert.equal((await api.send('GET', '/metrics', undefined, { as: acme })).code, 403);
  const csv = await api.send('GET', `${all}?step=day`, undefined, {
    headers: { accept: 'text/csv' },
  });
  assert.match(csv.headers['content-type'] ?? '', /^text\/csv/);
  assert.deepEqual(
    csv.text.split('\r\n').map((line) => line.split(',')[0]),
    ['tenant', 'acme', 'globex', ''],
  );
  assert.match((await api.send('GET', '/metrics')).text, /hypernetes_tenant_pods\{tenant="acme"\}/);
  for (const query of [
    'step=week',
    'format=xml',
    'from=now',
    'from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z',
  ]) {
    const answer = await api.send('GET', `${usage('acme')}?${query}`, undefined, { as: acme });
    assert.equal(answer.code, 400, query);
  }
  await meter.close();
});
