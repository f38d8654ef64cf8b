import type { KubeObject } from '../../../src/api/object.ts';
import type { Client } from '../../../src/client/client.ts';
import type { Resource } from '../../../src/client/resources.ts';

const WAIT_MS = 90_000;

/**
 * Watches one object until `done` says so, from its present state on. `undefined` stands for an
 * object that is gone. Rejects after `timeoutMs` with the object as it was last.
 */
export async function waitFor<T extends KubeObject>(
  client: Client,
  resource: Resource<T>,
  key: { namespace?: string; name: string },
  done: (object: T | undefined) => boolean,
  timeoutMs = WAIT_MS,
): Promise<T | undefined> {
  const signal = AbortSignal.timeout(timeoutMs);
  const select = { ...key, name: undefined, fieldSelector: `metadata.name=${key.name}`, signal };
  let last: T | undefined;
  try {
    for (;;) {
      const list = await client.list(resource, select);
      last = list.items[0];
      if (done(last)) return last;
      const resourceVersion = list.metadata.resourceVersion ?? '';
      for await (const event of client.watch(resource, { ...select, resourceVersion })) {
        if (event.type === 'BOOKMARK') continue;
        last = event.type === 'DELETED' ? undefined : event.object;
        if (done(last)) return last;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new Error(
      `${resource.kind} "${key.name}" did not come to what was waited for within ${timeoutMs} ms; ` +
        `it is ${JSON.stringify(last)}`,
    );
  }
}
