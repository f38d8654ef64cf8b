import type { Duplex } from 'node:stream';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { AgentError } from './agent.ts';
import { FRAME, FrameReader, MAGIC, NONCE_BYTES, ProtocolError } from './wire.ts';
import { encodeFrame, encodeRequest } from './wire.ts';
import type { Frame, Piece } from './wire.ts';

/**
 * One session on a control connection: greeting, requests with their answers, and frames of
 * streams for its owner. It ends once, by `close`, by the connection, or by a guest that breaks
 * the protocol, and then nothing of it is left.
 */

/** Requests that wait for their answer. More callers wait in line. */
const REQUESTS_MAX = 64;
const LATE_ANSWERS_MAX = 1024;
const REQUEST_TIMEOUT_MS = 30_000;
/** The guest's loop answers a ping at once, however long what it was asked for takes. */
const PING_TIMEOUT_MS = 10_000;
const ANSWER_TEXT_BYTES_MAX = 4096;
/** When the guest has left more than this unread, nothing further is read from it. */
const UNREAD_BYTES_MAX = 1 << 20;
/** After so long without reading any of it, the guest is not one to speak to. */
const UNREAD_TIMEOUT_MS = 30_000;

export interface SessionOptions {
  connection: Duplex;
  clock: Clock;
  random: Random;
  signal?: AbortSignal;
  /** Frames other than answers and data. May throw `ProtocolError`. */
  onFrame: (frame: Frame) => void;
  /** Bytes of streams, in order. May throw `ProtocolError`. */
  onData: (piece: Piece) => void;
  onClosed: (error: Error | undefined) => void;
}

export interface RequestOptions {
  attachment?: Uint8Array;
  /** @default 30_000 */
  timeoutMs?: number;
}

type Json = Record<string, unknown>;

interface Pending {
  resolve: (ok: Json) => void;
  reject: (error: Error) => void;
  timer: Timer;
}

export class Session {
  #options: SessionOptions;
  #reader: FrameReader;
  #pending = new Map<number, Pending>();
  /** Requests that timed out: their answers may still come. */
  #late = new Set<number>();
  #lastId = 0;
  /** Requests that have been sent and not answered. Pings are not counted. */
  #waiting = 0;
  #line: (() => void)[] = [];
  #ping: Promise<boolean> | undefined;
  #over = false;
  #unread: Timer | undefined;
  #isHeld = false;
  #abort = () => this.close(new AgentError('Closed', 'Session with the guest: aborted'));

