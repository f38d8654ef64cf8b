import type { Store } from '../../store/store.ts';
import { addTimes, areEqual, nothing } from './amounts.ts';
import type { Amounts } from './amounts.ts';
import { DAY_MS, HOUR_MS, dayOf, hourOf, makeRecord, partsOf, periodStartMs } from './records.ts';
import { recordKey } from './records.ts';
import type { Owner, Revisions, UsageRecord } from './records.ts';

/** What one tenant uses, integrated over time. */
export interface Account {
  readonly owner: Owner;
  /** At this moment, all objects together. */
  readonly rates: Amounts;
  /** Up to when the use of all objects is contained. */
  readonly untilMs: number;
  /** What the store's records of this tenant contained when it was opened. */
  readonly opened: { untilMs: number; revisions: Revisions };
  /** Since it was opened, for counters. */
  readonly total: Amounts;
  /** From now on an object uses this; nothing when it is gone. @returns whether that is new */
  set(id: string, rates: Amounts, nowMs: number): boolean;
  /** Adds what an object used in a stretch of the past. */
  add(rates: Amounts, fromMs: number, toMs: number): void;
  /** Adds what has been measured. */
  addMeasured(amounts: Amounts, atMs: number): void;
  /** Contains everything up to now. */
  integrate(nowMs: number): void;
  /** Ids of what uses anything. */
  ids(): Iterable<string>;
  /** Hours of days that have changed since they were written, by day. */
  unwritten(): ReadonlyMap<string, ReadonlyMap<string, Amounts>>;
  /** Writes what has changed, oldest first, so that a crash in between leaves no gap. */
  write(revisions: Revisions): Promise<void>;
}

interface Day {
  hours: Map<string, Amounts>;
  /** Grows with each change. */
  version: number;
  writtenVersion: number;
}

export interface AccountOptions {
  store: Store;
  owner: Owner;
  opened: Account['opened'];
  nowMs: number;
}

export function createAccount({ store, owner, opened, nowMs }: AccountOptions): Account {
  const rates = nothing();
  const total = nothing();
  const using = new Map<string, Amounts>();
  const days = new Map<string, Day>();
  let untilMs = nowMs;
  let writtenRevisions = opened.revisions;

  const dayAt = (ms: number): Day => {
    const name = dayOf(ms);
    let day = days.get(name);
    if (!day) {
      const stored = store.get(recordKey(owner, name))?.object as UsageRecord | undefined;
      day = { hours: stored ? partsOf(stored) : new Map(), version: 0, writtenVersion: 0 };
      days.set(name, day);
    }
    return day;
  };

  const addAt = (atMs: number, more: Amounts, times: bigint) => {
    const day = dayAt(atMs);
    const hour = hourOf(atMs);
    const sum = day.hours.get(hour) ?? nothing();
    day.hours.set(hour, sum);
    addTimes(sum, more, times);
    addTimes(total, more, times);
    day.version += 1;
  };

  const add = (more: Amounts, fromMs: number, toMs: number) => {
    for (let startMs = fromMs; startMs < toMs;) {
      const endMs = Math.min(toMs, startMs - (startMs % HOUR_MS) + HOUR_MS);
      addAt(startMs, more, BigInt(endMs - startMs));
      startMs = endMs;
    }
  };

  const integrate = (toMs: number) => {
    if (toMs <= untilMs) return;
    if (using.size > 0) add(rates, untilMs, toMs);
    untilMs = toMs;
  };

  const changed = () =>
    [...days].filter(([, { version, writtenVersion }]) => version > writtenVersion);

  return {
    owner,
    rates,
    total,
    opened,
    get untilMs() {
      return untilMs;
    },
    add,
    addMeasured: (amounts, atMs) => addAt(atMs, amounts, 1n),
    integrate,
    ids: () => using.keys(),

    set(id, next, atMs) {
      const before = using.get(id) ?? nothing();
      if (areEqual(before, next)) return false;
      integrate(atMs);
      addTimes(rates, before, -1n);
      addTimes(rates, next, 1n);
      if (areEqual(next, nothing())) using.delete(id);
      else using.set(id, next);
      // Even where no time has passed: what is known of the store's writes is news.
      dayAt(untilMs).version += 1;
      return true;
    },

    unwritten: () => new Map(changed().map(([name, { hours }]) => [name, hours])),

    async write(upToRevisions) {
      const revisions = { ...upToRevisions };
      const nowDay = dayOf(untilMs);
      const news = changed().sort(([a], [b]) => (a < b ? -1 : 1));
      const records = news.map(([name, day]) => {
        const endMs = Math.min(untilMs, periodStartMs(name) + DAY_MS);
        // The last one alone tells that the writes are contained: after a crash before it is there,
        // they are looked at once more, and time that is contained is not counted again.
        const contained = day === news.at(-1)?.[1] ? revisions : writtenRevisions;
        const upTo = { untilMs: endMs, revisions: contained };
        return { day, version: day.version, record: makeRecord(owner, name, day.hours, upTo) };
      });
      for (const { day, version, record } of records) {
        await store.mutate(recordKey(owner, record.period), () => record);
        day.writtenVersion = version;
      }
      writtenRevisions = revisions;
      for (const [name, { version, writtenVersion }] of days) {
        if (name < nowDay && version === writtenVersion) days.delete(name);
      }
    },
  };
}
