import type { StoredEntry } from './entry.ts';
import type { Resource } from './resource.ts';
import type { Key, PartitionOf } from './store.ts';

/** What a store does that is not told otherwise: everything belongs to the cluster. */
export const clusterOwnsAll: PartitionOf = () => '';

/**
 * Decides the partitions of entries that were written before there were any. All of them are there
 * by now, so that one may be decided by another that was written later. Of entries that are gone,
 * the last version decides; all versions of an object belong to the same partition.
 *
 * @returns the entries decided now, in order of revision
 */
export function decidePartitions(
  resources: ReadonlyMap<string, Resource>,
  get: (key: Key) => StoredEntry | undefined,
  partitionOf: PartitionOf,
): StoredEntry[] {
  const decided: StoredEntry[] = [];
  const newest = (key: Key) => {
    const entry = get(key);
    if (entry) decide(entry);
    return entry;
  };
  const decide = (entry: StoredEntry) => {
    if (entry.hasPartition) return;
    // Who asks for it meanwhile, because it depends on itself, learns that it is the cluster's.
    entry.assign('');
    entry.assign(partitionOf(entry.key, entry.parse(), newest));
    decided.push(entry);
  };
  for (const resource of resources.values()) {
    for (const entry of resource.entries()) decide(entry);
    for (const { entry, previous } of resource.history.after(0).reverse()) {
      decide(entry);
      if (!previous || previous.hasPartition) continue;
      previous.assign(entry.partition);
      decided.push(previous);
    }
  }
  return decided.sort((a, b) => a.revision - b.revision);
}
