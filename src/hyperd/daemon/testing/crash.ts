import type { Clock } from '../../../base/clock.ts';

/**
 * A process that can be killed between any two of its steps: what a daemon is given goes through
 * here, and each call of it counts twice, when it is made and when it is answered. After the step
 * at which the process dies nothing is passed on or answered any more, and no timer fires.
 */
export interface MortalProcess {
  /** The same object, whose asynchronous methods are steps of the process. */
  part<T extends object>(name: string, part: T): T;
  clock(clock: Clock): Clock;
  /** Asks something of the process from outside: one that is dead never answers. */
  ask<T>(work: () => Promise<T>): Promise<T>;
  /** Names of the steps so far. */
  readonly steps: readonly string[];
  /** Resolves when it has died. */
  readonly died: Promise<void>;
}

const NEVER = new Promise<never>(() => {});

/** @param diesAt index of the step that it does not come to; infinite for one that lives */
export function createMortalProcess(diesAt: number): MortalProcess {
  const steps: string[] = [];
  const { promise: died, resolve } = Promise.withResolvers<void>();
  let isDead = false;
  /** Whether the process gets to this step and beyond. */
  const step = (name: string): boolean => {
    if (isDead) return false;
    if (steps.length === diesAt) {
      isDead = true;
      resolve();
      return false;
    }
    steps.push(name);
    return true;
  };
  /** What is made for a pod is one more part: its VM. */
  const wrap = (value: unknown): unknown =>
    typeof value === 'object' && value !== null && 'exited' in value ? part('vm', value) : value;
  const follow = async (name: string, work: Promise<unknown>): Promise<unknown> => {
    try {
      const value = await work;
      return step(`${name} done`) ? wrap(value) : NEVER;
    } catch (error) {
      if (!step(`${name} failed`)) return NEVER;
      throw error;
    }
  };
  const part = <T extends object>(name: string, target: T): T =>
    new Proxy(target, {
      get(object, key) {
        const value: unknown = Reflect.get(object, key, object);
        if (key === 'exited')
          return (value as Promise<unknown>).then((exit) => (isDead ? NEVER : exit));
        if (typeof value !== 'function' || typeof key !== 'string') return value;
        return (...args: unknown[]) => {
          const call = () => Reflect.apply(value, object, args) as unknown;
          if (!STEPS.has(key)) return call();
          const full = `${name}.${key}`;
          return step(full) ? follow(full, call() as Promise<unknown>) : NEVER;
        };
      },
    });
  return {
    part,
    ask: (work) => (isDead ? NEVER : work()),
    steps,
    died,
    clock: (clock) => ({
      ...clock,
      after: (delayMs, fire) => clock.after(delayMs, () => void (isDead || fire())),
      sleep: async (delayMs, signal) => {
        await clock.sleep(delayMs, signal);
        if (isDead) await NEVER;
      },
    }),
  };
}

/** What changes something outside of the process, or brings something in from there. */
const STEPS = new Set([
  ...['create', 'adopt', 'destroy', 'connectControl', 'attachDisk', 'kill', 'setLimits'],
  ...['ensureNetwork', 'deleteNetwork', 'ensurePort', 'deletePort'],
  ...['acquire', 'setupPod', 'startContainer', 'removeContainer', 'signalContainer'],
]);
