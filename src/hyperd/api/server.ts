import { chmod, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import type {
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
import {
  validateContainerSpec,
  validatePodSpec,
  validateProbe,
  validatePull,
  validateVolumeFiles,
} from '../daemon/validate.ts';
import { toStatusError } from './errors.ts';
import { parseJson, pathSegment, readBody, required, wholeNumber } from './requests.ts';
import { signalNumber } from '../daemon/signals.ts';
import { serveUpgrade } from './upgrades.ts';

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
  ['POST', /^\/v1\/images\/pull$/, pullImage],
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
  ['GET', /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)$/, readContainer],
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
  const streams = new Set<Duplex>();
  server.on('upgrade', (request, socket, head) => {
    streams.add(socket);
    socket.on('close', () => streams.delete(socket));
    void serveUpgrade(options, request, socket, head).catch((error) => {
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
      for (const socket of streams) socket.destroy();
      await rm(socketPath, { force: true });
    },
  };
}

async function answer(
  daemon: Daemon,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
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
    if (routeMethod === method) return handler(context, ...match.slice(1).map(pathSegment));
  }
  const reason = known ? 'MethodNotAllowed' : 'NotFound';
  throw new StatusError(reason, `hyperd does not serve ${method} ${path}`);
}

async function pullImage({ daemon, body, signal }: RouteContext): Promise<unknown> {
  return daemon.pullImage(validatePull(await body<PullImage>()), signal);
}

async function createPod(context: RouteContext, id = ''): Promise<unknown> {
  const spec = validatePodSpec(await context.body<HyperPodSpec>());
  if (spec.id !== id) throw badRequest(`Pod id "${spec.id}" is not that of the path, "${id}"`);
  return context.daemon.createPod(spec);
}

async function startContainer(context: RouteContext, podId = '', id = ''): Promise<unknown> {
  const pod = context.daemon.pod(podId);
  const spec = validateContainerSpec(await context.body<HyperContainerSpec>());
  if (spec.id !== id)
    throw badRequest(`Container id "${spec.id}" is not that of the path, "${id}"`);
  return pod.startContainer(spec);
}

async function readContainer(context: RouteContext, podId = '', id = ''): Promise<unknown> {
  return context.daemon.pod(podId).container(id).record.spec;
}

async function removeContainer(context: RouteContext, podId = '', id = ''): Promise<void> {
  await context.daemon.pod(podId).removeContainer(id);
}

async function signalContainer(context: RouteContext, podId = '', id = ''): Promise<void> {
  const signal = signalNumber(required(context.query, 'signal'));
  await context.daemon.pod(podId).signalContainer(id, signal);
}

async function writeVolume(context: RouteContext, podId = '', name = ''): Promise<void> {
  const content = validateVolumeFiles(name, await context.body<VolumeFiles>());
  await context.daemon.pod(podId).writeVolume(name, content);
}

async function probe(context: RouteContext, podId = ''): Promise<unknown> {
  const request = validateProbe(await context.body<ProbeRequest>());
  return context.daemon.pod(podId).agent((agent) => agent.probe(request));
}

async function streamEvents(context: RouteContext): Promise<void> {
  const after = wholeNumber(context.query, 'after');
  const events = context.daemon.events.subscribe(after, context.signal);
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
  const chunks = log.read({
    follow: query.get('follow') === 'true',
    tailLines: wholeNumber(query, 'tailLines'),
    sinceMs: wholeNumber(query, 'sinceMs') ?? 0,
    streams,
    signal,
  });
  response.writeHead(200, { 'content-type': 'application/x-hyper-log' });
  response.flushHeaders();
  for await (const chunk of chunks) await send(response, chunk);
  response.end();
}

function sendJson(response: ServerResponse, code: number, value: unknown): void {
  const text = value === undefined ? '' : JSON.stringify(value);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  response.writeHead(code, headers).end(text);
}

async function send(response: ServerResponse, chunk: string | Uint8Array): Promise<void> {
  if (!response.write(chunk)) await drained(response);
}
