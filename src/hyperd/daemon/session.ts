import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import { AgentError } from '../agent/agent.ts';
import type { Agent, AgentOptions } from '../agent/agent.ts';
import type { ControlConnection, Vm } from '../vmm/hypervisor.ts';

/**
 * The daemon's line to one guest. A session that breaks is taken up again for as long as the VM
 * lives: what the guest has not had acknowledged, it sends once more.
 *
 *   connecting ──hello──> open ──connection lost──> connecting ──VM gone──> ended
 */
export interface GuestSession {
  /**
   * Runs an operation that may be repeated; waits for the session, and repeats the operation when
   * the session breaks under it. Rejects with `AgentError` `Closed` once the session has ended.
   */
  call<T>(operation: (agent: Agent) => Promise<T>): Promise<T>;
  /** Settles when the session has ended for good, with the reason. Never rejects. */
  readonly ended: Promise<Error | undefined>;
  /** Everything that the guest sent before its end has been taken in when this resolves. */
  end(): Promise<void>;
}

export type ConnectAgent = (
  connection: ControlConnection,
  options: AgentOptions & { clock: Clock; log: Log; signal: AbortSignal },
) => Promise<Agent>;

export interface SessionOptions extends AgentOptions {
  vm: Vm;
  connectAgent: ConnectAgent;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
  /** Called at every (re)connection, before anybody else may use the agent. */
  onOpen: (agent: Agent) => Promise<void>;
  /** How long the guest may take until its first hello. */
  bootTimeoutMs: number;
}

/** Broken sessions in a row, without one that stayed, after which the guest is given up. */
const ATTEMPTS_MAX = 8;
const RETRY_DELAY_MS = 100;
/** A session that lived so long counts as good. */
const STABLE_MS = 10_000;
/** What the guest sent last is read for so long after its VM has ended. */
const DRAIN_MS = 2_000;

export function openGuestSession(options: SessionOptions): GuestSession {
  const { vm, clock, log, signal } = options;
  const life = new AbortController();
  const lifeSignal = AbortSignal.any([signal, life.signal]);
  let current = deferred<Agent>();
  let open: Agent | undefined;

  const connectOnce = async (timeoutMs: number): Promise<Agent> => {
    const limit = new AbortController();
    const timer = clock.after(timeoutMs, () =>
      limit.abort(new Error(`Cannot reach the guest within ${timeoutMs} ms`)),
    );
    const attempt = AbortSignal.any([lifeSignal, limit.signal]);
    try {
      const connection = await vm.connectControl(attempt);
      connection.on('error', (error) => log.debug('control channel', { error: error.message }));
      const { resumeOffsets, onOutput, onContainerExit, connectAgent } = options;
      const callbacks = { resumeOffsets, onOutput, onContainerExit };
      return await connectAgent(connection, { ...callbacks, clock, log, signal: attempt });
    } finally {
      timer.cancel();
    }
  };

  const keep = async (): Promise<Error | undefined> => {
    let failures = 0;
    for (;;) {
      let failure: unknown;
      const startMs = clock.monotonicMs();
      try {
        const agent = await connectOnce(options.bootTimeoutMs);
        open = agent;
        const close = () => agent.close();
        lifeSignal.addEventListener('abort', close, { once: true });
        if (lifeSignal.aborted) close();
        await options.onOpen(agent);
        current.resolve(agent);
        failure = await agent.closed;
        lifeSignal.removeEventListener('abort', close);
      } catch (error) {
        failure = error;
        open?.close();
      }
      open = undefined;
      if (lifeSignal.aborted) return undefined;
      current = current.settled ? deferred<Agent>() : current;
      failures = clock.monotonicMs() - startMs > STABLE_MS ? 1 : failures + 1;
      log.warn('guest session lost', { error: describeError(failure), failures });
      if (failures >= ATTEMPTS_MAX) return new Error(describeError(failure));
      await clock.sleep(RETRY_DELAY_MS, lifeSignal).catch(() => {});
      if (lifeSignal.aborted) return undefined;
    }
  };

  const ended = keep().then((error) => {
    current.reject(new AgentError('Closed', error?.message ?? 'The VM has ended'));
    return error;
  });

  return {
    ended,
    async call(operation) {
      for (;;) {
        const agent = await current.promise;
        try {
          return await operation(agent);
        } catch (error) {
          const broken = error instanceof AgentError && error.reason === 'Closed';
          if (!broken || lifeSignal.aborted) throw error;
          await agent.closed;
        }
      }
    },
    async end() {
      // The end of the VM ends the connection; only a peer that never says so is waited out.
      const limit = new AbortController();
      const drained = clock.sleep(DRAIN_MS, limit.signal).catch(() => {});
      if (open) await Promise.race([open.closed, drained]);
      limit.abort();
      life.abort(new AgentError('Closed', 'The VM has ended'));
      await ended;
    },
  };
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
