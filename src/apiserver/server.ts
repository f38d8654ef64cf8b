import type { AddressInfo } from 'node:net';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Authenticator, Authorizer, UserInfo } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import type { SchemaTable } from '../api/schema/schema.ts';
import { productTable } from '../api/schema/own-kinds.ts';
import type { NodeAuthorizer } from '../auth/node-authorizer.ts';
import type { Rbac } from '../auth/rbac.ts';
import type { ServiceAccountTokens } from '../auth/service-account-tokens.ts';
import { createClient } from '../client/client.ts';
import type { Transport } from '../client/transport.ts';
import type { Store } from '../store/store.ts';
import { createAdmissionChain } from './admission/chain.ts';
import { admissionPlugins } from './admission/plugins.ts';
import type { AuditLog } from './audit/log.ts';
import { createAuditTrail } from './audit/trail.ts';
import { ensureObjects, systemObjects } from './bootstrap.ts';
import type { ServerContext } from './context.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import type { ApiServerLimits } from './limits.ts';
import { createKubeletConnector } from './proxy/kubelet.ts';
import type { KubeletTls } from './proxy/kubelet.ts';
import { storeResource } from './registry/resource.ts';
import { createServiceAllocator } from './registry/strategies/service-allocator.ts';
import { dispatch } from './server/dispatch.ts';
import { follow } from './server/follower.ts';
import { listen } from './server/listener.ts';
import type { Listener, TlsMaterial } from './server/listener.ts';
import { createLoopback } from './server/loopback.ts';
import { expireEvents } from './registry/event-expiry.ts';
import { createMetrics } from './server/metrics.ts';
import { createShares } from './server/shares.ts';
import { withMounts } from './server/mounts.ts';
import type { Mount } from './server/mounts.ts';
import { createTurns } from './server/turns.ts';
import { createPipeline } from './server/pipeline.ts';
import { createTenantDirectory, TENANTS_RESOURCE } from './tenancy/directory.ts';
import type { TenantDirectory } from './tenancy/directory.ts';
import { createQuotaLedger } from './tenancy/quota-ledger.ts';
import { keepQuotas } from './tenancy/quota-status.ts';
import { createVmOverhead } from './tenancy/vm-overhead.ts';
import { createWarmPools } from './tenancy/warm-pools.ts';
import type { UsageMeter } from './usage/meter.ts';
import { createLineCache } from './watch/line-cache.ts';

/** Kubernetes' own period for its Service. */
const SYSTEM_OBJECTS_INTERVAL_MS = 10_000;

const DEFAULT_SERVICE_CIDR = '10.96.0.0/16';

export interface ApiServerOptions {
  store: Store;
  clock: Clock;
  random: Random;
  log: Log;
  /** Asked in order; the first that recognises a credential decides. */
  authenticators: readonly Authenticator[];
  /** The union of all that decide, `rbac` and `nodeAuthorizer` among them where there are any. */
  authorizer: Authorizer;
  /** Kept up to date by the server, which also needs it against escalation and for rule reviews. */
  rbac?: Rbac;
  /** Kept up to date by the server. */
  tenants?: TenantDirectory;
  /** Kept up to date by the server. */
  nodeAuthorizer?: NodeAuthorizer;
  /** Without it no service account tokens are issued. */
  tokens?: ServiceAccountTokens;
  /** Without it there are no logs, exec, attach, port-forward and node proxy. */
  kubelet?: KubeletTls;
  /** @default Kubernetes' kinds and ours */
  schema?: SchemaTable;
  /** @default DEFAULT_LIMITS, for each that is not given */
  limits?: Partial<ApiServerLimits>;
  /** Where clients and pods reach the server. @default 127.0.0.1:6443 */
  advertise?: { host: string; port: number };
  /** @default DEFAULT_SERVICE_CIDR */
  serviceCidr?: string;
  /** Without it no requests are recorded. */
  audit?: AuditLog;
  /** Without it nobody is told what tenants use. */
  usage?: UsageMeter;
  /** APIs of other kinds on the same port. */
  mounts?: readonly Mount[];
  /** Created at start where they are missing, after the system's own: roles and bindings. */
  bootstrapObjects?: readonly KubeObject[];
}

export interface ApiServer {
  /** Opens the port. May be called for several addresses. */
  listen(options: { host: string; port: number; tls: TlsMaterial }): Promise<AddressInfo>;
  /** A transport that acts as `user` and skips sockets and TLS, but nothing else. */
  loopback(user: UserInfo): Transport;
  /** Ends every request, watch and stream. The store stays open: it is the caller's. */
  close(): Promise<void>;
}

const RBAC_RESOURCES = ['roles', 'clusterroles', 'rolebindings', 'clusterrolebindings'].map(
  (resource) => `rbac.authorization.k8s.io/${resource}`,
);
const NODE_AUTHORIZER_RESOURCES = [
  'pods',
  'persistentvolumeclaims',
  'storage.k8s.io/volumeattachments',
];

/** Who makes the objects that a cluster starts with. */
const BOOTSTRAP_USER: UserInfo = {
  name: 'system:apiserver',
  uid: '',
  groups: ['system:masters'],
  extra: {},
};

