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
const DATA_CHANNELS: ReadonlySet<number> = new Set([
  STREAM_CHANNEL.stdin,
  STREAM_CHANNEL.stdout,
  STREAM_CHANNEL.stderr,
]);

/**
 * Reads frames; throws on a channel or length that the format does not allow. What a data channel
 * carries comes in pieces, as it arrives and without a copy; there an empty payload is the end of
 * the channel still. Frames of the other channels come whole.
 */
export async function* readFrames(source: AsyncIterable<Uint8Array>): AsyncGenerator<StreamFrame> {
  let rest: Buffer = Buffer.alloc(0);
  let channel = 0;
  /** Of the payload of a data channel. */
  let missing = 0;
  for await (const chunk of source) {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
    while (rest.length > 0) {
      if (missing > 0) {
        const payload = rest.subarray(0, missing);
        missing -= payload.length;
        rest = rest.subarray(payload.length);
        yield { channel, payload };
        continue;
      }
      if (rest.length < FRAME_HEADER_BYTES) break;
      channel = rest.readUInt8(0);
      const length = checkedLength(rest);
      const isData = length > 0 && DATA_CHANNELS.has(channel);
      const end = FRAME_HEADER_BYTES + (isData ? 0 : length);
      if (rest.length < end) break;
      if (isData) missing = length;
      else yield { channel, payload: rest.subarray(FRAME_HEADER_BYTES, end) };
      rest = rest.subarray(end);
    }
  }
  if (rest.length > 0 || missing > 0) {
    throw new Error('Cannot read a frame: the stream ends within it');
  }
}

function checkedLength(header: Buffer): number {
  const channel = header.readUInt8(0);
  const length = header.readUInt32BE(1);
  if (channel > CHANNEL_MAX) throw new Error(`Cannot read a frame: channel ${channel} is unknown`);
  if (length > STREAM_FRAME_BYTES_MAX) {
    const limit = `more than ${STREAM_FRAME_BYTES_MAX}`;
    throw new Error(`Cannot read a frame: length ${length} is ${limit} bytes`);
  }
  return length;
}

/**
 * Writes one payload, in as many frames as it takes, and resolves when the peer has taken enough
 * of it that more may be written. It is not copied: it must not change any more. An empty payload
 * is the end of the channel.
 * @throws the socket's error, or its premature close
 */
export async function writeFrames(
  socket: Duplex,
  channel: number,
  payload: Uint8Array,
): Promise<void> {
  let writable = true;
  let start = 0;
  socket.cork();
  do {
    const part = payload.subarray(start, start + STREAM_FRAME_BYTES_MAX);
    const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
    header.writeUInt8(channel, 0);
    header.writeUInt32BE(part.length, 1);
    writable = socket.write(header);
    if (part.length > 0) writable = socket.write(part);
    start += STREAM_FRAME_BYTES_MAX;
  } while (start < payload.length);
  socket.uncork();
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
