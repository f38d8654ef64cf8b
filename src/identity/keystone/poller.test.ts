import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IdentityProject } from '../../api/identity.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import { createPoller } from './poller.ts';

function stage() {
  const clock = new FakeClock();
  const domain = { id: 'default', name: 'Default' };
  const project = { id: 'p1', name: 'acme', domain, description: '', enabled: true };
  const state = { projects: [project] as IdentityProject[], looks: 0, isAway: false };
  const poller = createPoller({
    async listProjects() {
      state.looks += 1;
      if (state.isAway) throw new Error('away');
      return state.projects.map((item) => ({ ...item }));
    },
    intervalMs: 1_000,
    clock,
    log: silentLog,
  });
  const ended = new AbortController();
  const told = { count: 0 };
  poller.subscribe(() => (told.count += 1), ended.signal);
  return { clock, state, poller, ended, told, project };
}

test('changes are told once each, and none where nothing changed', async () => {
  const { clock, state, told, project } = stage();
  await clock.advance(5_000);
  assert.equal(told.count, 1, 'the first look');
  state.projects = [{ ...project, name: 'renamed' }];
  await clock.advance(1_000);
  state.projects = [{ ...project, enabled: false }];
  await clock.advance(1_000);
  state.projects = [];
  await clock.advance(5_000);
  assert.equal(told.count, 4);
});

test('an outage is no change, and what happened meanwhile is', async () => {
  const { clock, state, told } = stage();
  await clock.advance(1_000);
  state.isAway = true;
  await clock.advance(10_000);
  assert.equal(told.count, 1);
  state.projects = [];
  state.isAway = false;
  await clock.advance(1_000);
  assert.equal(told.count, 2);
});

test('nobody looks when nobody wants to know, and a write is looked at at once', async () => {
  const { clock, state, poller, ended, told } = stage();
  await clock.advance(100);
  state.projects = [];
  poller.lookNow();
  await clock.advance(0);
  assert.equal(told.count, 2);
  ended.abort();
  await clock.advance(0);
  const { looks } = state;
  await clock.advance(60_000);
  assert.equal(state.looks, looks);
  assert.equal(clock.pendingCount, 0);
  poller.subscribe(() => (told.count += 1), new AbortController().signal);
  await clock.advance(0);
  assert.equal(told.count, 3);
  poller.close();
  await clock.advance(0);
  assert.equal(clock.pendingCount, 0);
});
