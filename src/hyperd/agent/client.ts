import type { Duplex, Writable } from 'node:stream';
import type { ProcessExit, ProcessSpec, VolumeFiles } from '../../api/hyperd.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import { AgentError } from './agent.ts';
import type { Agent, AgentOptions, GuestContainerSpec, GuestProcess } from './agent.ts';
import type { PodSetup } from './agent.ts';
import { CallbackSink, Inflow, Outflow, WINDOW_BYTES } from './flow.ts';
import { duplexOf, readableOf, writableOf } from './flow.ts';
import type { Sink } from './flow.ts';
import { decodeExit, decodeHello, decodeStats } from './messages.ts';
import type { HelloContainer } from './messages.ts';
import { runProbe } from './probe.ts';
import { Session, integerOf, resetFrame, stringOf } from './session.ts';
import { FRAME, ProtocolError, PROTOCOL_VERSION, STREAM_MAX, STREAM_STEP } from './wire.ts';
import { encodeFrame, readOffset } from './wire.ts';
import type { Frame, Piece } from './wire.ts';

export interface ConnectOptions extends AgentOptions {
  clock: Clock;
  log: Log;
  signal?: AbortSignal;
  random?: Random;
  /** Until the guest has booted and answered. @default 60_000 */
  helloTimeoutMs?: number;
}

const HELLO_TIMEOUT_MS = 60_000;
/** hyperstart waits 10 s for a disk and 30 s for a program to start. */
const START_TIMEOUT_MS = 60_000;
const SETUP_TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;
const REMOVE_TIMEOUT_MS = 30_000;
/** For an answer to arrive after the guest's own time limit. */
const ANSWER_MARGIN_MS = 5_000;
const VOLUME_PIECE_BYTES = 256 * 1024;
/** Guest's bound for standard input before its first window. */
const PROCESS_RING_BYTES = 256 * 1024;
const RELAY_RING_BYTES = 128 * 1024;

interface ContainerStreams {
  id: string;
  base: number;
  outputs: CallbackSink[];
  stdin: Writable;
}

/**
 * Opens a session with hyperstart on a control connection, which it then owns, and takes up the
 * streams of the containers that the guest has. Output may be delivered as soon as the returned
 * promise resolves, and that of a new container before its `startContainer` does.
 * @throws AgentError when there is no answer or the guest breaks the protocol
 */
export async function connectAgent(connection: Duplex, options: ConnectOptions): Promise<Agent> {
  const client = new Client(connection, options);
  try {
    return await client.open();
  } catch (error) {
    client.close(error instanceof Error ? error : undefined);
    throw error;
  }
}

class Client {
  readonly #options: ConnectOptions;
  readonly #session: Session;
  readonly #sinks = new Map<number, Sink>();
  readonly #outflows = new Map<number, Outflow>();
  readonly #exits = new Map<number, (exit: ProcessExit) => void>();
  readonly #resets = new Map<number, () => void>();
  readonly #containers = new Map<string, ContainerStreams>();
  /** To be told when the session ends. */
  readonly #owned = new Set<(error: Error) => void>();
  /** Calls that are under way; a second one for the same container shares the first. */
  readonly #starting = new Map<string, Promise<void>>();
  readonly #removing = new Map<string, Promise<void>>();
  readonly #volumeTurns = new Map<string, Promise<unknown>>();
  readonly closed: Promise<Error | undefined>;
  #settleClosed: (error: Error | undefined) => void = () => {};
  #nextStream = STREAM_STEP;

  constructor(connection: Duplex, options: ConnectOptions) {
    this.#options = options;
    this.closed = new Promise((resolve) => (this.#settleClosed = resolve));
    this.#session = new Session({
      connection,
      clock: options.clock,
      random: options.random ?? systemRandom,
      signal: options.signal,
      onFrame: (frame) => this.#onFrame(frame),
      onData: (piece) => this.#onData(piece),
      onClosed: (error) => this.#onClosed(error),
    });
  }

