import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import type { Log, LogFields } from '../../base/log.ts';
import { silentLog } from '../../base/log.ts';
import type { KeystoneAnswer, KeystoneHttp, KeystoneRequest } from './http.ts';
import { createSession } from './session.ts';
import { CREDENTIALS, tokenBody } from './testing/scripted.ts';

const LIFE_MS = 3_600_000;

function stage(skewMs = 0) {
  const clock = new FakeClock();
  const logins: KeystoneRequest[] = [];
  const used: string[] = [];
  const warnings: LogFields[] = [];
  const log: Log = { ...silentLog, warn: (_, fields = {}) => void warnings.push(fields) };
  const state = { isAway: false, refuses: (_token: string) => false };
  const http: KeystoneHttp = {
    async call(request): Promise<KeystoneAnswer> {
      if (state.isAway) throw new Error('away');
      if (request.method === 'POST') {
        logins.push(request);
        const headers = { 'x-subject-token': `token-${logins.length}` };
        const body = tokenBody({}, clock.nowMs() + skewMs);
        return { status: 201, headers, body, message: '' };
      }
      const token = request.headers?.['x-auth-token'] ?? '';
      used.push(token);
      const status = state.refuses(token) ? 401 : 200;
      return { status, headers: {}, body: {}, message: 'no' };
    },
    close() {},
  };
  const session = createSession({ http, credentials: CREDENTIALS, clock, log });
  const ask = () => session.request({ method: 'GET', path: '/x' });
  return { clock, session, logins, used, warnings, state, ask };
}

test('many requests log in once', async () => {
  const { ask, logins } = stage();
  await Promise.all(Array.from({ length: 50 }, ask));
  assert.equal(logins.length, 1);
});

test('the token is renewed before it ends, while it is still used', async () => {
  const { clock, ask, used, logins, state } = stage();
  await ask();
  await clock.advance(LIFE_MS * 0.8);
  state.isAway = true;
  await assert.rejects(ask(), { message: 'away' });
  state.isAway = false;
  await ask();
  await clock.advance(0);
  await ask();
  assert.deepEqual(used, ['token-1', 'token-1', 'token-2']);
  assert.equal(logins.length, 2);
  await clock.advance(LIFE_MS);
  await ask();
  assert.equal(used.at(-1), 'token-3');
});

test('a token that is not accepted any more is replaced, and the request done again', async () => {
  const { ask, logins, state, clock } = stage();
  await ask();
  await clock.advance(1_000);
  state.refuses = (token) => token === 'token-1';
  const answers = await Promise.all(Array.from({ length: 10 }, ask));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.equal(logins.length, 2);
});

test('a token that is never accepted does not make it log in with each request', async () => {
  const { ask, logins, state, clock } = stage();
  await ask();
  state.refuses = () => true;
  for (let second = 0; second < 5; second += 1) {
    await clock.advance(1_000);
    const asked = Array.from({ length: 10 }, ask);
    for (const one of asked) await assert.rejects(one, { name: 'IdentityForbiddenError' });
  }
  assert.ok(logins.length <= 6, `${logins.length} logins`);
});

test('a clock that differs is told of once, and known', async () => {
  for (const skewMs of [-60_000, 0, 500, 60_000]) {
    const { ask, session, clock, warnings } = stage(skewMs);
    await ask();
    await clock.advance(LIFE_MS * 2);
    await ask();
    assert.equal(session.keystoneNowMs() - clock.nowMs(), skewMs);
    assert.deepEqual(warnings, Math.abs(skewMs) > 1_000 ? [{ skewMs }] : []);
  }
});
