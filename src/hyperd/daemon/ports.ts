import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { PortMapping, PortState } from '../../api/hyperd.ts';
import { joinDuplexes } from '../../base/duplex.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';

/**
 * Ports of this machine that lead into one pod: listeners of the daemon, which join each
 * connection to one inside of the guest, over its control channel. They are open while the pod
 * runs, and come back with the daemon.
 */
export interface PortForwarder {
  /**
   * Listens on all of them, or on none. @throws Error that names the port
   */
  open(): Promise<void>;
  /** The same for a pod that runs already: what cannot be had says so in its state. */
  reopen(): Promise<void>;
  /** Ends the listeners and all connections. Idempotent. */
  close(): Promise<void>;
}

export interface PortForwarderOptions {
  /** As they were asked for. */
  mappings: readonly PortMapping[];
  /** As they are; those of an earlier daemon are asked for again. */
  states: () => PortState[];
  setStates: (states: PortState[]) => void;
  /** A connection to the port inside of the guest. */
  connect: (guestPort: number) => Promise<Duplex>;
  log: Log;
}

/**
 * Of one pod. The guest takes 128 for everything: probes and port-forwards must find some left
 * when strangers have taken these.
 */
const CONNECTIONS_MAX = 96;
const BACKLOG = 128;

export function createPortForwarder(options: PortForwarderOptions): PortForwarder {
  const { mappings, connect, log } = options;
  const servers = new Set<Server>();
  const sockets = new Set<Socket>();

  const forward = async (socket: Socket, guestPort: number) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => sockets.delete(socket));
    try {
      const inside = await connect(guestPort);
      if (socket.destroyed) inside.destroy();
      else await joinDuplexes(socket, inside);
    } catch (error) {
      log.debug('connection is not forwarded', { guestPort, error: describeError(error) });
      socket.resetAndDestroy();
    }
  };

  const listen = async (mapping: PortMapping): Promise<PortState> => {
    const { hostAddress, hostPort, guestPort } = mapping;
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      if (sockets.size >= CONNECTIONS_MAX) socket.resetAndDestroy();
      else void forward(socket, guestPort);
    });
    server.listen({ host: hostAddress, port: hostPort, backlog: BACKLOG });
    try {
      await once(server, 'listening');
    } catch (error) {
      throw new Error(problemOf(mapping, error as NodeJS.ErrnoException));
    }
    server.on('error', (error) => log.warn('port', { hostPort, error: error.message }));
    servers.add(server);
    const { port } = server.address() as AddressInfo;
    return { hostAddress, hostPort: port, guestPort, problem: '' };
  };

  const close = async () => {
    for (const socket of sockets) socket.destroy();
    const closing = [...servers].map((server) => {
      const closed = once(server, 'close');
      server.close();
      return closed;
    });
    servers.clear();
    await Promise.all(closing);
  };

  return {
    async open() {
      const states: PortState[] = [];
      try {
        for (const mapping of mappings) states.push(await listen(mapping));
      } catch (error) {
        await close();
        throw error;
      }
      options.setStates(states);
    },
    async reopen() {
      const states: PortState[] = [];
      for (const state of options.states()) {
        const lost = (error: Error): PortState => ({ ...state, problem: error.message });
        states.push(await listen(state).catch(lost));
      }
      for (const { problem } of states) if (problem !== '') log.error(problem);
      options.setStates(states);
    },
    close,
  };
}

const PROBLEMS: Record<string, string> = {
  EADDRINUSE: 'it is taken',
  EADDRNOTAVAIL: 'the address is not one of this machine',
  EACCES: 'this process may not',
};

function problemOf({ hostAddress, hostPort }: PortMapping, error: NodeJS.ErrnoException): string {
  const why = PROBLEMS[error.code ?? ''] ?? error.message;
  return `Cannot listen on port ${hostPort} of ${hostAddress}: ${why}`;
}