  close(error?: Error): void {
    this.#session.close(error);
  }

  async open(): Promise<Agent> {
    const timeoutMs = this.#options.helloTimeoutMs ?? HELLO_TIMEOUT_MS;
    const body = { versions: [PROTOCOL_VERSION] };
    const answer = await this.#session.request('hello', body, { timeoutMs });
    const { hello, containers } = this.#orClose(() => decodeHello(answer));
    for (const container of containers) this.#adopt(container);
    return {
      hello,
      setupPod: (setup) => this.#setupPod(setup),
      endRehearsal: (options) => this.#simple('endRehearsal', { ...options }),
      prefetch: (image) => this.#simple('prefetch', { ...image }),
      startContainer: (spec) => shared(this.#starting, spec.id, () => this.#startContainer(spec)),
      signalContainer: (id, signal) => this.#simple('signal', { stream: this.#baseOf(id), signal }),
      setResources: (id, resources) => this.#simple('setResources', { id, resources }),
      removeContainer: (id) => shared(this.#removing, id, () => this.#removeContainer(id)),
      writeVolume: (volume, content) => this.#writeVolume(volume, content),
      exec: (id, process) => this.#exec(id, process),
      resizeContainer: (id, size) =>
        this.#simple('resize', { stream: this.#baseOf(id), ...sizeOf(size) }),
      containerStdin: (id) => this.#container(id).stdin,
      connectPort: (port) => this.#connect('', port, CONNECT_TIMEOUT_MS),
      probe: (request) =>
        runProbe(request, this.#options.clock, (host, port, timeout) =>
          this.#connect(host, port, timeout),
        ),
      stats: async () => {
        const stats = await this.#session.request('stats');
        return this.#orClose(() => decodeStats(stats));
      },
      setClock: (epochMs) => this.#simple('setClock', { epochMs: Math.round(epochMs) }),
      shutdown: () => this.#simple('shutdown', {}),
      hold: (isHeld) => this.#session.hold(isHeld),
      closed: this.closed,
      close: () => this.close(),
    };
  }

  /** A guest whose answer makes no sense is not spoken to any more. */
  #orClose<T>(decode: () => T): T {
    try {
      return decode();
    } catch (error) {
      if (error instanceof ProtocolError) this.close(error);
      throw error;
    }
  }

  async #simple(op: string, body: Record<string, unknown>): Promise<void> {
    await this.#session.request(op, body);
  }

