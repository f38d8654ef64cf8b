import { rm } from 'node:fs/promises';
import type { PodState } from '../../api/hyperd.ts';
import { notFound } from '../../api/status.ts';
import { adoptPod } from './pod.ts';
import type { Pod, PodDependencies } from './pod-interface.ts';
import { isLive, podPaths, renewPodRecord, savePodRecord, startConflict } from './record.ts';

/**
 * Starts pods by their ids. One that was never started begins; one that has ended gets a new life
 * on its record: what a daemon does that was killed after the record was written.
 */
export interface Restarter {
  /** @throws StatusError NotFound, or Conflict where it runs or is being removed */
  start(id: string): Promise<PodState>;
  /**
   * While a pod gets a new life: resolves when it has it, or has not got it. Only then can it be
   * removed. Never rejects.
   */
  settled(id: string): Promise<void> | undefined;
}

export function createRestarter(pods: Map<string, Pod>, dependencies: PodDependencies): Restarter {
  const { clock, podsDirectory, onChange } = dependencies;
  const restarting = new Map<string, Promise<PodState>>();
  const restart = async (pod: Pod): Promise<PodState> => {
    const { id, record } = pod;
    // Its end may be known before all of it has been given back.
    await pod.stop();
    await pod.release();
    const paths = podPaths(podsDirectory, id);
    const renewed = structuredClone(record);
    const forgotten = renewPodRecord(renewed, clock.nowMs());
    await savePodRecord(paths, renewed);
    for (const each of forgotten) await rm(paths.logs(each), { recursive: true, force: true });
    const next = await adoptPod(renewed, dependencies);
    pods.set(id, next);
    onChange(id);
    return next.state();
  };
  return {
    async start(id) {
      const pod = pods.get(id);
      if (!pod) throw notFound('', 'pods', id);
      const { record } = pod;
      if (record.phase === 'created') return pod.start();
      if (isLive(record) || record.phase === 'deleting' || restarting.has(id)) {
        throw startConflict(record);
      }
      const restarted = restart(pod).finally(() => restarting.delete(id));
      restarting.set(id, restarted);
      return restarted;
    },
    settled: (id) =>
      restarting.get(id)?.then(
        () => {},
        () => {},
      ),
  };
}
