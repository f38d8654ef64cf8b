import type { Clock, Timer } from '../base/clock.ts';

/**
 * The pods that wait for a node, in kube-scheduler's three places:
 *
 *   active ──taken──> (being placed) ──no node──> unschedulable ──cluster changed──> backoff
 *     ^                                                  └── after UNSCHEDULABLE_MAX_MS ──┐
 *     └────────────────────────── back-off over ───────────────────────── backoff <───────┘
 *
 * Active pods come by priority, then by age.
 */
export interface SchedulingQueue {
  /** A new or changed pod. Its back-off, if any, starts anew when `changed`. */
  add(key: string, priority: number): void;
  remove(key: string): void;
  /** The next pod; rejects when the signal aborts. */
  take(signal: AbortSignal): Promise<string>;
  /** No node took it. It waits for `moveAll`, or for a while. */
  unschedulable(key: string): void;
  /** Placing it failed for a passing reason: tried again after its back-off. */
  retry(key: string): void;
  /** The cluster changed so that waiting pods may fit now. */
  moveAll(): void;
  readonly sizes: { active: number; backoff: number; unschedulable: number };
}

const BACKOFF_MIN_MS = 1_000;
const BACKOFF_MAX_MS = 10_000;
/** kube-scheduler looks again after five minutes, should an event have been missed. */
const UNSCHEDULABLE_MAX_MS = 5 * 60_000;

interface Waiting {
  key: string;
  priority: number;
  order: number;
  attempts: number;
  place: 'active' | 'taken' | 'backoff' | 'unschedulable';
  timer: Timer | undefined;
  /** Something changed while it was being placed: a failure then is no reason to sleep. */
  movedWhileTaken: boolean;
}

export function createSchedulingQueue(clock: Clock): SchedulingQueue {
  const pods = new Map<string, Waiting>();
  const active: Waiting[] = [];
  let order = 0;
  let wake: (() => void) | undefined;

  const before = (a: Waiting, b: Waiting) =>
    a.priority !== b.priority ? a.priority > b.priority : a.order < b.order;

  const activate = (pod: Waiting) => {
    pod.timer?.cancel();
    pod.place = 'active';
    push(active, pod, before);
    wake?.();
  };

  const backOff = (pod: Waiting) => {
    pod.timer?.cancel();
    pod.place = 'backoff';
    const delayMs = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.max(0, pod.attempts - 1));
    pod.timer = clock.after(delayMs, () => activate(pod));
  };

  const count = (place: Waiting['place']) =>
    [...pods.values()].filter((pod) => pod.place === place).length;

  return {
    add(key, priority) {
      const known = pods.get(key);
      if (known) {
        known.priority = priority;
        if (known.place === 'taken') known.movedWhileTaken = true;
        if (known.place === 'backoff' || known.place === 'unschedulable') activate(known);
        return;
      }
      const pod: Waiting = {
        key,
        priority,
        order: (order += 1),
        attempts: 0,
        place: 'active',
        timer: undefined,
        movedWhileTaken: false,
      };
      pods.set(key, pod);
      activate(pod);
    },
    remove(key) {
      pods.get(key)?.timer?.cancel();
      pods.delete(key);
    },
    async take(signal) {
      for (;;) {
        signal.throwIfAborted();
        const pod = pop(active, before);
        if (!pod) {
          await new Promise<void>((resolve) => {
            wake = resolve;
            signal.addEventListener('abort', () => resolve(), { once: true });
          });
          continue;
        }
        // Removed or activated twice meanwhile: the map knows.
        if (pods.get(pod.key) !== pod || pod.place !== 'active') continue;
        pod.place = 'taken';
        pod.attempts += 1;
        pod.movedWhileTaken = false;
        return pod.key;
      }
    },
    unschedulable(key) {
      const pod = pods.get(key);
      if (!pod) return;
      if (pod.movedWhileTaken) return backOff(pod);
      pod.place = 'unschedulable';
      pod.timer = clock.after(UNSCHEDULABLE_MAX_MS, () => activate(pod));
    },
    retry(key) {
      const pod = pods.get(key);
      if (pod) backOff(pod);
    },
    moveAll() {
      for (const pod of pods.values()) {
        if (pod.place === 'taken') pod.movedWhileTaken = true;
        if (pod.place === 'unschedulable') backOff(pod);
      }
    },
    get sizes() {
      return {
        active: count('active'),
        backoff: count('backoff'),
        unschedulable: count('unschedulable'),
      };
    },
  };
}

/** A binary heap in an array: the first by `before` is at index 0. */
function push<T>(heap: T[], item: T, before: (a: T, b: T) => boolean): void {
  let index = heap.push(item) - 1;
  while (index > 0) {
    const parent = (index - 1) >> 1;
    if (!before(heap[index] as T, heap[parent] as T)) return;
    [heap[index], heap[parent]] = [heap[parent] as T, heap[index] as T];
    index = parent;
  }
}

function pop<T>(heap: T[], before: (a: T, b: T) => boolean): T | undefined {
  const first = heap[0];
  const last = heap.pop();
  if (heap.length === 0 || last === undefined) return first;
  heap[0] = last;
  for (let index = 0; ;) {
    const left = 2 * index + 1;
    const right = left + 1;
    let next = index;
    if (left < heap.length && before(heap[left] as T, heap[next] as T)) next = left;
    if (right < heap.length && before(heap[right] as T, heap[next] as T)) next = right;
    if (next === index) return first;
    [heap[index], heap[next]] = [heap[next] as T, heap[index] as T];
    index = next;
  }
}
