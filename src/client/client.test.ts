import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConfigMap } from '../api/types.generated.ts';
import { isStatus, StatusError } from '../api/status.ts';
import { FakeClock } from '../base/clock.fake.ts';
import { silentLog } from '../base/log.ts';
import { seededRandom } from '../base/random.ts';
import { createClient } from './client.ts';
import { createEventRecorder } from './events.ts';
import { createInformer, createInformerFactory } from './informer.ts';
import type { Informer } from './informer.ts';
import { CONFIG_MAPS, EVENTS, PODS, pathOf } from './resources.ts';
import { createFakeApi, pass } from './testing.fake.ts';
import { createWorkQueue } from './workqueue.ts';
import { runController } from './controller.ts';

const map = (name: string, value: string, more: object = {}): ConfigMap => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: 'ns', ...more },
  data: { value },
});

function setUp(t: { after(end: () => void): void }) {
  const clock = new FakeClock();
  const api = createFakeApi(clock);
  const client = createClient(api.transport, { userAgent: 'test' });
  const ending = new AbortController();
  t.after(() => ending.abort());
  const base = { client, clock, random: seededRandom(1), log: silentLog, signal: ending.signal };
  return { clock, api, client, ending, base };
}

function record(informer: Informer<ConfigMap>): string[] {
  const lines: string[] = [];
  informer.addHandler({
    add: ({ metadata, data }) => lines.push(`add ${metadata.name} ${data?.value}`),
    update: ({ metadata, data }, previous) =>
      lines.push(`update ${metadata.name} ${previous.data?.value} ${data?.value}`),
    delete: ({ metadata, data }) => lines.push(`delete ${metadata.name} ${data?.value}`),
  });
  return lines;
}

test('pathOf() writes and escapes the paths of both API roots', () => {
  assert.equal(pathOf(PODS, 'ns', 'p', 'status'), '/api/v1/namespaces/ns/pods/p/status');
  assert.equal(pathOf(PODS, undefined), '/api/v1/pods');
  assert.equal(pathOf(PODS, 'ns', 'a/../b'), '/api/v1/namespaces/ns/pods/a%2F..%2Fb');
});

test('the client writes, reads and tells errors apart', async (t) => {
  const { client } = setUp(t);
  const made = await client.create(CONFIG_MAPS, map('a', '1'));
  assert.ok(made.metadata.uid);
  await assert.rejects(client.create(CONFIG_MAPS, map('a', '1')), (error) =>
    isStatus(error, 'AlreadyExists'),
  );
  await client.update(CONFIG_MAPS, { ...made, data: { value: '2' } });
  await assert.rejects(client.update(CONFIG_MAPS, { ...made, data: { value: '3' } }), (error) =>
    isStatus(error, 'Conflict'),
  );
  const key = { namespace: 'ns', name: 'a' };
  await client.patch(CONFIG_MAPS, key, 'merge', { data: { more: 'x' } });
  assert.deepEqual((await client.get(CONFIG_MAPS, key)).data, { value: '2', more: 'x' });
  await assert.rejects(client.delete(CONFIG_MAPS, key, { uid: 'other' }), (error) =>
    isStatus(error, 'Conflict'),
  );
  await client.delete(CONFIG_MAPS, key, { uid: made.metadata.uid });
  await assert.rejects(client.get(CONFIG_MAPS, key), (error) => isStatus(error, 'NotFound'));
});

test('listAll() joins pages and fills in what items of lists lack', async (t) => {
  const { client, api } = setUp(t);
  for (let index = 0; index < 1203; index++) api.put(CONFIG_MAPS, map(`m${index}`, '1'));
  const all = await client.listAll(CONFIG_MAPS, { namespace: 'ns' });
  assert.equal(all.items.length, 1203);
  assert.equal(all.items[1202]?.kind, 'ConfigMap');
});

test('an informer follows changes, keeps indexes, and replays for late handlers', async (t) => {
  const { api, base, clock } = setUp(t);
  api.put(CONFIG_MAPS, map('a', '1'));
  const informer = createInformer({ ...base, resource: CONFIG_MAPS });
  informer.addIndex('value', ({ data }) => [data?.value ?? '']);
  const lines = record(informer);
  await informer.synced;
  await pass(clock, 10);
  api.put(CONFIG_MAPS, map('b', '1'));
  api.put(CONFIG_MAPS, map('a', '2'));
  await pass(clock, 10);
  assert.deepEqual(lines, ['add a 1', 'add b 1', 'update a 1 2']);
  const names = () => informer.byIndex('value', '1').map(({ metadata }) => metadata.name);
  assert.deepEqual(names(), ['b']);
  api.remove(CONFIG_MAPS, 'ns', 'b');
  await pass(clock, 10);
  assert.deepEqual(names(), []);
  assert.deepEqual(record(informer), ['add a 2']);
  assert.equal(informer.get('ns', 'a')?.data?.value, '2');
});

test('an informer resumes after lost watches without listing again', async (t) => {
  const { api, base, clock } = setUp(t);
  const informer = createInformer({ ...base, resource: CONFIG_MAPS });
  const lines = record(informer);
  await informer.synced;
  await pass(clock, 10);
  api.failNext(/configmaps/, new StatusError('ServiceUnavailable', 'away'), 3);
  api.dropWatches();
  api.put(CONFIG_MAPS, map('a', '1'));
  await pass(clock, 60_000);
  assert.deepEqual(lines, ['add a 1']);
  assert.equal(api.watchCount, 1);
});

