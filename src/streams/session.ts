import type { Duplex, Readable, Writable } from 'node:stream';
import type { TerminalSize } from '../api/hyperd.ts';
import type { Status } from '../api/status.ts';

/**
 * What exec, attach and port-forward look like to the code that serves them, whichever of the
 * wire protocols the client speaks.
 */
export interface RemoteCommandOptions {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  tty: boolean;
}

export interface RemoteCommandSession {
  /** Ends when the client half-closes it (SPDY, WebSocket v5) or is gone. Empty where unused. */
  readonly stdin: Readable;
  /** A write completes when the bytes have left for the client. Discards where unused. */
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** The latest size each time: sizes nobody has read yet are replaced. Ends with the session. */
  readonly resize: AsyncIterable<TerminalSize>;
  /** Aborts when the client has gone away or broke the protocol. */
  readonly closed: AbortSignal;
  /**
   * Flushes both outputs, tells the client how the command ended and closes the session.
   * Never rejects: a client that is gone needs no answer.
   */
  finish(status: Status): Promise<void>;
}

export interface PortForwardConnection {
  /** 1 to 65535. */
  readonly port: number;
  readonly data: Duplex;
  /** Tells the client why the connection failed, before `data` ends. */
  fail(message: string): void;
}

export interface PortForwardSession {
  /** Each connection that the client asks for, in order. Ends with the session. */
  readonly connections: AsyncIterable<PortForwardConnection>;
  readonly closed: AbortSignal;
  close(): void;
}

/** How long all streams of a command may take to appear (Kubernetes: StreamCreationTimeout). */
export const STREAM_CREATION_TIMEOUT_MS = 30_000;

export const successStatus: Status = {
  apiVersion: 'v1',
  kind: 'Status',
  metadata: {},
  status: 'Success',
  code: 200,
};

/** What a command's exit code becomes on the error stream; kubectl exits with the same code. */
export function exitStatus(exitCode: number): Status {
  if (exitCode === 0) return successStatus;
  return {
    apiVersion: 'v1',
    kind: 'Status',
    metadata: {},
    status: 'Failure',
    message: `command terminated with non-zero exit code: exit code ${exitCode}`,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(exitCode) }] },
    code: 500,
  };
}

/** The bytes that clients of protocol version 4 and later read from the error stream. */
export function encodeStatus(status: Status, protocolVersion: number): Buffer {
  if (protocolVersion >= 4) return Buffer.from(JSON.stringify(status));
  // Before v4 the stream carried the message alone, and nothing for a success.
  return Buffer.from(status.status === 'Success' ? '' : (status.message ?? 'unknown failure'));
}

/** Larger values cannot be a terminal; the guest's `winsize` has 16 bits. */
const TERMINAL_CELLS_MAX = 65_535;

/** Kubernetes writes sizes as `{"Width":80,"Height":24}`. Undefined for anything else. */
export function parseTerminalSize(text: string): TerminalSize | undefined {
  try {
    const value = JSON.parse(text) as Record<string, unknown>;
    const width = value['Width'] ?? value['width'];
    const height = value['Height'] ?? value['height'];
    return isCells(width) && isCells(height) ? { width, height } : undefined;
  } catch {
    return undefined;
  }
}

function isCells(value: unknown): value is number {
  return (
    Number.isInteger(value) && (value as number) > 0 && (value as number) <= TERMINAL_CELLS_MAX
  );
}
