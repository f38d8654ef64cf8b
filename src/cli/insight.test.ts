import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Transport } from '../client/transport.ts';
import { eventText } from './audit.ts';
import { UsageError } from './errors.ts';
import { plain, readPieces, readText, readWhen } from './read.ts';
import { usageText } from './usage.ts';
import { attributesOf } from './why.ts';

const resource = (verb: string, text: string, name?: string) => {
  const question = { verb, resource: text, ...(name ? { name } : {}) };
  return attributesOf(question, 'acme').resourceAttributes;
};

test('resources are named as kubectl names them', () => {
  const fields = { version: 'v1', verb: 'get', subresource: '', name: '' };
  const pods = { ...fields, group: '', resource: 'pods', namespace: 'acme' };
  for (const word of ['pods', 'pod', 'po', 'Pod']) assert.deepEqual(resource('get', word), pods);
  assert.deepEqual(resource('get', 'pods/log', 'web'), {
    ...pods,
    subresource: 'log',
    name: 'web',
  });
  assert.equal(resource('list', 'deploy')?.group, 'apps');
  assert.equal(resource('list', 'tn')?.namespace, '');
  assert.equal(resource('get', 'ns', 'acme-web')?.namespace, 'acme-web');
  assert.deepEqual(resource('get', 'widgets.example.org'), {
    ...{ ...fields, version: '*', group: 'example.org', resource: 'widgets', namespace: 'acme' },
  });
  const path = attributesOf({ verb: 'get', resource: '/metrics' }, '');
  assert.deepEqual(path, { nonResourceAttributes: { path: '/metrics', verb: 'get' } });
  assert.throws(() => resource('get', 'widgets'), UsageError);
});

test('an event is one line, whatever is in it', () => {
  const event = {
    stage: 'ResponseComplete',
    stageTimestamp: '2026-01-01T00:00:00.000000Z',
    verb: 'get',
    user: { username: 'admin' },
    impersonatedUser: { username: 'bob\u001b[2J\n' },
    objectRef: { resource: 'pods', subresource: 'log', namespace: 'acme', name: 'web\u202e' },
    responseStatus: { code: 403, reason: 'Forbidden' },
  };
  assert.equal(
    eventText(event),
    '2026-01-01T00:00:00.000000Z  admin as bob\\u{1b}[2J\\u{a}  get pods/log acme/web\\u{202e}  ' +
      '403 Forbidden',
  );
  const annotations = { 'hypernetes.io/lost-events': '12' };
  assert.match(eventText({ annotations, stageTimestamp: 'then' }), /12 events were lost here/);
  assert.equal(plain('grüße, 世界'), 'grüße, 世界');
});

test('use is shown in hours, with its sum', () => {
  const amounts = {
    podSeconds: '7200',
    cpuSeconds: '1800',
    memoryByteSeconds: String(2 ** 30 * 3600),
    storageByteSeconds: '0',
  };
  const item = { tenant: 'acme', start: '2026-01-01T00:00:00Z', ...amounts };
  const lines = usageText({ items: [item], total: amounts }, 'day').split('\n');
  assert.match(lines[1] ?? '', /^acme +2026-01-01 +2\.00 +0\.50 +1\.00 +0\.00$/);
  assert.match(lines[2] ?? '', /^total +2\.00/);
  assert.equal(usageText({ items: [], total: amounts }, 'day'), 'nothing was used\n');
});

function answering(status: number, ...pieces: Buffer[]): Transport {
  return {
    close: () => Promise.resolve(),
    async request() {
      return {
        status,
        headers: {},
        body: (async function* () {
          yield* pieces;
        })(),
      };
    },
  };
}

test('characters are not cut between pieces; a refusal is an error with its status', async () => {
  const bytes = Buffer.from('grüße', 'utf8');
  const transport = answering(200, bytes.subarray(0, 3), bytes.subarray(3));
  assert.equal(await readText(transport, '/', {}), 'grüße');
  const refusal = answering(403, Buffer.from('{"message":"no\\u001b[0m"}'));
  await assert.rejects(readPieces(refusal, '/', {})[Symbol.asyncIterator]().next(), {
    name: 'RefusedError',
    message: 'no\\u{1b}[0m',
    status: 403,
  });
});

test('times are dates, times, or durations back from now', () => {
  assert.equal(readWhen('2026-01-31', '--from'), '2026-01-31T00:00:00Z');
  assert.equal(readWhen('2026-01-31T01:00:00+01:00', '--from'), '2026-01-31T01:00:00+01:00');
  assert.match(readWhen('7d', '--from') ?? '', /^\d{4}-\d\d-\d\dT/);
  assert.equal(readWhen(undefined, '--from'), undefined);
  assert.throws(() => readWhen('yesterday', '--from'), UsageError);
});
