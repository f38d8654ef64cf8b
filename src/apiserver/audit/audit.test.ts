import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import type { UserInfo } from '../../api/auth.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import type { ApiExchange } from '../server/exchange.ts';
import { parseRequestInfo } from '../server/path.ts';
import { configMap } from '../testing/harness.ts';
import { startTenantHarness, tenant } from '../testing/tenants.ts';
import { auditLine } from './event.ts';
import type { RequestTrace } from './event.ts';
import { openAuditLog } from './log.ts';
import type { AuditLimits, AuditLog } from './log.ts';
import { createAuditTrail } from './trail.ts';
import { readAudit } from './read.ts';
import type { AuditQuery } from './read.ts';

const NAMESPACES = '/api/v1/namespaces';
const audit = (name: string) => `/apis/hypernetes.io/v1/tenants/${name}/audit`;

async function scratch(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-audit-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

async function openLog(t: TestContext, limits: Partial<AuditLimits> = {}) {
  const directory = await scratch(t);
  const clock = new FakeClock();
  const common = { directory, clock, random: seededRandom(2), log: silentLog, limits };
  const log = openAuditLog(common);
  t.after(() => log.close());
  return { log, clock, directory, reopen: () => openAuditLog(common) };
}

interface Event {
  stage: string;
  verb: string;
  auditID: string;
  requestURI: string;
  user: UserInfo & { username: string };
  impersonatedUser?: { username: string };
  userAgent?: string;
  sourceIPs?: string[];
  objectRef?: Record<string, string>;
  responseStatus: { code: number; reason?: string };
  annotations: Record<string, string>;
}

const parse = (text: string): Event[] =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Event);

async function read(log: AuditLog, name: string, query: Partial<AuditQuery> = {}) {
  const chunks: Uint8Array[] = [];
  const signal = new AbortController().signal;
  for await (const chunk of readAudit(log, name, { signal, ...query })) chunks.push(chunk);
  return parse(Buffer.concat(chunks).toString('utf8'));
}

async function server(t: TestContext) {
  const opened = await openLog(t);
  const api = await startTenantHarness('hidden', { audit: opened.log });
  t.after(() => api[Symbol.asyncDispose]());
  for (const name of ['acme', 'globex']) {
    await api.createTenant(name);
    await api.want('POST', NAMESPACES, { metadata: { name } }, { as: api.as(name) });
  }
  const eventsOf = async (name: string, as = api.as(name), query = '') =>
    parse((await api.send('GET', `${audit(name)}${query}`, undefined, { as })).text);
  return { ...opened, api, eventsOf };
}

const brief = ({ verb, objectRef = {}, responseStatus, user }: Event) =>
  `${user.username} ${verb} ${objectRef.resource ?? ''}/${objectRef.name ?? ''} ${responseStatus.code}`;

test('what a tenant does is in its log once, and only what concerns it', async (t) => {
  const { api, log, eventsOf } = await server(t);
  const as = api.as('acme');
  const maps = `${NAMESPACES}/acme/configmaps`;
  await api.want('POST', maps, configMap('settings', { data: { key: 's3cret-value' } }), { as });
  await api.send('GET', `${NAMESPACES}/globex/configmaps`, undefined, { as });
  await api.want('GET', `${maps}/settings`);
  await api.send('GET', `${maps}/settings`, undefined, { as: api.as('globex') });
  const events = await eventsOf('acme');
  assert.deepEqual(events.map(brief), [
    // By their path, as kube-apiserver does: the operator made the Tenant on the collection.
    'admin@acme create namespaces/acme 201',
    'admin@acme create configmaps/settings 201',
    'admin@acme list configmaps/ 403',
    'admin get configmaps/settings 200',
    'admin@acme get tenants/acme 200',
  ]);
  const [, created, refused] = events as [Event, Event, Event];
  assert.equal(created.annotations['authorization.k8s.io/decision'], 'allow');
  assert.match(created.annotations['authorization.k8s.io/reason'] ?? '', /admin of tenant "acme"/);
  assert.equal(refused.annotations['authorization.k8s.io/decision'], 'forbid');
  assert.equal(refused.responseStatus.reason, 'Forbidden');
  const text = JSON.stringify(events);
  assert.ok(!text.includes('s3cret'), text);
  const foreign = (await eventsOf('globex')).map(brief);
  assert.ok(foreign.includes('admin@globex get configmaps/settings 403'), foreign.join('\n'));
  assert.ok(!JSON.stringify(await eventsOf('globex')).includes('admin@acme'));
  const own = (await read(log, '_cluster')).map(brief);
  assert.ok(own.includes('admin create tenants/acme 201'), own.join('\n'));
  assert.ok(!own.some((line) => line.includes('configmaps')), own.join('\n'));
});

