import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FRAME, FrameReader, MAGIC, NONCE_BYTES, encodeData, encodeFrame } from './wire.ts';
import type { Frame, Piece } from './wire.ts';

// Goal: the reader finds the same, wherever the connection cuts what a guest says.

const NONCE = Buffer.alloc(NONCE_BYTES, 7);
const GREETING = Buffer.concat([MAGIC, NONCE]);

function read(chunks: Buffer[]) {
  const frames: Frame[] = [];
  const pieces: Piece[] = [];
  const reader = new FrameReader(NONCE);
  for (const chunk of chunks) {
    reader.push(chunk, {
      frame: (frame) => frames.push(frame),
      data: (piece) => pieces.push(piece),
    });
  }
  return { frames, pieces };
}

test('wherever it is cut, data comes in order with its offsets, and frames come whole', () => {
  const said = Buffer.from('some words of a process');
  const answer = Buffer.from('{"ok":{}}');
  const all = Buffer.concat([
    Buffer.from('of an earlier session'),
    GREETING,
    encodeData(5, 1_000, said),
    encodeFrame(FRAME.response, 1, answer),
    encodeData(6, 0, Buffer.from('why')),
    encodeFrame(FRAME.exit, 4, Buffer.alloc(0)),
  ]);
  for (let size = 1; size <= all.length; size += 1) {
    const count = Math.ceil(all.length / size);
    const cut = Array.from({ length: count }, (_, i) => all.subarray(i * size, (i + 1) * size));
    const { frames, pieces } = read(cut);
    assert.deepEqual(
      frames.map(({ type, id, payload }) => [type, id, payload.toString()]),
      [
        [FRAME.response, 1, answer.toString()],
        [FRAME.exit, 4, ''],
      ],
    );
    let offset = 1_000;
    for (const piece of pieces.filter(({ id }) => id === 5)) {
      assert.equal(piece.offset, offset);
      offset += piece.bytes.length;
    }
    const textOf = (wanted: number) =>
      Buffer.concat(pieces.filter(({ id }) => id === wanted).map(({ bytes }) => bytes)).toString();
    assert.deepEqual([textOf(5), textOf(6)], [said.toString(), 'why']);
  }
});

test('the beginning of a frame is handed on before its end has come', () => {
  const frame = encodeData(5, 0, Buffer.from('begun, ended'));
  const { pieces } = read([GREETING, frame.subarray(0, frame.length - 7)]);
  assert.deepEqual(
    pieces.map(({ bytes }) => bytes.toString()),
    ['begun'],
  );
});

test('data without a byte is refused', () => {
  const empty = encodeFrame(FRAME.data, 5, Buffer.alloc(16));
  assert.throws(() => read([GREETING, empty]), /data: too short/);
});
