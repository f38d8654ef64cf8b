import type { Duplex, Writable } from 'node:stream';
import { STREAM_CHANNEL } from '../../api/hyperd.ts';
import type { ProcessExit } from '../../api/hyperd.ts';
import { drained, readFrames, writeFrames } from '../../api/hyperstream.ts';
import { createDetachKeys } from './detach-keys.ts';

/** What this process has of streams, or what a test brings. */
export interface LocalStreams {
  stdin: NodeJS.ReadStream;
  stdout: NodeJS.WriteStream;
  stderr: Writable;
}

export interface StreamsOptions {
  stdin: boolean;
  tty: boolean;
  /** Whether ctrl-p ctrl-q lets go of the process. */
  canDetach: boolean;
}

/** How it ended: with the process, because its client let go of it, or because the line is cut. */
export type StreamsEnd = { how: 'exit'; exit: ProcessExit } | { how: 'detached' | 'cut' };

/**
 * Joins this process' terminal to a stream of hyperd until that is over. With `tty` keys go
 * through as they are and the other side learns the size of the window.
 */
export async function joinTerminal(
  socket: Duplex,
  options: StreamsOptions,
  local: LocalStreams = process,
): Promise<StreamsEnd> {
  const { stdin, stdout, stderr } = local;
  const isRaw = options.tty && options.stdin && stdin.isTTY;
  const detached = Promise.withResolvers<StreamsEnd>();
  const sendSize = () => {
    const size = { width: stdout.columns, height: stdout.rows };
    void writeFrames(socket, STREAM_CHANNEL.resize, Buffer.from(JSON.stringify(size))).catch(
      () => {},
    );
  };
  const keys = createDetachKeys();
  let sending: Promise<void> = Promise.resolve();
  let isOver = false;
  const send = (bytes: Buffer) => {
    stdin.pause();
    sending = sending
      .then(() => writeFrames(socket, STREAM_CHANNEL.stdin, bytes))
      // The process has ended or takes no more; its output tells which.
      .catch(() => {})
      .then(() => void (isOver || stdin.resume()));
  };
  const onData = (chunk: Buffer) => {
    const { bytes, isDetached } = isRaw && options.canDetach ? keys.push(chunk) : passedOn(chunk);
    if (bytes.length > 0) send(bytes);
    // What was typed before still goes there.
    if (isDetached) void sending.then(() => detached.resolve({ how: 'detached' }));
  };
  const onEnd = () => {
    sending = sending
      .then(() => writeFrames(socket, STREAM_CHANNEL.stdin, Buffer.alloc(0)))
      .catch(() => {});
  };
  try {
    if (options.tty && stdout.isTTY) {
      stdout.on('resize', sendSize);
      sendSize();
    }
    if (isRaw) stdin.setRawMode(true);
    if (options.stdin) stdin.on('data', onData).on('end', onEnd).resume();
    return await Promise.race([receive(socket, stdout, stderr), detached.promise]);
  } finally {
    isOver = true;
    stdout.off('resize', sendSize);
    if (options.stdin) stdin.off('data', onData).off('end', onEnd).pause();
    if (isRaw) stdin.setRawMode(false);
    socket.destroy();
  }
}

function passedOn(bytes: Buffer): { bytes: Buffer; isDetached: boolean } {
  return { bytes, isDetached: false };
}

async function receive(socket: Duplex, stdout: Writable, stderr: Writable): Promise<StreamsEnd> {
  const outputs: Record<number, Writable> = {
    [STREAM_CHANNEL.stdout]: stdout,
    [STREAM_CHANNEL.stderr]: stderr,
  };
  try {
    for await (const { channel, payload } of readFrames(socket)) {
      if (channel === STREAM_CHANNEL.exit) {
        return { how: 'exit', exit: JSON.parse(payload.toString('utf8')) as ProcessExit };
      }
      const output = outputs[channel];
      if (output && payload.length > 0 && !output.write(payload)) await drained(output);
    }
  } catch {
    // Told as what it is: the line is cut.
  }
  return { how: 'cut' };
}
