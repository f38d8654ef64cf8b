import { createServer } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { StatusError, badRequest, notFound } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import { acceptPortForward, acceptRemoteCommand, refuseUpgrade } from '../../streams/index.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import type { Attempt, ContainerView } from '../history.ts';
import { bareId, isAlive } from '../history.ts';
import { latest } from '../decide.ts';
import type { PodWorker } from '../pod-worker.ts';
import { bridgeAttach, bridgeExec, bridgePorts } from './bridge.ts';
import { formatLog } from './log-format.ts';
import { statsSummary } from './stats.ts';

/**
 * The kubelet's HTTPS server, for the API server alone: it presents a client certificate of the
 * cluster's CA with one exact name. Tenants may hold certificates of the same CA; they are
 * refused by the name.
 */
export interface KubeletServerOptions {
  /** @default kube-apiserver-kubelet-client */
  clientName?: string;
  pods: { readonly size: number; values(): Iterable<PodWorker> };
  findPod: (namespace: string, name: string) => PodWorker | undefined;
  hyperd: HyperdClient;
  nodeName: string;
  clock: Clock;
  log: Log;
}

export interface KubeletServer {
  /** After `setCertificate`. Resolves with the port that it is. */
  listen(port: number, host?: string): Promise<number>;
  /** PEM. For new connections; open ones keep what they have. */
  setCertificate(tls: { cert: string; key: string; ca: string }): void;
  close(): Promise<void>;
}

const CLIENT_NAME = 'kube-apiserver-kubelet-client';
const CONNECTIONS_MAX = 4096;
const HEADERS_TIMEOUT_MS = 10_000;
/** Whoever has not shown a certificate by then holds one of the connections no longer. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

interface Target {
  worker: PodWorker;
  view: ContainerView;
  attempt: Attempt | undefined;
}

export function createKubeletServer(options: KubeletServerOptions): KubeletServer {
  const { log } = options;
  const sockets = new Set<Duplex>();
  const server = createServer(
    {
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.2',
      headersTimeout: HEADERS_TIMEOUT_MS,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    },
    (request, response) => void serve(options, request, response),
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', (error, socket) => {
    socket.destroy();
    log.debug('TLS handshake failed', { error: describeError(error) });
  });
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    void serveUpgrade(options, request, socket, head).catch((error: unknown) => {
      const status = toStatusError(error);
      refuseUpgrade(socket, status.code, status.message);
    });
  });
  return {
    listen: (port, host = '0.0.0.0') =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(port, host, () => {
          server.off('error', reject);
          const address = server.address();
          resolve(typeof address === 'object' && address ? address.port : port);
        });
      }),
    setCertificate: (tls) => server.setSecureContext(tls),
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(() => resolve(undefined)));
    },
  };
}

/** @throws StatusError Forbidden unless it is the API server */
function checkClient(options: KubeletServerOptions, request: IncomingMessage): void {
  const socket = request.socket as TLSSocket;
  const subject = socket.getPeerCertificate().subject?.CN as string | string[] | undefined;
  const wanted = options.clientName ?? CLIENT_NAME;
  if (socket.authorized && subject === wanted) return;
  throw new StatusError('Forbidden', `Forbidden: client certificate is not that of ${wanted}`);
}

type Handler = (
  options: KubeletServerOptions,
  path: string[],
  query: URLSearchParams,
  request: IncomingMessage,
  response: ServerResponse,
) => Promise<void> | void;

const ROUTES: Record<string, Handler> = {
  healthz: (_options, _path, _query, _request, response) => void response.end('ok'),
  pods: ({ pods }, _path, _query, _request, response) => {
    const items = [...pods.values()].map((worker) => worker.pod);
    sendJson(response, { kind: 'PodList', apiVersion: 'v1', metadata: {}, items });
  },
  containerLogs: serveLogs,
  metrics: async ({ hyperd }, path, _query, _request, response) => {
    if (path.length > 0) throw notFound('', 'paths', `metrics/${path.join('/')}`);
    const text = await hyperd.metrics();
    response.setHeader('content-type', 'text/plain; version=0.0.4');
    response.end(text);
  },
  stats: async (options, path, _query, _request, response) => {
    if (path[0] !== 'summary') throw notFound('', 'paths', `stats/${path[0] ?? ''}`);
    sendJson(response, await statsSummary(options));
  },
};

