import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { seededRandom } from '../../base/random.ts';
import { Session } from './session.ts';
import { FRAME, MAGIC, NONCE_BYTES, encodeFrame } from './wire.ts';

// Goal: a question without an answer ends the session when the guest has lost it, and only then.
// Method: a pretended guest that answers some operations, and time that is moved by hand.

const GREETING_BYTES = MAGIC.length + NONCE_BYTES;

function makePair(answered: string[]) {
  const clock = new FakeClock();
  const [near, far] = duplexPair();
  const closed = Promise.withResolvers<Error | undefined>();
  let greeted = false;
  far.on('data', (chunk: Buffer) => {
    let rest = chunk;
    if (!greeted) {
      far.write(chunk.subarray(0, GREETING_BYTES));
      rest = chunk.subarray(GREETING_BYTES);
      greeted = true;
    }
    while (rest.length > 0) {
      const end = 12 + rest.readUInt32LE(8);
      const { op } = JSON.parse(rest.toString('utf8', 16, end)) as { op: string };
      const answer = Buffer.from('{"ok":{}}');
      const id = rest.readUInt32LE(4);
      if (answered.includes(op)) far.write(encodeFrame(FRAME.response, id, answer));
      rest = rest.subarray(end);
    }
  });
  const session = new Session({
    connection: near,
    clock,
    random: seededRandom(1),
    onFrame: () => {},
    onData: () => {},
    onClosed: closed.resolve,
  });
  return { clock, session, closed: closed.promise };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('a guest that answers nothing any more is taken for one that has lost the session', async () => {
  const { clock, session, closed } = makePair([]);
  const first = assert.rejects(session.request('stats'), {
    reason: 'Closed',
    message: /stats: no/,
  });
  const second = assert.rejects(session.request('exec', {}, { timeoutMs: 60_000 }), {
    reason: 'Closed',
  });
  await clock.advance(30_000);
  await turn();
  assert.equal(session.over, false, 'it is asked whether it lives');
  await clock.advance(10_000);
  await Promise.all([first, second]);
  assert.match(String(await closed), /does not answer/);
});

test('a guest that answers others keeps its session', async () => {
  const { clock, session } = makePair(['ping', 'stats']);
  const late = assert.rejects(session.request('exec'), {
    reason: 'Timeout',
    message: 'exec: no answer from the guest within 30000 ms',
  });
  await clock.advance(30_000);
  await late;
  assert.deepEqual(await session.request('stats'), {});
  assert.equal(session.over, false);
  session.close();
});

test('a guest whose VM is held is late with nothing, and has its whole time after that', async () => {
  const { clock, session, closed } = makePair([]);
  const asked = assert.rejects(session.request('stats'), { reason: 'Closed' });
  session.hold(true);
  await clock.advance(10 * 60_000);
  assert.equal(session.over, false);
  session.hold(false);
  await clock.advance(30_000);
  await turn();
  assert.equal(session.over, false, 'it is asked whether it lives');
  await clock.advance(10_000);
  await asked;
  assert.match(String(await closed), /does not answer/);
});
