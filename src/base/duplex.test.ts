import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { joinDuplexes } from './duplex.ts';

/** Two ends of one TCP connection on loopback. */
async function socketPair(allowHalfOpen: boolean): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const near = connect({ port, host: '127.0.0.1', allowHalfOpen });
  const [far] = (await once(server, 'connection')) as [Socket];
  server.close();
  return [near, far];
}

/** A side that takes its bytes slowly, as a far client does. */
function slowSide(): { side: Duplex; taken: () => number } {
  let taken = 0;
  const side = new Duplex({
    allowHalfOpen: true,
    highWaterMark: 1024,
    read() {},
    write(chunk: Buffer, _encoding, done) {
      taken += chunk.length;
      setImmediate(() => setImmediate(done));
    },
  });
  return { side, taken: () => taken };
}

test('joinDuplexes() delivers all that a side sent before it closed', async () => {
  for (const allowHalfOpen of [true, false]) {
    const [near, far] = await socketPair(allowHalfOpen);
    const { side, taken } = slowSide();
    const joined = joinDuplexes(near, side);
    far.resume();
    far.end(Buffer.alloc(300_000));
    await once(side, 'finish');
    side.push(null);
    await joined;
    assert.equal(taken(), 300_000);
    assert.ok(near.destroyed && side.destroyed);
    far.destroy();
  }
});

test('joinDuplexes() passes a half-close on and goes on the other way', async () => {
  const [near, far] = await socketPair(true);
  const request: Buffer[] = [];
  const side = new Duplex({
    allowHalfOpen: true,
    read() {},
    write(chunk: Buffer, _encoding, done) {
      request.push(chunk);
      done();
    },
  });
  const joined = joinDuplexes(near, side);
  far.end('question');
  await once(side, 'finish');
  side.push('answer');
  side.push(null);
  const received = (await far.toArray()) as Buffer[];
  await joined;
  assert.equal(Buffer.concat(request).toString(), 'question');
  assert.equal(Buffer.concat(received).toString(), 'answer');
});

test('joinDuplexes() breaks the other side off when one breaks off', async () => {
  const [near, far] = await socketPair(true);
  const { side } = slowSide();
  const joined = joinDuplexes(near, side);
  far.resetAndDestroy();
  await joined;
  assert.ok(side.destroyed);
});
