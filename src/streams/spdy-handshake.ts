import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { refuseUpgrade } from './websocket-handshake.ts';

const PROTOCOL_VERSION_HEADER = 'x-stream-protocol-version';

/**
 * Answers `Upgrade: SPDY/3.1` with the first protocol of the client's that is in `supported`.
 * A client that names none gets `fallback` (clients older than the header do so); one whose
 * names are all unknown is refused with 403 and the list, as Kubernetes does.
 */
export function acceptSpdy(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  supported: readonly string[],
  fallback: string,
): string | undefined {
  const offered = [request.headers[PROTOCOL_VERSION_HEADER] ?? []]
    .flat()
    .flatMap((value) => value.split(','))
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const protocol =
    offered.length === 0 ? fallback : offered.find((name) => supported.includes(name));
  if (protocol === undefined) {
    const message = `unable to upgrade: unable to negotiate protocol: client supports ${JSON.stringify(
      offered,
    )}, server accepts ${JSON.stringify(supported)}`;
    refuseUpgrade(socket, 403, message, {
      'X-Accepted-Stream-Protocol-Versions': supported.join(', '),
    });
    return undefined;
  }
  const lines = [
    'HTTP/1.1 101 Switching Protocols',
    'Connection: Upgrade',
    'Upgrade: SPDY/3.1',
    ...(offered.length > 0 ? [`X-Stream-Protocol-Version: ${protocol}`] : []),
  ];
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  if (head.length > 0) socket.unshift(head);
  return protocol;
}