async function serve(
  options: KubeletServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    checkClient(options, request);
    const { path, query } = parse(request);
    const [first = '', ...rest] = path;
    const handler = Object.hasOwn(ROUTES, first) ? ROUTES[first] : undefined;
    if (!handler) throw notFound('', 'paths', `/${path.join('/')}`);
    if (request.method !== 'GET') {
      throw new StatusError('MethodNotAllowed', `method ${request.method} is not served here`);
    }
    await handler(options, rest, query, request, response);
  } catch (error) {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const status = toStatusError(error);
    response.statusCode = status.code;
    sendJson(response, status.toStatus());
  }
}

function parse(request: IncomingMessage): { path: string[]; query: URLSearchParams } {
  const url = new URL(request.url ?? '/', 'https://kubelet');
  try {
    const path = url.pathname.split('/').filter(Boolean).map(decodeURIComponent);
    return { path, query: url.searchParams };
  } catch {
    throw badRequest('path is not well escaped');
  }
}

function toStatusError(error: unknown): StatusError {
  if (error instanceof StatusError) return error;
  return new StatusError('InternalError', describeError(error), { cause: error });
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(value));
}

/** `namespace/pod[/uid][/container]`; the uid may be left out, as older API servers do. */
function findWorker(options: KubeletServerOptions, path: string[]): PodWorker {
  const [namespace = '', name = ''] = path;
  const worker = options.findPod(namespace, name);
  if (!worker) throw notFound('', 'pods', name);
  return worker;
}

function findTarget(options: KubeletServerOptions, path: string[]): Target {
  const worker = findWorker(options, path);
  const container = path.at(-1) ?? '';
  const uid = path.length > 3 ? path[2] : undefined;
  if (uid !== undefined && uid !== worker.uid) throw notFound('', 'pods', path[1] ?? '');
  const view = worker.view().containers.find((each) => each.container.name === container);
  if (!view) throw badRequest(`container ${container} is not valid for pod ${path[1]}`);
  return { worker, view, attempt: latest(view) };
}

/** @throws StatusError BadRequest where the container does not run */
function needRunning({ worker, view, attempt }: Target): Attempt & { sandboxId: string } {
  const sandbox = worker.view().sandbox;
  const isRunning = attempt?.phase === 'running' && attempt.sandboxId === sandbox?.id;
  if (isRunning && attempt.sandboxId) return { ...attempt, sandboxId: attempt.sandboxId };
  throw badRequest(`container not found ("${view.container.name}"): it does not run`);
}

// --- Logs ------------------------------------------------------------------------------------

async function serveLogs(
  options: KubeletServerOptions,
  path: string[],
  query: URLSearchParams,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const target = findTarget(options, path);
  const attempt = chooseLog(target, isTrue(query.get('previous')));
  const number = (name: string): number | undefined => {
    const text = query.get(name);
    if (text === null || text === '') return undefined;
    const value = Number(text);
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw badRequest(`query parameter "${name}" must be a whole number, is "${text}"`);
  };
  const sinceNs = since(query, number('sinceSeconds'), options.clock);
  const format = {
    timestamps: isTrue(query.get('timestamps')),
    limitBytes: number('limitBytes'),
    sinceNs,
    stream: ({ Stdout: 1, Stderr: 2 } as const)[query.get('stream') ?? ''],
  };
  const tailLines = number('tailLines');
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  request.on('error', () => gone.abort());
  const records = options.hyperd.logs(
    attempt.sandboxId ?? '',
    attempt.containerId,
    {
      follow: isTrue(query.get('follow')),
      ...(tailLines === undefined ? {} : { tailLines }),
      ...(sinceNs > 0n ? { sinceMs: Number(sinceNs / 1_000_000n) } : {}),
    },
    gone.signal,
  );
  response.setHeader('content-type', 'text/plain');
  // Followers wait for the first line; they are told at once that there is a log.
  response.flushHeaders();
  for await (const text of formatLog(records, format)) {
    if (!response.write(text)) await once(response, gone.signal);
    if (gone.signal.aborted) return;
  }
  response.end();
}

function once(response: ServerResponse, gone: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (gone.aborted) resolve();
    const finish = () => {
      response.off('drain', finish);
      gone.removeEventListener('abort', finish);
      resolve();
    };
    response.on('drain', finish);
    gone.addEventListener('abort', finish, { once: true });
  });
}

/** The reasons that Kubernetes puts into words. */
const WAITING_WORDS: Record<string, string | undefined> = {
  ErrImagePull: "image can't be pulled",
  ImagePullBackOff: 'trying and failing to pull image',
};

