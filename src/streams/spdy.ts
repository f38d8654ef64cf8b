import { Duplex } from 'node:stream';
import { encodeFrame, FLAG, RESET, SETTING } from './spdy-frame.ts';
import { SpdyFrameParser, SpdyProtocolError } from './spdy-frame.ts';
import type { SpdyFrame } from './spdy-frame.ts';
import { createHeaderCodec } from './spdy-headers.ts';
import type { HeaderCodec, SpdyHeaders } from './spdy-headers.ts';

/**
 * A SPDY/3.1 session over any byte stream, either side of it. One stream is a Node `Duplex`:
 *
 *                 SYN_STREAM          SYN_REPLY (accept)
 *      idle ───────────────► offered ─────────────────► open ──► half-closed ──► closed
 *                               │  reset                 │ FIN of one side        ▲
 *                               └────────────────────────┴──── RST_STREAM ────────┘
 *
 * Flow control. Kubernetes' own library (moby/spdystream) neither sends nor obeys
 * WINDOW_UPDATE, so a window alone would stall it or be overrun by it. Hence:
 *  - inbound, a stream's consumer that is slow stops the session's reading (the transport's
 *    back-pressure then stops the peer) once RECEIVE_BUFFER_BYTES_MAX are waiting; windows are
 *    returned as bytes are consumed, for peers that do obey them;
 *  - outbound, the peer's windows are obeyed from the moment it shows that it knows them
 *    (SETTINGS with an initial window, or a WINDOW_UPDATE).
 */
export interface SpdyConnectionOptions {
  role: 'server' | 'client';
  /** A stream that the peer opened. Answer with `accept` or `reset`. */
  onStream?: (stream: SpdyStream) => void;
}

/** kubectl port-forward opens two per connection; more at once are refused. */
export const STREAMS_MAX = 512;
/** Per stream: how much may wait for its consumer before the session stops reading. */
export const RECEIVE_BUFFER_BYTES_MAX = 64 * 1024;
const INITIAL_WINDOW_BYTES = 64 * 1024;
const WINDOW_BYTES_MAX = 2 ** 31 - 1;
/** Keeps one stream's long write from delaying the others'. */
const DATA_FRAME_BYTES_MAX = 16 * 1024;
/** HEADERS frames are not used by Kubernetes; more than a few are an attempt to cost us work. */
const STRAY_FRAMES_MAX = 1024;

export class SpdyResetError extends Error {
  override name = 'SpdyResetError';
  readonly status: number;
  constructor(status: number) {
    super(`stream was reset with status ${status}`);
    this.status = status;
  }
}

/** What a stream asks of its session. */
interface StreamPort {
  sendData(stream: SpdyStream, bytes: Buffer, fin: boolean): Promise<void>;
  sendReply(stream: SpdyStream): Promise<void>;
  sendReset(stream: SpdyStream, status: number): void;
  consumed(stream: SpdyStream, bytes: number): void;
  forget(stream: SpdyStream): void;
}

export class SpdyStream extends Duplex {
  readonly id: number;
  readonly headers: SpdyHeaders;
  readonly #port: StreamPort;
  /** Bytes that the peer lets us send. */
  sendWindow: number;
  #wakeWriter: (() => void) | undefined;
  #wakeReader: (() => void) | undefined;
  /** Received and not yet asked for. */
  #inbox: Buffer[] = [];
  #inboxBytes = 0;
  #wanted = false;
  #remoteDone = false;
  #ended = false;
  #resetSent = false;

  constructor(id: number, headers: SpdyHeaders, port: StreamPort, sendWindow: number) {
    super({ allowHalfOpen: true });
    this.id = id;
    this.headers = headers;
    this.#port = port;
    this.sendWindow = sendWindow;
    // A reset is visible to whoever reads or writes; nobody else has to listen for it.
    this.on('error', () => {});
  }

  /** Tells the peer that the stream is wanted. Its data may be written from now on. */
  accept(): Promise<void> {
    return this.#port.sendReply(this);
  }

  reset(status: number = RESET.cancel): void {
    this.#sendReset(status);
    this.destroy(new SpdyResetError(status));
  }