test('a log is read by its tenant’s admins and by operators, and by nobody else', async (t) => {
  const { api } = await server(t);
  await api.want('POST', '/apis/hypernetes.io/v1/tenants', tenant('acme-dev'), {
    as: api.as('acme'),
  });
  const code = async (target: string, as = api.transport) =>
    (await api.send('GET', target, undefined, { as })).code;
  assert.equal(await code(audit('acme'), api.as('acme')), 200);
  assert.equal(await code(audit('acme-dev'), api.as('acme')), 200);
  assert.equal(await code(audit('acme'), api.as('acme-dev')), 403);
  assert.equal(await code(audit('acme'), api.as('acme', 'member')), 403);
  assert.equal(await code(audit('acme'), api.as('globex')), 403);
  assert.equal(await code(audit('nobody'), api.as('globex')), 403);
  assert.equal(await code(audit('acme')), 200);
  assert.equal(await code(audit('nobody')), 404);
  assert.equal(await code('/hypernetes/audit'), 200);
  assert.equal(await code('/hypernetes/audit?log=acme'), 200);
  assert.equal(await code('/hypernetes/audit?log=../../etc'), 400);
  assert.equal(await code('/hypernetes/audit', api.as('acme')), 403);
  for (const query of ['since=yesterday', 'limit=0', 'limit=10001', 'limit=x', 'until=1']) {
    assert.equal(await code(`${audit('acme')}?${query}`, api.as('acme')), 400, query);
  }
});

test('a tenant sees who of the operators touched what is its own, not whence and why', async (t) => {
  const { api, eventsOf } = await server(t);
  const headers = { 'user-agent': 'kubectl/v1 (operator-laptop)' };
  await api.want('GET', `${NAMESPACES}/acme`, undefined, { headers });
  const [seen] = (await eventsOf('acme')).filter(({ user }) => user.username === 'admin');
  assert.deepEqual(seen?.user, { username: 'admin' });
  assert.equal(seen?.userAgent, undefined);
  assert.equal(seen?.annotations['authorization.k8s.io/reason'], undefined);
  const [raw] = (await eventsOf('acme', api.transport)).filter((each) => each.userAgent);
  assert.equal(raw?.userAgent, headers['user-agent']);
});

test('impersonation names both; a watch is recorded at its beginning and at its end', async (t) => {
  const { api, eventsOf, log } = await server(t);
  const headers = { 'impersonate-user': 'bob@x', 'impersonate-group': 'tenant:acme:admin' };
  await api.want('GET', NAMESPACES, undefined, { headers });
  const acted = (await eventsOf('acme', undefined, '?user=bob%40x'))[0];
  assert.equal(acted?.user.username, 'admin');
  assert.equal(acted?.impersonatedUser?.username, 'bob@x');
  const watcher = await api.watch(`${NAMESPACES}/acme/pods?watch=true`, { as: api.as('acme') });
  const stages = async () =>
    (await read(log, 'acme', { verb: 'watch' })).map(({ stage, auditID }) => ({ stage, auditID }));
  const begun = await stages();
  assert.deepEqual(
    begun.map(({ stage }) => stage),
    ['ResponseStarted'],
  );
  const ended = watcher.next();
  await api.want('POST', `${NAMESPACES}/acme/serviceaccounts`, { metadata: { name: 'default' } });
  await api.want('POST', `${NAMESPACES}/acme/pods`, {
    metadata: { name: 'p' },
    spec: { containers: [{ name: 'c', image: 'i' }] },
  });
  await ended;
  await watcher.stop();
  assert.deepEqual(await stages(), [
    ...begun,
    { stage: 'ResponseComplete', auditID: begun[0]?.auditID },
  ]);
});

