import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { STREAM_CHANNEL } from '../../api/hyperd.ts';
import type {
  ExecRequest,
  HyperContainerSpec,
  HyperPodSpec,
  HyperdEvent,
  ImageStatus,
  PodResources,
  PodState,
  PoolLimit,
  ProbeResult,
  ProcessExit,
  PullImage,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { encodeLogRecord } from '../../api/hyperlog.ts';
import type { LogRecord } from '../../api/hyperlog.ts';
import { readFrames, writeFrames } from '../../api/hyperstream.ts';
import { StatusError, isStatus, notFound } from '../../api/status.ts';
import { INFO, createFakeHyperdState } from './hyperd-state.fake.ts';
import type { FakeHyperdOptions, FakeHyperdState } from './hyperd-state.fake.ts';

/**
 * hyperd's API over a unix socket without any VM behind it, for tests of its clients and for
 * thousands of pretend pods. What containers do is decided by their command line:
 *
 *   exit N | print TEXT… (then exit 0) | fail (cannot be started) | anything else runs until it
 *   is signalled, and ends with 128 + the signal; `stubborn` ends by KILL alone
 *
 * In `exec`: cat (stdin to stdout), exit N, print TEXT, has NAME=VALUE (in its environment).
 */
export interface FakeHyperd {
  readonly socketPath: string;
  readonly pods: ReadonlyMap<string, PodState>;
  /** Beside the default one, which pods get that name none. */
  readonly kernels: Set<string>;
  /** `METHOD path`, in order. */
  readonly requests: string[];
  readonly volumes: ReadonlyMap<string, VolumeFiles>;
  readonly specs: ReadonlyMap<string, HyperContainerSpec>;
  /** Owners' memory limits of waiting VMs, in MiB; `null` once one was taken back. */
  readonly poolLimits: ReadonlyMap<string, number | null>;
  /** Called when a pod is asked for, before there is one. */
  onCreatePod: () => void;
  /** What a hyperd would have after pods of this owner. */
  addKept(owner: string, waiting: number): void;
  addImage(reference: string, config?: Partial<ImageStatus['config']>): ImageStatus;
  /** What a pull of this reference answers instead of succeeding; undefined ends that. */
  failPull(reference: string, error: StatusError | undefined): void;
  /** From now on the image is for pulls with this password alone. */
  makePrivate(reference: string, password: string): void;
  /** What the next resizes are refused with; undefined ends that. */
  failResize(error: StatusError | undefined): void;
  setProbe(answer: (pod: string, port: number) => ProbeResult): void;
  /** Ends a container as if its process had ended. */
  exit(containerId: string, exitCode: number, message?: string): void;
  /** From now on its guest answers nothing: what needs it waits for ever. */
  freeze(pod: string): void;
  /** Ends a VM under its containers. */
  kill(pod: string, reason: PodState['reason'], message: string): void;
  print(containerId: string, text: string, stream?: 1 | 2): void;
  close(): Promise<void>;
}

export async function startFakeHyperd(options: FakeHyperdOptions): Promise<FakeHyperd> {
  const folder = mkdtempSync(join(tmpdir(), 'hyperd-fake-'));
  const socketPath = join(folder, 'hyperd.sock');
  const state = createFakeHyperdState(options);
  const sockets = new Set<Duplex>();
  const server = createServer((request, response) => {
    void answer(state, request, response);
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('upgrade', (request, socket, head) => void upgrade(state, request, socket, head));
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  return {
    socketPath,
    pods: state.pods,
    kernels: state.kernels,
    requests: state.requests,
    volumes: state.volumes,
    specs: state.specs,
    poolLimits: state.poolLimits,
    set onCreatePod(listener: () => void) {
      state.onCreatePod = listener;
    },
    addKept(owner, waiting) {
      const size = { owner, cpuCount: 1, memoryMib: 100 };
      const counts = { making: 0, wanted: waiting, hits: 0, misses: 0 };
      state.pools.push({ ...size, ...counts, network: '', waiting });
    },
    addImage: state.addImage,
    failPull: (reference, error) =>
      void (error ? state.pullErrors.set(reference, error) : state.pullErrors.delete(reference)),
    makePrivate: (reference, password) => void state.passwords.set(reference, password),
    failResize: (error) => void (state.resizeError = error),
    setProbe: (answerProbe) => void (state.probe = answerProbe),
    exit: (id, exitCode, message = '') => state.end(id, exitCode, 0, message),
    freeze: (id) => void state.frozen.add(id),
    kill: state.kill,
    print: state.print,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

type Handler = (
  state: FakeHyperdState,
  path: string[],
  query: URLSearchParams,
  body: () => unknown,
) => unknown;

/** What hyperd has to ask the guest for. */
const GUEST_PATHS = /\/(signal|probe|stats)$/;

const ROUTES: [string, RegExp, Handler][] = [
  ['GET', /^\/v1\/info$/, (state) => ({ ...INFO, podCount: state.pods.size })],
  ['GET', /^\/v1\/metrics$/, () => '# TYPE hyperd_vm_starts_total counter\n'],
  ['GET', /^\/v1\/images$/, (state) => state.images],
  ['GET', /^\/v1\/templates$/, (state) => state.templates],
  ['GET', /^\/v1\/pools$/, (state) => state.pools],
  [
    'PUT',
    /^\/v1\/owners\/([^/]+)\/pool$/,
    (state, [owner = ''], _query, body) => {
      const { memoryMib = null } = body() as PoolLimit;
      state.poolLimits.set(decodeURIComponent(owner), memoryMib);
    },
  ],
  [
    'DELETE',
    /^\/v1\/owners\/([^/]+)$/,
    (state, [owner = '']) => state.removeOwner(decodeURIComponent(owner)),
  ],
  ['POST', /^\/v1\/images\/pull$/, (state, _, _query, body) => state.pull(body() as PullImage)],
  ['GET', /^\/v1\/pods$/, (state) => [...state.pods.values()]],
  ['GET', /^\/v1\/pods\/([^/]+)$/, (state, [id = '']) => state.pod(id)],
  [
    'PUT',
    /^\/v1\/pods\/([^/]+)$/,
    (state, _, _query, body) => {
      state.onCreatePod();
      return state.createPod(body() as HyperPodSpec);
    },
  ],
  ['POST', /^\/v1\/pods\/([^/]+)\/stop$/, (state, [id = '']) => state.stopPod(id)],
  ['DELETE', /^\/v1\/pods\/([^/]+)$/, (state, [id = '']) => state.deletePod(id)],
  [
    'POST',
    /^\/v1\/pods\/([^/]+)\/probe$/,
    (state, [id = ''], _query, body) => state.probe(id, (body() as { port: number }).port),
  ],
  [
    'GET',
    /^\/v1\/pods\/([^/]+)\/stats$/,
    () => ({ cpuNanos: 1, memoryBytes: 1, hostMemoryBytes: 1, containers: [] }),
  ],
  [
    'PUT',
    /^\/v1\/pods\/([^/]+)\/volumes\/([^/]+)$/,
    (state, [id = '', name = ''], _query, body) => {
      const content = body() as VolumeFiles;
      const volume = state.pod(id).spec.volumes.find((each) => each.name === name);
      if (volume?.type !== 'files') throw notFound('', 'volumes', name);
      if (content.version > volume.content.version) volume.content = content;
      state.volumes.set(`${id}/${name}`, content);
    },
  ],
  [
    'PUT',
    /^\/v1\/pods\/([^/]+)\/resources$/,
    (state, [id = ''], _query, body) => state.setResources(id, body() as PodResources),
  ],
  [
    'PUT',
    /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)$/,
    (state, [id = ''], _query, body) => state.startContainer(id, body() as HyperContainerSpec),
  ],
  [
    'GET',
    /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)$/,
    (state, [, id = '']) => {
      const spec = state.specs.get(id);
      if (!spec) throw notFound('', 'containers', id);
      return spec;
    },
  ],
  [
    'DELETE',
    /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)$/,
    (state, [pod = '', id = '']) => state.deleteContainer(pod, id),
  ],
  [
    'POST',
    /^\/v1\/pods\/([^/]+)\/containers\/([^/]+)\/signal$/,
    (state, [, id = ''], query) => state.signal(id, query.get('signal') ?? ''),
  ],
];

async function answer(
  state: FakeHyperdState,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://hyperd');
  const method = request.method ?? 'GET';
  state.requests.push(`${method} ${url.pathname}`);
  const text = await readText(request);
  if (url.pathname === '/v1/events') return streamEvents(state, response);
  const log = /^\/v1\/pods\/[^/]+\/containers\/([^/]+)\/log$/.exec(url.pathname);
  if (log) return streamLog(state, log[1] as string, url.searchParams, response);
  try {
    const route = ROUTES.find(([verb, pattern]) => verb === method && pattern.test(url.pathname));
    if (!route)
      throw new StatusError('NotFound', `hyperd does not serve ${method} ${url.pathname}`);
    const path = (route[1].exec(url.pathname) ?? []).slice(1).map(decodeURIComponent);
    // Its connection is open for as long as whoever asked has patience.
    if (GUEST_PATHS.test(url.pathname) && state.frozen.has(path[0] ?? '')) return;
    const result = route[2](state, path, url.searchParams, () => JSON.parse(text) as unknown);
    const isText = typeof result === 'string';
    const contentType = isText ? 'text/plain' : 'application/json';
    response.writeHead(result === undefined ? 204 : 200, { 'content-type': contentType });
    response.end(isText ? result : result === undefined ? '' : JSON.stringify(result));
  } catch (error) {
    const status =
      error instanceof StatusError ? error : new StatusError('InternalError', String(error));
    response.writeHead(status.code, { 'content-type': 'application/json' });
    response.end(JSON.stringify(status.toStatus()));
  }
}

async function readText(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
  return Buffer.concat(parts).toString('utf8');
}

function streamEvents(state: FakeHyperdState, response: ServerResponse): void {
  const listener = (event: HyperdEvent) => void response.write(`${JSON.stringify(event)}\n`);
  state.listeners.add(listener);
  response.on('close', () => state.listeners.delete(listener));
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  response.flushHeaders();
}

async function streamLog(
  state: FakeHyperdState,
  id: string,
  query: URLSearchParams,
  response: ServerResponse,
): Promise<void> {
  const log = state.logs.get(id);
  if (!log) {
    response.writeHead(404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(notFound('', 'containers', id).toStatus()));
    return;
  }
  response.writeHead(200, { 'content-type': 'application/x-hyper-log' });
  response.flushHeaders();
  const sinceNs = BigInt(query.get('sinceMs') ?? 0) * 1_000_000n;
  const selected = log.records.filter((record) => record.timeNs >= sinceNs);
  const tail = query.get('tailLines');
  const lines = selected.filter((record) => !record.partial).length;
  let skip = tail === null ? 0 : Math.max(0, lines - Number(tail));
  let next = log.records.length - selected.length;
  for (;;) {
    for (; next < log.records.length; next += 1) {
      const record = log.records[next] as LogRecord;
      if (skip > 0) skip -= record.partial ? 0 : 1;
      else response.write(encodeLogRecord(record));
    }
    const isOver = query.get('follow') !== 'true' || isEnded(state, id);
    if (isOver || response.destroyed) break;
    await new Promise<void>((resolve) => {
      log.wake.add(resolve);
      response.once('close', resolve);
    });
  }
  response.end();
}

function isEnded(state: FakeHyperdState, id: string): boolean {
  try {
    return state.findContainer(id).state.exit !== null;
  } catch (error) {
    return isStatus(error, 'NotFound');
  }
}

async function upgrade(
  state: FakeHyperdState,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  socket.on('error', () => {});
  const path = new URL(request.url ?? '/', 'http://hyperd').pathname;
  state.requests.push(`${request.method} ${path}`);
  if (head.length > 0) socket.unshift(head);
  const body = await readUpgradeBody(request, socket);
  const protocol = request.headers.upgrade ?? '';
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`,
  );
  if (protocol === 'hyper-raw') {
    socket.pipe(socket);
    return;
  }
  const exec = path.endsWith('/exec')
    ? (JSON.parse(body.toString('utf8')) as ExecRequest)
    : undefined;
  const argv = exec?.process.argv ?? ['cat'];
  let exitCode = 0;
  if (argv[0] === 'exit') exitCode = Number(argv[1] ?? 0);
  if (argv[0] === 'has') exitCode = exec?.process.env.includes(argv[1] ?? '') ? 0 : 1;
  if (argv[0] === 'print') {
    await writeFrames(socket, STREAM_CHANNEL.stdout, Buffer.from(`${argv.slice(1).join(' ')}\n`));
  }
  if (argv[0] === 'cat') {
    try {
      // By hand: leaving a `for await` would destroy the socket, and the exit is still to come.
      const frames = readFrames(socket);
      for (let turn = await frames.next(); !turn.done; turn = await frames.next()) {
        const { channel, payload } = turn.value;
        if (channel !== STREAM_CHANNEL.stdin) continue;
        if (payload.length === 0) break;
        await writeFrames(socket, STREAM_CHANNEL.stdout, payload);
      }
    } catch {
      return;
    }
  }
  const finishedAtMs = 0;
  const exit: ProcessExit = {
    exitCode,
    signal: 0,
    oomKilled: false,
    reason: exitCode === 0 ? 'Completed' : 'Error',
    message: '',
    finishedAtMs,
  };
  await writeFrames(socket, STREAM_CHANNEL.exit, Buffer.from(JSON.stringify(exit))).catch(() => {});
  socket.end();
}

/** Newer versions of Node give an upgrade's body to the request, older ones to the socket. */
async function readUpgradeBody(request: IncomingMessage, socket: Duplex): Promise<Buffer> {
  const length = Number(request.headers['content-length'] ?? 0);
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    parts.push(part);
    size += part.length;
  }
  while (size < length) {
    const part = socket.read(length - size) as Buffer | null;
    if (part) {
      parts.push(part);
      size += part.length;
    } else await new Promise((resolve) => socket.once('readable', resolve));
  }
  return Buffer.concat(parts);
}
