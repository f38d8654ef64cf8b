import { chmod, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import type {
  AttachRequest,
  ExecRequest,
  HyperContainerSpec,
  HyperPodSpec,
  ProbeRequest,
  PullImage,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { drained } from '../../api/hyperstream.ts';
import { StatusError, badRequest } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import type { Daemon } from '../daemon/daemon.ts';
import { validateContainerSpec, validatePodSpec, validateProcess } from '../daemon/validate.ts';
import { AgentError } from '../agent/agent.ts';
import { signalNumber } from './signals.ts';
import { serveAttach, serveExec, servePort } from './streams.ts';
import { acceptUpgrade, readUpgradeBody, refuseUpgrade } from './upgrade.ts';

/**
 * hyperd's door: HTTP/1.1 on a unix socket that only root may open. What is spoken is described
 * in `api/hyperd.ts`.
 */
export interface HyperdServer {
  close(): Promise<void>;
}

export interface HyperdServerOptions {
  daemon: Daemon;
  socketPath: string;
  clock: Clock;
  log: Log;
}

/** A pod's volumes come inline; see LIMITS.volumeFileBytes, times base64. */
const BODY_BYTES_MAX = 32 << 20;

interface RouteContext {
  daemon: Daemon;
  request: IncomingMessage;
  response: ServerResponse;
  query: URLSearchParams;
  signal: AbortSignal;
  body<T>(): Promise<T>;
}

type Handler = (context: RouteContext, ...segments: string[]) => Promise<unknown>;

const ROUTES: [method: string, pattern: RegExp, handler: Handler][] = [
  ['GET', /^\/v1\/info$/, ({ daemon }) => daemon.info()],
  ['GET', /^\/v1\/events$/, streamEvents],
  ['GET', /^\/v1\/images$/, async ({ daemon }) => daemon.images()],
  ['POST', /^\/v1\/images\/pull$/, async (c) => c.daemon.pullImage(await c.body<PullImage>(), c.signal)],
  ['DELETE', /^\/v1\/images$/, async (c) => c.daemon.removeImage(required(c.query, 'reference'))],
  ['GET', /^\/v1\/pods$/, async ({ daemon }) => daemon.pods()],
  ['GET', /^\/v1\/pods\/([^/]+)$/, async (c, id) => c.daemon.pod(id ?? '').state()],
  ['PUT', /^\/v1\/pods\/([^/]+)$/, createPod],
  ['POST', /^\/v1\/pods\/([^/]+)\/stop$/, async (c, id) => c.daemon.pod(id ?? '').stop()],
  ['DELETE', /^\/v1\/pods\/([^/]+)$/, async (c, id) => c.daemon.removePod(id ?? '')],
  ['GET', /^\/v1\/pods\/([^/]+)\/stats$/, async (c, id) => c.daemon.pod(id ?? '').stats()],
  ['POST', /^\/v1\/pods\/([^/]+)\/probe$/, probe],
  ['PUT', /^\/v1\/pods\/([^/]+)\/volumes\/([^/]+)$/, writeVolume],
  ['PUT', /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)$/, startContainer],
  ['DELETE', /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)$/, removeContainer],
  ['POST', /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)\/signal$/, signalContainer],
  ['GET', /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)\/log$/, streamLog],
];

export async function serveHyperd(options: HyperdServerOptions): Promise<HyperdServer> {
  const { daemon, socketPath, log } = options;
  const server = createServer((request, response) => {
    void answer(daemon, request, response).catch((error) => {
      log.error('request failed', { path: request.url, error: describeError(error) });
      response.destroy();
    });
  });
  // Pulls and container starts take as long as they take; the clients are on this host.
  server.requestTimeout = 0;
  server.on('upgrade', (request, socket, head) => {
    void upgrade(options, request, socket, head).catch((error) => {
      log.debug('stream ended', { path: request.url, error: describeError(error) });
      socket.destroy();
    });
  });
  await rm(socketPath, { force: true });
  server.listen(socketPath);
  await once(server, 'listening');
  await chmod(socketPath, 0o600);
  return {
    async close() {
      server.close();
      server.closeAllConnections();
      await rm(socketPath, { force: true });
    },
  };
}

async function answer(daemon: Daemon, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort(new Error('The client went away')));
  const url = new URL(request.url ?? '/', 'http://hyperd');
  try {
    const context: RouteContext = {
      daemon,
      request,
      response,
      query: url.searchParams,
      signal: gone.signal,
      body: async <T>() => parseJson<T>(await readBody(request)),
    };
    const result = await route(context, request.method ?? 'GET', url.pathname);
    if (!response.headersSent) sendJson(response, result === undefined ? 204 : 200, result);
  } catch (error) {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const status = toStatusError(error);
    sendJson(response, status.code, status.toStatus());
  }
}

function route(context: RouteContext, method: string, path: string): Promise<unknown> {
  let known = false;
  for (const [routeMethod, pattern, handler] of ROUTES) {
    const match = pattern.exec(path);
    if (!match) continue;
    known = true;
    if (routeMethod === method) return handler(context, ...match.slice(1).map(decodeURIComponent));
  }
  const reason = known ? 'MethodNotAllowed' : 'NotFound';
  throw new StatusError(reason, `hyperd does not serve ${method} ${path}`);
}

async function createPod(context: RouteContext, id = ''): Promise<unknown> {
  const spec = validatePodSpec(await context.body<HyperPodSpec>());
  if (spec.id !== id) throw badRequest(`Pod id "${spec.id}" is not that of the path, "${id}"`);
  return context.daemon.createPod(spec);
}

