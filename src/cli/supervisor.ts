import { createWriteStream } from 'node:fs';
import type { WriteStream } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { start } from '../base/exec.ts';
import type { Clock, Timer } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { UsageError } from './errors.ts';

/**
 * Keeps the components of one machine running. A component that dies is started again, with a
 * delay that doubles while it keeps dying; the others, and all VMs, go on meanwhile.
 *
 *   starting ──said ready──> ready ──died──> waiting ──delay over──> starting
 *       └──────────────died──────────────────^
 *   any ── stop() ──> stopping ──ended──> stopped
 */
export interface Supervisor {
  status(): ComponentStatus[];
  /** Resolves when every component has said that it is ready. */
  ready(): Promise<void>;
  /** Ends the named component, or all of them, last first; resolves when it is gone. */
  stop(name?: string): Promise<void>;
  /** Rejects when a component can never run; its message is for the person at the terminal. */
  readonly failed: Promise<never>;
}

export interface ComponentStatus {
  name: string;
  state: 'starting' | 'ready' | 'waiting' | 'stopping' | 'stopped';
  pid: number | undefined;
  restartCount: number;
  startedAtMs: number;
  /** How it ended last. */
  lastExit: string;
}

export interface ComponentSpec {
  name: string;
  command: string;
  args: string[];
  logPath: string;
}

/**
 * How a component says over its IPC channel how it is: `ready`, or `fatal` with the reason why no
 * further attempt makes sense (a port that is taken, data of another version).
 */
export type ComponentMessage = { type: 'ready' } | { type: 'fatal'; message: string };

const RESTART_DELAY_MIN_MS = 50;
const RESTART_DELAY_MAX_MS = 10_000;
/** A component that ran so long is well: its next restart is quick again. */
const STABLE_MS = 30_000;
/** Time to end in good order before SIGKILL. */
const STOP_GRACE_MS = 10_000;

interface Component {
  spec: ComponentSpec;
  status: ComponentStatus;
  child: ChildProcess | undefined;
  log: WriteStream;
  delayMs: number;
  timer: Timer | undefined;
  ended: PromiseWithResolvers<void>;
}

export function superviseComponents(
  specs: ComponentSpec[],
  { clock, log }: { clock: Clock; log: Log },
): Supervisor {
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => {});
  let allReady = Promise.withResolvers<void>();

  const components: Component[] = specs.map((spec) => ({
    spec,
    status: {
      name: spec.name,
      state: 'starting',
      pid: undefined,
      restartCount: 0,
      startedAtMs: 0,
      lastExit: '',
    },
    child: undefined,
    log: createWriteStream(spec.logPath, { flags: 'a', mode: 0o600 }),
    delayMs: RESTART_DELAY_MIN_MS,
    timer: undefined,
    ended: Promise.withResolvers<void>(),
  }));

  const noteReady = () => {
    if (components.every(({ status }) => status.state === 'ready')) allReady.resolve();
  };

  const launch = (component: Component) => {
    const { spec, status } = component;
    const stdio: ('ignore' | 'pipe' | 'ipc')[] = ['ignore', 'pipe', 'pipe', 'ipc'];
    const child = start(spec.command, spec.args, { stdio });
    component.child = child;
    Object.assign(status, { state: 'starting', pid: child.pid, startedAtMs: clock.nowMs() });
    child.stdout?.pipe(component.log, { end: false });
    child.stderr?.pipe(component.log, { end: false });
    child.on('error', (error) => log.error('component', { name: spec.name, error: error.message }));
    child.on('message', (message: ComponentMessage) => {
      if (message.type === 'fatal') failure.reject(new UsageError(message.message));
      if (message.type !== 'ready') return;
      if (status.state === 'starting') status.state = 'ready';
      noteReady();
    });
    child.on('exit', (code, signal) => ended(component, signal ?? `exit code ${code}`));
  };

  const ended = (component: Component, how: string) => {
    const { status } = component;
    component.child = undefined;
    Object.assign(status, { pid: undefined, lastExit: how });
    if (status.state === 'stopping') {
      component.ended.resolve();
      return;
    }
    if (clock.nowMs() - status.startedAtMs > STABLE_MS) component.delayMs = RESTART_DELAY_MIN_MS;
    log.warn('component ended', { name: status.name, how, restartInMs: component.delayMs });
    status.state = 'waiting';
    status.restartCount += 1;
    component.timer = clock.after(component.delayMs, () => launch(component));
    component.delayMs = Math.min(component.delayMs * 2, RESTART_DELAY_MAX_MS);
    allReady.promise.catch(() => {});
    allReady = Promise.withResolvers<void>();
  };

  const stopOne = async (component: Component) => {
    component.timer?.cancel();
    const { child, status } = component;
    if (child) {
      status.state = 'stopping';
      child.kill('SIGTERM');
      const timer = clock.after(STOP_GRACE_MS, () => child.kill('SIGKILL'));
      await component.ended.promise;
      timer.cancel();
    }
    status.state = 'stopped';
    await new Promise<void>((resolve) => component.log.end(resolve));
  };

  for (const component of components) launch(component);
  return {
    failed: failure.promise,
    status: () => components.map(({ status }) => ({ ...status })),
    ready: () => Promise.race([allReady.promise, failure.promise]),
    async stop(name) {
      for (const component of components.toReversed()) {
        const wanted = name === undefined || component.spec.name === name;
        if (wanted && component.status.state !== 'stopped') await stopOne(component);
      }
    },
  };
}
