import type { PodState } from '../../api/hyperd.ts';
import { isStatus } from '../../api/status.ts';
import { systemClock } from '../../base/clock.ts';
import { BoundedQueue } from '../../base/queue.ts';
import type { HyperdClient } from '../../client/hyperd.ts';

/** hyperd may just be starting again. */
const RETRY_MS = 200;
const RETRIES_MAX = 100;

/**
 * Follows a pod until it is as wanted. Survives a restart of hyperd.
 * @returns undefined when the pod is gone
 */
export async function untilPod(
  client: HyperdClient,
  id: string,
  isDone: (pod: PodState) => boolean,
): Promise<PodState | undefined> {
  for (let failures = 0; ; failures++) {
    const over = new AbortController();
    try {
      for await (const _ of changesOf(client, id, over.signal)) {
        const state = await look(client, id);
        failures = 0;
        if (!state || isDone(state)) return state;
      }
    } catch (error) {
      if (!isStatus(error, 'ServiceUnavailable') || failures >= RETRIES_MAX) throw error;
    } finally {
      over.abort();
    }
    await systemClock.sleep(RETRY_MS);
  }
}

/** Whether its containers have been started, or never will be. */
export function hasStarted({ phase, containers }: PodState): boolean {
  if (phase === 'stopped' || phase === 'deleting') return true;
  const isBegun = containers.every((container) => container.phase !== 'creating');
  return phase === 'running' && isBegun;
}

/** Something at the beginning, and then whenever there may be something new; many are one. */
function changesOf(client: HyperdClient, id: string, signal: AbortSignal): BoundedQueue<true> {
  const turns = new BoundedQueue<true>(1);
  const follow = async () => {
    const events = client.events(signal, () => void turns.push(true));
    for await (const event of events) if (event.pod === id) turns.push(true);
  };
  follow().then(
    () => turns.close(),
    (error: unknown) => turns.close(signal.aborted ? undefined : error),
  );
  return turns;
}

async function look(client: HyperdClient, id: string): Promise<PodState | undefined> {
  try {
    return await client.pod(id);
  } catch (error) {
    if (isStatus(error, 'NotFound')) return undefined;
    throw error;
  }
}