async function startContainer(context: RouteContext, podId = '', id = ''): Promise<unknown> {
  const pod = context.daemon.pod(podId);
  const spec = validateContainerSpec(await context.body<HyperContainerSpec>());
  if (spec.id !== id) throw badRequest(`Container id "${spec.id}" is not that of the path, "${id}"`);
  return pod.startContainer(spec);
}

async function removeContainer(context: RouteContext, podId = '', id = ''): Promise<void> {
  await context.daemon.pod(podId).removeContainer(id);
}

async function signalContainer(context: RouteContext, podId = '', id = ''): Promise<void> {
  const signal = signalNumber(required(context.query, 'signal'));
  await context.daemon.pod(podId).signalContainer(id, signal);
}

async function writeVolume(context: RouteContext, podId = '', name = ''): Promise<void> {
  await context.daemon.pod(podId).writeVolume(name, await context.body<VolumeFiles>());
}

async function probe(context: RouteContext, podId = ''): Promise<unknown> {
  const request = await context.body<ProbeRequest>();
  return context.daemon.pod(podId).agent((agent) => agent.probe(request));
}

async function streamEvents(context: RouteContext): Promise<void> {
  const after = context.query.get('after');
  const events = context.daemon.events.subscribe(after === null ? undefined : Number(after), context.signal);
  context.response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  context.response.flushHeaders();
  for await (const event of events) await send(context.response, `${JSON.stringify(event)}\n`);
  context.response.end();
}

async function streamLog(context: RouteContext, podId = '', id = ''): Promise<void> {
  const { query, response, signal } = context;
  const { log } = context.daemon.pod(podId).container(id);
  const streams = new Set<1 | 2>();
  const chosen = query.has('stdout') || query.has('stderr');
  if (!chosen || query.get('stdout') === 'true') streams.add(1);
  if (!chosen || query.get('stderr') === 'true') streams.add(2);
  const tail = query.get('tailLines');
  const chunks = log.read({
    follow: query.get('follow') === 'true',
    tailLines: tail === null ? undefined : wholeNumber(tail, 'tailLines'),
    sinceMs: wholeNumber(query.get('sinceMs') ?? '0', 'sinceMs'),
    streams,
    signal,
  });
  response.writeHead(200, { 'content-type': 'application/x-hyper-log' });
  response.flushHeaders();
  for await (const chunk of chunks) await send(response, chunk);
  response.end();
}

const UPGRADE = /^\/v1\/pods\/([^/]+)\/(?:containers\/([^/]+)\/(exec|attach)|port\/(\d+))$/;

async function upgrade(
  { daemon, clock }: HyperdServerOptions,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  socket.on('error', () => socket.destroy());
  try {
    const body = await readUpgradeBody(request, socket, head, BODY_BYTES_MAX);
    const path = new URL(request.url ?? '/', 'http://hyperd').pathname;
    const [, podId = '', containerId = '', kind = 'port', port = ''] = UPGRADE.exec(path) ?? [];
    if (!podId) throw new StatusError('NotFound', `hyperd has no stream at ${path}`);
    const pod = daemon.pod(decodeURIComponent(podId));
    if (kind === 'port') {
      const connection = await pod.agent((agent) => agent.connectPort(wholeNumber(port, 'port')));
      acceptUpgrade(socket, 'hyper-raw');
      return await servePort(socket, connection);
    }
    if (kind === 'attach') {
      const container = pod.container(decodeURIComponent(containerId));
      acceptUpgrade(socket, 'hyper-stream');
      return await serveAttach(socket, pod, container, parseJson<AttachRequest>(body));
    }
    const exec = parseJson<ExecRequest>(body);
    validateProcess(exec.process);
    const started = await pod.agent((agent) => agent.exec(decodeURIComponent(containerId), exec.process));
    acceptUpgrade(socket, 'hyper-stream');
    return await serveExec(socket, started, exec, clock);
  } catch (error) {
    refuseUpgrade(socket, toStatusError(error));
  }
}

/** The guest's refusals, in the terms of HTTP. */
const AGENT_REASONS: Record<string, string> = {
  NotFound: 'NotFound',
  Invalid: 'BadRequest',
  StartError: 'Invalid',
  Unsupported: 'BadRequest',
  Closed: 'ServiceUnavailable',
};

function toStatusError(error: unknown): StatusError {
  if (error instanceof StatusError) return error;
  if (error instanceof AgentError) {
    const causes = [{ reason: error.reason, message: error.message }];
    const reason = AGENT_REASONS[error.reason] ?? 'InternalError';
    return new StatusError(reason, error.message, { details: { causes }, cause: error });
  }
  return new StatusError('InternalError', describeError(error), { cause: error });
}

function sendJson(response: ServerResponse, code: number, value: unknown): void {
  const text = value === undefined ? '' : JSON.stringify(value);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  response.writeHead(code, headers).end(text);
}

async function send(response: ServerResponse, chunk: string | Uint8Array): Promise<void> {
  if (!response.write(chunk)) await drained(response);
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) {
      const limit = `the limit is ${BODY_BYTES_MAX} bytes`;
      throw new StatusError('RequestEntityTooLarge', `Request body is too large: ${limit}`);
    }
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}

function parseJson<T>(body: Buffer): T {
  try {
    return JSON.parse(body.toString('utf8')) as T;
  } catch (error) {
    throw badRequest(`Request body is not JSON: ${describeError(error)}`);
  }
}

function required(query: URLSearchParams, name: string): string {
  const value = query.get(name);
  if (!value) throw badRequest(`Query parameter "${name}" is missing`);
  return value;
}

function wholeNumber(text: string, name: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw badRequest(`Query parameter "${name}" must be a whole number, is "${text}"`);
  }
  return value;
}
