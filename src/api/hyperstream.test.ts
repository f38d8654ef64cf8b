import assert from 'node:assert/strict';
import { Duplex, duplexPair } from 'node:stream';
import { test } from 'node:test';
import { STREAM_CHANNEL, STREAM_FRAME_BYTES_MAX } from './hyperd.ts';
import { FRAME_HEADER_BYTES, readFrames, writeFrames } from './hyperstream.ts';

// Goal: what is written as frames is read again, wherever the socket cuts it, without being copied.

function frame(channel: number, payload: Uint8Array, length = payload.length): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt8(channel, 0);
  header.writeUInt32BE(length, 1);
  return Buffer.concat([header, payload]);
}

function cut(bytes: Buffer, size: number): Buffer[] {
  const count = Math.ceil(bytes.length / size);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
}

async function read(chunks: Buffer[]) {
  const frames: { channel: number; payload: Buffer }[] = [];
  for await (const item of readFrames(Duplex.from(chunks))) frames.push(item);
  return frames;
}

const { stdin, stdout, stderr, exit } = STREAM_CHANNEL;

test('wherever it is cut, data comes in order and other frames come whole', async () => {
  const said = Buffer.from('some words of a process');
  const parts = [
    frame(stdout, said),
    frame(stderr, Buffer.from('why')),
    frame(stdout, Buffer.alloc(0)),
    frame(exit, Buffer.from('{"exitCode":3}')),
  ];
  const all = Buffer.concat(parts);
  for (let size = 1; size <= all.length; size += 1) {
    const frames = await read(cut(all, size));
    const of = (wanted: number) => frames.filter(({ channel }) => channel === wanted);
    const text = (wanted: number) => of(wanted).map(({ payload }) => payload.toString());
    assert.equal(text(stdout).join(''), said.toString());
    const isEnd = of(stdout).map(({ payload }) => payload.length === 0);
    assert.equal(isEnd.indexOf(true), isEnd.length - 1);
    assert.equal(text(stderr).join(''), 'why');
    assert.deepEqual(text(exit), ['{"exitCode":3}']);
  }
});

test('data lies where the socket has put it', async () => {
  const chunk = frame(stdout, Buffer.from('as it is'));
  const [piece] = await read([chunk]);
  assert.equal(piece?.payload.buffer, chunk.buffer);
});

test('what is no frame, and a frame that breaks off, are refused', async () => {
  await assert.rejects(read([frame(9, Buffer.alloc(1))]), /channel 9 is unknown/);
  const long = frame(stdin, Buffer.alloc(0), STREAM_FRAME_BYTES_MAX + 1);
  await assert.rejects(read([long]), /more than 65536 bytes/);
  for (const whole of [frame(stdout, Buffer.alloc(9)), frame(exit, Buffer.alloc(9))]) {
    for (const length of [1, FRAME_HEADER_BYTES, whole.length - 1]) {
      await assert.rejects(read([whole.subarray(0, length)]), /the stream ends within it/);
    }
  }
});

test('a long payload is cut into frames', async () => {
  const [near, far] = duplexPair();
  const payload = Buffer.alloc(2 * STREAM_FRAME_BYTES_MAX + 7, 'pattern');
  const pieces: Buffer[] = [];
  const reading = (async () => {
    for await (const item of readFrames(far)) {
      if (item.payload.length === 0) break;
      pieces.push(item.payload);
    }
  })();
  await writeFrames(near, stdin, payload);
  await writeFrames(near, stdin, Buffer.alloc(0));
  await reading;
  assert.ok(Buffer.concat(pieces).equals(payload));
});