test('a tenant of a name that another had does not see what that one did', async (t) => {
  const { api, eventsOf } = await server(t);
  await api.want('GET', `${NAMESPACES}/acme`, undefined, { as: api.as('acme') });
  assert.ok((await eventsOf('acme')).length > 1);
  const key = { resource: 'hypernetes.io/tenants', namespace: '', name: 'acme' };
  await api.store.mutate(key, (entry) => {
    const { object } = entry as NonNullable<typeof entry>;
    return { ...object, metadata: { ...object.metadata, uid: 'another' } };
  });
  // Not even its own reading before.
  assert.deepEqual((await eventsOf('acme')).map(brief), ['admin@acme get tenants/acme 200']);
  const left = await api.send('GET', '/hypernetes/audit?log=acme');
  assert.ok(parse(left.text).length > 1);
});

test('who acts as somebody of a tenant that there is not is in the cluster’s log', async (t) => {
  const { api, log, directory } = await server(t);
  for (const name of ['../../escape', 'nobody']) {
    const headers = { 'impersonate-user': 'bob', 'impersonate-group': `tenant:${name}:admin` };
    await api.send('GET', NAMESPACES, undefined, { headers });
  }
  const acted = await read(log, '_cluster', { user: 'bob' });
  assert.deepEqual(
    acted.map(({ annotations }) => annotations['hypernetes.io/tenant']),
    ['../../escape', 'nobody'],
  );
  assert.deepEqual((await readdir(directory)).sort(), ['_cluster', 'acme', 'globex']);
});

test('health, heartbeats and the server’s own reading are left out', async (t) => {
  const { api, log } = await server(t);
  const before = (await read(log, '_cluster')).length;
  await api.send('GET', '/readyz');
  await api.send('GET', `${NAMESPACES}/kube-node-lease`);
  await api.send('GET', '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1');
  await api.send('GET', '/api/v1/pods');
  assert.equal((await read(log, '_cluster')).length, before);
  await api.send('DELETE', `${NAMESPACES}/nothing`);
  assert.equal((await read(log, '_cluster')).length, before + 1);
});

const HOSTILE = '\n{"kind":"Event"}\r\u001b[2J\u0085\u2028\u202e\ud800';

function line(trace: RequestTrace, path: string, headers = {}, query = ''): string {
  const search = new URLSearchParams(query);
  return auditLine({
    auditId: 'id',
    stage: 'ResponseComplete',
    exchange: { method: 'GET', path, query: search, headers, remoteAddress: '::1' },
    info: parseRequestInfo('GET', path, search),
    trace,
    code: 200,
    receivedMs: 0,
    nowMs: 1,
  });
}

test('whatever is sent, an event is one line of bounded length that no terminal obeys', () => {
  const long = HOSTILE.repeat(10_000);
  const user: UserInfo = {
    name: long,
    uid: long,
    groups: Array.from({ length: 1000 }, () => long),
    extra: Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`${i}${long}`, [long, long]])),
  };
  const trace = { authenticated: user, user, decision: { decision: 'allow', reason: long } };
  const path = `/api/v1/namespaces/${encodeURIComponent('\n\u202e'.repeat(9000))}/pods/x`;
  const text = line(trace as RequestTrace, path, { 'user-agent': long });
  assert.equal(text.indexOf('\n'), text.length - 1);
  // eslint-disable-next-line no-control-regex
  assert.doesNotMatch(text.slice(0, -1), /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202e]/);
  assert.ok(Buffer.byteLength(text) < 512 << 10, `${Buffer.byteLength(text)} bytes`);
  const event = JSON.parse(text) as Event;
  assert.equal(event.userAgent, long.slice(0, 1024).toWellFormed());
  assert.equal(Buffer.from(text).toString('utf8'), text);
});

