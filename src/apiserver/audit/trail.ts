import { ANONYMOUS_USER } from '../../auth/authenticators.ts';
import type { Clock } from '../../base/clock.ts';
import type { ApiExchange, ApiReply } from '../server/exchange.ts';
import type { RequestInfo } from '../server/path.ts';
import type { TenantDirectory } from '../tenancy/directory.ts';
import { auditLine } from './event.ts';
import type { AuditStage, RequestTrace } from './event.ts';
import { CLUSTER_LOG, UNAUTHENTICATED_LOG } from './log.ts';
import type { AuditLog, AuditTarget } from './log.ts';

/** Of the cluster's own logs, which nobody takes over. */
const NO_OWNER = 'none';

const READ_VERBS = new Set(['get', 'list', 'watch']);
/** Requests that last, and of which the beginning is recorded too. */
const STREAM_SUBRESOURCES = new Set(['attach', 'exec', 'portforward', 'proxy']);

/** What goes on with `follow`: logs of containers, and audit logs. */
const FOLLOWED = /^(?:log|audit|\/hypernetes\/audit)$/;

export interface AuditedRequest {
  exchange: ApiExchange;
  info: RequestInfo | undefined;
  trace: RequestTrace;
  auditId: string;
  receivedMs: number;
}

export interface AuditTrailOptions {
  log: AuditLog;
  tenants: Pick<TenantDirectory, 'get' | 'ofNamespace'>;
  clock: Clock;
}

/** Records an answered request: once, or at its beginning and its end if it lasts. */
export type AuditTrail = (request: AuditedRequest, reply: ApiReply) => void;

export function createAuditTrail({ log, tenants, clock }: AuditTrailOptions): AuditTrail {
  return (request, reply) => {
    if (isLeftOut(request, tenants)) return;
    const name = logOf(request, tenants);
    const owner = name.startsWith('_') ? NO_OWNER : tenants.get(name)?.metadata.uid;
    const target: AuditTarget = { log: name, owner: owner ?? NO_OWNER };
    const { auditId, exchange, info, trace, receivedMs } = request;
    const write = (stage: AuditStage) => {
      const nowMs = clock.nowMs();
      const code = reply.status;
      const subject = { auditId, stage, exchange, info, trace, code, receivedMs, nowMs };
      log.record(target, auditLine(subject));
    };
    if (!lasts(request, reply)) {
      write('ResponseComplete');
      return;
    }
    write('ResponseStarted');
    // The signal of a request aborts when its answer ends, however it ends.
    const finish = () => write('ResponseComplete');
    if (exchange.signal.aborted) finish();
    else exchange.signal.addEventListener('abort', finish, { once: true });
  };
}

function lasts({ info, exchange }: AuditedRequest, reply: ApiReply): boolean {
  if (reply.takeOver) return true;
  if (reply.status >= 300 || !info || reply.body instanceof Uint8Array) return false;
  const follows = exchange.query.has('follow') && FOLLOWED.test(info.subresource || info.path);
  return info.verb === 'watch' || follows || STREAM_SUBRESOURCES.has(info.subresource);
}

/**
 * The tenant's log for what its people do anywhere, and for what others are allowed to do in its
 * namespaces and to its Tenant. What others are refused is the cluster's: so nobody outside can
 * fill a tenant's log until it forgets.
 */
function logOf({ info, trace }: AuditedRequest, tenants: AuditTrailOptions['tenants']): string {
  const { user, authenticated, decision } = trace;
  const tenant = user?.tenant ?? authenticated?.tenant;
  // Operators may impersonate people of tenants that there are not.
  if (tenant !== undefined) return tenants.get(tenant) ? tenant : CLUSTER_LOG;
  if (!authenticated || authenticated === ANONYMOUS_USER) {
    return UNAUTHENTICATED_LOG;
  }
  return (decision?.decision === 'allow' && touched(info, tenants)) || CLUSTER_LOG;
}

function touched(
  info: RequestInfo | undefined,
  tenants: AuditTrailOptions['tenants'],
): string | undefined {
  if (!info) return undefined;
  if (info.namespace) return tenants.ofNamespace(info.namespace);
  if (info.resource !== 'tenants' || info.group !== 'hypernetes.io') return undefined;
  return info.name && tenants.get(info.name) ? info.name : undefined;
}

const HEALTH = /^\/(?:healthz|livez|readyz)(?:\/|$)/;

/** What happens all the time and says nothing: health, heartbeats, and the server's own reading. */
function isLeftOut(
  { exchange, info, trace }: AuditedRequest,
  tenants: AuditTrailOptions['tenants'],
): boolean {
  if (!info) return false;
  if (!info.isResourceRequest) return HEALTH.test(info.path);
  if (info.resource === 'leases' && info.namespace === 'kube-node-lease') return true;
  const isOwnPart = exchange.user !== undefined && trace.user?.tenant === undefined;
  return isOwnPart && READ_VERBS.has(info.verb) && !touched(info, tenants);
}
