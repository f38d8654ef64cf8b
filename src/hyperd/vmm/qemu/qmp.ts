import type { Duplex } from 'node:stream';
import { abortable } from '../../../base/abort.ts';

/**
 * A client of QEMU's machine protocol: JSON objects, one a line. The emulator is not trusted
 * (a guest may have broken into it): lines are bounded, replies must fit a command that was sent,
 * and anything else ends the connection.
 */
export interface QmpClient {
  /** Sends a command and returns the value of its reply. @throws QmpError */
  command(name: string, args?: Record<string, unknown>, signal?: AbortSignal): Promise<unknown>;
  /** Calls `listener` for every event until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void;
  /** Settles when the connection has ended, with the protocol violation if there was one. */
  readonly closed: Promise<Error | undefined>;
  close(): void;
}

export interface QmpEvent {
  name: string;
  data: Record<string, unknown>;
}

/** A command that QEMU refused, or that its end left without an answer. */
export class QmpError extends Error {
  override name = 'QmpError';
  /** QEMU's error class, `GenericError` mostly; `Closed` where the connection is gone. */
  readonly errorClass: string;
  constructor(errorClass: string, message: string) {
    super(message);
    this.errorClass = errorClass;
  }
}

/** The longest reply that we ask for is a list of devices or block nodes: some kilobytes each. */
export const QMP_LINE_BYTES_MAX = 1 << 20;
/** More would be a caller that does not wait for its answers. */
export const QMP_PENDING_MAX = 64;

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/** Waits for the greeting, negotiates, and returns the client. Owns the stream from then on. */
export async function connectQmp(stream: Duplex, signal?: AbortSignal): Promise<QmpClient> {
  const pending = new Map<number, Pending>();
  const listeners = new Set<(event: QmpEvent) => void>();
  const closed = Promise.withResolvers<Error | undefined>();
  const greeted = Promise.withResolvers<void>();
  greeted.promise.catch(() => {});
  let violation: Error | undefined;
  let over = false;
  let greeting = false;
  let nextId = 1;

  const finish = () => {
    if (over) return;
    over = true;
    const error = violation ?? new QmpError('Closed', 'Connection to the monitor closed');
    greeted.reject(error);
    for (const waiting of pending.values()) waiting.reject(error);
    pending.clear();
    listeners.clear();
    closed.resolve(violation);
  };
  const violate = (what: string) => {
    violation ??= new QmpError('Protocol', `Monitor broke the protocol: ${what}`);
    stream.destroy();
    finish();
  };
  const receive = (message: Record<string, unknown>) => {
    if (!greeting) {
      if (!('QMP' in message)) return violate('no greeting');
      greeting = true;
      return greeted.resolve();
    }
    if (typeof message.event === 'string') {
      const data = isRecord(message.data) ? message.data : {};
      for (const listener of [...listeners]) listener({ name: message.event, data });
      return;
    }
    const waiting = pending.get(Number(message.id));
    if (waiting === undefined) return violate('an answer to nothing');
    pending.delete(Number(message.id));
    if ('return' in message) return waiting.resolve(message.return);
    const error = isRecord(message.error) ? message.error : {};
    waiting.reject(new QmpError(String(error.class), String(error.desc).slice(0, 1000)));
  };
  readLines(stream, receive, violate);
  stream.on('error', finish);
  stream.on('close', finish);
  stream.on('end', () => stream.destroy());

  const client: QmpClient = {
    command(name, args, commandSignal) {
      if (over) return Promise.reject(new QmpError('Closed', `Cannot ${name}: monitor is closed`));
      if (pending.size >= QMP_PENDING_MAX) {
        return Promise.reject(
          new QmpError('Busy', `Cannot ${name}: ${QMP_PENDING_MAX} commands are unanswered`),
        );
      }
      const id = nextId++;
      const answer = Promise.withResolvers<unknown>();
      pending.set(id, answer);
      stream.write(`${JSON.stringify({ execute: name, arguments: args, id })}\n`);
      return abortable(answer.promise, commandSignal);
    },
    onEvent(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    closed: closed.promise,
    close() {
      stream.destroy();
      finish();
    },
  };
  try {
    await abortable(greeted.promise, signal);
    await client.command('qmp_capabilities', undefined, signal);
  } catch (error) {
    client.close();
    throw error;
  }
  return client;
}

function readLines(
  stream: Duplex,
  receive: (message: Record<string, unknown>) => void,
  violate: (what: string) => void,
): void {
  let parts: Buffer[] = [];
  let size = 0;
  const line = (bytes: Buffer) => {
    const text = bytes.toString('utf8').trim();
    if (text === '') return;
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      return violate('a line that is not JSON');
    }
    if (!isRecord(message)) return violate('a line that is not an object');
    receive(message);
  };
  stream.on('data', (chunk: Buffer) => {
    for (let start = 0; start < chunk.length && !stream.destroyed;) {
      const end = chunk.indexOf(10, start);
      const part = chunk.subarray(start, end < 0 ? chunk.length : end);
      size += part.length;
      if (size > QMP_LINE_BYTES_MAX) return violate(`a line over ${QMP_LINE_BYTES_MAX} bytes`);
      parts.push(part);
      if (end < 0) return;
      const whole = Buffer.concat(parts);
      parts = [];
      size = 0;
      start = end + 1;
      line(whole);
    }
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
