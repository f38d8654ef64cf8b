import { entryId } from './entry.ts';
import type { StoredEntry } from './entry.ts';
import type { History } from './history.ts';
import type { OrderedMap } from './ordered.ts';
import type { Entry } from './store.ts';

export interface PageOptions {
  /** Inclusive. */
  from: string;
  /** Exclusive; undefined is the end. */
  to: string | undefined;
  limit?: number;
  atRevision: number;
}

export interface Page {
  entries: Entry[];
  remainingCount: number;
}

/**
 * A page of a resource as it was at a revision its history still covers. The present is a range of
 * the map; the past is the present, with every key that changed since put back to the state before
 * its first change.
 */
export function listAt(
  present: OrderedMap<StoredEntry>,
  history: History,
  options: PageOptions,
): Page {
  const { from, to, limit = Infinity } = options;
  const past = changedSince(history, options);
  const end = to === undefined ? present.size : present.rank(to);
  let totalCount = end - present.rank(from);
  for (const [id, entry] of past) {
    totalCount += (entry ? 1 : 0) - (present.get(id) ? 1 : 0);
  }
  const entries: Entry[] = [];
  for (const entry of merge(present, past, from, to)) {
    if (entries.length >= limit) break;
    entries.push(entry);
  }
  return { entries, remainingCount: totalCount - entries.length };
}

/** For each key in range that changed after the revision: what it was; undefined is absent. */
function changedSince(
  history: History,
  { from, to, atRevision }: PageOptions,
): Map<string, StoredEntry | undefined> {
  const past = new Map<string, StoredEntry | undefined>();
  for (const { entry, previous } of history.after(atRevision)) {
    const id = entryId(entry.key.namespace, entry.key.name);
    if (id < from || (to !== undefined && id >= to) || past.has(id)) continue;
    past.set(id, previous);
  }
  return past;
}

function* merge(
  present: OrderedMap<StoredEntry>,
  past: Map<string, StoredEntry | undefined>,
  from: string,
  to: string | undefined,
): Generator<StoredEntry> {
  const ids = [...past.keys()].sort();
  let next = 0;
  for (const [id, entry] of present.range(from, to)) {
    for (; next < ids.length && (ids[next] as string) <= id; next += 1) {
      const old = past.get(ids[next] as string);
      if (old) yield old;
    }
    if (!past.has(id)) yield entry;
  }
  for (; next < ids.length; next += 1) {
    const old = past.get(ids[next] as string);
    if (old) yield old;
  }
}
