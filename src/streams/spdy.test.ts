import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Duplex, duplexPair } from 'node:stream';
import { test } from 'node:test';
import { deflateSync } from 'node:zlib';
import { systemClock } from '../base/clock.ts';
import { seededRandom } from '../base/random.ts';
import { SPDY_DICTIONARY } from './spdy-dictionary.ts';
import { encodeFrame, SpdyFrameParser, SpdyProtocolError } from './spdy-frame.ts';
import type { SpdyFrame } from './spdy-frame.ts';
import { createHeaderCodec } from './spdy-headers.ts';
import { RECEIVE_BUFFER_BYTES_MAX, SpdyConnection, STREAMS_MAX } from './spdy.ts';
import type { SpdyStream } from './spdy.ts';

/**
 * Goal: SPDY sessions are lossless, bounded, and end when the peer breaks the rules. Method: two
 * sessions of our own over a pipe, and hand-made or random bytes against one of them.
 */
function connect(onStream: (stream: SpdyStream) => void) {
  const [near, far] = duplexPair();
  const server = new SpdyConnection(far as Duplex, { role: 'server', onStream });
  const client = new SpdyConnection(near as Duplex, { role: 'client' });
  return { server, client };
}

/** A server session and the bare bytes of its other end. */
function connectRaw(onStream: (stream: SpdyStream) => void = () => {}) {
  const [near, far] = duplexPair();
  near.on('error', () => {});
  const server = new SpdyConnection(far as Duplex, { role: 'server', onStream });
  return { server, raw: near };
}

const END_LIMIT_MS = 20_000;

async function endOf(session: SpdyConnection): Promise<void> {
  if (!session.closed.aborted) await once(session.closed, 'abort');
}

function closeOf(stream: SpdyStream): Promise<void> {
  return new Promise((resolve) => void stream.once('close', resolve));
}