  #container(id: string): ContainerStreams {
    const container = this.#containers.get(id);
    if (!container) throw new AgentError('NotFound', `container "${id}" does not exist`);
    return container;
  }

  #baseOf(id: string): number {
    return this.#container(id).base;
  }

  #newStream(): number {
    const base = this.#nextStream;
    if (base > STREAM_MAX) {
      const error = new ProtocolError('out of stream numbers');
      this.close(error);
      throw error;
    }
    this.#nextStream += STREAM_STEP;
    return base;
  }

  /** Streams of a container that the guest had before this session. */
  #adopt(container: HelloContainer): void {
    this.#nextStream = Math.max(this.#nextStream, container.base + STREAM_STEP);
    const start = ([stream, first, end]: readonly [1 | 2, number, number]) => {
      const safe = this.#options.resumeOffsets(container.id, stream);
      if (safe < first || safe > end) {
        const fields = { container: container.id, stream, safe, first, end };
        this.#options.log.warn('Output is missing: the guest does not have what follows', fields);
      }
      return Math.min(Math.max(safe, first), end);
    };
    const streams = this.#addContainer(container.id, container.base, [
      start([1, ...container.stdout]),
      start([2, ...container.stderr]),
    ]);
    if (container.stdin >= 0) {
      const outflow = new Outflow(
        container.base,
        container.stdin,
        container.stdin,
        this.#session.send,
      );
      this.#outflows.set(container.base, outflow);
      this.#containers.set(container.id, { ...streams, stdin: this.#ownWritable(outflow) });
    }
    for (const output of streams.outputs) output.announce();
  }

  #addContainer(id: string, base: number, starts: [number, number]): ContainerStreams {
    const outputs = starts.map((start, i) => {
      const stream = (i + 1) as 1 | 2;
      return new CallbackSink(
        new Inflow(base + stream, start, this.#session.send),
        (offset, timeMs, bytes) =>
          this.#options.onOutput({ containerId: id, stream, offset, bytes, timeMs }),
        (error) => this.close(error instanceof Error ? error : new Error(String(error))),
      );
    });
    for (const output of outputs) this.#sinks.set(output.id, output);
    this.#exits.set(base, (exit) => {
      // Told once: each further telling would wait, in memory, for output that may never end.
      this.#exits.set(base, () => {});
      void this.#containerExited(id, base, exit);
    });
    const outflow = new Outflow(base, 0, PROCESS_RING_BYTES, this.#session.send);
    this.#outflows.set(base, outflow);
    this.#resets.set(base, () => outflow.break());
    const streams = { id, base, outputs, stdin: this.#ownWritable(outflow) };
    this.#containers.set(id, streams);
    return streams;
  }

  #ownWritable(outflow: Outflow): Writable {
    const stream = writableOf(outflow);
    const fail = (error: Error) => stream.destroy(error);
    // A session that ends is told by `closed`; a writer that is not listening must not crash.
    stream.on('error', () => {});
    stream.on('close', () => this.#owned.delete(fail));
    this.#owned.add(fail);
    return stream;
  }

  #forgetStreams(base: number): void {
    for (const id of [base, base + 1, base + 2]) {
      this.#sinks.delete(id);
      this.#outflows.delete(id);
      this.#resets.delete(id);
    }
    this.#exits.delete(base);
  }

  async #containerExited(id: string, base: number, exit: ProcessExit): Promise<void> {
    const container = this.#containers.get(id);
    if (container?.base !== base) return;
    try {
      // An exit is told after the last byte, and acknowledged after both are safe.
      await Promise.all(container.outputs.map((output) => output.finished()));
      await this.#options.onContainerExit(id, exit);
    } catch (error) {
      this.close(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#session.send(encodeFrame(FRAME.exitAcknowledged, base, Buffer.alloc(0)));
  }

  async #setupPod(setup: PodSetup): Promise<{ bootId: string }> {
    const { entropy, volumes, ...rest } = setup;
    const described = volumes.map((volume) => {
      if (volume.type !== 'files') return volume;
      return { name: volume.name, type: volume.type };
    });
    const answer = await this.#session.request(
      'setupPod',
      { ...rest, epochMs: Math.round(setup.epochMs), volumes: described },
      { attachment: Buffer.from(entropy, 'base64'), timeoutMs: SETUP_TIMEOUT_MS },
    );
    const files = volumes.filter((volume) => volume.type === 'files');
    await Promise.all(files.map((volume) => this.#writeVolume(volume.name, volume.content)));
    return this.#orClose(() => ({ bootId: stringOf(answer, 'bootId', 64) }));
  }

  async #startContainer(spec: GuestContainerSpec): Promise<void> {
    const base = this.#newStream();
    const known = this.#containers.get(spec.id);
    if (!known) this.#addContainer(spec.id, base, [0, 0]);
    const body = { ...spec, stream: base, window: WINDOW_BYTES };
    const options = { timeoutMs: START_TIMEOUT_MS };
    let actual: number;
    try {
      const ok = await this.#session.request('startContainer', body, options);
      actual = this.#orClose(() => integerOf(ok, 'stream', STREAM_STEP, STREAM_MAX));
    } catch (error) {
      if (!known) this.#dropContainer(spec.id);
      throw error;
    }
    if (actual === (known?.base ?? base)) return;
    // It was being started when an earlier session ended; its streams keep their numbers.
    if (known || actual % STREAM_STEP !== 0 || this.#exits.has(actual)) {
      this.close(new ProtocolError(`startContainer: unexpected stream ${actual}`));
      throw new AgentError('Closed', 'startContainer: the guest broke the protocol');
    }
    this.#dropContainer(spec.id);
    this.#nextStream = Math.max(this.#nextStream, actual + STREAM_STEP);
    for (const output of this.#addContainer(spec.id, actual, [0, 0]).outputs) output.announce();
  }

  #dropContainer(id: string): void {
    const container = this.#containers.get(id);
    if (!container) return;
    this.#containers.delete(id);
    this.#forgetStreams(container.base);
    container.stdin.destroy();
  }

  async #removeContainer(id: string): Promise<void> {
    await this.#session.request('removeContainer', { id }, { timeoutMs: REMOVE_TIMEOUT_MS });
    this.#dropContainer(id);
  }

  /** Contents of one volume are written one after the other. */
  #writeVolume(volume: string, content: VolumeFiles): Promise<void> {
    const before = this.#volumeTurns.get(volume) ?? Promise.resolve();
    const turn = before.then(() => this.#replaceFiles(volume, content));
    const settled = turn.catch(() => {});
    this.#volumeTurns.set(volume, settled);
    void settled.then(() => {
      if (this.#volumeTurns.get(volume) === settled) this.#volumeTurns.delete(volume);
    });
    return turn;
  }

  async #replaceFiles(volume: string, content: VolumeFiles): Promise<void> {
    const { version } = content;
    // The guest takes them in this order, and commits nothing of which it has refused a part.
    const answers = [this.#session.request('volumeBegin', { volume, version })];
    for (const { content: encoded, ...file } of content.files) {
      const bytes = Buffer.from(encoded, 'base64');
      for (let offset = 0; offset === 0 || offset < bytes.length; offset += VOLUME_PIECE_BYTES) {
        const attachment = bytes.subarray(offset, offset + VOLUME_PIECE_BYTES);
        const body = { volume, version, ...file, offset };
        answers.push(this.#session.request('volumeFile', body, { attachment }));
      }
    }
    answers.push(this.#session.request('volumeCommit', { volume, version }));
    await Promise.all(answers);
  }

  async #exec(id: string, process: ProcessSpec): Promise<GuestProcess> {
    const base = this.#newStream();
    const send = this.#session.send;
    const out = readableOf(new Inflow(base + 1, 0, send));
    const error = readableOf(new Inflow(base + 2, 0, send));
    const outflow = new Outflow(base, 0, PROCESS_RING_BYTES, send);
    this.#sinks.set(base + 1, out.sink).set(base + 2, error.sink);
    this.#outflows.set(base, outflow);
    this.#resets.set(base, () => outflow.break());
    const exited = new Promise<ProcessExit>((resolve, reject) => {
      this.#exits.set(base, resolve);
      this.#owned.add(reject);
      const over = () => void this.#owned.delete(reject);
      void this.closed.then(over);
    });
    exited.catch(() => {});
    const stdin = this.#ownWritable(outflow);
    const streams = [out.stream, error.stream];
    const fail = (reason: Error) => {
      for (const stream of streams) stream.destroy(reason);
    };
    for (const stream of streams) stream.on('error', () => {});
    this.#owned.add(fail);
    const finish = () => {
      this.#owned.delete(fail);
      stdin.destroy();
      this.#forgetStreams(base);
    };
    try {
      const body = { id, process, stream: base, window: WINDOW_BYTES };
      await this.#session.request('exec', body, { timeoutMs: START_TIMEOUT_MS });
    } catch (reason) {
      finish();
      throw reason;
    }
    void exited.then(() => {
      send(encodeFrame(FRAME.exitAcknowledged, base, Buffer.alloc(0)));
      finish();
    }, finish);
    return {
      stdin,
      stdout: out.stream,
      stderr: error.stream,
      exited,
      resize: (size) => this.#simple('resize', { stream: base, ...sizeOf(size) }),
      signal: (signal) => this.#simple('signal', { stream: base, signal }),
      close: () => {
        if (!this.#exits.has(base)) return;
        send(resetFrame(base));
        finish();
        fail(new AgentError('Closed', 'exec: closed'));
      },
    };
  }

  async #connect(host: string, port: number, timeoutMs: number): Promise<Duplex> {
    const base = this.#newStream();
    const send = this.#session.send;
    const outflow = new Outflow(base, 0, RELAY_RING_BYTES, send);
    let connected = false;
    const fail = (reason: Error) => stream.destroy(reason);
    const closed = () => {
      this.#owned.delete(fail);
      this.#forgetStreams(base);
      if (connected) send(resetFrame(base));
    };
    const { stream, sink } = duplexOf(new Inflow(base + 1, 0, send), outflow, closed);
    stream.on('error', () => {});
    this.#sinks.set(base + 1, sink);
    this.#outflows.set(base, outflow);
    // A peer that stops reading may still be writing: only what is sent to it is dropped.
    this.#resets.set(base, () => outflow.break());
    this.#owned.add(fail);
    const streams = { stream: base, window: WINDOW_BYTES };
    const body = { host, port, timeoutMs: Math.ceil(timeoutMs), ...streams };
    try {
      await this.#session.request('connect', body, { timeoutMs: timeoutMs + ANSWER_MARGIN_MS });
    } catch (error) {
      stream.destroy();
      throw error;
    }
    connected = true;
    return stream;
  }

  // Data and frames of unknown streams are no offence: it may have been let go of, or not adopted yet.
  #onData({ id, offset, timeMs, bytes }: Piece): void {
    this.#sinks.get(id)?.data(offset, timeMs, detached(bytes));
  }

  #onFrame(frame: Frame): void {
    const { type, id, payload } = frame;
    if (type === FRAME.end) {
      if (payload.length !== 8) throw new ProtocolError('end: wrong length');
      this.#sinks.get(id)?.end(readOffset(payload, 0));
    } else if (type === FRAME.window) {
      if (payload.length !== 16) throw new ProtocolError('window: wrong length');
      this.#outflows.get(id)?.window(readOffset(payload, 0), readOffset(payload, 8));
    } else if (type === FRAME.reset) {
      this.#resets.get(id)?.();
    } else if (type === FRAME.exit) {
      const exit = decodeExit(payload);
      this.#exits.get(id)?.(exit);
    } else {
      throw new ProtocolError(`frame of type ${type}, which only a host sends`);
    }
  }

  #onClosed(error: Error | undefined): void {
    const words = error?.message ?? 'the session with the guest was closed';
    const reason = new AgentError('Closed', words);
    for (const fail of [...this.#owned]) fail(reason);
    this.#owned.clear();
    this.#settleClosed(error);
  }
}

/** Above this a piece is a good part of the chunk of the connection in which it lies. */
const DETACHED_BYTES_MAX = 8 * 1024;

/** A piece that is kept must not keep a chunk of many times its size with it. */
function detached(bytes: Buffer): Buffer {
  if (bytes.length > DETACHED_BYTES_MAX) return bytes;
  // Nor one of the slabs that `Buffer.from` cuts small buffers out of.
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

function shared(
  calls: Map<string, Promise<void>>,
  key: string,
  call: () => Promise<void>,
): Promise<void> {
  const present = calls.get(key);
  if (present) return present;
  const made = call().finally(() => calls.delete(key));
  calls.set(key, made);
  return made;
}

function sizeOf(size: { width: number; height: number }) {
  return { width: Math.round(size.width), height: Math.round(size.height) };
}
