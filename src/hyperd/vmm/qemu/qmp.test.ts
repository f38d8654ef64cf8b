import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import { seededRandom } from '../../../base/random.ts';
import { QMP_LINE_BYTES_MAX, QMP_PENDING_MAX, connectQmp } from './qmp.ts';
import type { QmpClient } from './qmp.ts';

const GREETING = '{"QMP":{"version":{},"capabilities":[]}}\r\n';

/** A monitor that answers by `answer`; undefined says nothing. */
function monitor(stream: Duplex, answer: (name: string, id: number) => string | undefined): void {
  let buffer = '';
  stream.on('error', () => {});
  stream.on('data', (chunk: Buffer) => {
    buffer += chunk.toString('utf8');
    for (let end = buffer.indexOf('\n'); end >= 0; end = buffer.indexOf('\n')) {
      const { execute, id } = JSON.parse(buffer.slice(0, end)) as { execute: string; id: number };
      buffer = buffer.slice(end + 1);
      const text =
        execute === 'qmp_capabilities' ? `{"return":{},"id":${id}}` : answer(execute, id);
      if (text !== undefined) stream.write(`${text}\n`);
    }
  });
  stream.write(GREETING);
}

async function connected(
  answer: (name: string, id: number) => string | undefined = () => undefined,
): Promise<{ qmp: QmpClient; peer: Duplex }> {
  const [ours, peer] = duplexPair();
  monitor(peer, answer);
  return { qmp: await connectQmp(ours), peer };
}

test('command() returns the value, and throws what QEMU refuses', async () => {
  const { qmp } = await connected((name, id) =>
    name === 'good'
      ? `{"return":{"status":"running"},"id":${id}}`
      : `{"error":{"class":"GenericError","desc":"no such thing"},"id":${id}}`,
  );
  assert.deepEqual(await qmp.command('good'), { status: 'running' });
  await assert.rejects(qmp.command('bad'), { name: 'QmpError', message: 'no such thing' });
  qmp.close();
  await assert.rejects(qmp.command('good'), { errorClass: 'Closed' });
  assert.equal(await qmp.closed, undefined);
});

test('events reach listeners, also between a command and its answer', async () => {
  const { qmp } = await connected(
    (_name, id) => `{"event":"STOP","data":{"n":1}}\n{"return":1,"id":${id}}`,
  );
  const seen: string[] = [];
  const stop = qmp.onEvent((event) => seen.push(`${event.name} ${String(event.data.n)}`));
  assert.equal(await qmp.command('x'), 1);
  stop();
  await qmp.command('x');
  assert.deepEqual(seen, ['STOP 1']);
});

test('a monitor that goes away fails what waits for it', async () => {
  const { qmp, peer } = await connected();
  const waiting = qmp.command('never');
  peer.destroy();
  await assert.rejects(waiting, { errorClass: 'Closed' });
});

test('an aborted command is given up, and its late answer is no violation', async () => {
  const { qmp, peer } = await connected();
  const aborter = new AbortController();
  const waiting = qmp.command('slow', {}, aborter.signal);
  aborter.abort(new Error('enough'));
  await assert.rejects(waiting, /enough/);
  peer.write('{"return":{},"id":2}\n{"event":"RESUME"}\n');
  const event = Promise.withResolvers<string>();
  qmp.onEvent(({ name }) => event.resolve(name));
  assert.equal(await event.promise, 'RESUME');
});

test('unanswered commands are bounded', async () => {
  const { qmp } = await connected();
  const waiting = Array.from({ length: QMP_PENDING_MAX }, () => qmp.command('x').catch(() => {}));
  await assert.rejects(qmp.command('x'), { errorClass: 'Busy' });
  qmp.close();
  await Promise.all(waiting);
});

test('whatever is not the protocol ends the connection', async () => {
  const cases: [string, string][] = [
    ['nonsense', 'not JSON'],
    ['[1]', 'not an object'],
    ['{"return":1,"id":99}', 'an answer to nothing'],
    ['{"return":1}', 'an answer to nothing'],
    ['"x"'.padEnd(QMP_LINE_BYTES_MAX + 2), 'a line over'],
  ];
  for (const [line, why] of cases) {
    const { qmp, peer } = await connected();
    peer.write(`${line}\n`);
    assert.match(String(await qmp.closed), new RegExp(why), line.slice(0, 40));
  }
  const [ours, peer] = duplexPair();
  peer.on('error', () => {});
  peer.write('{"return":{}}\n');
  await assert.rejects(connectQmp(ours), /no greeting/);
});

test('hostile bytes neither crash nor hang the client', async () => {
  const seed = Date.now() % 2 ** 32;
  const random = seededRandom(seed);
  const pieces = [
    '{',
    '}',
    '[',
    ']',
    '"',
    ':',
    ',',
    '\n',
    '{"return":',
    '"id":2',
    '{"event":"X","data":',
    'null',
    '1e999',
    '\0',
    '\u{1F600}',
    GREETING,
  ];
  for (let round = 0; round < 300; round++) {
    const { qmp, peer } = await connected();
    const waiting = qmp.command('x').then(
      () => 'answered',
      () => 'refused',
    );
    const length = Math.floor(random.next() * 60);
    for (let i = 0; i < length && !peer.destroyed; i++) {
      const piece = pieces[Math.floor(random.next() * pieces.length)] ?? '';
      peer.write(random.next() < 0.1 ? random.bytes(20) : piece);
    }
    peer.end();
    peer.resume();
    assert.ok(['answered', 'refused'].includes(await waiting), `seed ${seed}`);
    await qmp.closed;
  }
});
