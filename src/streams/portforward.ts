import type { IncomingMessage } from 'node:http';
import { Duplex } from 'node:stream';
import { createWebSocketStream } from 'ws';
import type { WebSocket } from 'ws';
import { BoundedQueue } from '../base/queue.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { STREAM_CREATION_TIMEOUT_MS } from './session.ts';
import type { PortForwardConnection, PortForwardSession } from './session.ts';
import { acceptSpdy } from './spdy-handshake.ts';
import { RESET } from './spdy-frame.ts';
import { SpdyConnection, STREAMS_MAX } from './spdy.ts';
import type { SpdyStream } from './spdy.ts';
import { acceptWebSocket, refuseUpgrade } from './websocket-handshake.ts';
import { closeWebSocket, keepAlive, messageSender } from './websocket.ts';

/**
 * Port forwarding, server side, in its three wire forms: SPDY/3.1, the same SPDY bytes inside
 * the binary messages of a WebSocket (kubectl since 1.31), and the older WebSocket form with two
 * channels for each port, all of which are named in the request.
 */
const SPDY_PROTOCOL = 'portforward.k8s.io';
const TUNNEL_PROTOCOL = 'SPDY/3.1+portforward.k8s.io';
const CHANNEL_PROTOCOLS = ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io'];
/** Ports in one request of the channel form; channel numbers are one byte. */
const CHANNEL_PORTS_MAX = 64;
/** Bytes that may wait for one port before the whole WebSocket is read no more. */
const CHANNEL_BUFFER_BYTES_MAX = 256 * 1024;

export function acceptPortForwardSpdy(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  clock: Clock,
): PortForwardSession | undefined {
  const protocol = acceptSpdy(request, socket, head, [SPDY_PROTOCOL], SPDY_PROTOCOL);
  return protocol === undefined ? undefined : serveSpdy(socket, clock);
}

/** `ports` are those of the query, for the channel form alone. */
export async function acceptPortForwardWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  ports: number[],
  clock: Clock,
): Promise<PortForwardSession | undefined> {
  const offersTunnel = (request.headers['sec-websocket-protocol'] ?? '').includes(TUNNEL_PROTOCOL);
  if (!offersTunnel && (ports.length === 0 || ports.length > CHANNEL_PORTS_MAX)) {
    refuseUpgrade(socket, 400, `query parameter "ports" must name 1 to ${CHANNEL_PORTS_MAX} ports`);
    return undefined;
  }
  const supported = [TUNNEL_PROTOCOL, ...(ports.length > 0 ? CHANNEL_PROTOCOLS : [])];
  const accepted = await acceptWebSocket(request, socket, head, supported);
  if (!accepted) return undefined;
  if (accepted.protocol === TUNNEL_PROTOCOL) return serveTunnel(accepted.webSocket, clock);
  const base64 = accepted.protocol.includes('base64');
  return serveChannels(accepted.webSocket, ports, base64, clock);
}

function serveTunnel(webSocket: WebSocket, clock: Clock): PortForwardSession {
  const stopPings = keepAlive(webSocket, clock);
  webSocket.once('close', stopPings);
  return serveSpdy(createWebSocketStream(webSocket), clock);
}

interface StreamPair {
  data?: SpdyStream;
  error?: SpdyStream;
  timer: Timer;
}

function serveSpdy(transport: Duplex, clock: Clock): PortForwardSession {
  const connections = new BoundedQueue<PortForwardConnection>(STREAMS_MAX);
  const pairs = new Map<string, StreamPair>();
  const onStream = (stream: SpdyStream) => {
    const request = parseStreamHeaders(stream);
    if (!request) {
      stream.reset(RESET.protocolError);
      return;
    }
    const timer = () =>
      clock.after(STREAM_CREATION_TIMEOUT_MS, () => {
        pairs.delete(request.id);
        stream.reset(RESET.cancel);
      });
    const pair = pairs.get(request.id) ?? { timer: timer() };
    pairs.set(request.id, pair);
    if (pair[request.type]) {
      stream.reset(RESET.protocolError);
      return;
    }
    pair[request.type] = stream;
    void stream.accept();
    if (!pair.data || !pair.error) return;
    pair.timer.cancel();
    pairs.delete(request.id);
    const connection = pairConnection(request.port, pair.data, pair.error);
    if (!connections.push(connection)) pair.data.reset(RESET.refusedStream);
  };
  const spdy = new SpdyConnection(transport, { role: 'server', onStream });
  spdy.closed.addEventListener('abort', () => {
    for (const pair of pairs.values()) pair.timer.cancel();
    connections.close();
  });
  return { connections, closed: spdy.closed, close: () => spdy.close() };
}

