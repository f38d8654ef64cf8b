import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import type { Authorizer, UserInfo } from '../../api/auth.ts';
import type { KubeObject, KubeList, WatchEvent } from '../../api/object.ts';
import type { Status } from '../../api/status.ts';
import type { ApiResponse, Transport } from '../../client/transport.ts';
import { tenantPartition } from '../../auth/tenant-scope.ts';
import { createMemoryStore } from '../../store/memory.ts';
import type { MemoryStoreOptions } from '../../store/memory.ts';
import type { Store } from '../../store/store.ts';
import { createApiServer } from '../server.ts';
import type { ApiServer, ApiServerOptions } from '../server.ts';

/** An API server in memory, with a clock that stands still, for tests of its behaviour. */
export interface Harness extends AsyncDisposable {
  server: ApiServer;
  store: Store;
  clock: FakeClock;
  transport: Transport;
  /** Sends a request as the administrator and reads the whole answer. */
  send(method: string, target: string, body?: unknown, more?: SendOptions): Promise<Answer>;
  /** The same, for answers that have to be a success; throws otherwise. */
  want<T = KubeObject>(
    method: string,
    target: string,
    body?: unknown,
    more?: SendOptions,
  ): Promise<T>;
  watch(target: string, more?: SendOptions): Promise<Watcher>;
}

export interface SendOptions {
  type?: string;
  headers?: Record<string, string>;
  as?: Transport;
}

export interface Answer {
  code: number;
  headers: Record<string, string>;
  text: string;
  /** Any JSON: what it is follows from the request. */
  body: Partial<KubeObject> & Partial<Status> & Partial<KubeList> & Record<string, never>;
}

export interface Watcher {
  next(): Promise<WatchEvent & { done?: boolean }>;
  stop(): Promise<void>;
}

const ADMIN: UserInfo = {
  name: 'admin',
  uid: '',
  groups: ['system:masters'],
  extra: {},
};

const allowAll: Authorizer = { authorize: () => ({ decision: 'allow', reason: '' }) };

export interface HarnessOptions extends Partial<ApiServerOptions> {
  storeLimits?: MemoryStoreOptions['limits'];
  /** Options that need the store. */
  setUp?: (store: Store) => Partial<ApiServerOptions>;
}

export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  const clock = new FakeClock();
  const { storeLimits, setUp, ...serverOptions } = options;
  const store = createMemoryStore({
    ...{ clock, partitionOf: tenantPartition },
    ...(storeLimits ? { limits: storeLimits } : {}),
  });
  const given = setUp?.(store) ?? {};
  const server = await createApiServer({
    store,
    clock,
    random: seededRandom(1),
    log: silentLog,
    authenticators: [],
    authorizer: allowAll,
    ...serverOptions,
    ...given,
  });
  const transport = server.loopback(ADMIN);
  const harness: Harness = {
    server,
    store,
    clock,
    transport,
    send: (method, target, body, more) => send(transport, method, target, body, more),
    async want<T>(method: string, target: string, body?: unknown, more?: SendOptions) {
      const answer = await send(transport, method, target, body, more);
      if (answer.code >= 300) throw new Error(`${method} ${target}: ${answer.code} ${answer.text}`);
      return answer.body as unknown as T;
    },
    watch: (target, more) => watch(transport, target, more),
    async [Symbol.asyncDispose]() {
      await server.close();
      await store.close();
    },
  };
  const account = { metadata: { name: 'default' } };
  await harness.want('POST', '/api/v1/namespaces/default/serviceaccounts', account);
  return harness;
}

function request(method: string, target: string, body: unknown, more: SendOptions) {
  const [path = '', search] = target.split('?');
  const query: Record<string, string[]> = {};
  for (const [name, value] of new URLSearchParams(search)) (query[name] ??= []).push(value);
  const type = more.type ?? 'application/json';
  const bytes = typeof body === 'string' ? body : JSON.stringify(body);
  const headers = { ...(body === undefined ? {} : { 'content-type': type }), ...more.headers };
  return { method, path, query, headers, ...(body === undefined ? {} : { body: bytes }) };
}

async function send(
  transport: Transport,
  method: string,
  target: string,
  body: unknown,
  more: SendOptions = {},
): Promise<Answer> {
  const sender = more.as ?? transport;
  const response = await sender.request(request(method, target, body, more));
  const text = await readAll(response);
  // A watch's answer is several documents.
  const isOne = text !== '' && !text.trimEnd().includes('\n');
  const isJson = isOne && /[/+]json/.test(response.headers['content-type'] ?? '');
  const { status: code, headers } = response;
  return { code, headers, text, body: isJson ? JSON.parse(text) : {} };
}

async function readAll(response: ApiResponse): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of response.body) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

async function watch(
  transport: Transport,
  target: string,
  more: SendOptions = {},
): Promise<Watcher> {
  const response = await (more.as ?? transport).request(request('GET', target, undefined, more));
  if (response.status !== 200) {
    throw new Error(`watch ${target}: ${response.status} ${await readAll(response)}`);
  }
  const iterator = response.body[Symbol.asyncIterator]();
  let rest = '';
  return {
    async next() {
      for (;;) {
        const end = rest.indexOf('\n');
        if (end >= 0) {
          const line = rest.slice(0, end);
          rest = rest.slice(end + 1);
          return JSON.parse(line) as WatchEvent;
        }
        const chunk = await iterator.next();
        if (chunk.done) return { done: true } as never;
        rest += Buffer.from(chunk.value).toString('utf8');
      }
    },
    async stop() {
      await iterator.return?.();
    },
  };
}

export function pod(name: string, more: Record<string, unknown> = {}): KubeObject {
  const { metadata, spec, ...rest } = more as { metadata?: object; spec?: object };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, ...metadata },
    spec: { containers: [{ name: 'c', image: 'busybox' }], ...spec },
    ...rest,
  };
}

export function configMap(name: string, more: Record<string, unknown> = {}): KubeObject {
  const { metadata, ...rest } = more as { metadata?: object };
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, ...metadata }, ...rest };
}

export function deployment(name: string, replicas = 1): KubeObject {
  const labels = { app: name };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: { containers: [{ name: 'c', image: 'busybox' }] },
      },
    },
  };
}

export const NS = '/api/v1/namespaces/default';