  /** Called by the session. Resolves when the session may go on reading. */
  async receive(bytes: Buffer, fin: boolean): Promise<void> {
    if (this.destroyed || this.#remoteDone) {
      this.#port.consumed(this, bytes.length);
      return;
    }
    if (bytes.length > 0) this.#inbox.push(bytes);
    this.#inboxBytes += bytes.length;
    if (fin) this.#remoteDone = true;
    this.#pump();
    if (this.#inboxBytes <= RECEIVE_BUFFER_BYTES_MAX || this.destroyed) return;
    await new Promise<void>((resolve) => (this.#wakeReader = resolve));
  }

  receiveEnd(): void {
    this.#remoteDone = true;
    this.#pump();
  }

  receiveReset(status: number): void {
    this.#resetSent = true;
    this.destroy(new SpdyResetError(status));
  }

  windowGrew(): void {
    this.#wakeWriter?.();
  }

  waitForWindow(): Promise<void> {
    if (this.destroyed) return Promise.resolve();
    return new Promise((resolve) => (this.#wakeWriter = resolve));
  }

  override _read(): void {
    this.#wanted = true;
    this.#pump();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#port.sendData(this, chunk, false).then(() => done(), done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#port.sendData(this, Buffer.alloc(0), true).then(() => done(), done);
  }

  /** Moves what waits to the consumer, as far as it asks for it, and opens the window again. */
  #pump(): void {
    while (this.#wanted && this.#inbox.length > 0) {
      const bytes = this.#inbox.shift() as Buffer;
      this.#inboxBytes -= bytes.length;
      this.#port.consumed(this, bytes.length);
      this.#wanted = this.push(bytes);
    }
    if (this.#remoteDone && this.#inbox.length === 0 && !this.#ended) {
      this.#ended = true;
      this.push(null);
    }
    if (this.#inboxBytes > RECEIVE_BUFFER_BYTES_MAX) return;
    const wake = this.#wakeReader;
    this.#wakeReader = undefined;
    wake?.();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!(this.writableFinished && this.#remoteDone)) this.#sendReset(RESET.cancel);
    this.#port.consumed(this, this.#inboxBytes);
    this.#inbox = [];
    this.#inboxBytes = 0;
    this.#wakeReader?.();
    this.#wakeWriter?.();
    this.#port.forget(this);
    done(error);
  }

  #sendReset(status: number): void {
    if (this.#resetSent) return;
    this.#resetSent = true;
    this.#port.sendReset(this, status);
  }
}

export class SpdyConnection {
  readonly #transport: Duplex;
  readonly #role: 'server' | 'client';
  readonly #onStream: (stream: SpdyStream) => void;
  readonly #codec: HeaderCodec = createHeaderCodec();
  readonly #streams = new Map<number, SpdyStream>();
  readonly #closed = new AbortController();
  #nextLocalId: number;
  #lastRemoteId = 0;
  #peerHasWindows = false;
  #initialSendWindow = INITIAL_WINDOW_BYTES;
  #sessionSendWindow = INITIAL_WINDOW_BYTES;
  #wakeSession: (() => void)[] = [];
  #unreturnedSession = 0;
  readonly #unreturned = new Map<number, number>();
  #strayFrames = 0;
  #goingAway = false;
  /** Blocks have to be compressed in the order in which their frames are sent. */
  #sending: Promise<void> = Promise.resolve();

  constructor(transport: Duplex, options: SpdyConnectionOptions) {
    this.#transport = transport;
    this.#role = options.role;
    this.#onStream = options.onStream ?? ((stream) => stream.reset(RESET.refusedStream));
    this.#nextLocalId = options.role === 'client' ? 1 : 2;
    transport.on('error', () => {});
    transport.once('close', () => this.destroy());
    void this.#run();
  }

  /** Aborts when the session is over, with the error that ended it as its reason. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** Opens a stream. It may be written at once; the peer may still refuse it. */
  async open(headers: SpdyHeaders): Promise<SpdyStream> {
    if (this.#goingAway || this.closed.aborted) throw new SpdyProtocolError('session is closed');
    const id = this.#nextLocalId;
    this.#nextLocalId += 2;
    const stream = new SpdyStream(id, headers, this.#port, this.#initialSendWindow);
    this.#streams.set(id, stream);
    await this.#inOrder(async () => {
      await this.#write(encodeFrame.synStream(id, await this.#codec.encode(headers), false));
    });
    return stream;
  }

  /** Lets streams end by themselves, then ends the transport. */
  close(): void {
    if (this.#goingAway || this.closed.aborted) return;
    this.#goingAway = true;
    void this.#write(encodeFrame.goAway(this.#lastRemoteId, 0)).then(() => this.#endWhenIdle());
  }

  /** Ends everything at once. */
  destroy(error?: Error): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(error ?? new Error('session is closed'));
    for (const stream of this.#streams.values()) {
      // A peer that left after its FIN has nothing more to say; otherwise data may be missing.
      stream.receiveReset(RESET.cancel);
    }
    this.#streams.clear();
    this.#wakeAll();
    this.#codec.close();
    this.#transport.destroy();
  }

  readonly #port: StreamPort = {
    sendData: (stream, bytes, fin) => this.#sendData(stream, bytes, fin),
    sendReply: (stream) =>
      this.#inOrder(async () => {
        await this.#write(encodeFrame.synReply(stream.id, await this.#codec.encode({})));
      }),
    sendReset: (stream, status) => {
      if (!this.closed.aborted) void this.#write(encodeFrame.rstStream(stream.id, status));
    },
    consumed: (stream, bytes) => this.#returnWindow(stream, bytes),
    forget: (stream) => {
      this.#streams.delete(stream.id);
      this.#unreturned.delete(stream.id);
      if (this.#goingAway) this.#endWhenIdle();
    },
  };

  async #run(): Promise<void> {
    const parser = new SpdyFrameParser();
    try {
      for await (const chunk of this.#transport as AsyncIterable<Buffer>) {
        for (const frame of parser.push(chunk)) await this.#handle(frame);
      }
      this.destroy();
    } catch (error) {
      if (error instanceof SpdyProtocolError && !this.closed.aborted) {
        await this.#write(encodeFrame.goAway(this.#lastRemoteId, 1)).catch(() => {});
      }
      this.destroy(error as Error);
    }
  }

  async #handle(frame: SpdyFrame): Promise<void> {
    switch (frame.type) {
      case 'synStream':
        return await this.#handleSynStream(frame);
      case 'data':
        return await this.#handleData(frame);
      case 'synReply':
      case 'headers':
        // The block must be read in any case: it carries the state of the compression.
        await this.#codec.decode(frame.block);
        if ((frame.flags & FLAG.fin) !== 0) this.#streams.get(frame.streamId)?.receiveEnd();
        return this.#countStray(frame.type === 'headers');
      case 'rstStream':
        this.#streams.get(frame.streamId)?.receiveReset(frame.status);
        return this.#countStray(!this.#streams.has(frame.streamId));
      case 'ping':
        // Odd ids are a client's. Waiting for the write stops a peer that floods and never reads.
        if ((frame.id % 2 === 1) === (this.#role === 'server')) {
          await this.#write(encodeFrame.ping(frame.id));
        }
        return;
      case 'settings':
        return this.#handleSettings(frame.entries);
      case 'windowUpdate':
        return this.#handleWindowUpdate(frame.streamId, frame.delta);
      case 'goAway':
        this.#goingAway = true;
        return this.#endWhenIdle();
      case 'unknown':
        return this.#countStray(true);
    }
  }

  async #handleSynStream(frame: SpdyFrame & { type: 'synStream' }): Promise<void> {
    const headers = await this.#codec.decode(frame.block);
    const id = frame.streamId;
    const remoteParity = this.#role === 'server' ? 1 : 0;
    if (id % 2 !== remoteParity || id <= this.#lastRemoteId) {
      throw new SpdyProtocolError(`stream id ${id} is not above ${this.#lastRemoteId}`);
    }
    this.#lastRemoteId = id;
    if (this.#goingAway || this.#streams.size >= STREAMS_MAX) {
      await this.#write(encodeFrame.rstStream(id, RESET.refusedStream));
      return;
    }
    const stream = new SpdyStream(id, headers, this.#port, this.#initialSendWindow);
    this.#streams.set(id, stream);
    if ((frame.flags & FLAG.fin) !== 0) stream.receiveEnd();
    this.#onStream(stream);
  }

  async #handleData(frame: SpdyFrame & { type: 'data' }): Promise<void> {
    const stream = this.#streams.get(frame.streamId);
    if (stream) return await stream.receive(frame.bytes, frame.fin);
    // Of a stream that was reset while the peer was still sending.
    this.#returnSessionWindow(frame.bytes.length);
    const isRemote = frame.streamId % 2 === (this.#role === 'server' ? 1 : 0);
    const last = isRemote ? this.#lastRemoteId : this.#nextLocalId - 2;
    if (frame.streamId === 0 || frame.streamId > last) {
      throw new SpdyProtocolError(`data for stream ${frame.streamId}, which was never opened`);
    }
  }

  #handleSettings(entries: { id: number; value: number }[]): void {
    for (const entry of entries) {
      if (entry.id !== SETTING.initialWindowSize) continue;
      if (entry.value > WINDOW_BYTES_MAX) {
        throw new SpdyProtocolError(
          `initial window is ${entry.value}, at most ${WINDOW_BYTES_MAX}`,
        );
      }
      this.#peerHasWindows = true;
      const delta = entry.value - this.#initialSendWindow;
      this.#initialSendWindow = entry.value;
      for (const stream of this.#streams.values()) stream.sendWindow += delta;
    }
    this.#wakeAll();
  }

  #handleWindowUpdate(streamId: number, delta: number): void {
    this.#peerHasWindows = true;
    const stream = this.#streams.get(streamId);
    if (streamId === 0) {
      this.#sessionSendWindow += delta;
      if (this.#sessionSendWindow > WINDOW_BYTES_MAX) {
        throw new SpdyProtocolError('session window is above 2^31-1');
      }
    } else if (stream) {
      stream.sendWindow += delta;
      if (stream.sendWindow > WINDOW_BYTES_MAX) stream.reset(RESET.flowControlError);
    }
    this.#wakeAll();
  }

  #countStray(isStray: boolean): void {
    if (!isStray) return;
    this.#strayFrames += 1;
    if (this.#strayFrames > STRAY_FRAMES_MAX) throw new SpdyProtocolError('too many stray frames');
  }

  async #sendData(stream: SpdyStream, bytes: Buffer, fin: boolean): Promise<void> {
    if (bytes.length === 0) {
      await this.#write(encodeFrame.dataHeader(stream.id, 0, fin));
      return;
    }
    let rest = bytes;
    while (rest.length > 0) {
      const size = Math.min(rest.length, DATA_FRAME_BYTES_MAX, this.#sendAllowance(stream));
      if (stream.destroyed) throw new SpdyResetError(RESET.streamAlreadyClosed);
      if (size <= 0) {
        await this.#waitForAllowance(stream);
        continue;
      }
      stream.sendWindow -= size;
      this.#sessionSendWindow -= size;
      const header = encodeFrame.dataHeader(stream.id, size, false);
      await this.#write(Buffer.concat([header, rest.subarray(0, size)]));
      rest = rest.subarray(size);
    }
  }

  #sendAllowance(stream: SpdyStream): number {
    if (!this.#peerHasWindows) return DATA_FRAME_BYTES_MAX;
    return Math.min(stream.sendWindow, this.#sessionSendWindow);
  }

  async #waitForAllowance(stream: SpdyStream): Promise<void> {
    await Promise.race([
      stream.waitForWindow(),
      new Promise<void>((resolve) => this.#wakeSession.push(resolve)),
    ]);
    if (this.closed.aborted) throw new SpdyResetError(RESET.cancel);
  }

  #wakeAll(): void {
    const waiting = this.#wakeSession;
    this.#wakeSession = [];
    for (const wake of waiting) wake();
    for (const stream of this.#streams.values()) stream.windowGrew();
  }

  #returnWindow(stream: SpdyStream, bytes: number): void {
    this.#returnSessionWindow(bytes);
    if (stream.destroyed || !this.#streams.has(stream.id)) return;
    const total = (this.#unreturned.get(stream.id) ?? 0) + bytes;
    const due = total >= INITIAL_WINDOW_BYTES / 2;
    this.#unreturned.set(stream.id, due ? 0 : total);
    if (due) void this.#write(encodeFrame.windowUpdate(stream.id, total)).catch(() => {});
  }

  #returnSessionWindow(bytes: number): void {
    this.#unreturnedSession += bytes;
    if (this.#unreturnedSession < INITIAL_WINDOW_BYTES / 2 || this.closed.aborted) return;
    const delta = this.#unreturnedSession;
    this.#unreturnedSession = 0;
    void this.#write(encodeFrame.windowUpdate(0, delta)).catch(() => {});
  }

  #inOrder(work: () => Promise<void>): Promise<void> {
    const result = this.#sending.then(work);
    this.#sending = result.catch(() => {});
    return result;
  }

  /** Resolves when the transport has taken the bytes. Never rejects: the session then ends. */
  #write(bytes: Buffer): Promise<void> {
    if (this.closed.aborted || this.#transport.destroyed || this.#transport.writableEnded) {
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#transport.write(bytes, () => resolve());
    });
  }

  #endWhenIdle(): void {
    if (this.#streams.size > 0 || this.closed.aborted) return;
    this.#transport.end(() => this.destroy());
  }
}