/** Port, type and id of the request; undefined where one is missing or makes no sense. */
function parseStreamHeaders(
  stream: SpdyStream,
): { port: number; type: 'data' | 'error'; id: string } | undefined {
  const type = stream.headers['streamtype'];
  const portText = stream.headers['port'] ?? '';
  const port = Number(portText);
  if (type !== 'data' && type !== 'error') return undefined;
  if (!/^[0-9]{1,5}$/.test(portText) || port < 1 || port > 65_535) return undefined;
  // Clients without the header open the error stream first and the data stream right after it.
  const implied = type === 'error' ? stream.id : stream.id - 2;
  return { port, type, id: stream.headers['requestid'] ?? `stream-${implied}` };
}

function pairConnection(port: number, data: SpdyStream, error: SpdyStream): PortForwardConnection {
  error.resume();
  // The error stream ends after the data: a client takes its end for the end of the connection.
  for (const event of ['finish', 'close']) data.once(event, () => error.end());
  return {
    port,
    data,
    fail(message) {
      error.end(message);
      data.end();
    },
  };
}

function serveChannels(
  webSocket: WebSocket,
  ports: number[],
  base64: boolean,
  clock: Clock,
): PortForwardSession {
  const closed = new AbortController();
  const connections = new BoundedQueue<PortForwardConnection>(CHANNEL_PORTS_MAX);
  const send = messageSender(webSocket, base64);
  const stopPings = keepAlive(webSocket, clock);
  const links = ports.map((port, index) => channelLink(webSocket, send, port, index * 2));
  webSocket.on('message', (data) => {
    const bytes = data as Buffer;
    const channel = (bytes[0] ?? 255) - (base64 ? 0x30 : 0);
    const link = channel % 2 === 0 ? links[channel / 2] : undefined;
    if (!link) return;
    const body = bytes.subarray(1);
    link.receive(base64 ? Buffer.from(body.toString('latin1'), 'base64') : body);
  });
  const end = (error?: Error) => {
    stopPings();
    if (!closed.signal.aborted) closed.abort(error ?? new Error('client closed the stream'));
    for (const link of links) link.connection.data.destroy();
    connections.close();
  };
  webSocket.on('close', () => end());
  webSocket.on('error', end);
  for (const link of links) connections.push(link.connection);
  return { connections, closed: closed.signal, close: () => closeWebSocket(webSocket, clock) };
}

function channelLink(
  webSocket: WebSocket,
  send: (channel: number, bytes: Buffer) => Promise<void>,
  port: number,
  channel: number,
): { connection: PortForwardConnection; receive: (bytes: Buffer) => void } {
  const data = new Duplex({
    readableHighWaterMark: CHANNEL_BUFFER_BYTES_MAX,
    read: () => {
      if (webSocket.isPaused) webSocket.resume();
    },
    write: (chunk: Buffer, _encoding, done) => void send(channel, chunk).then(() => done(), done),
  });
  data.on('error', () => {});
  // The first message on each channel repeats the port, so that the client can tell them apart.
  const announcement = Buffer.alloc(2);
  announcement.writeUInt16LE(port);
  for (const each of [channel, channel + 1]) send(each, announcement).catch(() => {});
  return {
    connection: {
      port,
      data,
      fail: (message) => {
        send(channel + 1, Buffer.from(message)).catch(() => {});
        data.end();
      },
    },
    receive: (bytes) => {
      if (bytes.length === 0 || data.destroyed) return;
      if (!data.push(bytes)) webSocket.pause();
    },
  };
}
