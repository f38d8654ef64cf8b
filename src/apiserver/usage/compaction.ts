import { DELETE } from '../../store/store.ts';
import type { Store } from '../../store/store.ts';
import {
  DAY_MS,
  USAGE_RECORDS,
  isDay,
  makeRecord,
  partsOf,
  periodStartMs,
  recordKey,
  sumOf,
} from './records.ts';
import type { UsageRecord } from './records.ts';

/** Hours are kept so long, days longer. */
export const HOURS_KEPT_DAYS = 60;
const DAYS_KEPT_DAYS = 400;
const MONTH_DAYS_MAX = 31;

/**
 * Puts days that are long past into their month, as one sum each, and removes months that are out of
 * date. A day's sum is written before its hours go: whoever reads prefers the hours.
 */
export async function compactRecords(store: Store, nowMs: number): Promise<void> {
  for (const { key, object } of store.list(USAGE_RECORDS).entries) {
    const record = object as UsageRecord;
    const ageDays = (nowMs - periodStartMs(record.period)) / DAY_MS;
    if (isDay(record.period)) {
      if (ageDays <= HOURS_KEPT_DAYS + 1) continue;
      await addToMonth(store, record);
      await store.mutate(key, () => DELETE);
    } else if (ageDays > DAYS_KEPT_DAYS + MONTH_DAYS_MAX) {
      await store.mutate(key, () => DELETE);
    }
  }
}

async function addToMonth(store: Store, day: UsageRecord): Promise<void> {
  const month = day.period.slice(0, 7);
  await store.mutate(recordKey(day, month), (current) => {
    const before = current?.object as UsageRecord | undefined;
    const parts = before ? partsOf(before) : new Map();
    parts.set(day.period.slice(8), sumOf(partsOf(day)));
    const last = before && before.untilMs > day.untilMs ? before : day;
    return makeRecord(day, month, parts, last);
  });
}
