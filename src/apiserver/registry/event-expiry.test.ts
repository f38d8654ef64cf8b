import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NS, startHarness } from '../testing/harness.ts';
import type { Harness } from '../testing/harness.ts';

const event = (name: string, more: object = {}) => ({
  metadata: { name },
  involvedObject: { kind: 'Pod', namespace: 'default', name: 'p' },
  ...more,
});

const names = (api: Harness) =>
  api.store.list('events', { namespace: 'default' }).entries.map(({ key }) => key.name);

async function pass(api: Harness, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 30_000) await api.clock.advance(30_000);
  await api.store.barrier();
}

test('events go an hour after they were last seen, whatever they say of the future', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/events`, event('old'));
  await api.want('POST', `${NS}/events`, event('later', { lastTimestamp: '2030-01-01T00:00:00Z' }));
  await api.want('POST', `${NS}/events`, event('seen'));
  await pass(api, 30 * 60_000);
  const lastTimestamp = new Date(api.clock.nowMs()).toISOString().replace(/\.\d+/, '');
  const type = 'application/merge-patch+json';
  await api.want('PATCH', `${NS}/events/seen`, { lastTimestamp, count: 2 }, { type });
  assert.deepEqual(names(api), ['later', 'old', 'seen']);
  await pass(api, 31 * 60_000);
  assert.deepEqual(names(api), ['seen']);
  await pass(api, 31 * 60_000);
  assert.deepEqual(names(api), []);
});

test('of too many events, or too large ones, a namespace keeps the newest', async () => {
  const limits = { eventsPerNamespace: 3, eventBytesPerNamespace: 4_000 };
  await using api = await startHarness({ limits });
  for (const name of ['a', 'b', 'c', 'd']) await api.want('POST', `${NS}/events`, event(name));
  await pass(api, 30_000);
  assert.deepEqual(names(api), ['b', 'c', 'd']);
  const message = 'x'.repeat(3_000);
  await api.want('POST', `${NS}/events`, event('e', { message }));
  await pass(api, 30_000);
  assert.ok(names(api).includes('e') && names(api).length < 4, String(names(api)));
  await api.want('POST', `${NS}/events`, event('f', { message }));
  await pass(api, 30_000);
  assert.ok(!names(api).includes('e'), String(names(api)));
});
