import { rm } from 'node:fs/promises';
import { createServer, request as httpRequest } from 'node:http';
import { once } from 'node:events';
import { UsageError } from './errors.ts';
import type { ComponentStatus } from './supervisor.ts';

/**
 * The supervisor's own door: HTTP on a unix socket in the data directory, for `status`, `down` and
 * for noticing that one is running already.
 */
export interface ControlServer {
  close(): Promise<void>;
}

export interface MachineStatus {
  pid: number;
  version: string;
  role: string;
  nodeName: string;
  /** Device model of the VMs that are started. */
  machine: string;
  startedAtMs: number;
  components: ComponentStatus[];
}

export interface StopRequest {
  /** Whether VMs run on, to be taken over by the next start. */
  keepPods: boolean;
}

/** It has nothing to wait for; a busy machine does. */
const STATUS_TIMEOUT_MS = 10_000;

/** @throws UsageError when a supervisor runs on this data directory */
export async function refuseRunning(socketPath: string): Promise<void> {
  const running = await queryStatus(socketPath);
  if (!running) return;
  throw new UsageError(
    `Cannot start on this data directory: Hypernetes runs on it already, as process ${running.pid}. ` +
      'Look with "hypernetes status", end it with "hypernetes down", or use another --data-dir.',
  );
}

/** @throws UsageError when another supervisor has this data directory */
export async function serveControl(
  socketPath: string,
  handlers: { status: () => MachineStatus; stop: (request: StopRequest) => Promise<void> },
): Promise<ControlServer> {
  await refuseRunning(socketPath);
  const server = createServer((request, response) => {
    const send = (code: number, value: unknown) => {
      response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    };
    const url = new URL(request.url ?? '/', 'http://supervisor');
    if (request.method === 'GET' && url.pathname === '/status') send(200, handlers.status());
    else if (request.method === 'POST' && url.pathname === '/stop') {
      handlers.stop({ keepPods: url.searchParams.get('keepPods') === 'true' }).then(
        () => send(200, {}),
        (error: Error) => send(500, { message: error.message }),
      );
    } else send(404, { message: 'not found' });
  });
  await rm(socketPath, { force: true });
  server.listen(socketPath);
  await once(server, 'listening');
  return {
    async close() {
      server.close();
      server.closeIdleConnections();
      await rm(socketPath, { force: true });
    },
  };
}

/**
 * Undefined where nobody listens.
 *
 * @throws UsageError when somebody listens and does not answer
 */
export async function queryStatus(socketPath: string): Promise<MachineStatus | undefined> {
  const late = AbortSignal.timeout(STATUS_TIMEOUT_MS);
  const answer = await ask(socketPath, 'GET', '/status', late).catch(() => undefined);
  if (answer === undefined && late.aborted) {
    throw new UsageError(
      `The supervisor at ${socketPath} does not answer within ${STATUS_TIMEOUT_MS / 1000} s. If it ` +
        'is stopped or stuck, end it with SIGKILL: its VMs run on, and "hypernetes up" takes over.',
    );
  }
  return answer as MachineStatus | undefined;
}

/** Resolves when everything has stopped. */
export async function requestStop(socketPath: string, { keepPods }: StopRequest): Promise<void> {
  await ask(socketPath, 'POST', `/stop?keepPods=${keepPods}`);
}

function ask(
  socketPath: string,
  method: string,
  path: string,
  signal?: AbortSignal,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { socketPath, method, path, signal, agent: false },
      async (response) => {
        try {
          let text = '';
          for await (const chunk of response.setEncoding('utf8')) text += chunk;
          const value = JSON.parse(text) as { message?: string };
          if (response.statusCode === 200) resolve(value);
          else reject(new Error(value.message ?? `status ${response.statusCode}`));
        } catch (error) {
          reject(error);
        }
      },
    );
    request.on('error', reject);
    request.end();
  });
}
