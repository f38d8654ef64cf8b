/**
 * SPDY/3.1 framing: bytes to frames and back. Control frames are collected whole, because they
 * are small; the payload of a DATA frame is handed on piece by piece as it arrives, because its
 * length field allows 16 MiB.
 *
 *   control:  1 | version (15) | type (16) | flags (8) | length (24) | payload
 *   data:     0 | stream id (31)           | flags (8) | length (24) | payload
 */
const SPDY_VERSION = 3;

export const FRAME = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  headers: 8,
  windowUpdate: 9,
} as const;

export const FLAG = { fin: 0x01, unidirectional: 0x02 } as const;

export const RESET = {
  protocolError: 1,
  invalidStream: 2,
  refusedStream: 3,
  cancel: 5,
  internalError: 6,
  flowControlError: 7,
  streamAlreadyClosed: 9,
} as const;

export const SETTING = { initialWindowSize: 7 } as const;

/** A header block is the only payload that varies; kubectl's are below 200 bytes. */
const CONTROL_FRAME_BYTES_MAX = 32 * 1024;

const HEADER_BYTES = 8;

export type SpdyFrame =
  | { type: 'synStream'; flags: number; streamId: number; block: Buffer }
  | { type: 'synReply' | 'headers'; flags: number; streamId: number; block: Buffer }
  | { type: 'rstStream'; streamId: number; status: number }
  | { type: 'settings'; entries: { id: number; value: number }[] }
  | { type: 'ping'; id: number }
  | { type: 'goAway'; lastStreamId: number; status: number }
  | { type: 'windowUpdate'; streamId: number; delta: number }
  /** `last` marks the final piece of a frame; only there does FIN count. */
  | { type: 'data'; streamId: number; bytes: Buffer; fin: boolean }
  | { type: 'unknown'; code: number };

/** The peer's bytes are not SPDY/3; the session cannot go on. */
export class SpdyProtocolError extends Error {
  override name = 'SpdyProtocolError';
}

type State =
  | { at: 'header' }
  | { at: 'control'; code: number; flags: number; length: number }
  | { at: 'data'; streamId: number; flags: number; remaining: number };

export class SpdyFrameParser {
  #state: State = { at: 'header' };
  /** What is collected of a header or of a control frame's payload. */
  #held: Buffer[] = [];
  #heldBytes = 0;

