import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { AttachRequest, ExecRequest } from '../../api/hyperd.ts';
import { StatusError, badRequest } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Daemon } from '../daemon/daemon.ts';
import { validateAttach, validateExec } from '../daemon/validate.ts';
import { toStatusError } from './errors.ts';
import { BODY_BYTES_MAX, parseJson, pathSegment } from './requests.ts';
import { serveAttach, serveExec, servePort } from './streams.ts';
import { acceptUpgrade, readUpgradeBody, refuseUpgrade } from './upgrade.ts';

const UPGRADE = /^\/v1\/pods\/([^/]+)\/(?:containers\/([^/]+)\/(exec|attach)|port\/(\d+))$/;
const PORT_MAX = 65_535;

/** A stream that was accepted; runs until it is over. */
type Stream = { protocol: string; run: () => Promise<void> };

/**
 * Exec, attach and port: answers with an error as HTTP, or with 101 and then frames. Rejects with
 * what ended a stream early.
 */
export async function serveUpgrade(
  { daemon, clock }: { daemon: Daemon; clock: Clock },
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  socket.on('error', () => socket.destroy());
  let stream: Stream;
  try {
    const body = await readUpgradeBody(request, socket, head, BODY_BYTES_MAX);
    stream = await openStream(daemon, clock, request.url ?? '/', body, socket);
  } catch (error) {
    refuseUpgrade(socket, toStatusError(error));
    return;
  }
  acceptUpgrade(socket, stream.protocol);
  await stream.run();
}

async function openStream(
  daemon: Daemon,
  clock: Clock,
  url: string,
  body: Buffer,
  socket: Duplex,
): Promise<Stream> {
  const path = new URL(url, 'http://hyperd').pathname;
  const [, podId = '', containerId = '', kind = 'port', port = ''] = UPGRADE.exec(path) ?? [];
  if (!podId) throw new StatusError('NotFound', `hyperd has no stream at ${path}`);
  const pod = daemon.pod(pathSegment(podId));
  if (kind === 'port') {
    const number = portNumber(port);
    const connection = await pod.agent((agent) => agent.connectPort(number), 'once');
    return { protocol: 'hyper-raw', run: () => servePort(socket, connection) };
  }
  const container = pod.container(pathSegment(containerId));
  if (kind === 'attach') {
    const attach = validateAttach(parseJson<AttachRequest>(body));
    const run = () => serveAttach(socket, pod, container, attach);
    return { protocol: 'hyper-stream', run };
  }
  const exec = validateExec(parseJson<ExecRequest>(body));
  const { id } = container.record.spec;
  const process = await pod.agent((agent) => agent.exec(id, exec.process), 'once');
  return { protocol: 'hyper-stream', run: () => serveExec(socket, process, exec, clock) };
}

function portNumber(text: string): number {
  const port = Number(text);
  if (port >= 1 && port <= PORT_MAX) return port;
  throw badRequest(`Port must be from 1 to ${PORT_MAX}, is ${text}`);
}
