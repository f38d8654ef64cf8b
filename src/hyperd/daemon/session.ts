import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import { AgentError } from '../agent/agent.ts';
import type { Agent, AgentOptions, ConnectAgent } from '../agent/agent.ts';
import type { Vm } from '../vmm/hypervisor.ts';

/**
 * The daemon's line to one guest. A session that breaks is taken up again for as long as the VM
 * lives: what the guest has not had acknowledged, it sends once more.
 *
 *   connecting ──hello──> open ──connection lost──> connecting ──VM gone──> ended
 */
export interface GuestSession {
  /**
   * Runs an operation; waits for the session, and repeats the operation when the session breaks
   * under it. What must not be done twice asks for `once` and then rejects with `Interrupted`.
   * Rejects with `AgentError` `Closed` once the session has ended.
   */
  call<T>(operation: (agent: Agent) => Promise<T>, repeat?: 'repeat' | 'once'): Promise<T>;
  /** Whether the VM is held: nothing is late then. */
  hold(isHeld: boolean): void;
  /** Settles when the session has ended for good, with the reason. Never rejects. */
  readonly ended: Promise<Error | undefined>;
  /** Everything that the guest sent before its end has been taken in when this resolves. */
  end(): Promise<void>;
}

export interface SessionOptions extends AgentOptions {
  vm: Vm;
  connectAgent: ConnectAgent;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
  /** Resolves when the VM is not held: only then the guest can be spoken to. */
  awake: () => Promise<void>;
  /** Called at every (re)connection, before anybody else may use the agent. */
  onOpen: (agent: Agent) => Promise<void>;
  /** How long the guest may be without a session: until its first hello, and later. */
  bootTimeoutMs: number;
}

/** Broken sessions in a row, without one that stayed, after which the guest is given up. */
const ATTEMPTS_MAX = 8;
const RETRY_DELAY_MS = 100;
const RETRY_DELAY_MAX_MS = 5_000;
/** A session that lived so long counts as good. */
const STABLE_MS = 10_000;
/** What the guest sent last is read for so long after its VM has ended. */
const DRAIN_MS = 2_000;
const QUIET_MS = 1;

export function openGuestSession(options: SessionOptions): GuestSession {
  const { vm, clock, log, signal } = options;
  const life = new AbortController();
  const lifeSignal = AbortSignal.any([signal, life.signal]);
  let current = deferred<Agent>();
  let open: Agent | undefined;

  const intake = createIntake(clock);

  const connectOnce = async (timeoutMs: number): Promise<Agent> => {
    const limit = new AbortController();
    const timer = clock.after(timeoutMs, () =>
      limit.abort(new Error(`Cannot reach the guest within ${timeoutMs} ms`)),
    );
    const attempt = AbortSignal.any([lifeSignal, limit.signal]);
    try {
      const connection = await vm.connectControl(attempt);
      connection.on('error', (error) => log.debug('control channel', { error: error.message }));
      const { resumeOffsets, connectAgent } = options;
      const onOutput = intake.counted(options.onOutput);
      const onContainerExit = intake.counted(options.onContainerExit);
      const callbacks = { resumeOffsets, onOutput, onContainerExit };
      return await connectAgent(connection, { ...callbacks, clock, log, signal: attempt });
    } finally {
      timer.cancel();
    }
  };

  const serve = async (agent: Agent): Promise<Error | undefined> => {
    const close = () => agent.close();
    lifeSignal.addEventListener('abort', close, { once: true });
    try {
      if (lifeSignal.aborted) close();
      await options.onOpen(agent);
      current.resolve(agent);
      return await agent.closed;
    } finally {
      lifeSignal.removeEventListener('abort', close);
    }
  };

  const keep = async (): Promise<Error | undefined> => {
    let failures = 0;
    let deadlineMs = clock.monotonicMs() + options.bootTimeoutMs;
    for (;;) {
      let failure: unknown;
      const lostMs = clock.monotonicMs();
      await Promise.race([options.awake(), aborted(lifeSignal)]);
      if (lifeSignal.aborted) return undefined;
      const startMs = clock.monotonicMs();
      deadlineMs += startMs - lostMs;
      try {
        const agent = await connectOnce(Math.max(1, deadlineMs - startMs));
        open = agent;
        failure = await serve(agent);
      } catch (error) {
        failure = error;
        open?.close();
      }
      const wasOpen = current.settled;
      open = undefined;
      if (lifeSignal.aborted) return undefined;
      current = current.settled ? deferred<Agent>() : current;
      const nowMs = clock.monotonicMs();
      if (wasOpen) deadlineMs = nowMs + options.bootTimeoutMs;
      failures = wasOpen && nowMs - startMs > STABLE_MS ? 1 : failures + 1;
      log.warn('guest session lost', { error: describeError(failure), failures });
      if (failures >= ATTEMPTS_MAX || nowMs >= deadlineMs) return new Error(describeError(failure));
      const delayMs = Math.min(RETRY_DELAY_MAX_MS, RETRY_DELAY_MS * 2 ** (failures - 1));
      await clock.sleep(delayMs, lifeSignal).catch(() => {});
      if (lifeSignal.aborted) return undefined;
    }
  };

  const ended = keep().then((error) => {
    current.reject(new AgentError('Closed', error?.message ?? 'The VM has ended'));
    return error;
  });

  return {
    ended,
    hold: (isHeld) => open?.hold(isHeld),
    async call(operation, repeat = 'repeat') {
      for (;;) {
        const agent = await current.promise;
        try {
          return await operation(agent);
        } catch (error) {
          const broken = error instanceof AgentError && error.reason === 'Closed';
          if (!broken || lifeSignal.aborted) throw error;
          await agent.closed;
          if (repeat === 'once') throw new AgentError('Interrupted', error.message);
        }
      }
    },
    async end() {
      // The end of the VM ends the connection; only a peer that never says so is waited out.
      const limit = new AbortController();
      const timeout = clock.sleep(DRAIN_MS, limit.signal).catch(() => {});
      if (open) await Promise.race([open.closed, timeout]);
      await Promise.race([intake.quiet(), timeout]);
      limit.abort();
      life.abort(new AgentError('Closed', 'The VM has ended'));
      await ended;
    },
  };
}

/** Counts what is being taken in. An exit is told only after the output before it was. */
function createIntake(clock: Clock) {
  let count = 0;
  const waiting: (() => void)[] = [];
  return {
    counted:
      <A extends unknown[]>(take: (...given: A) => Promise<void>) =>
      async (...given: A): Promise<void> => {
        count += 1;
        try {
          await take(...given);
        } finally {
          count -= 1;
          if (count === 0) for (const resolve of waiting.splice(0)) resolve();
        }
      },
    /** Resolves when nothing is under way and nothing follows from what was. */
    async quiet(): Promise<void> {
      do {
        if (count > 0) await new Promise<void>((resolve) => waiting.push(resolve));
        await clock.sleep(QUIET_MS);
      } while (count > 0);
    },
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

interface Deferred<T> {
  promise: Promise<T>;
  settled: boolean;
  resolve(value: T): void;
  reject(error: Error): void;
}

function deferred<T>(): Deferred<T> {
  const parts = Promise.withResolvers<T>();
  // Nobody may be waiting when it is rejected.
  parts.promise.catch(() => {});
  const result: Deferred<T> = {
    promise: parts.promise,
    settled: false,
    resolve(value) {
      result.settled = true;
      parts.resolve(value);
    },
    reject(error) {
      result.settled = true;
      parts.reject(error);
    },
  };
  return result;
}