  constructor(options: SessionOptions) {
    this.#options = options;
    const nonce = options.random.bytes(NONCE_BYTES);
    this.#reader = new FrameReader(nonce);
    const { connection, signal } = options;
    connection.on('data', this.#onData);
    connection.on('error', this.#onError);
    connection.on('close', this.#onEnd);
    connection.on('end', this.#onEnd);
    signal?.addEventListener('abort', this.#abort, { once: true });
    connection.write(Buffer.concat([MAGIC, nonce]));
    if (signal?.aborted) queueMicrotask(this.#abort);
  }

  get over(): boolean {
    return this.#over;
  }

  send = (frame: Buffer): void => {
    if (this.#over) return;
    const { connection } = this.#options;
    connection.write(frame);
    if (connection.writableLength > UNREAD_BYTES_MAX && !this.#unread) this.#awaitReader();
  };

  /** Much of what is sent answers what came: whoever does not read is not listened to either. */
  #awaitReader(): void {
    const { connection, clock } = this.#options;
    const unreadBytes = connection.writableLength;
    connection.pause();
    connection.once('drain', this.#onDrain);
    this.#unread = clock.after(UNREAD_TIMEOUT_MS, () => {
      connection.off('drain', this.#onDrain);
      if (this.#isHeld || connection.writableLength < unreadBytes) this.#awaitReader();
      else this.close(new ProtocolError('the guest does not read'));
    });
  }

  #onDrain = (): void => {
    this.#unread?.cancel();
    this.#unread = undefined;
    this.#options.connection.resume();
  };

  /**
   * Requests are sent in the order of the calls.
   * @throws AgentError what the guest refused, `Timeout` when it lives and does not answer this, or
   *   `Closed`, also when it does not answer anything any more
   */
  async request(op: string, body: Json = {}, options: RequestOptions = {}): Promise<Json> {
    const isFull = this.#waiting >= REQUESTS_MAX;
    if (isFull) await new Promise<void>((resolve) => this.#line.push(resolve));
    else this.#waiting += 1;
    const timeoutMs = options.timeoutMs ?? REQUEST_TIMEOUT_MS;
    try {
      return await this.#ask({ op, ...body }, options.attachment, timeoutMs, (id) => {
        void this.#unanswered(id, `${op}: no answer from the guest within ${timeoutMs} ms`);
      });
    } finally {
      this.#leave();
    }
  }

  /** The place of a request goes to the first in line: nobody overtakes. */
  #leave(): void {
    const next = this.#line.shift();
    if (next) next();
    else this.#waiting -= 1;
  }

  #ask(
    body: Json,
    attachment: Uint8Array | undefined,
    timeoutMs: number,
    onTimeout: (id: number) => void,
  ): Promise<Json> {
    return new Promise((resolve, reject) => {
      if (this.#over) {
        reject(new AgentError('Closed', `${body['op']}: the session with the guest is over`));
        return;
      }
      const id = (this.#lastId = (this.#lastId % 0xffff_ffff) + 1);
      const frames = encodeRequest(id, body, attachment);
      const onLate = () => {
        // Of a guest that was held the whole time counts anew.
        if (this.#isHeld) pending.timer = this.#options.clock.after(timeoutMs, onLate);
        else onTimeout(id);
      };
      const timer = this.#options.clock.after(timeoutMs, onLate);
      const pending: Pending = { resolve, reject, timer };
      this.#pending.set(id, pending);
      for (const frame of frames) this.send(frame);
    });
  }

  /** A guest whose VM is held answers nothing, and is not late with it. */
  hold(isHeld: boolean): void {
    this.#isHeld = isHeld;
  }

  /** A guest that has lost the session answers nothing, and a new one is to be opened. */
  async #unanswered(id: number, words: string): Promise<void> {
    if (!(await this.#isAnswering())) {
      this.close(new Error(`the guest does not answer: ${words}`));
      return;
    }
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#forget(id);
    this.#late.add(id);
    pending.reject(new AgentError('Timeout', words));
    if (this.#late.size > LATE_ANSWERS_MAX) this.close(new ProtocolError('too many timeouts'));
  }

  /** One ping serves all who ask meanwhile. It does not wait in line. */
  #isAnswering(): Promise<boolean> {
    this.#ping ??= new Promise<boolean>((resolve) => {
      const answered = this.#ask({ op: 'ping' }, undefined, PING_TIMEOUT_MS, () => resolve(false));
      // A refusal is an answer too.
      answered.catch(() => {}).finally(() => resolve(!this.#over));
    }).finally(() => (this.#ping = undefined));
    return this.#ping;
  }

  close(error?: Error): void {
    if (this.#over) return;
    this.#over = true;
    const { connection, signal } = this.#options;
    signal?.removeEventListener('abort', this.#abort);
    this.#unread?.cancel();
    connection.off('drain', this.#onDrain);
    connection.off('data', this.#onData);
    connection.off('close', this.#onEnd);
    connection.off('end', this.#onEnd);
    connection.destroy();
    const reason = error?.message ?? 'closed';
    for (const [id, { reject }] of [...this.#pending]) {
      this.#forget(id);
      reject(new AgentError('Closed', `Session with the guest is over: ${reason}`));
    }
    for (const resume of this.#line.splice(0)) resume();
    this.#options.onClosed(error);
  }

  #onData = (chunk: Buffer): void => {
    try {
      this.#reader.push(chunk, this.#taker);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.close(error);
    }
  };

  #taker = {
    frame: (frame: Frame) => this.#onFrame(frame),
    data: (piece: Piece) => {
      if (!this.#over) this.#options.onData(piece);
    },
  };

  #onError = (error: Error): void => this.close(error);
  #onEnd = (): void => this.close(new Error('the connection to the guest was closed'));

  #onFrame(frame: Frame): void {
    if (this.#over) return;
    if (frame.type === FRAME.response) this.#onResponse(frame);
    else if (frame.type === FRAME.goodbye) {
      const words = frame.payload.toString('utf8', 0, ANSWER_TEXT_BYTES_MAX);
      throw new ProtocolError(`the guest refused the session: ${JSON.stringify(words)}`);
    } else this.#options.onFrame(frame);
  }

  #onResponse(frame: Frame): void {
    const pending = this.#pending.get(frame.id);
    if (!pending) {
      if (this.#late.delete(frame.id)) return;
      throw new ProtocolError(`answer to request ${frame.id}, which was not made`);
    }
    // Until it is known to make sense the request is pending: the end of the session rejects it.
    const { ok, error } = parseObject(frame.payload, 'answer');
    const refusal = isObject(error) ? agentError(error) : undefined;
    if (!isObject(ok) && !refusal) throw new ProtocolError('answer with neither "ok" nor "error"');
    this.#forget(frame.id);
    if (isObject(ok)) pending.resolve(ok);
    else pending.reject(refusal as AgentError);
  }

  #forget(id: number): void {
    this.#pending.get(id)?.timer.cancel();
    this.#pending.delete(id);
  }
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @throws ProtocolError when the bytes are not one JSON object */
export function parseObject(payload: Buffer, what: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString('utf8'));
  } catch {
    throw new ProtocolError(`${what}: not JSON`);
  }
  if (!isObject(value)) throw new ProtocolError(`${what}: not an object`);
  return value;
}

/** @throws ProtocolError when the field is not an integer in range */
export function integerOf(object: Json, field: string, min: number, max: number): number {
  const value = object[field];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
    throw new ProtocolError(`${field}: not an integer from ${min} to ${max}`);
  }
  return value;
}

/** @throws ProtocolError when the field is not a string of at most `lengthMax` characters */
export function stringOf(object: Json, field: string, lengthMax: number): string {
  const value = object[field];
  if (typeof value !== 'string' || value.length > lengthMax) {
    throw new ProtocolError(`${field}: not a string of at most ${lengthMax} characters`);
  }
  return value;
}

export function booleanOf(object: Json, field: string): boolean {
  const value = object[field];
  if (typeof value !== 'boolean') throw new ProtocolError(`${field}: not a boolean`);
  return value;
}

function agentError(error: Json): AgentError {
  const reason = stringOf(error, 'reason', 64);
  const message = stringOf(error, 'message', ANSWER_TEXT_BYTES_MAX);
  return new AgentError(reason, message, integerOf(error, 'exitCode', 0, 255));
}

export function resetFrame(id: number): Buffer {
  return encodeFrame(FRAME.reset, id, Buffer.alloc(0));
}