  /** Frames that are complete with `chunk`, in order. @throws SpdyProtocolError */
  *push(chunk: Buffer): Generator<SpdyFrame> {
    let rest = chunk;
    for (;;) {
      const state = this.#state;
      if (state.at === 'data') {
        const bytes = rest.subarray(0, state.remaining);
        rest = rest.subarray(bytes.length);
        state.remaining -= bytes.length;
        const last = state.remaining === 0;
        if (last) this.#state = { at: 'header' };
        const fin = last && (state.flags & FLAG.fin) !== 0;
        if (bytes.length > 0 || fin) {
          yield { type: 'data', streamId: state.streamId, bytes, fin };
        }
        if (!last) return;
        continue;
      }
      const wanted = state.at === 'header' ? HEADER_BYTES : state.length;
      const taken = rest.subarray(0, wanted - this.#heldBytes);
      this.#held.push(taken);
      this.#heldBytes += taken.length;
      rest = rest.subarray(taken.length);
      if (this.#heldBytes < wanted) return;
      const payload = this.#held.length === 1 ? taken : Buffer.concat(this.#held, wanted);
      this.#held = [];
      this.#heldBytes = 0;
      if (state.at === 'header') this.#state = parseHeader(payload);
      else {
        this.#state = { at: 'header' };
        yield parseControl(state.code, state.flags, payload);
      }
    }
  }
}

function parseHeader(header: Buffer): State {
  const first = header.readUInt32BE(0);
  const flags = header.readUInt8(4);
  const length = header.readUIntBE(5, 3);
  if ((first & 0x80000000) === 0) {
    return { at: 'data', streamId: first, flags, remaining: length };
  }
  const version = (first >>> 16) & 0x7fff;
  if (version !== SPDY_VERSION) throw new SpdyProtocolError(`SPDY version is ${version}, want 3`);
  if (length > CONTROL_FRAME_BYTES_MAX) {
    const message = `control frame has ${length} bytes, at most ${CONTROL_FRAME_BYTES_MAX} are allowed`;
    throw new SpdyProtocolError(message);
  }
  return { at: 'control', code: first & 0xffff, flags, length };
}

const id31 = (value: number) => value & 0x7fffffff;

/** Smallest payload of each control frame; the exact ones are checked below. */
const PAYLOAD_BYTES: Record<number, { min: number; exact?: boolean }> = {
  [FRAME.synStream]: { min: 10 },
  [FRAME.synReply]: { min: 4 },
  [FRAME.headers]: { min: 4 },
  [FRAME.rstStream]: { min: 8, exact: true },
  [FRAME.settings]: { min: 4 },
  [FRAME.ping]: { min: 4, exact: true },
  [FRAME.goAway]: { min: 8, exact: true },
  [FRAME.windowUpdate]: { min: 8, exact: true },
};

function parseControl(code: number, flags: number, payload: Buffer): SpdyFrame {
  const size = PAYLOAD_BYTES[code];
  if (!size) return { type: 'unknown', code };
  if (payload.length < size.min || (size.exact && payload.length !== size.min)) {
    throw new SpdyProtocolError(`control frame ${code} has a payload of ${payload.length} bytes`);
  }
  const word = (offset: number) => payload.readUInt32BE(offset);
  switch (code) {
    case FRAME.synStream:
      return { type: 'synStream', flags, streamId: id31(word(0)), block: payload.subarray(10) };
    case FRAME.synReply:
      return { type: 'synReply', flags, streamId: id31(word(0)), block: payload.subarray(4) };
    case FRAME.headers:
      return { type: 'headers', flags, streamId: id31(word(0)), block: payload.subarray(4) };
    case FRAME.rstStream:
      return { type: 'rstStream', streamId: id31(word(0)), status: word(4) };
    case FRAME.ping:
      return { type: 'ping', id: word(0) };
    case FRAME.goAway:
      return { type: 'goAway', lastStreamId: id31(word(0)), status: word(4) };
    case FRAME.windowUpdate:
      return { type: 'windowUpdate', streamId: id31(word(0)), delta: id31(word(4)) };
    default:
      return { type: 'settings', entries: parseSettings(payload) };
  }
}

function parseSettings(payload: Buffer): { id: number; value: number }[] {
  const count = payload.readUInt32BE(0);
  if (payload.length !== 4 + count * 8) {
    throw new SpdyProtocolError(`SETTINGS names ${count} entries in ${payload.length} bytes`);
  }
  return Array.from({ length: count }, (_, index) => ({
    id: payload.readUIntBE(4 + index * 8 + 1, 3),
    value: payload.readUInt32BE(4 + index * 8 + 4),
  }));
}

function control(code: number, flags: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(0x8000 | SPDY_VERSION, 0);
  header.writeUInt16BE(code, 2);
  header.writeUInt8(flags, 4);
  header.writeUIntBE(payload.length, 5, 3);
  return Buffer.concat([header, payload]);
}

function words(...values: number[]): Buffer {
  const out = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => out.writeUInt32BE(value >>> 0, index * 4));
  return out;
}

export const encodeFrame = {
  synStream: (streamId: number, block: Buffer, fin: boolean): Buffer => {
    // Associated stream and priority are not used by any Kubernetes client: both 0.
    const fixed = Buffer.concat([words(streamId, 0), Buffer.alloc(2)]);
    return control(FRAME.synStream, fin ? FLAG.fin : 0, Buffer.concat([fixed, block]));
  },
  synReply: (streamId: number, block: Buffer): Buffer =>
    control(FRAME.synReply, 0, Buffer.concat([words(streamId), block])),
  rstStream: (streamId: number, status: number): Buffer =>
    control(FRAME.rstStream, 0, words(streamId, status)),
  settings: (entries: { id: number; value: number }[]): Buffer =>
    control(
      FRAME.settings,
      0,
      words(entries.length, ...entries.flatMap((entry) => [entry.id, entry.value])),
    ),
  ping: (id: number): Buffer => control(FRAME.ping, 0, words(id)),
  goAway: (lastStreamId: number, status: number): Buffer =>
    control(FRAME.goAway, 0, words(lastStreamId, status)),
  windowUpdate: (streamId: number, delta: number): Buffer =>
    control(FRAME.windowUpdate, 0, words(streamId, delta)),
  /** The header of a DATA frame; the payload follows it as it is. */
  dataHeader: (streamId: number, length: number, fin: boolean): Buffer => {
    const header = words(streamId, length);
    header.writeUInt8(fin ? FLAG.fin : 0, 4);
    return header;
  },
};
