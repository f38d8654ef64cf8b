import type { Duplex, Writable } from 'node:stream';
import { STREAM_CHANNEL } from '../../api/hyperd.ts';
import type { ProcessExit } from '../../api/hyperd.ts';
import { drained, readFrames, writeFrames } from '../../api/hyperstream.ts';
import type { Status } from '../../api/status.ts';
import { joinDuplexes } from '../../base/duplex.ts';
import { describeError } from '../../base/log.ts';
import { exitStatus, successStatus } from '../../streams/index.ts';
import type {
  PortForwardConnection,
  PortForwardSession,
  RemoteCommandSession,
} from '../../streams/index.ts';
import type { HyperdClient } from '../../client/hyperd.ts';

/**
 * Between a client's session and hyperd's streams. Flow control goes through: whichever side
 * does not read stops the other; whichever is gone ends the other.
 */
export type OpenStream = (signal: AbortSignal) => Promise<Duplex>;

function failureStatus(message: string): Status {
  const text = `Internal error occurred: ${message}`;
  const shape = { apiVersion: 'v1', kind: 'Status', metadata: {} } as const;
  return { ...shape, status: 'Failure', message: text, reason: 'InternalError', code: 500 };
}

/** A further process in a container: ends with its exit code. */
export async function bridgeExec(session: RemoteCommandSession, open: OpenStream): Promise<void> {
  await bridge(session, open, 'error executing command in container', exitStatusOf);
}

/** The container's own process: its end is a success, whatever its code. */
export async function bridgeAttach(session: RemoteCommandSession, open: OpenStream): Promise<void> {
  await bridge(session, open, 'error attaching to container', () => successStatus);
}

function exitStatusOf(exit: ProcessExit): Status {
  return exitStatus(exit.exitCode);
}

async function bridge(
  session: RemoteCommandSession,
  open: OpenStream,
  failure: string,
  statusOf: (exit: ProcessExit) => Status,
): Promise<void> {
  try {
    const socket = await open(session.closed);
    const end = () => socket.destroy();
    session.closed.addEventListener('abort', end, { once: true });
    void sendInput(session, socket);
    void sendSizes(session, socket);
    const exit = await receiveOutput(session, socket);
    socket.destroy();
    const status = exit ? statusOf(exit) : failureStatus(`${failure}: the stream ended early`);
    await session.finish(status);
  } catch (error) {
    await session.finish(failureStatus(`${failure}: ${describeError(error)}`));
  }
}

async function sendInput(session: RemoteCommandSession, socket: Duplex): Promise<void> {
  const { stdin } = STREAM_CHANNEL;
  try {
    for await (const chunk of session.stdin as AsyncIterable<Buffer>) {
      await writeFrames(socket, stdin, chunk);
    }
    await writeFrames(socket, stdin, Buffer.alloc(0));
  } catch {
    // The process has ended or the client is gone; the output side tells which.
  }
}

async function sendSizes(session: RemoteCommandSession, socket: Duplex): Promise<void> {
  try {
    for await (const size of session.resize) {
      await writeFrames(socket, STREAM_CHANNEL.resize, Buffer.from(JSON.stringify(size)));
    }
  } catch {
    // As above.
  }
}

async function receiveOutput(
  session: RemoteCommandSession,
  socket: Duplex,
): Promise<ProcessExit | undefined> {
  const outputs: Record<number, Writable> = {
    [STREAM_CHANNEL.stdout]: session.stdout,
    [STREAM_CHANNEL.stderr]: session.stderr,
  };
  for await (const { channel, payload } of readFrames(socket)) {
    if (channel === STREAM_CHANNEL.exit) return JSON.parse(payload.toString('utf8')) as ProcessExit;
    const output = outputs[channel];
    if (output && payload.length > 0 && !output.write(payload)) await drained(output);
  }
  return undefined;
}

/** Serves the connections of a port-forward session until it ends. */
export async function bridgePorts(
  session: PortForwardSession,
  hyperd: HyperdClient,
  sandboxId: () => string | undefined,
  podName: string,
): Promise<void> {
  for await (const connection of session.connections) {
    void bridgePort(session, connection, hyperd, sandboxId(), podName);
  }
}

async function bridgePort(
  session: PortForwardSession,
  connection: PortForwardConnection,
  hyperd: HyperdClient,
  sandboxId: string | undefined,
  podName: string,
): Promise<void> {
  const { port, data } = connection;
  const fail = (message: string) =>
    connection.fail(`error forwarding port ${port} to pod ${podName}, uid : ${message}`);
  if (sandboxId === undefined) {
    fail('pod does not run');
    return;
  }
  let socket: Duplex;
  try {
    socket = await hyperd.connectPort(sandboxId, port, session.closed);
  } catch (error) {
    fail(describeError(error));
    return;
  }
  await joinDuplexes(data, socket);
}