test('credentials and commands are not recorded', () => {
  const headers = { authorization: 'Bearer tok', cookie: 'tok', 'sec-websocket-protocol': 'tok' };
  const query = 'command=mysql&command=-ptok&container=db&token=tok&access_token=tok';
  const text = line({}, '/api/v1/namespaces/a/pods/p/exec', headers, query);
  assert.ok(!text.includes('tok'), text);
  assert.equal((JSON.parse(text) as Event).requestURI.split('?')[1], 'container=db');
});

test('recording costs a request less than 50 µs', async (t) => {
  const { log, clock } = await openLog(t);
  const names = Array.from({ length: 20 }, (_, i) => `tenant:acme:group-${i}`);
  const tenants = { get: () => ({ metadata: { uid: 'u1' } }) as never, ofNamespace: () => 'acme' };
  const trail = createAuditTrail({ log, tenants, clock });
  const path = '/api/v1/namespaces/acme/pods/web-0';
  const user: UserInfo = { name: 'a@x', uid: 'u', groups: names, extra: {}, tenant: 'acme' };
  const trace: RequestTrace = {
    ...{ authenticated: user, user },
    decision: { decision: 'allow', reason: 'allowed as admin of tenant "acme"' },
  };
  const exchange = {
    ...{ method: 'GET', path, rawQuery: '', query: new URLSearchParams('limit=500') },
    headers: { 'user-agent': 'kubectl/v1.35.0 (linux/amd64) kubernetes/abcdef' },
    ...{ remoteAddress: '10.0.0.1', signal: new AbortController().signal, upgradable: false },
  } as unknown as ApiExchange;
  const info = parseRequestInfo('GET', path, exchange.query);
  const reply = { status: 200, headers: {}, body: new Uint8Array() };
  const microseconds: number[] = [];
  for (let round = 0; round < 20; round += 1) {
    const count = 200;
    const startMs = performance.now();
    for (let i = 0; i < count; i += 1) {
      trail({ exchange, info, trace, auditId: `${round}-${i}`, receivedMs: 0 }, reply);
    }
    microseconds.push(((performance.now() - startMs) * 1000) / count);
    await log.flush();
  }
  const median = microseconds.sort((a, b) => a - b)[10] as number;
  t.diagnostic(`${median.toFixed(1)} µs per request`);
  assert.ok(median < 50, `${median} µs`);
  assert.equal(log.stats().lostCount, 0);
});

const target = (log: string, owner = 'u1') => ({ log, owner });

test('a full queue loses what comes, counts it and says so; other logs do not notice', async (t) => {
  const { log } = await openLog(t, { pendingBytesPerLog: 100 });
  for (let i = 0; i < 50; i += 1) log.record(target('loud'), `{"verb":"get","n":${1000 + i}}\n`);
  log.record(target('calm'), '{"verb":"get"}\n');
  await log.flush();
  const kept = await read(log, 'loud');
  assert.equal(kept.length, 4);
  assert.equal(log.stats().lostCount, 46);
  log.record(target('loud'), '{"verb":"list"}\n');
  await log.flush();
  const [loss, last] = (await read(log, 'loud')).slice(4);
  assert.equal(loss?.annotations['hypernetes.io/lost-events'], '46');
  assert.equal(last?.verb, 'list');
  assert.equal((await read(log, 'calm')).length, 1);
});

test('files are followed by others by size and age, and the oldest go', async (t) => {
  const limits = { fileBytes: 200, bytesPerLog: 1000, fileAgeMs: 1000, keepMs: 50_000 };
  const { log, clock, directory } = await openLog(t, limits);
  const sizes = async () => {
    const names = await readdir(join(directory, 'acme'));
    const all = await Promise.all(names.map((name) => stat(join(directory, 'acme', name))));
    return all.map(({ size }) => size);
  };
  for (let i = 0; i < 100; i += 1) {
    log.record(target('acme'), `{"verb":"get","user":{"username":"user-${1000 + i}"}}\n`);
    await log.flush();
  }
  const total = (await sizes()).reduce((sum, size) => sum + size, 0);
  assert.ok(total <= 1000 + 250 && total > 700, String(total));
  assert.equal((await read(log, 'acme')).at(-1)?.user.username, 'user-1099');
  await clock.advance(2000);
  const before = (await sizes()).length;
  log.record(target('acme'), '{}\n');
  await log.flush();
  assert.ok((await sizes()).length >= before);
  assert.equal((await stat(join(directory, 'acme'))).mode & 0o777, 0o700);
  await clock.advance(3_700_000);
  await log.flush();
  assert.deepEqual(await sizes(), []);
});

