import { StatusError, badRequest } from '../../api/status.ts';
import { parseAccept } from '../codec/negotiate.ts';
import { jsonReply, textReply } from '../codec/reply.ts';
import type { RequestContext, ResourceContext } from '../context.ts';
import { requireEntry } from '../registry/get.ts';
import type { ApiReply } from '../server/exchange.ts';
import { readTime } from '../server/query.ts';
import { DAY_MS } from './records.ts';
import { alignQuery, usageCsv, usageJson, usageRows } from './report.ts';
import type { UsageQuery } from './report.ts';

const DEFAULT_SPAN_MS: Record<UsageQuery['step'], number> = { hour: DAY_MS, day: 30 * DAY_MS };

/** GET of `tenants/{name}/usage`. */
export async function handleTenantUsage(context: ResourceContext): Promise<ApiReply> {
  const { name = '', uid = '' } = requireEntry(context).object.metadata;
  return usageReply(context, { tenant: name, uid });
}

/** GET of `/hypernetes/usage`: of all tenants, for operators; `tenant` names one, gone or not. */
export async function handleUsage(context: RequestContext): Promise<ApiReply> {
  const tenant = context.exchange.query.get('tenant');
  return usageReply(context, tenant ? { tenant } : {});
}

function usageReply(
  { server, exchange }: RequestContext,
  whose: Pick<UsageQuery, 'tenant' | 'uid'>,
): ApiReply {
  if (!server.usage) throw new StatusError('NotFound', 'this server does not meter use');
  const asked = readQuery(exchange.query, server.clock.nowMs());
  const query = alignQuery({ ...asked, ...whose });
  const rows = usageRows(server.store, server.usage, query);
  if (!wantsCsv(exchange.query, exchange.headers.accept)) {
    return jsonReply(200, usageJson(rows, query));
  }
  const reply = textReply(200, usageCsv(rows));
  reply.headers['content-type'] = 'text/csv; charset=utf-8';
  return reply;
}

function readQuery(query: URLSearchParams, nowMs: number) {
  const step = query.get('step') ?? 'hour';
  if (step !== 'hour' && step !== 'day') throw badRequest('step must be hour or day');
  const toMs = readTime(query, 'to') ?? nowMs;
  const fromMs = readTime(query, 'from') ?? toMs - DEFAULT_SPAN_MS[step];
  if (fromMs > toMs) throw badRequest('from must not be later than to');
  return { step, fromMs, toMs } as const;
}

function wantsCsv(query: URLSearchParams, accept: string | undefined): boolean {
  const format = query.get('format');
  if (format !== null && format !== 'json' && format !== 'csv') {
    throw badRequest('format must be json or csv');
  }
  return format === null ? parseAccept(accept ?? '')[0]?.type === 'text/csv' : format === 'csv';
}
