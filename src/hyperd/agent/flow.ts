import { Duplex, Readable, Writable } from 'node:stream';
import { DATA_PREFIX_BYTES, FRAME_PAYLOAD_BYTES_MAX, ProtocolError } from './wire.ts';
import { encodeData, encodeEnd, encodeWindow, splitPayload } from './wire.ts';

/**
 * The host's ends of the byte streams of a session. A `Sink` takes what the guest sends and never
 * holds more than its window; a `Source` sends what the guest has room for and makes its writer
 * wait for the rest.
 */

/** Bytes of one stream that the guest may have sent and the host not yet dealt with. */
export const WINDOW_BYTES = 256 * 1024;
/**
 * An acknowledgement is sent when this much has been dealt with, or what came in this many pieces.
 * Half of what the guest has room for, in its smallest ring and for the times at which it has read
 * (`STREAM_MARKS_MAX`): while one is under way there is as much room again. What is less is not
 * acknowledged, also when nothing is left: each acknowledgement is an interrupt of the guest, which
 * needs it for nothing but room.
 */
const ACKNOWLEDGE_BYTES = 64 * 1024;
const ACKNOWLEDGE_PIECES = 128;
/** Pieces that wait are joined up to this size. */
const JOINED_BYTES_MAX = 2048;
/** Kept by Node's Readable beyond the window. */
const READABLE_BYTES = 16 * 1024;

export type Send = (frame: Buffer) => void;

export interface Sink {
  readonly id: number;
  data(offset: number, timeMs: number, bytes: Buffer): void;
  end(offset: number): void;
}

/** Offsets and window of one stream from the guest. */
export class Inflow {
  readonly id: number;
  #send: Send;
  #next: number;
  #done: number;
  #announced: number;
  /** That came since something was announced. */
  #pieces = 0;
  #ended = false;

  constructor(id: number, start: number, send: Send) {
    this.id = id;
    this.#send = send;
    this.#next = this.#done = this.#announced = start;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** @throws ProtocolError on bytes that are out of order or beyond the window */
  take(offset: number, length: number): void {
    if (this.#ended || offset !== this.#next || length === 0) {
      throw new ProtocolError(`stream ${this.id}: bytes at ${offset}, wanted ${this.#next}`);
    }
    if (offset + length > this.#announced + WINDOW_BYTES) {
      throw new ProtocolError(`stream ${this.id}: bytes beyond the window`);
    }
    this.#next += length;
    this.#pieces += 1;
  }

  finish(offset: number): void {
    if (this.#ended || offset !== this.#next) {
      throw new ProtocolError(`stream ${this.id}: end at ${offset}, wanted ${this.#next}`);
    }
    this.#ended = true;
  }

  announce(): void {
    this.#announced = this.#done;
    this.#pieces = 0;
    this.#send(encodeWindow(this.id, this.#done, this.#done + WINDOW_BYTES));
  }

  /** `length` further bytes, in order, are dealt with. */
  release(length: number): void {
    this.#done += length;
    const news = this.#done - this.#announced;
    const isDue = news >= ACKNOWLEDGE_BYTES || this.#pieces >= ACKNOWLEDGE_PIECES;
    if (isDue && news > 0) this.announce();
  }
}

/** Offsets, window and waiting bytes of one stream to the guest. */
export class Outflow {
  readonly id: number;
  #send: Send;
  #next: number;
  #limit: number;
  #waiting: { bytes: Buffer; done: () => void } | undefined;
  #broken = false;

  /** @param limit the guest takes bytes below this offset */
  constructor(id: number, start: number, limit: number, send: Send) {
    this.id = id;
    this.#send = send;
    this.#next = start;
    this.#limit = limit;
  }

  /** One call at a time. `done` is called when all of it was sent, or is of no use any more. */
  write(bytes: Buffer, done: () => void): void {
    this.#waiting = { bytes, done };
    this.#pump();
  }

