import { Agent, request as requestHttp } from 'node:http';
import type { IncomingMessage, RequestOptions } from 'node:http';
import { Agent as TlsAgent, request as requestHttps } from 'node:https';
import { Stream } from 'node:stream';
import type { Duplex, Readable } from 'node:stream';
import { StatusError } from '../api/status.ts';
import type { Status } from '../api/status.ts';
import type {
  AttachRequest,
  ContainerState,
  CreatePod,
  ExecRequest,
  HyperContainerSpec,
  HyperPodSpec,
  HyperdEvent,
  HyperdInfo,
  ImageStatus,
  KernelStatus,
  PodResources,
  PodState,
  PodStats,
  PoolStatus,
  ProbeRequest,
  ProbeResult,
  PullImage,
  PushImage,
  TemplateStatus,
  TransferProgress,
  VmStatus,
  VolumeFiles,
} from '../api/hyperd.ts';
import { decodeLogRecords } from '../api/hyperlog.ts';
import type { LogRecord } from '../api/hyperlog.ts';

/** hyperd's API (`api/hyperd.ts`) as functions. All of them reject with `StatusError`. */
export interface HyperdClient {
  ping(signal?: AbortSignal): Promise<void>;
  info(signal?: AbortSignal): Promise<HyperdInfo>;
  /** Ends when the daemon goes away or the reader is too slow; list again then. */
  events(signal: AbortSignal, onOpen: () => void): AsyncIterable<HyperdEvent>;
  pullImage(request: PullImage, signal?: AbortSignal): Promise<ImageStatus>;
  /** The last one is `done` or `failed`. */
  pullProgress(request: PullImage, signal: AbortSignal): AsyncIterable<TransferProgress>;
  pushProgress(request: PushImage, signal: AbortSignal): AsyncIterable<TransferProgress>;
  images(): Promise<ImageStatus[]>;
  removeImage(reference: string): Promise<void>;
  loadImages(archive: Readable, references: string[], signal: AbortSignal): Promise<ImageStatus[]>;
  /** An archive. */
  saveImages(names: string[], signal: AbortSignal): Promise<Readable>;
  kernels(): Promise<KernelStatus[]>;
  templates(): Promise<TemplateStatus[]>;
  removeTemplate(id: string): Promise<void>;
  pools(): Promise<PoolStatus[]>;
  /** @param memoryMib undefined takes the limit back */
  limitPool(owner: string, memoryMib: number | undefined): Promise<void>;
  /** Templates, waiting VMs and images of an owner. @throws StatusError Conflict while it has pods */
  removeOwner(owner: string): Promise<void>;
  /** In Prometheus' text format. */
  metrics(): Promise<string>;
  vms(): Promise<VmStatus[]>;
  pods(): Promise<PodState[]>;
  pod(id: string): Promise<PodState>;
  createPod(spec: HyperPodSpec, signal?: AbortSignal): Promise<PodState>;
  /** @throws StatusError AlreadyExists */
  createNewPod(request: CreatePod): Promise<PodState>;
  startPod(id: string): Promise<PodState>;
  /** @param graceMs that containers have to end by their stop signals. @default 0 */
  stopPod(id: string, signal?: AbortSignal, graceMs?: number): Promise<PodState>;
  pausePod(id: string): Promise<PodState>;
  unpausePod(id: string): Promise<PodState>;
  deletePod(id: string, signal?: AbortSignal): Promise<void>;
  /** @throws StatusError Conflict where a container uses more memory than it is to have */
  setResources(pod: string, resources: PodResources, signal?: AbortSignal): Promise<PodState>;
  writeVolume(pod: string, name: string, content: VolumeFiles): Promise<void>;
  startContainer(
    pod: string,
    spec: HyperContainerSpec,
    signal?: AbortSignal,
  ): Promise<ContainerState>;
  /** As it was started. */
  containerSpec(pod: string, id: string): Promise<HyperContainerSpec>;
  /** @param until ends the wait for the guest's answer, not the signal */
  signalContainer(pod: string, id: string, name: string, until?: AbortSignal): Promise<void>;
  deleteContainer(pod: string, id: string): Promise<void>;
  logs(pod: string, id: string, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord>;
  exec(pod: string, id: string, request: ExecRequest, signal: AbortSignal): Promise<Duplex>;
  attach(pod: string, id: string, request: AttachRequest, signal: AbortSignal): Promise<Duplex>;
  connectPort(pod: string, port: number, signal: AbortSignal): Promise<Duplex>;
  probe(pod: string, request: ProbeRequest, signal?: AbortSignal): Promise<ProbeResult>;
  stats(pod: string): Promise<PodStats>;
  close(): void;
}

/** Where a hyperd is: the path of its socket, or its TLS door. */
export type HyperdAddress = string | HyperdTlsAddress;

export interface HyperdTlsAddress {
  host: string;
  port: number;
  /** PEM: who has signed its certificate, and what it is shown. */
  ca: string;
  cert: string;
  key: string;
}

export interface LogQuery {
  follow: boolean;
  tailLines?: number;
  sinceMs?: number;
}

/** Of an answer that is held in memory; a list of a thousand pods is some MiB. */
const BODY_BYTES_MAX = 64 << 20;
const SOCKETS_MAX = 256;
/** An event is some hundred bytes. */
const LINE_BYTES_MAX = 64 * 1024;

export function createHyperdClient(address: HyperdAddress): HyperdClient {
  const door = openDoor(address);
  const open = (method: string, path: string, body?: unknown, signal?: AbortSignal) =>
    send(door, { method, path: `/v1${path}` }, body, signal);
  const call = async <T>(
    method: string,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): Promise<T> => {
    const response = await open(method, path, body, signal);
    const text = await readAll(response);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  };
  const upgrade = (path: string, protocol: string, body: unknown, signal: AbortSignal) =>
    openUpgrade(door, `/v1${path}`, protocol, body, signal);
  async function* progress(
    path: string,
    request: unknown,
    signal: AbortSignal,
  ): AsyncGenerator<TransferProgress> {
    const response = await open('POST', `${path}?progress=true`, request, signal);
    for await (const line of lines(response)) yield JSON.parse(line) as TransferProgress;
  }
  const named = (names: string[]) =>
    new URLSearchParams(names.map((name) => ['reference', name])).toString();
  const pod = (id: string) => `/pods/${encodeURIComponent(id)}`;
  const container = (podId: string, id: string) =>
    `${pod(podId)}/containers/${encodeURIComponent(id)}`;
  return {
    ping: (signal) => call('GET', '/ping', undefined, signal),
    info: (signal) => call('GET', '/info', undefined, signal),
    async *events(signal, onOpen) {
      const response = await open('GET', '/events', undefined, signal);
      onOpen();
      for await (const line of lines(response)) yield JSON.parse(line) as HyperdEvent;
    },
    pullImage: (request, signal) => call('POST', '/images/pull', request, signal),
    pullProgress: (request, signal) => progress('/images/pull', request, signal),
    pushProgress: (request, signal) => progress('/images/push', request, signal),
    images: () => call('GET', '/images'),
    removeImage: (reference) => call('DELETE', `/images?${named([reference])}`),
    loadImages: (archive, references, signal) =>
      call('POST', `/images/load?${named(references)}`, archive, signal),
    saveImages: (names, signal) => open('GET', `/images/save?${named(names)}`, undefined, signal),
    kernels: () => call('GET', '/kernels'),
    templates: () => call('GET', '/templates'),
    removeTemplate: (id) => call('DELETE', `/templates/${encodeURIComponent(id)}`),
    pools: () => call('GET', '/pools'),
    limitPool: (owner, memoryMib) =>
      call('PUT', `/owners/${encodeURIComponent(owner)}/pool`, { memoryMib }),
    removeOwner: (owner) => call('DELETE', `/owners/${encodeURIComponent(owner)}`),
    metrics: async () => readAll(await open('GET', '/metrics')),
    vms: () => call('GET', '/vms'),
    pods: () => call('GET', '/pods'),
    pod: (id) => call('GET', pod(id)),
    createPod: (spec, signal) => call('PUT', pod(spec.id), spec, signal),
    createNewPod: (request) => call('POST', '/pods', request),
    startPod: (id) => call('POST', `${pod(id)}/start`),
    stopPod: (id, signal, graceMs = 0) =>
      call('POST', `${pod(id)}/stop?graceMs=${graceMs}`, undefined, signal),
    pausePod: (id) => call('POST', `${pod(id)}/pause`),
    unpausePod: (id) => call('POST', `${pod(id)}/unpause`),
    deletePod: (id, signal) => call('DELETE', pod(id), undefined, signal),
    setResources: (id, resources, signal) => call('PUT', `${pod(id)}/resources`, resources, signal),
    writeVolume: (id, name, content) =>
      call('PUT', `${pod(id)}/volumes/${encodeURIComponent(name)}`, content),
    startContainer: (id, spec, signal) => call('PUT', container(id, spec.id), spec, signal),
    containerSpec: (id, containerId) => call('GET', container(id, containerId)),
    signalContainer(id, containerId, name, until) {
      const path = `${container(id, containerId)}/signal?signal=${encodeURIComponent(name)}`;
      return call('POST', path, undefined, until);
    },
    deleteContainer: (id, containerId) => call('DELETE', container(id, containerId)),
    async *logs(id, containerId, query, signal) {
      const search = new URLSearchParams({ follow: String(query.follow) });
      if (query.tailLines !== undefined) search.set('tailLines', String(query.tailLines));
      if (query.sinceMs !== undefined) search.set('sinceMs', String(query.sinceMs));
      const path = `${container(id, containerId)}/log?${search}`;
      yield* decodeLogRecords(await open('GET', path, undefined, signal));
    },
    exec: (id, containerId, request, signal) =>
      upgrade(`${container(id, containerId)}/exec`, 'hyper-stream', request, signal),
    attach: (id, containerId, request, signal) =>
      upgrade(`${container(id, containerId)}/attach`, 'hyper-stream', request, signal),
    connectPort: (id, port, signal) =>
      upgrade(`${pod(id)}/port/${port}`, 'hyper-raw', undefined, signal),
    probe: (id, request, signal) => call('POST', `${pod(id)}/probe`, request, signal),
    stats: (id) => call('GET', `${pod(id)}/stats`),
    close: () => door.agent.destroy(),
  };
}

interface Door {
  agent: Agent | TlsAgent;
  request: typeof requestHttp;
  /** Where it is, for each request. */
  place: RequestOptions;
}

function openDoor(address: HyperdAddress): Door {
  const options = { keepAlive: true, maxSockets: SOCKETS_MAX };
  if (typeof address === 'string') {
    return { agent: new Agent(options), request: requestHttp, place: { socketPath: address } };
  }
  const { host, port, ...tls } = address;
  const agent = new TlsAgent({ ...options, ...tls });
  return { agent, request: requestHttps, place: { host, port, ...tls } as RequestOptions };
}

/** @param body a stream as it is; anything else as JSON */
function send(
  door: Door,
  options: { method: string; path: string },
  body: unknown,
  signal?: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const stream = body instanceof Stream ? (body as Readable) : undefined;
    const text = body === undefined || stream ? undefined : JSON.stringify(body);
    const headers = text === undefined ? {} : contentHeaders(text);
    const { agent, place } = door;
    const request = door.request({
      ...place,
      ...options,
      agent,
      headers,
      ...(signal ? { signal } : {}),
    });
    request.on('error', (error) => reject(unreachable(options.path, error)));
    request.on('response', (response) => {
      if ((response.statusCode ?? 500) < 400) resolve(response);
      else {
        const refused = readError(response).finally(() => {
          // It takes no more of this.
          if (stream) request.destroy();
        });
        refused.then(reject, reject);
      }
    });
    if (!stream) {
      request.end(text);
      return;
    }
    stream.on('error', (error) => request.destroy(error));
    stream.pipe(request);
  });
}

