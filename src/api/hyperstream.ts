import type { Duplex } from 'node:stream';
import { STREAM_CHANNEL, STREAM_FRAME_BYTES_MAX } from './hyperd.ts';

/**
 * The framing of `Upgrade: hyper-stream` (see `hyperd.ts`): one byte channel, four bytes length,
 * payload. Used by both ends.
 */
export const FRAME_HEADER_BYTES = 5;

export interface StreamFrame {
  channel: number;
  payload: Buffer;
}

const CHANNEL_MAX = Math.max(...Object.values(STREAM_CHANNEL));

/** Reads frames; throws on a channel or length that the format does not allow. */
export async function* readFrames(source: AsyncIterable<Uint8Array>): AsyncGenerator<StreamFrame> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    while (rest.length >= FRAME_HEADER_BYTES) {
      const channel = rest.readUInt8(0);
      const length = rest.readUInt32BE(1);
      if (channel > CHANNEL_MAX)
        throw new Error(`Cannot read a frame: channel ${channel} is unknown`);
      if (length > STREAM_FRAME_BYTES_MAX) {
        const limit = `more than ${STREAM_FRAME_BYTES_MAX}`;
        throw new Error(`Cannot read a frame: length ${length} is ${limit} bytes`);
      }
      const end = FRAME_HEADER_BYTES + length;
      if (rest.length < end) break;
      yield { channel, payload: rest.subarray(FRAME_HEADER_BYTES, end) };
      rest = rest.subarray(end);
    }
  }
  if (rest.length > 0) throw new Error('Cannot read a frame: the stream ends within it');
}

/**
 * Writes one payload, in as many frames as it takes, and resolves when the peer has taken enough
 * of it that more may be written. An empty payload is the end of the channel.
 * @throws the socket's error, or its premature close
 */
export async function writeFrames(
  socket: Duplex,
  channel: number,
  payload: Uint8Array,
): Promise<void> {
  let writable = true;
  let start = 0;
  do {
    const part = payload.subarray(start, start + STREAM_FRAME_BYTES_MAX);
    const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + part.length);
    frame.writeUInt8(channel, 0);
    frame.writeUInt32BE(part.length, 1);
    frame.set(part, FRAME_HEADER_BYTES);
    writable = socket.write(frame);
    start += STREAM_FRAME_BYTES_MAX;
  } while (start < payload.length);
  if (!writable) await drained(socket);
}

/** Resolves at `drain`; rejects when the stream ends first. */
export function drained(stream: import('node:stream').Writable): Promise<void> {
  if (stream.destroyed) return Promise.reject(stream.errored ?? new Error('Stream is closed'));
  if (!stream.writableNeedDrain) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const finish = (error?: Error) => {
      stream.off('drain', onDrain);
      stream.off('close', onClose);
      stream.off('error', finish);
      if (error) reject(error);
      else resolve();
    };
    const onDrain = () => finish();
    const onClose = () => finish(new Error('Stream is closed'));
    stream.on('drain', onDrain);
    stream.on('close', onClose);
    stream.on('error', finish);
  });
}
