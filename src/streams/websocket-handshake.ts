import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import type { WebSocket } from 'ws';

/** A single message is held in memory before it is handed on; clients send 32 KiB at a time. */
const WEBSOCKET_MESSAGE_BYTES_MAX = 4 << 20;
/** Keeps proxies and load balancers between us and the client from closing an idle stream. */
export const PING_INTERVAL_MS = 5_000;

const server = new WebSocketServer({
  noServer: true,
  clientTracking: false,
  perMessageDeflate: false,
  maxPayload: WEBSOCKET_MESSAGE_BYTES_MAX,
});

/**
 * Answers a WebSocket handshake and picks the first of the client's subprotocols that is in
 * `supported`. A client that names none gets `''`; one whose names are all unknown gets
 * undefined and a 400 answer.
 */
export function acceptWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  supported: readonly string[],
): Promise<{ webSocket: WebSocket; protocol: string } | undefined> {
  const offered = (request.headers['sec-websocket-protocol'] ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const protocol = offered.length === 0 ? '' : offered.find((name) => supported.includes(name));
  if (protocol === undefined) {
    refuseUpgrade(socket, 400, `WebSocket subprotocols ${JSON.stringify(offered)} are unknown`);
    return Promise.resolve(undefined);
  }
  // `ws` refuses names that are no tokens, and Kubernetes' `SPDY/3.1+portforward.k8s.io` is none:
  // it never sees the offer, and the answer is added to its response.
  delete request.headers['sec-websocket-protocol'];
  return new Promise((resolve) => {
    const onClose = () => resolve(undefined);
    const addProtocol = (headers: string[]) => {
      if (protocol !== '') headers.push(`Sec-WebSocket-Protocol: ${protocol}`);
    };
    socket.once('close', onClose);
    // The handshake is answered before `handleUpgrade` returns: no other one can come between.
    server.on('headers', addProtocol);
    server.handleUpgrade(request, socket, head, (webSocket) => {
      socket.off('close', onClose);
      resolve({ webSocket, protocol });
    });
    server.off('headers', addProtocol);
  });
}

/** Ends a connection that was to be upgraded with an error that kubectl can print. */
export function refuseUpgrade(
  socket: Duplex,
  code: number,
  message: string,
  headers: Record<string, string> = {},
): void {
  const reason = code === 403 ? 'Forbidden' : code === 400 ? 'BadRequest' : 'InternalError';
  const status = { apiVersion: 'v1', kind: 'Status', metadata: {}, status: 'Failure' };
  const body = JSON.stringify({ ...status, message, reason, code });
  const lines = [
    `HTTP/1.1 ${code} ${reason}`,
    'Connection: close',
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  socket.on('error', () => {});
  socket.end(`${lines.join('\r\n')}\r\n\r\n${body}`);
}
