import { request } from 'node:http';
import type { PodState } from '../api/hyperd.ts';
import type { Clock } from '../base/clock.ts';

/** hyperd may just be starting again: its supervisor does that within ten seconds. */
const HYPERD_TIMEOUT_MS = 15_000;
const RETRY_MS = 100;

/**
 * Ends every VM of this machine through hyperd. The pods stay in the cluster's state: the next
 * start runs them again, as after a reboot.
 *
 * @throws Error that names the first one that could not be removed, when the others have been
 */
export async function removeLocalPods(hyperdSocket: string, clock: Clock): Promise<void> {
  const deadlineMs = clock.monotonicMs() + HYPERD_TIMEOUT_MS;
  const pods = async (): Promise<PodState[]> => {
    for (;;) {
      try {
        return (await call(hyperdSocket, 'GET', '/v1/pods')) as PodState[];
      } catch (error) {
        if (clock.monotonicMs() > deadlineMs) throw error;
      }
      await clock.sleep(RETRY_MS);
    }
  };
  const removals = (await pods()).map(async ({ id, namespace, name }) => {
    await call(hyperdSocket, 'DELETE', `/v1/pods/${id}`).catch((error: Error) => {
      throw new Error(`Cannot end the VM of pod ${namespace}/${name}: ${error.message}`);
    });
  });
  for (const result of await Promise.allSettled(removals)) {
    if (result.status === 'rejected') throw result.reason;
  }
}

export function call(socketPath: string, method: string, path: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path, agent: false }, async (response) => {
      try {
        let text = '';
        for await (const chunk of response.setEncoding('utf8')) text += chunk;
        const value = text ? (JSON.parse(text) as { message?: string }) : undefined;
        if ((response.statusCode ?? 500) < 300) resolve(value);
        else reject(new Error(value?.message ?? `status ${response.statusCode}`));
      } catch (error) {
        reject(error);
      }
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}
