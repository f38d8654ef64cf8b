/**
 * Frames of the control channel, as `guest/PROTOCOL.md` defines them. The reader takes bytes
 * from a guest that may be hostile: each length is checked before anything is kept for it.
 */

/** The same numbers are in `guest/limits.h`. */
export const PROTOCOL_VERSION = 2;
export const FRAME_HEADER_BYTES = 12;
export const DATA_PREFIX_BYTES = 16;
export const FRAME_PAYLOAD_BYTES_MAX = DATA_PREFIX_BYTES + 64 * 1024;
const REQUEST_BYTES_MAX = 2 << 20;
/** Stream numbers of one process or connection: base, base + 1, base + 2. */
export const STREAM_STEP = 4;
export const STREAM_MAX = 0xffff_fff0;
/** Times of the guest end here (the year 2500): they are kept as nanoseconds, in 64 bits. */
export const TIME_MS_MAX = 16_725_225_600_000;

/** No byte of it is 0, and its first occurs once and is no part of UTF-8. */
export const MAGIC = Buffer.from('\xffhyperstart/open', 'latin1');
export const NONCE_BYTES = 16;

export const FRAME = {
  request: 1,
  response: 2,
  data: 3,
  window: 4,
  end: 5,
  reset: 6,
  exit: 7,
  exitAcknowledged: 8,
  goodbye: 9,
} as const;
const FRAME_TYPE_MAX = 9;
const FLAG_MORE = 1;

/** Of any type but `data`. */
export interface Frame {
  type: number;
  id: number;
  payload: Buffer;
}

/** Bytes of a data frame: all of it, or as much as has arrived. */
export interface Piece {
  id: number;
  offset: number;
  timeMs: number;
  bytes: Buffer;
}

/** What a `FrameReader` finds, in order. Both may throw `ProtocolError`. */
export interface FrameTaker {
  frame(frame: Frame): void;
  data(piece: Piece): void;
}

/** The guest broke the protocol; the session is over. */
export class ProtocolError extends Error {
  override name = 'ProtocolError';
}

export function encodeFrame(type: number, id: number, payload: Uint8Array, more = false): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  frame.writeUInt32LE(type | (more ? FLAG_MORE << 8 : 0), 0);
  frame.writeUInt32LE(id, 4);
  frame.writeUInt32LE(payload.length, 8);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/**
 * Pieces of at most `bytesMax`, none of which holds the magic: a frame header between two pieces
 * breaks it up, so no bytes of a user can open a session.
 */
export function splitPayload(bytes: Buffer, bytesMax: number): Buffer[] {
  const pieces: Buffer[] = [];
  let start = 0;
  while (start < bytes.length) {
    let end = Math.min(start + bytesMax, bytes.length);
    const found = bytes.subarray(start, end).indexOf(MAGIC);
    if (found >= 0) end = start + found + MAGIC.length - 1;
    pieces.push(bytes.subarray(start, end));
    start = end;
  }
  return pieces;
}

/** A request's body: length of the JSON, the JSON, and bytes that belong to it. */
export function encodeRequest(id: number, json: unknown, attachment?: Uint8Array): Buffer[] {
  const text = Buffer.from(JSON.stringify(json));
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32LE(text.length, 0);
  const body = Buffer.concat([length, text, attachment ?? new Uint8Array()]);
  if (body.length > REQUEST_BYTES_MAX) {
    throw new RangeError(`request: ${body.length} bytes, at most ${REQUEST_BYTES_MAX}`);
  }
  const pieces = splitPayload(body, FRAME_PAYLOAD_BYTES_MAX);
  return pieces.map((piece, i) => encodeFrame(FRAME.request, id, piece, i < pieces.length - 1));
}

/** Piece of a stream towards the guest; `bytes` hold no magic. */
export function encodeData(id: number, offset: number, bytes: Buffer): Buffer {
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + DATA_PREFIX_BYTES + bytes.length);
  frame.writeUInt32LE(FRAME.data, 0);
  frame.writeUInt32LE(id, 4);
  frame.writeUInt32LE(DATA_PREFIX_BYTES + bytes.length, 8);
  writeOffset(frame, offset, FRAME_HEADER_BYTES);
  frame.set(bytes, FRAME_HEADER_BYTES + DATA_PREFIX_BYTES);
  return frame;
}

export function encodeWindow(id: number, acknowledged: number, limit: number): Buffer {
  const payload = Buffer.allocUnsafe(16);
  writeOffset(payload, acknowledged, 0);
  writeOffset(payload, limit, 8);
  return encodeFrame(FRAME.window, id, payload);
}

