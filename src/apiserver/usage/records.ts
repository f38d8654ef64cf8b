import type { KubeObject } from '../../api/object.ts';
import type { Key } from '../../store/store.ts';
import { addTimes, formatAmounts, nothing, parseAmounts } from './amounts.ts';
import type { Amounts } from './amounts.ts';

/** Internal: no API serves it. One object for a tenant and day, or month once it is long ago. */
export const USAGE_RECORDS = 'hypernetes.io/usagerecords';

/** A tenant; by its uid too, since a name may be used again. */
export interface Owner {
  tenant: string;
  uid: string;
}

/** Up to which write of a resource is accounted for. */
export type Revisions = Record<string, number>;

export interface UsageRecord extends KubeObject, Owner {
  /** `2026-01-31`, or `2026-01`. */
  period: string;
  /** Of a day by its hours, of a month by its days, each as two digits; those with none left out. */
  parts: Record<string, string>;
  /** What happened until then, and in these writes, is contained. */
  untilMs: number;
  revisions: Revisions;
}

export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;

export const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
export const hourOf = (ms: number): string => new Date(ms).toISOString().slice(11, 13);
export const periodStartMs = (period: string): number => Date.parse(period);
export const isDay = (period: string): boolean => period.length === 10;

/** Names of a tenant's records begin so; no tenant's name has a dot. */
export const recordPrefix = (tenant: string): string => `${tenant}.`;

export function recordKey({ tenant, uid }: Owner, period: string): Key {
  return { resource: USAGE_RECORDS, namespace: '', name: `${tenant}.${uid}.${period}` };
}

export function makeRecord(
  owner: Owner,
  period: string,
  parts: ReadonlyMap<string, Amounts>,
  upTo: Pick<UsageRecord, 'untilMs' | 'revisions'>,
): UsageRecord {
  const { tenant, uid } = owner;
  const texts = [...parts].sort().map(([part, amounts]) => [part, formatAmounts(amounts)]);
  return {
    ...{ apiVersion: 'hypernetes.io/v1', kind: 'UsageRecord' },
    metadata: { name: recordKey(owner, period).name },
    ...{ tenant, uid, period, parts: Object.fromEntries(texts) as Record<string, string> },
    untilMs: upTo.untilMs,
    revisions: { ...upTo.revisions },
  };
}

export function partsOf({ parts }: UsageRecord): Map<string, Amounts> {
  return new Map(Object.entries(parts).map(([part, text]) => [part, parseAmounts(text)]));
}

export function sumOf(parts: ReadonlyMap<string, Amounts>): Amounts {
  const sum = nothing();
  for (const amounts of parts.values()) addTimes(sum, amounts, 1n);
  return sum;
}
