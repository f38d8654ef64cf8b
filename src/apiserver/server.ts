import type { AddressInfo } from 'node:net';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Authenticator, Authorizer, UserInfo } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { builtinTable } from '../api/schema/table.ts';
import type { SchemaTable } from '../api/schema/schema.ts';
import type { Rbac } from '../auth/rbac.ts';
import type { ServiceAccountTokens } from '../auth/service-account-tokens.ts';
import type { Transport } from '../client/transport.ts';
import type { Store } from '../store/store.ts';
import { createAdmissionChain } from './admission/chain.ts';
import type { ServerContext } from './context.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import type { ApiServerLimits } from './limits.ts';
import { dispatch } from './server/dispatch.ts';
import { listen } from './server/listener.ts';
import type { Listener, TlsMaterial } from './server/listener.ts';
import { createLoopback } from './server/loopback.ts';
import { createMetrics } from './server/metrics.ts';
import { createPipeline } from './server/pipeline.ts';

export interface ApiServerOptions {
  store: Store;
  clock: Clock;
  random: Random;
  log: Log;
  /** Asked in order. */
  authenticators: readonly Authenticator[];
  authorizer: Authorizer;
  rbac?: Rbac;
  tokens?: ServiceAccountTokens;
  /** @default the built-in kinds */
  schema?: SchemaTable;
  limits?: Partial<ApiServerLimits>;
  advertise?: { host: string; port: number };
  bootstrapObjects?: KubeObject[];
}

export interface ApiServer {
  listen(options: { host: string; port: number; tls: TlsMaterial }): Promise<AddressInfo>;
  loopback(user: UserInfo): Transport;
  close(): Promise<void>;
}

export async function createApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const closing = new AbortController();
  const server: ServerContext = {
    store: options.store,
    schema: options.schema ?? builtinTable(),
    clock: options.clock,
    random: options.random,
    log: options.log,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    authenticators: options.authenticators,
    authorizer: options.authorizer,
    rbac: options.rbac,
    tokens: options.tokens,
    admission: createAdmissionChain([]),
    services: { size: 0 },
    metrics: createMetrics(),
    advertiseAddress: '127.0.0.1:6443',
    kubelet: undefined,
    closing: closing.signal,
  };
  const handle = createPipeline(server, dispatch);
  const listeners: Listener[] = [];
  return {
    async listen({ host, port, tls }) {
      const { limits, clock, log } = server;
      const listener = await listen({ host, port, tls, limits, clock, log, handle });
      listeners.push(listener);
      server.metrics.connectionCount = listener.connectionCount;
      return listener.address;
    },
    loopback: (user) => createLoopback(user, handle),
    async close() {
      closing.abort();
      await Promise.all(listeners.map((listener) => listener.close()));
    },
  };
}