export function encodeEnd(id: number, offset: number): Buffer {
  const payload = Buffer.allocUnsafe(8);
  writeOffset(payload, offset, 0);
  return encodeFrame(FRAME.end, id, payload);
}

function writeOffset(bytes: Buffer, offset: number, at: number): void {
  bytes.writeBigUInt64LE(BigInt(offset), at);
}

/** @throws ProtocolError when it is not a safe integer */
export function readOffset(payload: Buffer, at: number): number {
  const value = Number(payload.readBigUInt64LE(at));
  if (!Number.isSafeInteger(value)) throw new ProtocolError('offset out of range');
  return value;
}

/**
 * Cuts a byte stream into frames. First, everything up to the magic and this session's nonce is
 * dropped: it belongs to an earlier session. Data is handed on as it arrives: to put a frame of it
 * together would be to copy all that a guest says.
 */
export class FrameReader {
  readonly #greeting: Buffer;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #wanted = 0;
  #open = false;
  /** The data frame that has begun: where its next byte belongs, and how many are missing. */
  #data = { id: 0, offset: 0, timeMs: 0, missing: 0 };

  constructor(nonce: Uint8Array) {
    this.#greeting = Buffer.concat([MAGIC, nonce]);
  }

  get open(): boolean {
    return this.#open;
  }

  /** @throws ProtocolError */
  push(chunk: Buffer, taker: FrameTaker): void {
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    if (this.#pendingBytes < this.#wanted) return;
    let bytes = this.#pending.length === 1 ? chunk : Buffer.concat(this.#pending);
    if (!this.#open) bytes = this.#findGreeting(bytes);
    let at = 0;
    this.#wanted = 0;
    while (this.#open && at < bytes.length) {
      if (this.#data.missing > 0) {
        at += this.#takePiece(bytes.subarray(at, at + this.#data.missing), taker);
        continue;
      }
      if (bytes.length - at < FRAME_HEADER_BYTES) break;
      const length = checkHeader(bytes, at);
      const isData = bytes[at] === FRAME.data;
      const end = at + FRAME_HEADER_BYTES + (isData ? DATA_PREFIX_BYTES : length);
      if (end > bytes.length) {
        this.#wanted = end - at;
        break;
      }
      const id = bytes.readUInt32LE(at + 4);
      const payload = bytes.subarray(at + FRAME_HEADER_BYTES, end);
      if (isData) this.#data = { id, ...readPrefix(payload), missing: length - DATA_PREFIX_BYTES };
      else taker.frame({ type: bytes[at] as number, id, payload });
      at = end;
    }
    const rest = bytes.subarray(at);
    this.#pending = rest.length > 0 ? [rest] : [];
    this.#pendingBytes = rest.length;
  }

  #takePiece(bytes: Buffer, taker: FrameTaker): number {
    const { id, offset, timeMs } = this.#data;
    this.#data.offset += bytes.length;
    this.#data.missing -= bytes.length;
    taker.data({ id, offset, timeMs, bytes });
    return bytes.length;
  }

  /** What follows the greeting, or what may be its beginning. */
  #findGreeting(bytes: Buffer): Buffer {
    const found = bytes.indexOf(this.#greeting);
    if (found >= 0) {
      this.#open = true;
      return bytes.subarray(found + this.#greeting.length);
    }
    return bytes.subarray(Math.max(0, bytes.length - this.#greeting.length + 1));
  }
}

function readPrefix(prefix: Buffer): { offset: number; timeMs: number } {
  const timeMs = readOffset(prefix, 8);
  if (timeMs > TIME_MS_MAX) throw new ProtocolError('data: time out of range');
  return { offset: readOffset(prefix, 0), timeMs };
}

function checkHeader(bytes: Buffer, at: number): number {
  const type = bytes[at] as number;
  const length = bytes.readUInt32LE(at + 8);
  if (type < 1 || type > FRAME_TYPE_MAX || bytes[at + 1] || bytes[at + 2] || bytes[at + 3]) {
    throw new ProtocolError(`frame of unknown type ${type} or with flags`);
  }
  if (length > FRAME_PAYLOAD_BYTES_MAX) {
    throw new ProtocolError(`frame of ${length} bytes, at most ${FRAME_PAYLOAD_BYTES_MAX}`);
  }
  if (type === FRAME.data && length <= DATA_PREFIX_BYTES)
    throw new ProtocolError('data: too short');
  return length;
}
