import type { PodState } from '../api/hyperd.ts';
import type { Clock } from '../base/clock.ts';
import { createHyperdClient } from '../client/hyperd.ts';
import type { HyperdClient } from '../client/hyperd.ts';

/** hyperd may just be starting again: its supervisor does that within ten seconds. */
const HYPERD_TIMEOUT_MS = 15_000;
const RETRY_MS = 100;

/**
 * Ends every VM of this machine through hyperd. The pods stay in the cluster's state: the next
 * start runs them again, as after a reboot.
 *
 * @throws Error that names the first one that could not be removed, when the others have been
 */
export function removeLocalPods(hyperdSocket: string, clock: Clock): Promise<void> {
  return withHyperd(hyperdSocket, async (hyperd) => {
    const removals = (await listPods(hyperd, clock)).map(async ({ id, namespace, name }) => {
      await hyperd.deletePod(id).catch((error: Error) => {
        throw new Error(`Cannot end the VM of pod ${namespace}/${name}: ${error.message}`);
      });
    });
    for (const result of await Promise.allSettled(removals)) {
      if (result.status === 'rejected') throw result.reason;
    }
  });
}

async function listPods(hyperd: HyperdClient, clock: Clock): Promise<PodState[]> {
  const deadlineMs = clock.monotonicMs() + HYPERD_TIMEOUT_MS;
  for (;;) {
    try {
      return await hyperd.pods();
    } catch (error) {
      if (clock.monotonicMs() > deadlineMs) throw error;
    }
    await clock.sleep(RETRY_MS);
  }
}

/** A client of the machine's own hyperd for as long as `work` takes. */
export async function withHyperd<T>(
  socketPath: string,
  work: (hyperd: HyperdClient) => Promise<T>,
): Promise<T> {
  const hyperd = createHyperdClient(socketPath);
  try {
    return await work(hyperd);
  } finally {
    hyperd.close();
  }
}