test('an informer lists again after 410 and tells what it missed', async (t) => {
  const { api, base, clock } = setUp(t);
  api.put(CONFIG_MAPS, map('gone', '1'));
  api.put(CONFIG_MAPS, map('changed', '1'));
  api.put(CONFIG_MAPS, map('replaced', '1', { uid: 'u1' }));
  const informer = createInformer({ ...base, resource: CONFIG_MAPS });
  const lines = record(informer);
  await informer.synced;
  await pass(clock, 10);
  lines.length = 0;
  api.dropWatches();
  api.remove(CONFIG_MAPS, 'ns', 'gone');
  api.put(CONFIG_MAPS, map('changed', '2'));
  api.remove(CONFIG_MAPS, 'ns', 'replaced');
  api.put(CONFIG_MAPS, map('replaced', '2', { uid: 'u2' }));
  api.put(CONFIG_MAPS, map('new', '1'));
  api.compact();
  await pass(clock, 60_000);
  assert.deepEqual(lines.sort(), [
    'add new 1',
    'add replaced 2',
    'delete gone 1',
    'delete replaced 1',
    'update changed 1 2',
  ]);
});

test('a factory shares informers, and abort ends them without a trace', async (t) => {
  const { base, api, clock, ending } = setUp(t);
  const factory = createInformerFactory(base);
  assert.equal(factory.informer(CONFIG_MAPS), factory.informer(CONFIG_MAPS));
  await factory.informer(CONFIG_MAPS).synced;
  await pass(clock, 10);
  assert.equal(api.watchCount, 1);
  ending.abort();
  await pass(clock, 10);
  assert.equal(api.watchCount, 0);
  assert.equal(clock.pendingCount, 0);
});

test('a work queue holds a key once and gives it to one worker at a time', async () => {
  const queue = createWorkQueue(new FakeClock());
  queue.add('a');
  queue.add('a');
  queue.add('b');
  assert.equal(queue.length, 2);
  assert.equal(await queue.next(), 'a');
  queue.add('a');
  assert.equal(await queue.next(), 'b');
  const third = queue.next();
  queue.done('b');
  queue.done('a');
  assert.equal(await third, 'a');
  queue.shutDown();
  assert.equal(await queue.next(), undefined);
});

test('a work queue delays, doubles and forgets', async () => {
  const clock = new FakeClock();
  const queue = createWorkQueue(clock);
  queue.addAfter('x', 100);
  queue.addAfter('x', 50);
  queue.addAfter('x', 200);
  await clock.advance(49);
  assert.equal(queue.length, 0);
  await clock.advance(1);
  assert.equal(await queue.next(), 'x');
  queue.done('x');
  const waits: number[] = [];
  for (let round = 0; round < 20; round++) {
    const startMs = clock.nowMs();
    queue.addRateLimited('x');
    while (queue.length === 0) await clock.advance(5);
    waits.push(clock.nowMs() - startMs);
    queue.done((await queue.next()) ?? '');
  }
  assert.deepEqual(waits.slice(0, 4), [5, 10, 20, 40]);
  assert.equal(waits.at(-1), 60_000);
  queue.forget('x');
  queue.addRateLimited('x');
  await clock.advance(5);
  assert.equal(queue.length, 1);
});

test('a controller waits for its informers, retries, and ends with its work', async (t) => {
  const { base, clock, ending } = setUp(t);
  const queue = createWorkQueue(clock);
  const { promise: synced, resolve: sync } = Promise.withResolvers<void>();
  const seen: string[] = [];
  let failures = 2;
  queue.add('a');
  const running = runController({
    ...base,
    name: 'test',
    queue,
    informers: [{ synced }],
    async reconcile(key) {
      await Promise.resolve();
      seen.push(key);
      if (failures-- > 0) throw new Error('not yet');
    },
  });
  await clock.advance(1000);
  assert.deepEqual(seen, []);
  sync();
  await clock.advance(1000);
  assert.deepEqual(seen, ['a', 'a', 'a']);
  ending.abort();
  await running;
  assert.equal(clock.pendingCount, 0);
});

test('events that repeat are counted, similar ones combined, floods dropped', async (t) => {
  const { api, base } = setUp(t);
  const recorder = createEventRecorder({ ...base, component: 'test' });
  const about = (name: string) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'ns', uid: name },
  });
  for (let round = 0; round < 5; round++) recorder.event(about('p'), 'Warning', 'BackOff', 'same');
  await recorder.flush();
  const [event] = api.all(EVENTS);
  assert.equal(api.all(EVENTS).length, 1);
  assert.equal(event?.count, 5);
  assert.equal((event?.involvedObject as { uid: string }).uid, 'p');
  for (let round = 0; round < 20; round++) {
    recorder.event(about('q'), 'Normal', 'Differs', `message ${round}`);
  }
  await recorder.flush();
  const similar = api.all(EVENTS).filter(({ reason }) => reason === 'Differs');
  assert.equal(similar.length, 11);
  assert.match(String(similar.at(-1)?.message), /^\(combined from similar events\): message 19/);
  for (let round = 0; round < 100; round++) recorder.event(about('r'), 'Normal', `R${round}`, 'm');
  await recorder.flush();
  assert.equal(api.all(EVENTS).filter(({ reason }) => /^R/.test(String(reason))).length, 25);
});
