import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { jsonReply } from '../codec/reply.ts';
import type { ServerContext } from '../context.ts';
import { DEFAULT_LIMITS } from '../limits.ts';
import type { ApiExchange } from './exchange.ts';
import { createMetrics } from './metrics.ts';
import { withMounts } from './mounts.ts';
import type { MountRequest } from './mounts.ts';

const server = {
  clock: new FakeClock(),
  limits: { ...DEFAULT_LIMITS, mountsInFlight: 2, requestBodyBytes: 8 },
  metrics: createMetrics(),
} as unknown as ServerContext;

function exchange(path: string, body = ''): ApiExchange {
  const chunks = body ? [Buffer.from(body)] : [];
  return {
    method: 'POST',
    path,
    query: new URLSearchParams('a=b'),
    headers: { 'x-auth-token': 'secret' },
    remoteAddress: '192.0.2.7',
    body: (async function* () {
      yield* chunks;
    })(),
  } as unknown as ApiExchange;
}

test('a mount answers its paths and no others, with the body read within its limit', async () => {
  const seen: MountRequest[] = [];
  const mount = {
    serves: (path: string) => path.startsWith('/identity/'),
    handle(request: MountRequest) {
      seen.push(request);
      return Promise.resolve({ status: 201, headers: { 'x-subject-token': 't' }, body: '{}' });
    },
  };
  const handle = withMounts(server, [mount], () => Promise.resolve(jsonReply(200, {})));
  assert.equal((await handle(exchange('/api/v1'))).status, 200);
  assert.equal((await handle(exchange('/identityx'))).status, 200);
  const reply = await handle(exchange('/identity/v3', '12345678'));
  assert.deepEqual([reply.status, reply.headers['x-subject-token']], [201, 't']);
  assert.equal(Buffer.from(seen[0]?.body ?? []).toString(), '12345678');
  assert.equal(seen[0]?.source, '192.0.2.7');
  assert.equal((await handle(exchange('/identity/v3', '123456789'))).status, 413);
  assert.equal(seen.length, 1);
});

test('what is beyond the limit is told to come back', async () => {
  const waiting: (() => void)[] = [];
  const mount = {
    serves: () => true,
    handle: () =>
      new Promise<{ status: number; headers: Record<string, string>; body: string }>((resolve) => {
        waiting.push(() => resolve({ status: 200, headers: {}, body: '' }));
      }),
  };
  const handle = withMounts(server, [mount], () => assert.fail('not for the server itself'));
  const first = [handle(exchange('/a')), handle(exchange('/b'))];
  const refused = await handle(exchange('/c'));
  assert.deepEqual([refused.status, refused.headers['retry-after']], [429, '1']);
  while (waiting.length < 2) await new Promise(setImmediate);
  for (const resolve of waiting) resolve();
  assert.deepEqual(
    (await Promise.all(first)).map(({ status }) => status),
    [200, 200],
  );
});
