import type { IncomingMessage } from 'node:http';
import { Readable, Writable } from 'node:stream';
import type { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import type { Clock, Timer } from '../base/clock.ts';
import type { TerminalSize } from '../api/hyperd.ts';
import { LatestValue } from './latest.ts';
import { encodeStatus, parseTerminalSize } from './session.ts';
import type { RemoteCommandOptions, RemoteCommandSession } from './session.ts';
import { acceptWebSocket, PING_INTERVAL_MS } from './websocket-handshake.ts';

/**
 * Kubernetes' remote command protocol over WebSocket, server side. Each message starts with the
 * number of its channel. What the versions add:
 *
 *   channel.k8s.io, base64.channel.k8s.io   the error channel carries text, only after a failure
 *   v4.channel.k8s.io, v4.base64.…          it carries a JSON Status
 *   v5.channel.k8s.io                       message [255, channel] half-closes a channel
 */
export const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const;

const PROTOCOLS: Record<string, { version: number; base64: boolean }> = {
  'v5.channel.k8s.io': { version: 5, base64: false },
  'v4.channel.k8s.io': { version: 4, base64: false },
  'v4.base64.channel.k8s.io': { version: 4, base64: true },
  'base64.v4.channel.k8s.io': { version: 4, base64: true },
  'v3.channel.k8s.io': { version: 3, base64: false },
  'v2.channel.k8s.io': { version: 2, base64: false },
  'channel.k8s.io': { version: 1, base64: false },
  'base64.channel.k8s.io': { version: 1, base64: true },
  '': { version: 1, base64: false },
};

/** Input that may wait for the command before the socket is read no more. */
const STDIN_BUFFER_BYTES_MAX = 256 * 1024;
/** How long a client may take to answer the closing handshake. */
const CLOSE_TIMEOUT_MS = 5_000;

/** Undefined where the handshake failed; the client has been answered then. */
export async function acceptRemoteCommandWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  options: RemoteCommandOptions,
  clock: Clock,
): Promise<RemoteCommandSession | undefined> {
  const accepted = await acceptWebSocket(request, socket, head, Object.keys(PROTOCOLS));
  if (!accepted) return undefined;
  const protocol = PROTOCOLS[accepted.protocol] as { version: number; base64: boolean };
  return createSession(accepted.webSocket, protocol, options, clock);
}

function createSession(
  webSocket: WebSocket,
  protocol: { version: number; base64: boolean },
  options: RemoteCommandOptions,
  clock: Clock,
): RemoteCommandSession {
  const closed = new AbortController();
  const sizes = new LatestValue<TerminalSize>();
  const send = messageSender(webSocket, protocol.base64);
  const stdin = new Readable({
    highWaterMark: STDIN_BUFFER_BYTES_MAX,
    read: () => {
      if (webSocket.isPaused) webSocket.resume();
    },
  });
  if (!options.stdin) stdin.push(null);
  const stdout = channelWriter(send, CHANNEL.stdout, options.stdout);
  const stderr = channelWriter(send, CHANNEL.stderr, options.stderr);
  const stopPings = keepAlive(webSocket, clock);
  const end = (error?: Error) => {
    if (closed.signal.aborted) return;
    closed.abort(error ?? new Error('client closed the stream'));
    stopPings();
    sizes.close();
    if (!stdin.readableEnded) stdin.push(null);
    for (const output of [stdout, stderr]) output.destroy();
  };
  const onMessage = createDemultiplexer(protocol, options, stdin, sizes, webSocket);
  webSocket.on('message', onMessage);
  webSocket.on('close', () => end());
  webSocket.on('error', end);
  // Kubernetes tells the client that the streams are up by an empty message on the first output.
  const first = options.stdout ? CHANNEL.stdout : options.stderr ? CHANNEL.stderr : CHANNEL.error;
  send(first, Buffer.alloc(0)).catch(() => {});
  return {
    stdin,
    stdout,
    stderr,
    resize: sizes,
    closed: closed.signal,
    async finish(status) {
      try {
        await Promise.all([endOf(stdout), endOf(stderr)]);
        const bytes = encodeStatus(status, protocol.version);
        if (bytes.length > 0) await send(CHANNEL.error, bytes);
      } catch {
        // The client is gone; the session ends below in any case.
      }
      closeWebSocket(webSocket, clock);
      end(new Error('command has ended'));
    },
  };
}

