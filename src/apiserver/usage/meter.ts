import type { Clock, Timer } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import { CompactedError, SlowWatcherError } from '../../store/store.ts';
import type { Entry, Store, StoreEvent } from '../../store/store.ts';
import type { TenantDirectory } from '../tenancy/directory.ts';
import { createAccount } from './account.ts';
import type { Account } from './account.ts';
import { isNothing, nothing } from './amounts.ts';
import type { Amounts } from './amounts.ts';
import { HOURS_KEPT_DAYS, compactRecords } from './compaction.ts';
import { METERED } from './metered.ts';
import type { Metered } from './metered.ts';
import { DAY_MS, USAGE_RECORDS, dayOf } from './records.ts';
import type { Owner, UsageRecord } from './records.ts';

/**
 * What every tenant uses, integrated from the store's changes as they happen. It is written a
 * moment after each change, and else from time to time. After a crash the rest is made up from
 * what the objects, and the store's history of those that are gone, tell of their times.
 */
export interface UsageMeter {
  /** Everything that is known of a tenant up to now is in the store or in its accounts. */
  accounts(tenant?: string): Account[];
  /** Takes what has been measured of a tenant's pod. It is written with what comes next. */
  addMeasured(tenant: string, amounts: Amounts): void;
  /** Resolves when what has happened is durable. */
  flush(): Promise<void>;
  /** Writes what is not written, and ends. The store is still needed. */
  close(): Promise<void>;
}

export interface UsageMeterOptions {
  store: Store;
  tenants: Pick<TenantDirectory, 'get'>;
  clock: Clock;
  log: Log;
}

/** From a change to when it is written: others that come meanwhile cost no write of their own. */
const WRITE_DELAY_MS = 1000;
/** While nothing changes. */
const WRITE_INTERVAL_MS = 60_000;
/** An object that says it began longer ago is not believed. */
const PAST_MAX_MS = HOURS_KEPT_DAYS * DAY_MS;
const NO_UID = 'none';

