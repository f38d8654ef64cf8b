import type { IncomingMessage } from 'node:http';
import { Readable, Writable } from 'node:stream';
import type { Duplex } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import type { TerminalSize } from '../api/hyperd.ts';
import { LatestValue } from './latest.ts';
import { encodeStatus, parseTerminalSize, STREAM_CREATION_TIMEOUT_MS } from './session.ts';
import type { RemoteCommandOptions, RemoteCommandSession } from './session.ts';
import { acceptSpdy } from './spdy-handshake.ts';
import { RESET } from './spdy-frame.ts';
import { SpdyConnection } from './spdy.ts';
import type { SpdyStream } from './spdy.ts';

/**
 * Kubernetes' remote command protocol over SPDY/3.1, server side. The client opens one stream
 * per channel and names it in the header `streamtype`; the command starts once all have come.
 */
const VERSIONS: Record<string, number> = {
  'v5.channel.k8s.io': 5,
  'v4.channel.k8s.io': 4,
  'v3.channel.k8s.io': 3,
  'v2.channel.k8s.io': 2,
  'channel.k8s.io': 1,
};

const STREAM_TYPES = ['error', 'stdin', 'stdout', 'stderr', 'resize'] as const;
type StreamType = (typeof STREAM_TYPES)[number];
type Streams = Partial<Record<StreamType, SpdyStream>>;

/** One JSON size is below 40 bytes; a line that grows beyond this is none. */
const RESIZE_BYTES_MAX = 1024;

/** Undefined where the handshake failed or the streams did not come in time. */
export async function acceptRemoteCommandSpdy(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  options: RemoteCommandOptions,
  clock: Clock,
): Promise<RemoteCommandSession | undefined> {
  const names = Object.keys(VERSIONS);
  const protocol = acceptSpdy(request, socket, head, names, 'channel.k8s.io');
  if (protocol === undefined) return undefined;
  const version = VERSIONS[protocol] as number;
  const opened = await collectStreams(socket, wantedStreams(options, version), clock);
  return opened && createSession(opened.connection, opened.streams, version);
}

function wantedStreams(options: RemoteCommandOptions, version: number): StreamType[] {
  const wanted: Record<StreamType, boolean> = {
    error: true,
    stdin: options.stdin,
    stdout: options.stdout,
    stderr: options.stderr && !options.tty,
    resize: options.tty && version >= 3,
  };
  return STREAM_TYPES.filter((type) => wanted[type]);
}

function collectStreams(
  socket: Duplex,
  wanted: StreamType[],
  clock: Clock,
): Promise<{ connection: SpdyConnection; streams: Streams } | undefined> {
  return new Promise((resolve) => {
    const streams: Streams = {};
    const connection = new SpdyConnection(socket, {
      role: 'server',
      onStream: (stream) => {
        const type = stream.headers['streamtype'] as StreamType;
        if (!wanted.includes(type) || streams[type]) {
          stream.reset(RESET.refusedStream);
          return;
        }
        streams[type] = stream;
        void stream.accept();
        if (wanted.some((name) => !streams[name])) return;
        timer.cancel();
        resolve({ connection, streams });
      },
    });
    const timer = clock.after(STREAM_CREATION_TIMEOUT_MS, () => {
      connection.destroy(new Error('client did not open its streams in time'));
    });
    connection.closed.addEventListener('abort', () => {
      timer.cancel();
      resolve(undefined);
    });
  });
}

function createSession(
  connection: SpdyConnection,
  streams: Streams,
  version: number,
): RemoteCommandSession {
  const sizes = new LatestValue<TerminalSize>();
  connection.closed.addEventListener('abort', () => sizes.close());
  if (streams.resize) void readSizes(streams.resize, sizes);
  // What the client sends on outputs is thrown away, so that its FIN is seen.
  for (const type of ['stdout', 'stderr', 'error'] as const) streams[type]?.resume();
  const error = streams.error as SpdyStream;
  return {
    stdin: streams.stdin ?? Readable.from([]),
    stdout: streams.stdout ?? discard(),
    stderr: streams.stderr ?? discard(),
    resize: sizes,
    closed: connection.closed,
    async finish(status) {
      await Promise.all([endOf(streams.stdout), endOf(streams.stderr)]);
      const bytes = encodeStatus(status, version);
      if (bytes.length > 0) error.write(bytes);
      await endOf(error);
      for (const stream of Object.values(streams)) {
        // Still open towards us where the client keeps its half: nothing more is wanted of it.
        if (!stream.destroyed && !stream.readableEnded) stream.resume();
      }
      sizes.close();
      connection.close();
      for (const type of ['stdin', 'resize'] as const) streams[type]?.reset(RESET.cancel);
    },
  };
}

async function readSizes(stream: SpdyStream, sizes: LatestValue<TerminalSize>): Promise<void> {
  let text = '';
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      text += chunk.toString('utf8');
      // Go's encoder ends each object with a newline; a client that does not sends one a frame.
      const parts = text.split(/(?<=\})/);
      text = '';
      for (const part of parts) {
        const size = parseTerminalSize(part);
        if (size) sizes.set(size);
        else text = part.length <= RESIZE_BYTES_MAX ? part : '';
      }
    }
  } catch {
    // The session tells of its own end.
  }
}

function discard(): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done() });
}

function endOf(stream: SpdyStream | undefined): Promise<void> {
  if (!stream || stream.destroyed || stream.writableFinished) return Promise.resolve();
  return new Promise((resolve) => {
    stream.once('close', resolve);
    stream.end(() => resolve());
  });
}
