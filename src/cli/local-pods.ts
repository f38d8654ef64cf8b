import { request } from 'node:http';
import type { PodState } from '../api/hyperd.ts';

/**
 * Ends every VM of this machine through hyperd. The pods stay in the cluster's state: the next
 * start runs them again, as after a reboot.
 */
export async function removeLocalPods(hyperdSocket: string): Promise<void> {
  const pods = (await call(hyperdSocket, 'GET', '/v1/pods').catch(() => [])) as PodState[];
  await Promise.all(pods.map(({ id }) => call(hyperdSocket, 'DELETE', `/v1/pods/${id}`)));
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
