import { StatusError, badRequest } from '../../api/status.ts';
import { bytesReply } from '../codec/reply.ts';
import type { RequestContext, ResourceContext } from '../context.ts';
import { requireEntry } from '../registry/get.ts';
import type { ApiReply } from '../server/exchange.ts';
import { isTrue } from '../server/path.ts';
import { readTime } from '../server/query.ts';
import { CLUSTER_LOG, LOG_NAME } from './log.ts';
import type { AuditLog } from './log.ts';
import { AUDIT_READ_LIMIT_MAX, readAudit } from './read.ts';
import type { AuditQuery } from './read.ts';

/** GET of `tenants/{name}/audit`: what was recorded since the Tenant of now was made. */
export async function handleTenantAudit(context: ResourceContext): Promise<ApiReply> {
  const { name = '', uid = '' } = requireEntry(context).object.metadata;
  const tenantView = context.user.tenant !== undefined;
  return auditReply(context, name, { owner: uid, tenantView });
}

/**
 * GET of `/hypernetes/audit`, for operators: the cluster's own log or, by `log`, another one: of a
 * tenant's name with what is left of those that had it before, or of who was not authenticated.
 */
export async function handleAudit(context: RequestContext): Promise<ApiReply> {
  const name = context.exchange.query.get('log') ?? CLUSTER_LOG;
  if (!LOG_NAME.test(name)) throw badRequest('log must be the name of a tenant, or _cluster');
  return auditReply(context, name, {});
}

function auditReply(
  context: RequestContext,
  name: string,
  view: Pick<AuditQuery, 'owner' | 'tenantView'>,
): ApiReply {
  const { server, exchange, user } = context;
  if (!server.auditLog) throw new StatusError('NotFound', 'this server keeps no audit log');
  const signal = AbortSignal.any([exchange.signal, server.closing]);
  const query = { ...readQuery(exchange.query), ...view, signal };
  if (!server.shares.audits.hasRoom(user)) {
    const message = 'Too many readers of audit logs, please try again later.';
    throw new StatusError('TooManyRequests', message, { details: { retryAfterSeconds: 1 } });
  }
  const body = read(context, server.auditLog, name, query);
  return bytesReply(200, body, 'application/x-ndjson');
}

/** Takes a place among the readers once it is read, so that it gives it back. */
async function* read(
  { server, user }: RequestContext,
  log: AuditLog,
  name: string,
  query: AuditQuery,
): AsyncIterable<Uint8Array> {
  const leave = server.shares.audits.take(user);
  try {
    if (leave) yield* readAudit(log, name, query);
  } finally {
    leave?.();
  }
}

function readQuery(query: URLSearchParams): Omit<AuditQuery, 'signal'> {
  const [sinceMs, untilMs] = [readTime(query, 'since'), readTime(query, 'until')];
  const limit = query.get('limit');
  const count = Number(limit);
  if (limit !== null && !(Number.isInteger(count) && count > 0 && count <= AUDIT_READ_LIMIT_MAX)) {
    throw badRequest(`limit must be a whole number from 1 to ${AUDIT_READ_LIMIT_MAX}`);
  }
  const [verb, user] = [query.get('verb'), query.get('user')];
  return {
    follow: isTrue(query.get('follow')),
    ...(sinceMs === undefined ? {} : { sinceMs }),
    ...(untilMs === undefined ? {} : { untilMs }),
    ...(limit === null ? {} : { limit: count }),
    ...(verb ? { verb } : {}),
    ...(user ? { user } : {}),
  };
}
