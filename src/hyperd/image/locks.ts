/**
 * Takes one of a limited number of places, in order of asking. Call what it returns to leave;
 * calling it again does nothing. Rejects with the signal's reason when that aborts first.
 */
export type Acquire = (signal?: AbortSignal) => Promise<() => void>;

/** At most `places` holders at a time; the others wait in order. */
export function createSemaphore(places: number): Acquire {
  let free = places;
  const waiting: (() => void)[] = [];
  const leave = (): void => {
    const next = waiting.shift();
    if (next) next();
    else free += 1;
  };
  const leaveOnce = (): (() => void) => {
    let left = false;
    return () => {
      if (left) return;
      left = true;
      leave();
    };
  };
  return (signal) => {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (free > 0) {
      free -= 1;
      return Promise.resolve(leaveOnce());
    }
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        signal?.removeEventListener('abort', abort);
        resolve(leaveOnce());
      };
      const abort = (): void => {
        const index = waiting.indexOf(enter);
        if (index >= 0) waiting.splice(index, 1);
        reject(signal?.reason);
      };
      waiting.push(enter);
      signal?.addEventListener('abort', abort, { once: true });
    });
  };
}

/** One holder per key. */
export type Lock = (key: string, signal?: AbortSignal) => Promise<() => void>;

export function createLock(): Lock {
  const held = new Map<string, { acquire: Acquire; users: number }>();
  return async (key, signal) => {
    const entry = held.get(key) ?? { acquire: createSemaphore(1), users: 0 };
    held.set(key, entry);
    entry.users += 1;
    const done = (): void => {
      entry.users -= 1;
      if (entry.users === 0) held.delete(key);
    };
    try {
      const leave = await entry.acquire(signal);
      let left = false;
      return () => {
        if (left) return;
        left = true;
        leave();
        done();
      };
    } catch (error) {
      done();
      throw error;
    }
  };
}