export function startUsageMeter({ store, tenants, clock, log }: UsageMeterOptions): UsageMeter {
  const stopping = new AbortController();
  const accounts = new Map<string, Account>();
  /** Which account an object's use is on: its tenant may be gone before it is. */
  const accountOfObject = new Map<string, Account>();
  const processed: Record<string, number> = {};
  const changed = new Set<Account>();
  const hasCaughtUp = new Map<string, () => boolean>();
  const opened = openRecords(store);
  const startedMs = clock.nowMs();
  let timer: Timer | undefined;
  let writing = Promise.resolve();
  let compactedDay = '';

  const accountOf = (tenant: string): Account => {
    const owner: Owner = { tenant, uid: tenants.get(tenant)?.metadata.uid ?? NO_UID };
    const id = `${tenant}/${owner.uid}`;
    let account = accounts.get(id);
    if (!account) {
      const before = opened.get(id) ?? { untilMs: 0, revisions: {} };
      account = createAccount({ store, owner, opened: before, nowMs: startedMs });
      accounts.set(id, account);
    }
    return account;
  };

  const idOf = ({ key }: Entry) => `${key.resource}/${key.namespace}/${key.name}`;

  const set = (id: string, entry: Entry | undefined, rates = nothing(), atMs = clock.nowMs()) => {
    const partition = entry?.partition;
    const account = accountOfObject.get(id) ?? (partition ? accountOf(partition) : undefined);
    if (!account?.set(id, rates, atMs)) return;
    if (isNothing(rates)) accountOfObject.delete(id);
    else accountOfObject.set(id, account);
    changed.add(account);
    timer ??= clock.after(WRITE_DELAY_MS, () => void flush());
  };

  /** What an object used since its account was written and before this meter began. */
  const makeUp = (entry: Entry, { startMs, ended, ratesOf }: Metered, isGone: boolean) => {
    if (!entry.partition) return;
    const account = accountOf(entry.partition);
    const live = ratesOf(entry.object);
    const isRunning = !isGone && !isNothing(live);
    const { rates, endMs } = isRunning ? { rates: live, endMs: startedMs } : ended(entry.object);
    if (isNothing(rates)) return;
    const earliestMs = Math.max(account.opened.untilMs, startedMs - PAST_MAX_MS);
    const fromMs = Math.max(earliestMs, startMs(entry.object));
    // One that does not say when it went, went when the meter was last known to run.
    account.add(rates, fromMs, Math.min(startedMs, endMs ?? opened.lastMs));
    changed.add(account);
  };

  const begin = (metered: Metered): number => {
    const { entries, revision } = store.list(metered.resource);
    for (const entry of entries) {
      makeUp(entry, metered, false);
      set(idOf(entry), entry, metered.ratesOf(entry.object), startedMs);
    }
    return revision;
  };

  const resync = (metered: Metered): number => {
    const { entries, revision } = store.list(metered.resource);
    const present = new Set(entries.map(idOf));
    const isOwn = (id: string) => id.startsWith(`${metered.resource}/`);
    for (const id of [...accountOfObject.keys()].filter(isOwn)) {
      if (!present.has(id)) set(id, undefined);
    }
    for (const entry of entries) set(idOf(entry), entry, metered.ratesOf(entry.object));
    return revision;
  };

  const apply = (event: StoreEvent, metered: Metered, begunRevision: number) => {
    const { entry, revision, type } = event;
    const { resource } = metered;
    if (revision > begunRevision) {
      const isGone = type === 'DELETED';
      set(idOf(entry), entry, isGone ? nothing() : metered.ratesOf(entry.object));
    } else if (type === 'DELETED' && entry.partition) {
      const { revisions } = accountOf(entry.partition).opened;
      if (revision > (revisions[resource] ?? 0)) makeUp(entry, metered, true);
    }
    processed[resource] = Math.max(processed[resource] ?? 0, revision);
  };

  const follow = async (metered: Metered, begunRevision: number) => {
    const { resource } = metered;
    const { signal } = stopping;
    // What is still known of the past tells of objects that came to an end in it.
    let afterRevision = oldestRevision(store, resource);
    let liveRevision = begunRevision;
    while (!signal.aborted) {
      try {
        const events = store.watch(resource, { afterRevision, signal });
        hasCaughtUp.set(resource, () => events.progressRevision >= begunRevision);
        for await (const event of events) {
          apply(event, metered, liveRevision);
        }
        return;
      } catch (error) {
        if (!(error instanceof SlowWatcherError) && !(error instanceof CompactedError)) throw error;
        afterRevision = liveRevision = processed[resource] = resync(metered);
      }
    }
  };

  const writeAll = async () => {
    // What is written counts as complete: not as long as the past is being looked at.
    if (![...hasCaughtUp.values()].every((isDone) => isDone())) return;
    const due = [...changed];
    changed.clear();
    for (const account of due) {
      try {
        account.integrate(clock.nowMs());
        await account.write(processed);
      } catch (error) {
        changed.add(account);
        const { tenant } = account.owner;
        log.warn('Cannot write what a tenant has used', { tenant, error: describeError(error) });
      }
    }
  };

  const flush = () => {
    timer?.cancel();
    timer = undefined;
    writing = writing.then(writeAll);
    return writing;
  };

  const compact = async () => {
    const today = dayOf(clock.nowMs());
    if (compactedDay === today) return;
    await compactRecords(store, clock.nowMs());
    compactedDay = today;
  };

  let ticking: Timer;
  const tick = () => {
    for (const account of accounts.values()) if (!isNothing(account.rates)) changed.add(account);
    writing = writing
      .then(writeAll)
      .then(compact)
      .catch((error) => {
        log.warn('Cannot tidy what tenants have used', { error: describeError(error) });
      });
    ticking = clock.after(WRITE_INTERVAL_MS, tick);
  };

  for (const metered of METERED) {
    const revision = begin(metered);
    processed[metered.resource] = oldestRevision(store, metered.resource);
    follow(metered, revision).catch((error) => {
      if (stopping.signal.aborted) return;
      log.error('Cannot follow what tenants use', { error: describeError(error) });
      // Use that is not metered would be given away unnoticed: rather end.
      setImmediate(() => {
        throw error;
      });
    });
  }
  ticking = clock.after(WRITE_INTERVAL_MS, tick);
  if (changed.size > 0) timer ??= clock.after(WRITE_DELAY_MS, () => void flush());

  return {
    accounts(tenant) {
      const found = [...accounts.values()];
      const wanted = tenant === undefined ? found : found.filter((a) => a.owner.tenant === tenant);
      for (const account of wanted) account.integrate(clock.nowMs());
      return wanted;
    },
    addMeasured(tenant, amounts) {
      const account = accountOf(tenant);
      account.addMeasured(amounts, clock.nowMs());
      changed.add(account);
    },
    flush,
    async close() {
      stopping.abort();
      ticking.cancel();
      for (const account of accounts.values()) if (!isNothing(account.rates)) changed.add(account);
      await flush();
    },
  };
}

/** From where on the history of a resource is kept: others may have lost more of theirs. */
function oldestRevision(store: Store, resource: string): number {
  const probe = new AbortController();
  try {
    store.watch(resource, { afterRevision: 0, signal: probe.signal });
    return 0;
  } catch (error) {
    if (error instanceof CompactedError) return error.compactRevision;
    throw error;
  } finally {
    probe.abort();
  }
}

type Opened = Map<string, Pick<UsageRecord, 'untilMs' | 'revisions'>> & { lastMs: number };

/** The newest record of each tenant, and the latest time that any of them contains. */
function openRecords(store: Store): Opened {
  const newest = Object.assign(new Map(), { lastMs: 0 }) as Opened;
  for (const { object } of store.list(USAGE_RECORDS).entries) {
    const { tenant, uid, untilMs, revisions } = object as UsageRecord;
    const id = `${tenant}/${uid}`;
    if (untilMs > (newest.get(id)?.untilMs ?? -1)) newest.set(id, { untilMs, revisions });
    newest.lastMs = Math.max(newest.lastMs, untilMs);
  }
  return newest;
}