function createDemultiplexer(
  protocol: { version: number; base64: boolean },
  options: RemoteCommandOptions,
  stdin: Readable,
  sizes: LatestValue<TerminalSize>,
  webSocket: WebSocket,
): (data: RawData) => void {
  let stdinOpen = options.stdin;
  return (data) => {
    const message = decodeMessage(data as Buffer, protocol.base64);
    if (!message) {
      webSocket.close(1003, 'message has no channel');
      return;
    }
    if (message.channel === CHANNEL.stdin && stdinOpen && message.bytes.length > 0) {
      if (!stdin.push(message.bytes)) webSocket.pause();
    } else if (message.channel === CHANNEL.resize && options.tty) {
      const size = parseTerminalSize(message.bytes.toString('utf8'));
      if (size) sizes.set(size);
    } else if (message.channel === CHANNEL.close && protocol.version >= 5) {
      if (message.bytes[0] !== CHANNEL.stdin || !stdinOpen) return;
      stdinOpen = false;
      stdin.push(null);
    }
  };
}

function decodeMessage(
  data: Buffer,
  base64: boolean,
): { channel: number; bytes: Buffer } | undefined {
  if (data.length === 0) return undefined;
  const first = data.readUInt8(0);
  if (!base64) return { channel: first, bytes: data.subarray(1) };
  const channel = first - 0x30;
  if (channel < 0 || channel > 9) return undefined;
  return { channel, bytes: Buffer.from(data.subarray(1).toString('latin1'), 'base64') };
}

/** Sends the bytes as one message; the promise is the back-pressure of the socket. */
export function messageSender(
  webSocket: WebSocket,
  base64: boolean,
): (channel: number, ...bytes: Buffer[]) => Promise<void> {
  return (channel, ...bytes) =>
    new Promise((resolve, reject) => {
      const message = base64
        ? `${channel}${Buffer.concat(bytes).toString('base64')}`
        : Buffer.concat([Buffer.from([channel]), ...bytes]);
      webSocket.send(message, { binary: !base64 }, (error) => (error ? reject(error) : resolve()));
    });
}

function channelWriter(
  send: (channel: number, ...bytes: Buffer[]) => Promise<void>,
  channel: number,
  isWanted: boolean,
): Writable {
  const deliver = (chunks: Buffer[], done: (error?: Error) => void) => {
    if (!isWanted || chunks.every((chunk) => chunk.length === 0)) done();
    else send(channel, ...chunks).then(() => done(), done);
  };
  const writable = new Writable({
    write: (chunk: Buffer, _encoding, done) => deliver([chunk], done),
    // What has come while the last message left is the next one.
    writev: (writes, done) =>
      deliver(
        writes.map(({ chunk }) => chunk as Buffer),
        done,
      ),
  });
  writable.on('error', () => {});
  return writable;
}

function endOf(writable: Writable): Promise<void> {
  return new Promise((resolve) => {
    if (writable.writableFinished || writable.destroyed) {
      resolve();
      return;
    }
    writable.once('close', resolve);
    writable.end(() => resolve());
  });
}

/**
 * Pings from time to time. While the socket is paused because the command does not read, pongs
 * go out unasked: we cannot see the client's pings then, and kubectl gives up after a minute
 * without an answer.
 */
export function keepAlive(webSocket: WebSocket, clock: Clock): () => void {
  let timer: Timer;
  const beat = () => {
    if (webSocket.readyState === webSocket.OPEN && webSocket.bufferedAmount === 0) {
      webSocket.ping(undefined, undefined, () => {});
      if (webSocket.isPaused) webSocket.pong(undefined, undefined, () => {});
    }
    timer = clock.after(PING_INTERVAL_MS, beat);
  };
  timer = clock.after(PING_INTERVAL_MS, beat);
  return () => timer.cancel();
}

/** The closing handshake, with an end for clients that do not answer it. */
export function closeWebSocket(webSocket: WebSocket, clock: Clock): void {
  if (webSocket.isPaused) webSocket.resume();
  webSocket.close(1000);
  const timer = clock.after(CLOSE_TIMEOUT_MS, () => webSocket.terminate());
  webSocket.once('close', () => timer.cancel());
}
