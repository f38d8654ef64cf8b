import type { KubeObject } from '../src/api/object.ts';
import type { Client } from '../src/client/client.ts';
import type { Resource } from '../src/client/resources.ts';

const WAIT_MS = 120_000;

/** Watches an object until it is as wanted. */
export async function waitForObject<T extends KubeObject>(
  client: Client,
  resource: Resource<T>,
  { namespace, name }: { namespace: string; name: string },
  done: (object: T) => boolean,
): Promise<T> {
  const signal = AbortSignal.timeout(WAIT_MS);
  const select = { namespace, fieldSelector: `metadata.name=${name}`, signal };
  for (;;) {
    const list = await client.list(resource, select);
    const [current] = list.items;
    if (current && done(current)) return current;
    const resourceVersion = list.metadata.resourceVersion ?? '';
    for await (const { type, object } of client.watch(resource, { ...select, resourceVersion })) {
      if (type !== 'BOOKMARK' && type !== 'DELETED' && done(object)) return object;
    }
  }
}
