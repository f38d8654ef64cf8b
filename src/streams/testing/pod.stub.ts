import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createConnection } from 'node:net';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { systemClock } from '../../base/clock.ts';
import { start } from '../../base/exec.ts';
import { acceptPortForward, acceptRemoteCommand, exitStatus } from '../index.ts';
import type { PortForwardConnection, RemoteCommandSession } from '../index.ts';

/**
 * Just enough of an API server on loopback for `kubectl exec`, `cp` and `port-forward` against
 * one pod, whose "containers" are programs of this machine. Serves plain HTTP.
 */
export interface PodStub {
  url: string;
  /** `sizes` of terminals seen, `protocols` of each upgrade. */
  seen: { upgrade: string; protocol: string }[];
  close(): Promise<void>;
}

const POD = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'stub', namespace: 'default', uid: 'u' },
  spec: { nodeName: 'n', containers: [{ name: 'main', image: 'i' }] },
  status: { phase: 'Running' },
};

const RESOURCES = {
  kind: 'APIResourceList',
  groupVersion: 'v1',
  resources: [
    { name: 'pods', namespaced: true, kind: 'Pod', shortNames: ['po'], verbs: ['get', 'list'] },
    { name: 'pods/exec', namespaced: true, kind: 'PodExecOptions', verbs: ['create', 'get'] },
  ],
};

const ANSWERS: Record<string, unknown> = {
  '/version': { major: '1', minor: '35', gitVersion: 'v1.35.0' },
  '/api': { kind: 'APIVersions', versions: ['v1'] },
  '/apis': { kind: 'APIGroupList', apiVersion: 'v1', groups: [] },
  '/api/v1': RESOURCES,
  '/api/v1/namespaces/default/pods/stub': POD,
};

export async function startPodStub(): Promise<PodStub> {
  const sockets = new Set<Duplex>();
  const seen: PodStub['seen'] = [];
  const server = createServer(answer);
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('upgrade', (request, socket, head) => {
    const protocol = request.headers['sec-websocket-protocol'] ?? '';
    seen.push({ upgrade: request.headers.upgrade ?? '', protocol });
    void serve(request, socket, head);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    seen,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  const body = ANSWERS[(request.url ?? '').split('?')[0] as string];
  response.writeHead(body ? 200 : 404, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body ?? { kind: 'Status', status: 'Failure', code: 404 }));
}

async function serve(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
  const url = new URL(request.url ?? '', 'http://stub');
  const flag = (name: string) => ['1', 'true'].includes(url.searchParams.get(name) ?? '');
  if (url.pathname.endsWith('/portforward')) {
    const ports = url.searchParams.getAll('ports').map(Number);
    const session = await acceptPortForward(request, socket, head, ports, systemClock);
    if (!session) return;
    for await (const connection of session.connections) forward(connection);
    return;
  }
  const tty = flag('tty');
  const options = { stdin: flag('stdin'), stdout: flag('stdout'), stderr: flag('stderr'), tty };
  const session = await acceptRemoteCommand(request, socket, head, options, systemClock);
  if (session) await runCommand(session, url.searchParams.getAll('command'), options.stdin);
}

async function runCommand(
  session: RemoteCommandSession,
  command: string[],
  stdin: boolean,
): Promise<void> {
  const child = start(command[0] ?? 'false', command.slice(1), {
    stdio: [stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
  });
  session.closed.addEventListener('abort', () => child.kill('SIGKILL'));
  if (child.stdin) {
    child.stdin.on('error', () => {});
    session.stdin.pipe(child.stdin);
  }
  child.stdout?.pipe(session.stdout, { end: false });
  child.stderr?.pipe(session.stderr, { end: false });
  const exitCode = await new Promise<number>((resolve) => {
    child.on('error', () => resolve(127));
    child.on('close', (code) => resolve(code ?? 137));
  });
  await session.finish(exitStatus(exitCode));
}

function forward(connection: PortForwardConnection): void {
  const socket = createConnection({
    host: '127.0.0.1',
    port: connection.port,
    allowHalfOpen: true,
  });
  socket.on('error', (error) => connection.fail(`cannot connect: ${error.message}`));
  socket.on('close', () => connection.data.destroy());
  connection.data.on('close', () => socket.destroy());
  socket.on('connect', () => {
    socket.pipe(connection.data);
    connection.data.pipe(socket);
  });
}