/** An API server over `store`, with the objects in place that every cluster starts with. */
export async function createApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const closing = new AbortController();
  const server = createContext(options, closing.signal);
  const { store, log } = options;
  const indexing = { signal: closing.signal, log };
  follow(store, [TENANTS_RESOURCE], server.tenants, indexing);
  follow(store, ['nodes'], server.vmOverhead, indexing);
  follow(store, ['nodes'], server.warmPools, indexing);
  // One that is suspended has no VMs that wait.
  const look = ({ metadata }: KubeObject) => server.warmPools.onChange(metadata.name ?? '');
  follow(store, [TENANTS_RESOURCE], { set: look, delete: look }, indexing);
  server.quotas.start((resource, index) => follow(store, [resource], index, indexing));
  if (options.rbac) follow(store, RBAC_RESOURCES, options.rbac, indexing);
  if (options.nodeAuthorizer) {
    follow(store, NODE_AUTHORIZER_RESOURCES, options.nodeAuthorizer, indexing);
  }
  const handle = createPipeline(server, dispatch);
  const handleAll = withMounts(server, options.mounts ?? [], handle);
  const listeners: Listener[] = [];
  const apiServer: ApiServer = {
    async listen({ host, port, tls }) {
      assert(!closing.signal.aborted, 'the API server is closed');
      const { limits, clock } = server;
      const listener = await listen({ host, port, tls, limits, clock, log, handle: handleAll });
      listeners.push(listener);
      server.metrics.connectionCount = () =>
        listeners.reduce((sum, one) => sum + one.connectionCount(), 0);
      return listener.address;
    },
    loopback: (user) => createLoopback(user, handle),
    async close() {
      closing.abort();
      await Promise.all(listeners.map((listener) => listener.close()));
    },
  };
  await bootstrap(apiServer, server, options);
  const { clock, limits } = server;
  const { quotas, tenants, warmPools } = server;
  const client = createClient(apiServer.loopback(BOOTSTRAP_USER), { userAgent: 'apiserver' });
  const keeping = { client, quotas, warmPools, tenants, clock, log, signal: closing.signal };
  void keepQuotas(keeping);
  void expireEvents({ store, limits, clock, log, signal: closing.signal });
  return apiServer;
}

function createContext(options: ApiServerOptions, closing: AbortSignal): ServerContext {
  const { store, clock, random, log } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const { host, port } = advertised(options);
  const schema = options.schema ?? productTable();
  const tenants = options.tenants ?? createTenantDirectory(store);
  return {
    store,
    schema,
    clock,
    random,
    log,
    limits,
    authenticators: options.authenticators,
    authorizer: options.authorizer,
    rbac: options.rbac,
    tokens: options.tokens,
    admission: createAdmissionChain(admissionPlugins()),
    services: createServiceAllocator({
      cidr: options.serviceCidr ?? DEFAULT_SERVICE_CIDR,
      services: store.list('services').entries,
      random,
    }),
    tenants,
    audit: options.audit && createAuditTrail({ log: options.audit, tenants, clock }),
    auditLog: options.audit,
    usage: options.usage,
    quotas: createQuotaLedger(store, (resource) => servedResources(schema).has(resource)),
    vmOverhead: createVmOverhead(),
    warmPools: createWarmPools(),
    metrics: createMetrics(),
    watchLines: createLineCache(limits.watchLineBytes),
    shares: {
      reads: createShares(limits.readsInFlight, limits.readsInFlightPerTenant),
      writes: createShares(limits.writesInFlight, limits.writesInFlightPerTenant),
      watches: createShares(limits.watches, limits.watchesPerTenant),
      audits: createShares(limits.auditReaders, limits.auditReadersPerTenant),
    },
    turns: createTurns(),
    advertiseAddress: `${host}:${port}`,
    kubelet:
      options.kubelet &&
      createKubeletConnector({ tls: options.kubelet, limits, clock, log, closing }),
    closing,
  };
}

/** The store's names of all resources. */
function servedResources(schema: SchemaTable): Set<string> {
  return new Set(schema.rows().map((row) => storeResource(schema, row)));
}

function advertised(options: ApiServerOptions): { host: string; port: number } {
  return options.advertise ?? { host: '127.0.0.1', port: 6443 };
}

/**
 * Creates what every cluster has, and brings it back when somebody deletes it, for as long as the
 * server runs: without the `kubernetes` Service, say, no pod finds the API.
 */
async function bootstrap(
  apiServer: ApiServer,
  server: ServerContext,
  options: ApiServerOptions,
): Promise<void> {
  const serviceCidr = options.serviceCidr ?? DEFAULT_SERVICE_CIDR;
  const system = systemObjects({ serviceCidr, advertise: advertised(options) });
  const transport = apiServer.loopback(BOOTSTRAP_USER);
  await ensureObjects(transport, server.schema, [...system, ...(options.bootstrapObjects ?? [])]);
  void (async () => {
    while (!server.closing.aborted) {
      try {
        await server.clock.sleep(SYSTEM_OBJECTS_INTERVAL_MS, server.closing);
        await ensureObjects(transport, server.schema, system);
      } catch (error) {
        if (server.closing.aborted) break;
        server.log.warn('Cannot restore what a cluster needs', { error: describeError(error) });
      }
    }
    await transport.close();
  })();
}
