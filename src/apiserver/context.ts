import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Authenticator, Authorizer, UserInfo } from '../api/auth.ts';
import type { ResourceRow, SchemaTable } from '../api/schema/schema.ts';
import type { Rbac } from '../auth/rbac.ts';
import type { ServiceAccountTokens } from '../auth/service-account-tokens.ts';
import type { Store } from '../store/store.ts';
import type { AdmissionChain } from './admission/chain.ts';
import type { RequestTrace } from './audit/event.ts';
import type { AuditLog } from './audit/log.ts';
import type { AuditTrail } from './audit/trail.ts';
import type { ApiServerLimits } from './limits.ts';
import type { Metrics } from './server/metrics.ts';
import type { ApiExchange, ApiReply } from './server/exchange.ts';
import type { RequestInfo } from './server/path.ts';
import type { Shares } from './server/shares.ts';
import type { Turns } from './server/turns.ts';
import type { UsageMeter } from './usage/meter.ts';
import type { LineCache } from './watch/line-cache.ts';
import type { TenantDirectory } from './tenancy/directory.ts';
import type { QuotaLedger } from './tenancy/quota-ledger.ts';
import type { VmOverhead } from './tenancy/vm-overhead.ts';
import type { WarmPools } from './tenancy/warm-pools.ts';
import type { ServiceAllocator } from './registry/strategies/service-allocator.ts';

/** What the parts of one API server share. Made once, by `createApiServer`. */
export interface ServerContext {
  store: Store;
  schema: SchemaTable;
  clock: Clock;
  random: Random;
  log: Log;
  limits: ApiServerLimits;
  authenticators: readonly Authenticator[];
  authorizer: Authorizer;
  rbac: Rbac | undefined;
  tokens: ServiceAccountTokens | undefined;
  admission: AdmissionChain;
  services: ServiceAllocator;
  tenants: TenantDirectory;
  quotas: QuotaLedger;
  vmOverhead: VmOverhead;
  warmPools: WarmPools;
  metrics: Metrics;
  /** Where there is one, every answered request is told to it. */
  audit: AuditTrail | undefined;
  auditLog: AuditLog | undefined;
  usage: UsageMeter | undefined;
  watchLines: LineCache;
  /** Of requests in flight, by whether they read or write, and of watches. */
  shares: Record<'reads' | 'writes' | 'watches' | 'audits', Shares>;
  turns: Turns;
  /** Host and port at which clients reach the server. */
  advertiseAddress: string;
  kubelet: KubeletConnector | undefined;
  /** Aborts when the server closes: everything that runs on ends then. */
  closing: AbortSignal;
}

/** How node agents are reached. Made by `proxy/`. */
export interface KubeletConnector {
  /** `user` is whose share of the streams it counts for. */
  proxy(
    node: NodeAddress,
    exchange: ApiExchange,
    path: string,
    query: string,
    user: UserInfo,
  ): Promise<ApiReply>;
}

export interface NodeAddress {
  name: string;
  host: string;
  port: number;
}

/** One request on its way, after authentication and authorization. */
export interface RequestContext {
  server: ServerContext;
  exchange: ApiExchange;
  info: RequestInfo;
  user: UserInfo;
  /** Sent with the answer as `Warning` headers. */
  warnings: string[];
  auditId: string;
  /** For the audit log. */
  trace: RequestTrace;
}

/** A request for a resource that exists. */
export interface ResourceContext extends RequestContext {
  row: ResourceRow;
}

export type ResourceHandler = (context: ResourceContext) => Promise<ApiReply>;