  end(): void {
    if (!this.#broken) this.#send(encodeEnd(this.id, this.#next));
  }

  /** @throws ProtocolError on a window that goes back, is too wide, or acknowledges the unsent */
  window(acknowledged: number, limit: number): void {
    if (acknowledged > this.#next || limit < this.#limit || limit < this.#next) {
      throw new ProtocolError(`stream ${this.id}: impossible window`);
    }
    // What a guest grants and does not read is the host's memory.
    if (limit - acknowledged > WINDOW_BYTES) {
      throw new ProtocolError(`stream ${this.id}: window of ${limit - acknowledged} bytes`);
    }
    this.#limit = limit;
    this.#pump();
  }

  /** Nobody reads it in the guest any more: what is written is dropped, as by a closed pipe. */
  break(): void {
    this.#broken = true;
    this.#pump();
  }

  #pump(): void {
    const waiting = this.#waiting;
    if (!waiting) return;
    const room = this.#broken ? waiting.bytes.length : this.#limit - this.#next;
    const now = waiting.bytes.subarray(0, room);
    waiting.bytes = waiting.bytes.subarray(now.length);
    if (!this.#broken) {
      for (const piece of splitPayload(now, FRAME_PAYLOAD_BYTES_MAX - DATA_PREFIX_BYTES)) {
        this.#send(encodeData(this.id, this.#next, piece));
        this.#next += piece.length;
      }
    }
    if (waiting.bytes.length > 0) return;
    this.#waiting = undefined;
    waiting.done();
  }
}

/** Output of a container: handed to a callback whose promise is the acknowledgement. */
export class CallbackSink implements Sink {
  readonly #flow: Inflow;
  readonly #deliver: (offset: number, timeMs: number, bytes: Buffer) => Promise<void>;
  readonly #fail: (error: unknown) => void;
  /** Lengths in order; a length is settled when its promise is. */
  #pending: { length: number; settled: boolean }[] = [];
  #idle: (() => void)[] = [];

  constructor(
    flow: Inflow,
    deliver: (offset: number, timeMs: number, bytes: Buffer) => Promise<void>,
    fail: (error: unknown) => void,
  ) {
    this.#flow = flow;
    this.#deliver = deliver;
    this.#fail = fail;
  }

  get id(): number {
    return this.#flow.id;
  }

  data(offset: number, timeMs: number, bytes: Buffer): void {
    this.#flow.take(offset, bytes.length);
    const entry = { length: bytes.length, settled: false };
    this.#pending.push(entry);
    this.#deliver(offset, timeMs, bytes).then(() => {
      entry.settled = true;
      this.#release();
    }, this.#fail);
  }

  end(offset: number): void {
    this.#flow.finish(offset);
    this.#release();
  }

  announce(): void {
    this.#flow.announce();
  }

  /** Resolves when the stream has ended and all of it was acknowledged. */
  finished(): Promise<void> {
    if (this.#flow.ended && this.#pending.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #release(): void {
    let length = 0;
    while (this.#pending[0]?.settled) length += this.#pending.shift()?.length ?? 0;
    if (length > 0) this.#flow.release(length);
    if (!this.#flow.ended || this.#pending.length > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}

/** The reading side of a Node stream: bytes wait here until the reader wants them. */
export class ReadableSink implements Sink {
  readonly #flow: Inflow;
  readonly #target: Readable;
  #queue: Buffer[] = [];
  #hungry = false;

  constructor(flow: Inflow, target: Readable) {
    this.#flow = flow;
    this.#target = target;
  }

  get id(): number {
    return this.#flow.id;
  }

  data(offset: number, _timeMs: number, bytes: Buffer): void {
    this.#flow.take(offset, bytes.length);
    const last = this.#queue.at(-1);
    // A window of single bytes must not become as many buffers.
    if (last && last.length + bytes.length <= JOINED_BYTES_MAX) {
      this.#queue[this.#queue.length - 1] = Buffer.concat([last, bytes]);
    } else this.#queue.push(bytes);
    if (this.#hungry) this.more();
  }

  end(offset: number): void {
    this.#flow.finish(offset);
    if (this.#hungry) this.more();
  }

  /** The reader has room. */
  more(): void {
    const bytes = this.#queue.shift();
    this.#hungry = bytes === undefined;
    if (bytes) {
      this.#flow.release(bytes.length);
      this.#target.push(bytes);
    } else if (this.#flow.ended) {
      this.#target.push(null);
    }
  }
}

export function readableOf(flow: Inflow): { stream: Readable; sink: Sink } {
  const stream: Readable = new Readable({
    highWaterMark: READABLE_BYTES,
    read: () => sink.more(),
  });
  const sink = new ReadableSink(flow, stream);
  return { stream, sink };
}

export function writableOf(flow: Outflow): Writable {
  return new Writable({
    highWaterMark: READABLE_BYTES,
    decodeStrings: true,
    write: (bytes: Buffer, _encoding, done) => flow.write(bytes, done),
    final: (done) => {
      flow.end();
      done();
    },
  });
}

/** A connection: both directions, each with its own end. `closed` is called once. */
export function duplexOf(
  inflow: Inflow,
  outflow: Outflow,
  closed: () => void,
): { stream: Duplex; sink: Sink } {
  const stream: Duplex = new Duplex({
    highWaterMark: READABLE_BYTES,
    allowHalfOpen: true,
    read: () => sink.more(),
    write: (bytes: Buffer, _encoding, done) => outflow.write(bytes, done),
    final: (done) => {
      outflow.end();
      done();
    },
    destroy: (error, done) => {
      closed();
      done(error);
    },
  });
  const sink = new ReadableSink(inflow, stream);
  return { stream, sink };
}
