/**
 * The lines that were last written to watchers, so that an event is encoded once for all watchers
 * of one representation. Bounded: an event that every watcher has seen is of no more use.
 */
export interface LineCache {
  /** `owner` is what the line shows: an entry, or an event. */
  get(owner: object, key: string, make: () => Uint8Array): Uint8Array;
}

export function createLineCache(limitBytes: number): LineCache {
  /** In the order in which they came. */
  const lines = new Map<object, Map<string, Uint8Array>>();
  let sizeBytes = 0;
  const dropOldest = () => {
    for (const [owner, known] of lines) {
      if (sizeBytes <= limitBytes) return;
      lines.delete(owner);
      for (const line of known.values()) sizeBytes -= line.length;
    }
  };
  return {
    get(owner, key, make) {
      let known = lines.get(owner);
      const found = known?.get(key);
      if (found) return found;
      const line = make();
      if (!known) lines.set(owner, (known = new Map()));
      known.set(key, line);
      sizeBytes += line.length;
      if (sizeBytes > limitBytes) dropOldest();
      return line;
    },
  };
}
