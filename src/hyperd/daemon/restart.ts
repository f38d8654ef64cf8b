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
export function createRestarter(
  pods: Map<string, Pod>,
  dependencies: PodDependencies,
): (id: string) => Promise<PodState> {
  const { clock, podsDirectory, onChange } = dependencies;
  const restarting = new Set<string>();
  return async (id) => {
    const pod = pods.get(id);
    if (!pod) throw notFound('', 'pods', id);
    const { record } = pod;
    if (record.phase === 'created') return pod.start();
    if (isLive(record) || record.phase === 'deleting' || restarting.has(id)) {
      throw startConflict(record);
    }
    restarting.add(id);
    const isRemoved = () => pods.get(id) !== pod || record.phase === 'deleting';
    try {
      // Its end may be known before all of it has been given back.
      await pod.stop();
      await pod.release();
      if (isRemoved()) throw notFound('', 'pods', id);
      const paths = podPaths(podsDirectory, id);
      const renewed = structuredClone(record);
      const forgotten = renewPodRecord(renewed, clock.nowMs());
      await savePodRecord(paths, renewed);
      for (const each of forgotten) await rm(paths.logs(each), { recursive: true, force: true });
      const next = await adoptPod(renewed, dependencies);
      if (isRemoved()) {
        // Who removes it knows the life before alone.
        await next.remove();
        throw notFound('', 'pods', id);
      }
      pods.set(id, next);
      onChange(id);
      return next.state();
    } finally {
      restarting.delete(id);
    }
  };
}