function openUpgrade(
  door: Door,
  path: string,
  protocol: string,
  body: unknown,
  signal: AbortSignal,
): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? '' : JSON.stringify(body);
    const request = door.request({
      ...door.place,
      path,
      agent: false,
      method: 'POST',
      headers: { ...contentHeaders(text), connection: 'Upgrade', upgrade: protocol },
      signal,
    });
    request.on('error', (error) => reject(unreachable(path, error)));
    request.on('response', (response) => readError(response).then(reject, reject));
    request.on('upgrade', (_response, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      // The end of what hyperd sends is not the end of what it takes.
      socket.allowHalfOpen = true;
      const abort = () => socket.destroy();
      signal.addEventListener('abort', abort, { once: true });
      socket.on('close', () => signal.removeEventListener('abort', abort));
      socket.on('error', () => {});
      resolve(socket);
    });
    request.end(text);
  });
}

function contentHeaders(text: string): Record<string, string> {
  return { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) };
}

function unreachable(path: string, error: Error): Error {
  if (error.name === 'AbortError') return error;
  const message = `Cannot reach hyperd for ${path}: ${error.message}`;
  return new StatusError('ServiceUnavailable', message, { cause: error });
}

async function readError(response: IncomingMessage): Promise<StatusError> {
  const text = await readAll(response);
  try {
    return StatusError.from(JSON.parse(text) as Partial<Status>);
  } catch {
    const code = response.statusCode ?? 500;
    return new StatusError('InternalError', text.slice(0, 500) || `HTTP status ${code}`, { code });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > BODY_BYTES_MAX) {
      response.destroy();
      throw new StatusError(
        'InternalError',
        `hyperd's answer has more than ${BODY_BYTES_MAX} bytes`,
      );
    }
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

async function* lines(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      const line = Buffer.concat([...parts, rest.subarray(0, end)]).toString('utf8');
      parts = [];
      size = 0;
      rest = rest.subarray(end + 1);
      if (line.trim() !== '') yield line;
    }
    size += rest.length;
    if (size > LINE_BYTES_MAX)
      throw new StatusError('InternalError', 'event of hyperd is too long');
    if (rest.length > 0) parts.push(rest);
  }
}
