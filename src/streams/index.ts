import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import { acceptPortForwardSpdy, acceptPortForwardWebSocket } from './portforward.ts';
import { acceptRemoteCommandSpdy } from './remotecommand-spdy.ts';
import type { PortForwardSession } from './session.ts';
import type { RemoteCommandOptions, RemoteCommandSession } from './session.ts';
import { refuseUpgrade } from './websocket-handshake.ts';
import { acceptRemoteCommandWebSocket } from './websocket.ts';

export * from './session.ts';
export { refuseUpgrade } from './websocket-handshake.ts';

const UPGRADE_MESSAGE = 'Upgrade request required: want WebSocket or SPDY/3.1';

function upgradeOf(request: IncomingMessage): 'websocket' | 'spdy' | undefined {
  const upgrade = (request.headers.upgrade ?? '').toLowerCase();
  if (upgrade === 'websocket') return 'websocket';
  return upgrade === 'spdy/3.1' ? 'spdy' : undefined;
}

/**
 * Takes the arguments of Node's `upgrade` event and speaks the protocol that the client chose.
 * Undefined when there will be no session: the client has been answered and the socket ends.
 */
export async function acceptRemoteCommand(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  options: RemoteCommandOptions,
  clock: Clock,
): Promise<RemoteCommandSession | undefined> {
  const upgrade = upgradeOf(request);
  if (upgrade === 'websocket') {
    return await acceptRemoteCommandWebSocket(request, socket, head, options, clock);
  }
  if (upgrade === 'spdy') {
    return await acceptRemoteCommandSpdy(request, socket, head, options, clock);
  }
  refuseUpgrade(socket, 400, UPGRADE_MESSAGE);
  return undefined;
}

/** As above. `ports` come from the query and count for the WebSocket channel form alone. */
export async function acceptPortForward(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  ports: number[],
  clock: Clock,
): Promise<PortForwardSession | undefined> {
  const upgrade = upgradeOf(request);
  if (upgrade === 'websocket') {
    return await acceptPortForwardWebSocket(request, socket, head, ports, clock);
  }
  if (upgrade === 'spdy') return acceptPortForwardSpdy(request, socket, head, clock);
  refuseUpgrade(socket, 400, UPGRADE_MESSAGE);
  return undefined;
}
