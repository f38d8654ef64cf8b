import { WebSocket } from 'ws';
import type { Status } from '../src/api/status.ts';
import type { BenchContext } from './context.ts';

/** A command in a pod, over the API server's WebSocket as kubectl speaks it. */
export interface RemoteCommand {
  /** Resolves when the socket has taken it: the back-pressure. */
  write(bytes: Buffer): Promise<void>;
  /** There is no more input. */
  end(): void;
  /** Resolves at the command's success. @throws Error where it failed or the connection broke */
  done: Promise<void>;
}

/** Numbers of channels in Kubernetes' remote command protocol, version 5. */
const CHANNEL = { stdin: 0, stdout: 1, error: 3, close: 255 } as const;
const PROTOCOL = 'v5.channel.k8s.io';

/** @param take gets the output, piece by piece and in order; what it throws ends the command */
export async function openCommand(
  { access, namespace }: Pick<BenchContext, 'access' | 'namespace'>,
  pod: string,
  command: string[],
  signal: AbortSignal,
  take: (bytes: Buffer) => void = () => {},
): Promise<RemoteCommand> {
  const query = new URLSearchParams({ stdin: 'true', stdout: 'true' });
  for (const word of command) query.append('command', word);
  const path = `/api/v1/namespaces/${namespace}/pods/${pod}/exec?${query}`;
  const socket = new WebSocket(`${access.server.replace(/^http/, 'ws')}${path}`, PROTOCOL, {
    ca: access.caCert,
    cert: access.clientCert,
    key: access.clientKey,
    perMessageDeflate: false,
  });
  const abort = () => socket.terminate();
  signal.addEventListener('abort', abort, { once: true });
  const opened = Promise.withResolvers<void>();
  const done = Promise.withResolvers<void>();
  done.promise.catch(() => {});
  const fail = (error: Error) => {
    opened.reject(error);
    done.reject(error);
    socket.terminate();
  };
  socket.on('open', () => opened.resolve());
  socket.on('error', fail);
  socket.on('message', (message: Buffer) => {
    const bytes = message.subarray(1);
    try {
      if (message[0] === CHANNEL.stdout && bytes.length > 0) take(bytes);
      else if (message[0] === CHANNEL.error) settle(bytes, done);
    } catch (error) {
      fail(error as Error);
    }
  });
  socket.on('close', (code) => {
    signal.removeEventListener('abort', abort);
    fail(new Error(`${command[0]} in pod "${pod}": the connection was closed (${code})`));
  });
  await opened.promise;
  const send = (channel: number, bytes: Buffer) =>
    new Promise<void>((resolve, reject) => {
      const message = Buffer.concat([Buffer.from([channel]), bytes]);
      socket.send(message, (error) => (error ? reject(error) : resolve()));
    });
  return {
    write: (bytes) => send(CHANNEL.stdin, bytes),
    end: () => void send(CHANNEL.close, Buffer.from([CHANNEL.stdin])).catch(fail),
    done: done.promise,
  };
}

function settle(bytes: Buffer, done: PromiseWithResolvers<void>): void {
  const status = JSON.parse(bytes.toString('utf8')) as Status;
  if (status.status === 'Success') done.resolve();
  else done.reject(new Error(status.message ?? 'the command failed'));
}
