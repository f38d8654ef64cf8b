import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { connectAgent } from './client.ts';
import { Inflow, ReadableSink, WINDOW_BYTES } from './flow.ts';
import { containerSpec } from './testing/guest.ts';
import { FRAME, FRAME_HEADER_BYTES, MAGIC, NONCE_BYTES, encodeData, encodeFrame } from './wire.ts';

test('a window full of single bytes waits in few buffers, in order', () => {
  const pushed: Buffer[] = [];
  const target = { push: (bytes: Buffer | null) => bytes && pushed.push(bytes) };
  const sink = new ReadableSink(new Inflow(5, 0, () => {}), target as never);
  for (let i = 0; i < WINDOW_BYTES; i += 1) sink.data(i, 0, Buffer.of(i & 0xff));
  let buffers = 0;
  for (let length = 0; length < WINDOW_BYTES; buffers += 1) {
    sink.more();
    length += pushed.at(-1)?.length ?? 0;
  }
  assert.ok(buffers <= 128, `${buffers} buffers`);
  const all = Buffer.concat(pushed);
  assert.ok(all.every((byte, i) => byte === (i & 0xff)));
});

test('bytes that come in many small pieces are acknowledged before the guest forgets their times', () => {
  let acknowledged = 0;
  const flow = new Inflow(5, 0, () => (acknowledged += 1));
  for (let offset = 0; offset < 300; offset += 1) {
    flow.take(offset, 1);
    flow.release(1);
  }
  assert.equal(acknowledged, 2);
});

/** Answers every request with success, and writes what the test wants beside. */
async function startGuest(onOutput: (bytes: Buffer) => void, onExit: () => void) {
  const [host, guest] = duplexPair();
  let stream = 0;
  let greeted = false;
  let pending = Buffer.alloc(0);
  guest.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    if (!greeted && pending.length >= MAGIC.length + NONCE_BYTES) {
      guest.write(pending.subarray(0, MAGIC.length + NONCE_BYTES));
      pending = pending.subarray(MAGIC.length + NONCE_BYTES);
      greeted = true;
    }
    while (greeted && pending.length >= FRAME_HEADER_BYTES) {
      const end = FRAME_HEADER_BYTES + pending.readUInt32LE(8);
      if (pending.length < end) return;
      if (pending[0] === FRAME.request) {
        const body = pending.subarray(FRAME_HEADER_BYTES, end);
        const json = JSON.parse(body.toString('utf8', 4, 4 + body.readUInt32LE(0)));
        stream = json.stream ?? stream;
        const hello = {
          ...{ protocolVersion: 2, kernelVersion: '', bootId: '', podReady: true },
          ...{ startedUptimeMs: 0, readyUptimeMs: 0, containers: [] },
        };
        const ok = json.op === 'hello' ? hello : { stream };
        const answer = Buffer.from(JSON.stringify({ ok }));
        guest.write(encodeFrame(FRAME.response, pending.readUInt32LE(4), answer));
      }
      pending = pending.subarray(end);
    }
  });
  const agent = await connectAgent(host, {
    ...{ clock: systemClock, log: silentLog, random: seededRandom(1) },
    resumeOffsets: () => 0,
    onOutput: async ({ bytes }) => onOutput(Buffer.from(bytes.buffer)),
    onContainerExit: async () => onExit(),
  });
  await agent.startContainer(containerSpec('c', ['true']));
  return { agent, guest: guest as Duplex, stream };
}

test('a small piece of output does not keep the chunk in which it came', async () => {
  const output = Promise.withResolvers<Buffer>();
  const { agent, guest, stream } = await startGuest(output.resolve, () => {});
  const junk = encodeFrame(FRAME.reset, 4000, Buffer.alloc(60_000));
  guest.write(Buffer.concat([encodeData(stream + 1, 0, Buffer.from('x')), junk]));
  const bytes = await output.promise;
  assert.equal(bytes.toString(), 'x', `${bytes.length} bytes are kept`);
  agent.close();
});

test('an exit is taken once, however often it is told', async () => {
  let exits = 0;
  const told = Promise.withResolvers<void>();
  const { agent, guest, stream } = await startGuest(
    () => {},
    () => {
      exits += 1;
      told.resolve();
    },
  );
  const exit = { exitCode: 0, signal: 0, oomKilled: false, reason: '', message: '' };
  const payload = Buffer.from(JSON.stringify({ ...exit, finishedAtMs: 0 }));
  for (let i = 0; i < 10; i += 1) guest.write(encodeFrame(FRAME.exit, stream, payload));
  for (const output of [stream + 1, stream + 2]) {
    guest.write(encodeFrame(FRAME.end, output, Buffer.alloc(8)));
  }
  await told.promise;
  await agent.stats().catch(() => {});
  assert.equal(exits, 1);
  agent.close();
});
