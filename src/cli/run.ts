import { systemClock } from '../base/clock.ts';
import { dataDirectory, dataPaths } from './config.ts';
import type { DataPaths, MachineConfig } from './config.ts';
import { readConfig } from './data.ts';
import { UsageError } from './errors.ts';
import { portProblem } from './ports.ts';
import type { ComponentMessage } from './supervisor.ts';

/** What a component's own process gets, and how it says how it is. */
export interface ComponentContext {
  paths: DataPaths;
  config: MachineConfig;
  /** Aborts when the component is to end in good order. */
  signal: AbortSignal;
  ready(): void;
}

type Component = (context: ComponentContext) => Promise<void>;

const COMPONENTS: Record<string, () => Promise<Component>> = {
  server: async () => (await import('./run/server.ts')).runServer,
  kubelet: async () => (await import('./run/kubelet.ts')).runKubelet,
  hyperd: async () => (await import('./run/hyperd.ts')).runHyperd,
};

const END_TIMEOUT_MS = 8_000;

/** Runs one component in this process until SIGTERM. */
export async function runComponent(dataDir: string | undefined, name: string): Promise<void> {
  const load = COMPONENTS[name];
  if (!load) throw new UsageError(`There is no component "${name}".`);
  const paths = dataPaths(dataDirectory(dataDir));
  const config = await readConfig(paths);
  if (!config) throw new UsageError(`There is no cluster on ${paths.root}.`);
  const ending = new AbortController();
  const end = (why: string) => {
    ending.abort(new Error(`${name} ${why}`));
    // Every component survives SIGKILL, so one that cannot end in good order just ends.
    systemClock.after(END_TIMEOUT_MS, () => process.exit(1));
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => end('was told to end'));
  }
  // Nobody would start it again or end it, and the next supervisor would find its ports taken.
  const orphaned = () => end('has lost its supervisor');
  process.once('disconnect', orphaned);
  const tell = (message: ComponentMessage) => {
    if (process.send && process.connected) process.send(message);
  };
  try {
    const component = await load();
    await component({ paths, config, signal: ending.signal, ready: () => tell({ type: 'ready' }) });
  } catch (error) {
    if (ending.signal.aborted) return;
    const reason = fatalReason(error, config);
    if (reason) tell({ type: 'fatal', message: reason });
    throw error;
  } finally {
    // The channel to the supervisor would keep a finished process alive.
    process.off('disconnect', orphaned);
    if (process.connected) process.disconnect?.();
  }
}

/** For an error that no further attempt mends: what the person at the terminal has to know. */
export function fatalReason(error: unknown, config: MachineConfig): string | undefined {
  const { name, message } = error as Error;
  if (error instanceof UsageError || name === 'StoreOpenError') return message;
  return portProblem(error, config);
}
