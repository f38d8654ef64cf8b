/**
 * Places for VMs that start. More of them at once than there are processors for start no sooner all
 * together, but each so slowly that its guest runs into deadlines. A free place goes to the owner
 * who has the fewest, so that nobody waits behind all pods of somebody else.
 */
export interface Turns {
  /** Call what it resolves with to leave; again does nothing. Rejects when the signal aborts first. */
  take(owner: string, signal: AbortSignal): Promise<() => void>;
}

interface Waiter {
  owner: string;
  enter: () => void;
}

export function createTurns(places: number): Turns {
  const held = new Map<string, number>();
  const waiting: Waiter[] = [];
  let free = places;
  const change = (owner: string, by: number) => {
    const count = (held.get(owner) ?? 0) + by;
    if (count > 0) held.set(owner, count);
    else held.delete(owner);
    free -= by;
  };
  const admit = () => {
    while (free > 0 && waiting.length > 0) {
      const [next] = waiting.toSorted(
        (a, b) => (held.get(a.owner) ?? 0) - (held.get(b.owner) ?? 0),
      );
      if (next === undefined) return;
      waiting.splice(waiting.indexOf(next), 1);
      change(next.owner, 1);
      next.enter();
    }
  };
  const leaveOnce = (owner: string) => {
    let hasLeft = false;
    return () => {
      if (hasLeft) return;
      hasLeft = true;
      change(owner, -1);
      admit();
    };
  };
  return {
    take(owner, signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      return new Promise((resolve, reject) => {
        const abort = () => {
          waiting.splice(waiting.indexOf(waiter), 1);
          reject(signal.reason);
        };
        const enter = () => {
          signal.removeEventListener('abort', abort);
          resolve(leaveOnce(owner));
        };
        const waiter: Waiter = { owner, enter };
        signal.addEventListener('abort', abort, { once: true });
        waiting.push(waiter);
        admit();
      });
    },
  };
}