test('half a line, as a crash leaves it, costs that line alone', async (t) => {
  const { log, directory, reopen } = await openLog(t);
  log.record(target('acme'), '{"verb":"get"}\n');
  await log.close();
  const [name = ''] = await readdir(join(directory, 'acme'));
  await appendFile(join(directory, 'acme', name), '{"verb":"li');
  const again = reopen();
  t.after(() => again.close());
  again.record(target('acme'), '{"verb":"watch"}\n');
  await again.flush();
  assert.deepEqual(
    (await read(again, 'acme')).map(({ verb }) => verb),
    ['get', 'watch'],
  );
});

test('what the disk does not take is counted, and later lines are written', async (t) => {
  const { log, directory } = await openLog(t);
  await appendFile(join(directory, 'acme'), 'a file where the directory belongs');
  log.record(target('acme'), '{"verb":"get"}\n');
  await log.flush();
  assert.equal(log.stats().lostCount, 1);
  await rm(join(directory, 'acme'));
  log.record(target('acme'), '{"verb":"list"}\n');
  await log.flush();
  assert.equal((await read(log, 'acme')).at(-1)?.verb, 'list');
});

test('very long lines are held up to a bound, the newest of them', async (t) => {
  const { log } = await openLog(t);
  for (let n = 0; n < 20; n += 1) {
    log.record(target('acme'), `{"auditID":"${n}","userAgent":"${'x'.repeat(1 << 20)}"}\n`);
    await log.flush();
  }
  const events = await read(log, 'acme', { limit: 100 });
  assert.equal(events.length, 15);
  assert.equal(events.at(-1)?.auditID, '19');
});

test('a reader gets the newest, a stretch of time, or what comes, each line once', async (t) => {
  const { log, clock } = await openLog(t, { fileBytes: 2000 });
  const write = async (n: number) => {
    const stageTimestamp = new Date(clock.nowMs()).toISOString();
    const event = { verb: n % 2 ? 'get' : 'list', stageTimestamp, auditID: String(n) };
    log.record(target('acme'), `${JSON.stringify(event)}\n`);
    await clock.advance(1000);
  };
  const startMs = clock.nowMs();
  for (let n = 0; n < 100; n += 1) await write(n);
  const ids = (events: Event[]) => events.map(({ auditID }) => Number(auditID));
  assert.deepEqual(ids(await read(log, 'acme', { limit: 3 })), [97, 98, 99]);
  assert.deepEqual(ids(await read(log, 'acme', { limit: 2, verb: 'get' })), [97, 99]);
  assert.equal((await read(log, 'acme', { limit: 60 })).length, 60);
  const window = { sinceMs: startMs + 40_000, untilMs: startMs + 43_000 };
  assert.deepEqual(ids(await read(log, 'acme', window)), [40, 41, 42, 43]);
  const stop = new AbortController();
  const seen: number[] = [];
  const following = (async () => {
    const query = { follow: true, signal: stop.signal };
    for await (const chunk of readAudit(log, 'acme', query)) {
      seen.push(...ids(parse(Buffer.from(chunk).toString('utf8'))));
      if (seen.at(-1) === 149) stop.abort();
    }
  })();
  for (let n = 100; n < 150; n += 1) {
    await write(n);
    if (n % 10 === 9) await log.flush();
  }
  await following;
  assert.deepEqual(
    seen,
    Array.from({ length: 150 }, (_, n) => n),
  );
});
