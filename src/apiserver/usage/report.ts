import { badRequest } from '../../api/status.ts';
import { rfc3339 } from '../../base/clock.ts';
import type { Store } from '../../store/store.ts';
import { SHOWN, addTimes, formatDecimal, isNothing, nothing } from './amounts.ts';
import type { Amounts } from './amounts.ts';
import type { UsageMeter } from './meter.ts';
import {
  DAY_MS,
  HOUR_MS,
  USAGE_RECORDS,
  dayOf,
  isDay,
  partsOf,
  periodStartMs,
  recordPrefix,
  sumOf,
} from './records.ts';
import type { Owner, UsageRecord } from './records.ts';

/** What a tenant used in a stretch of time. */
export interface UsageRow {
  owner: Owner;
  startMs: number;
  endMs: number;
  amounts: Amounts;
}

export interface UsageQuery {
  /** Of one tenant, else of all, those that are gone included. */
  tenant?: string;
  /** Only of the tenant that has the name now. */
  uid?: string;
  fromMs: number;
  toMs: number;
  step: 'hour' | 'day';
}

const USAGE_ROWS_MAX = 50_000;
const PAGE_LENGTH = 500;

/**
 * Rows with any use, by tenant and time. Hours that are kept as days only come as days; what has
 * happened up to this moment is contained.
 *
 * @throws StatusError 400 when there are more than USAGE_ROWS_MAX
 */
export function usageRows(store: Store, meter: UsageMeter, query: UsageQuery): UsageRow[] {
  const days = new Map<string, { owner: Owner; day: string; parts: Map<string, Amounts> }>();
  const put = (owner: Owner, day: string, parts: Map<string, Amounts>) =>
    days.set(`${owner.tenant}.${owner.uid}.${day}`, { owner, day, parts });
  const isWanted = ({ tenant, uid }: Owner) =>
    (query.tenant ?? tenant) === tenant && (query.uid ?? uid) === uid;
  const records = recordsOf(store, query.tenant).filter(isWanted);
  // Months first: days that are there as well are the finer ones.
  for (const record of records.filter(({ period }) => !isDay(period))) {
    for (const [day, amounts] of partsOf(record)) {
      put(record, `${record.period}-${day}`, new Map([['', amounts]]));
    }
  }
  for (const record of records)
    if (isDay(record.period)) put(record, record.period, partsOf(record));
  for (const account of meter.accounts(query.tenant)) {
    if (!isWanted(account.owner)) continue;
    for (const [day, hours] of account.unwritten()) put(account.owner, day, new Map(hours));
  }
  const rows: UsageRow[] = [];
  for (const { owner, day, parts } of days.values()) {
    for (const row of rowsOf(owner, day, parts, query)) rows.push(row);
    if (rows.length > USAGE_ROWS_MAX) {
      throw badRequest(`more than ${USAGE_ROWS_MAX} rows: ask for less time or for days`);
    }
  }
  const order = ({ owner, startMs }: UsageRow) =>
    `${owner.tenant} ${owner.uid} ${String(startMs).padStart(15, '0')}`;
  return rows
    .map((row) => ({ row, by: order(row) }))
    .sort((a, b) => (a.by < b.by ? -1 : 1))
    .map(({ row }) => row);
}

function rowsOf(
  owner: Owner,
  day: string,
  parts: Map<string, Amounts>,
  { fromMs, toMs, step }: UsageQuery,
): UsageRow[] {
  const dayMs = periodStartMs(day);
  const isWhole = step === 'day' || parts.has('');
  const whole = { owner, startMs: dayMs, endMs: dayMs + DAY_MS, amounts: sumOf(parts) };
  const rows = isWhole
    ? [whole]
    : [...parts].map(([hour, amounts]) => {
        const startMs = dayMs + Number(hour) * HOUR_MS;
        return { owner, startMs, endMs: startMs + HOUR_MS, amounts };
      });
  return rows.filter(
    ({ startMs, endMs, amounts }) => startMs < toMs && endMs > fromMs && !isNothing(amounts),
  );
}

function recordsOf(store: Store, tenant: string | undefined): UsageRecord[] {
  if (tenant === undefined) {
    return store.list(USAGE_RECORDS).entries.map(({ object }) => object as UsageRecord);
  }
  const prefix = recordPrefix(tenant);
  const found: UsageRecord[] = [];
  for (let name = prefix; ;) {
    const after = { namespace: '', name };
    const { entries } = store.list(USAGE_RECORDS, { after, limit: PAGE_LENGTH });
    for (const { key, object } of entries) {
      if (!key.name.startsWith(prefix)) return found;
      found.push(object as UsageRecord);
    }
    if (entries.length < PAGE_LENGTH) return found;
    name = (entries.at(-1) as (typeof entries)[number]).key.name;
  }
}

/** Amounts are texts: they may be larger than what JSON's numbers hold exactly. */
function shownAmounts(amounts: Amounts): Record<(typeof SHOWN)[number]['field'], string> {
  const shown = SHOWN.map(({ name, field, decimals }) => [
    field,
    formatDecimal(amounts[name], decimals),
  ]);
  return Object.fromEntries(shown) as ReturnType<typeof shownAmounts>;
}

export function usageJson(rows: UsageRow[], query: UsageQuery) {
  const total = nothing();
  for (const { amounts } of rows) addTimes(total, amounts, 1n);
  return {
    kind: 'TenantUsage',
    apiVersion: 'hypernetes.io/v1',
    metadata: query.tenant === undefined ? {} : { name: query.tenant },
    ...{ from: rfc3339(query.fromMs), to: rfc3339(query.toMs), step: query.step },
    items: rows.map(({ owner, startMs, endMs, amounts }) => ({
      ...{ tenant: owner.tenant, tenantUID: owner.uid },
      ...{ start: rfc3339(startMs), end: rfc3339(endMs) },
      ...shownAmounts(amounts),
    })),
    total: shownAmounts(total),
  };
}

/** RFC 4180. Nothing in it needs quotes: names are DNS labels. */
export function usageCsv(rows: UsageRow[]): string {
  const header = ['tenant', 'tenantUID', 'start', 'end', ...SHOWN.map(({ field }) => field)];
  const lines = rows.map(({ owner, startMs, endMs, amounts }) => [
    ...[owner.tenant, owner.uid, rfc3339(startMs), rfc3339(endMs)],
    ...Object.values(shownAmounts(amounts)),
  ]);
  return [header, ...lines].map((cells) => `${cells.join(',')}\r\n`).join('');
}

const startOf = (ms: number, step: UsageQuery['step']) =>
  step === 'day' ? periodStartMs(dayOf(ms)) : ms - (ms % HOUR_MS);

/** Whole steps: an hour or day that is touched is contained. */
export function alignQuery(query: UsageQuery): UsageQuery {
  const stepMs = query.step === 'day' ? DAY_MS : HOUR_MS;
  const fromMs = startOf(query.fromMs, query.step);
  return { ...query, fromMs, toMs: startOf(query.toMs + stepMs - 1, query.step) };
}
