import type { PodStats } from '../../api/hyperd.ts';
import type { Clock } from '../../base/clock.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import { isAlive } from '../history.ts';
import type { PodWorker } from '../pod-worker.ts';

/** `/stats/summary`, as far as metrics servers read it: CPU and memory of pods and containers. */
export interface StatsOptions {
  pods: { values(): Iterable<PodWorker> };
  hyperd: HyperdClient;
  nodeName: string;
  clock: Clock;
}

/** Guests that do not answer must not hold the whole summary back. */
const STATS_TIMEOUT_MS = 5_000;

export async function statsSummary(options: StatsOptions): Promise<unknown> {
  const time = new Date(options.clock.nowMs()).toISOString();
  const all = [...options.pods.values()].map((each) => podStats(each, options, time));
  const pods = await Promise.all(all);
  return { node: { nodeName: options.nodeName }, pods: pods.filter((each) => each !== undefined) };
}

async function podStats(worker: PodWorker, options: StatsOptions, time: string): Promise<unknown> {
  const { sandbox, containers } = worker.view();
  if (!isAlive(sandbox)) return undefined;
  const stats = await withTimeout(options.hyperd.stats(sandbox.id), options.clock);
  if (!stats) return undefined;
  const usage = (each: { cpuNanos: number; memoryBytes: number }) => ({
    cpu: { time, usageCoreNanoSeconds: each.cpuNanos },
    memory: { time, usageBytes: each.memoryBytes, workingSetBytes: each.memoryBytes },
  });
  const { name, namespace, uid } = worker.pod.metadata;
  return {
    podRef: { name, namespace, uid },
    startTime: worker.pod.status?.startTime,
    ...usage(stats),
    containers: containers.flatMap((view) => {
      const id = view.attempts.at(-1)?.containerId;
      const found = stats.containers.find((each) => each.id === id);
      return found ? [{ name: view.container.name, ...usage(found) }] : [];
    }),
  };
}

function withTimeout(stats: Promise<PodStats>, clock: Clock): Promise<PodStats | undefined> {
  return new Promise((resolve) => {
    const timer = clock.after(STATS_TIMEOUT_MS, () => resolve(undefined));
    stats.then(resolve, () => resolve(undefined)).finally(() => timer.cancel());
  });
}