function chooseLog({ worker, view, attempt }: Target, previous: boolean): Attempt {
  const { name } = view.container;
  const podName = worker.pod.metadata.name ?? '';
  const statuses = [
    ...(worker.pod.status?.containerStatuses ?? []),
    ...(worker.pod.status?.initContainerStatuses ?? []),
  ];
  const status = statuses.find((each) => each.name === name);
  if (previous) {
    const id = bareId(status?.lastState?.terminated?.containerID ?? '');
    const found = view.attempts.find((each) => each.containerId === id);
    if (found?.sandboxId) return found;
    throw badRequest(`previous terminated container "${name}" in pod "${podName}" not found`);
  }
  if (!attempt) {
    const reason = status?.state?.waiting?.reason ?? 'ContainerCreating';
    const waiting = WAITING_WORDS[reason] ?? reason;
    throw badRequest(`container "${name}" in pod "${podName}" is waiting to start: ${waiting}`);
  }
  if (attempt.sandboxId) return attempt;
  throw badRequest(`unable to retrieve container logs for hyper://${attempt.containerId}`);
}

function since(query: URLSearchParams, seconds: number | undefined, clock: Clock): bigint {
  if (seconds !== undefined) return BigInt(clock.nowMs() - seconds * 1000) * 1_000_000n;
  const text = query.get('sinceTime');
  if (!text) return 0n;
  const ms = Date.parse(text);
  if (Number.isNaN(ms))
    throw badRequest(`query parameter "sinceTime" must be RFC 3339, is "${text}"`);
  // Date keeps milliseconds; the digits below them are added back.
  const digits = /\.([0-9]+)/.exec(text)?.[1] ?? '';
  const below = BigInt(digits.padEnd(9, '0').slice(3, 9) || 0);
  return BigInt(ms) * 1_000_000n + below;
}

function isTrue(text: string | null): boolean {
  return text === 'true' || text === '1';
}

// --- Streams ---------------------------------------------------------------------------------

async function serveUpgrade(
  options: KubeletServerOptions,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  checkClient(options, request);
  const { path, query } = parse(request);
  const [kind = '', ...rest] = path;
  if (kind === 'portForward') return servePortForward(options, rest, query, request, socket, head);
  if (kind !== 'exec' && kind !== 'attach') throw notFound('', 'paths', `/${path.join('/')}`);
  const target = findTarget(options, rest);
  const attempt = needRunning(target);
  const { container } = target.view;
  // Of the API (stdin) and of the kubelet's older API (input): whichever is there.
  const flag = (...names: string[]) => names.some((name) => isTrue(query.get(name)));
  const tty = flag('tty') || (kind === 'attach' && (container.tty ?? false));
  const streams = {
    stdin: flag('stdin', 'input'),
    stdout: flag('stdout', 'output'),
    stderr: flag('stderr', 'error') && !tty,
    tty,
  };
  if (!streams.stdin && !streams.stdout && !streams.stderr) {
    throw badRequest('you must specify at least 1 of stdin, stdout, stderr');
  }
  const { sandboxId, containerId } = attempt;
  if (kind === 'attach') {
    const session = await acceptRemoteCommand(request, socket, head, streams, options.clock);
    if (!session) return;
    const { stdin, stdout, stderr } = streams;
    return bridgeAttach(session, (signal) =>
      options.hyperd.attach(sandboxId, containerId, { stdin, stdout, stderr }, signal),
    );
  }
  const argv = query.getAll('command');
  if (argv.length === 0) throw badRequest('you must specify at least 1 command');
  const own = await target.worker.processOf(attempt);
  const session = await acceptRemoteCommand(request, socket, head, streams, options.clock);
  if (!session) return;
  const process = { ...own, argv, tty };
  const { stdin, stdout, stderr } = streams;
  const exec = { process, stdin, stdout, stderr, timeoutMs: 0 };
  await bridgeExec(session, (signal) => options.hyperd.exec(sandboxId, containerId, exec, signal));
}

async function servePortForward(
  options: KubeletServerOptions,
  path: string[],
  query: URLSearchParams,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const worker = findWorker(options, path);
  if (path[2] !== undefined && path[2] !== worker.uid) throw notFound('', 'pods', path[1] ?? '');
  const ports = [...query.getAll('ports'), ...query.getAll('port')]
    .flatMap((each) => each.split(','))
    .map(Number);
  if (ports.some((port) => !Number.isInteger(port) || port < 1 || port > 65_535)) {
    throw badRequest('query parameter "ports" must name ports from 1 to 65535');
  }
  const session = await acceptPortForward(request, socket, head, ports, options.clock);
  if (!session) return;
  const sandboxId = () => {
    const { sandbox } = worker.view();
    return isAlive(sandbox) ? sandbox.id : undefined;
  };
  await bridgePorts(session, options.hyperd, sandboxId, worker.pod.metadata.name ?? '');
}