async function readAll(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

test('streams echo, with headers, half-closes and sizes of all kinds', async () => {
  const { server, client } = connect((stream) => {
    void stream.accept();
    stream.pipe(stream);
  });
  const sizes = [0, 1, 16_384, 16_385, 1_000_000];
  const results = await Promise.all(
    sizes.map(async (size, index) => {
      const stream = await client.open({ streamtype: 'data', requestid: String(index) });
      assert.equal(stream.id, index * 2 + 1);
      const sent = Buffer.from(seededRandom(size).bytes(size));
      stream.end(sent);
      return (await readAll(stream as AsyncIterable<Buffer>)).equals(sent);
    }),
  );
  assert.deepEqual(
    results,
    sizes.map(() => true),
  );
  client.close();
  await Promise.all([endOf(client), endOf(server)]);
});

test('frames survive being cut into single bytes', () => {
  const frames = [
    encodeFrame.ping(7),
    encodeFrame.dataHeader(1, 3, true),
    Buffer.from('abc'),
    encodeFrame.rstStream(1, 5),
    encodeFrame.windowUpdate(3, 100),
    encodeFrame.settings([{ id: 7, value: 1000 }]),
  ];
  const parse = (chunks: Buffer[]) => {
    const parser = new SpdyFrameParser();
    const data: Buffer[] = [];
    const others: SpdyFrame[] = [];
    for (const chunk of chunks) {
      for (const frame of parser.push(chunk)) {
        if (frame.type === 'data') data.push(frame.bytes);
        else others.push(frame);
      }
    }
    return { data: Buffer.concat(data).toString(), others };
  };
  const bytes = Buffer.concat(frames);
  const single = Array.from(bytes, (_, index) => bytes.subarray(index, index + 1));
  assert.deepEqual(parse(single), parse([bytes]));
  assert.equal(parse(single).data, 'abc');
});

test('a consumer that does not read stops the peer, and loses nothing', async () => {
  let arrived: (stream: SpdyStream) => void = () => {};
  const arrival = new Promise<SpdyStream>((resolve) => (arrived = resolve));
  const { client } = connect((stream) => void stream.accept().then(() => arrived(stream)));
  const stream = await client.open({ streamtype: 'data' });
  const received = await arrival;
  const total = 4 << 20;
  let written = 0;
  const chunk = Buffer.alloc(64 * 1024, 1);
  const writing = (async () => {
    for (; written < total; written += chunk.length) {
      if (!stream.write(chunk)) await once(stream, 'drain');
    }
    stream.end();
  })();
  for (let turn = 0; turn < 200; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(written < 4 * RECEIVE_BUFFER_BYTES_MAX, `peer wrote ${written} bytes ahead`);
  const bytes = await readAll(received as AsyncIterable<Buffer>);
  await writing;
  assert.equal(bytes.length, total);
  client.destroy();
});

test('a reset ends one stream and leaves the others', async () => {
  const errors: Error[] = [];
  const { client } = connect((stream) => {
    void stream.accept();
    if (stream.headers['kind'] === 'bad') stream.reset();
    else stream.pipe(stream);
  });
  const bad = await client.open({ kind: 'bad' });
  bad.on('error', (error) => errors.push(error));
  await closeOf(bad);
  assert.match(errors[0]?.message ?? '', /reset with status 5/);
  const good = await client.open({ kind: 'good' });
  good.end('still here');
  assert.equal((await readAll(good as AsyncIterable<Buffer>)).toString(), 'still here');
  client.destroy();
});

test('streams beyond the limit are refused', async () => {
  const { client, server } = connect((stream) => void stream.accept());
  const opened: SpdyStream[] = [];
  for (let count = 0; count < STREAMS_MAX; count += 1) opened.push(await client.open({ n: '1' }));
  const refused = await client.open({ n: '1' });
  await closeOf(refused);
  assert.match(refused.errored?.message ?? '', /status 3/);
  assert.equal(server.streamCount, STREAMS_MAX);
  client.destroy();
  assert.ok(opened.every((stream) => stream.destroyed));
});

test('pings are answered, and windows of a peer that has them are obeyed', async () => {
  const { raw, server } = connectRaw((stream) => {
    void stream.accept();
    stream.end(Buffer.alloc(1000));
  });
  const codec = createHeaderCodec();
  const parser = new SpdyFrameParser();
  const seen: SpdyFrame[] = [];
  let changed = () => {};
  raw.on('data', (chunk: Buffer) => {
    seen.push(...parser.push(chunk));
    changed();
  });
  const dataBytes = () =>
    seen.reduce((sum, frame) => sum + (frame.type === 'data' ? frame.bytes.length : 0), 0);
  const until = async (holds: () => boolean) => {
    while (!holds()) await new Promise<void>((resolve) => (changed = resolve));
  };
  raw.write(encodeFrame.settings([{ id: 7, value: 600 }]));
  raw.write(encodeFrame.synStream(1, await codec.encode({ streamtype: 'data' }), false));
  raw.write(encodeFrame.ping(1));
  await until(() => dataBytes() === 600 && seen.some((frame) => frame.type === 'ping'));
  raw.write(encodeFrame.windowUpdate(1, 300));
  await until(() => dataBytes() === 900);
  raw.write(encodeFrame.windowUpdate(1, 300));
  await until(() => seen.some((frame) => frame.type === 'data' && frame.fin));
  assert.equal(dataBytes(), 1000);
  server.destroy();
  codec.close();
});

test('what breaks the protocol ends the session', async () => {
  const bomb = deflateSync(Buffer.alloc(10 << 20), { dictionary: SPDY_DICTIONARY });
  const codec = createHeaderCodec();
  const block = await codec.encode({ streamtype: 'data' });
  codec.close();
  const cases: Record<string, Buffer> = {
    'another version': Buffer.from([0x80, 2, 0, 1, 0, 0, 0, 10]),
    'a huge control frame': Buffer.from([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]),
    'a header bomb': encodeFrame.synStream(1, bomb, false),
    'a block that is no zlib': encodeFrame.synStream(1, Buffer.alloc(50, 7), false),
    'an even stream id': encodeFrame.synStream(2, block, false),
    'data for no stream': encodeFrame.dataHeader(9, 0, true),
    'a short RST': Buffer.from([0x80, 3, 0, 3, 0, 0, 0, 1, 0]),
    'settings that lie': Buffer.from([0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 9]),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    const { server, raw } = connectRaw();
    raw.resume();
    raw.write(bytes);
    await endOf(server);
    assert.ok(server.closed.reason instanceof SpdyProtocolError, name);
  }
});

test('random bytes and mutated sessions never hang or throw', async () => {
  const seed = Date.now() % 2 ** 31;
  const random = seededRandom(seed);
  const codec = createHeaderCodec();
  const session = Buffer.concat([
    encodeFrame.synStream(1, await codec.encode({ streamtype: 'data', port: '80' }), false),
    encodeFrame.dataHeader(1, 5, false),
    Buffer.from('hello'),
    encodeFrame.synStream(3, await codec.encode({ streamtype: 'error', port: '80' }), true),
    encodeFrame.windowUpdate(0, 1000),
    encodeFrame.ping(1),
    encodeFrame.rstStream(1, 5),
  ]);
  codec.close();
  for (let round = 0; round < 300; round += 1) {
    const bytes = round % 3 === 0 ? Buffer.from(random.bytes(200)) : Buffer.from(session);
    for (let flips = random.next() * 6; flips > 0; flips -= 1) {
      bytes[Math.floor(random.next() * bytes.length)] = Math.floor(random.next() * 256);
    }
    const { server, raw } = connectRaw((stream) => {
      void stream.accept();
      stream.resume();
    });
    raw.resume();
    raw.end(bytes);
    // Headers are unpacked by other threads, which a busy machine may hold up for long.
    const over = new AbortController();
    const isOver = await Promise.race([
      endOf(server).then(() => true),
      systemClock.sleep(END_LIMIT_MS, over.signal).then(
        () => false,
        () => true,
      ),
    ]);
    over.abort();
    assert.ok(isOver, `session did not end, seed ${seed}, round ${round}`);
  }
});
