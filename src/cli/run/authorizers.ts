import type { KubeObject } from '../../api/object.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import type { Store } from '../../store/store.ts';

/** Something that keeps its own view of some kinds: the authorizers. */
export interface ObjectFollower {
  set(object: KubeObject): void;
  delete(object: KubeObject): void;
}

/**
 * Feeds `follower` with everything of these resources, now and from now on. What is there already
 * has been fed when this returns.
 */
export function followStore(
  store: Store,
  resources: string[],
  follower: ObjectFollower,
  { signal, log }: { signal: AbortSignal; log: Log },
): void {
  for (const resource of resources) {
    const { revision, entries } = store.list(resource);
    for (const { object } of entries) follower.set(object);
    void keepFollowing(store, resource, revision, follower, signal).catch((error) => {
      if (signal.aborted) return;
      // Rights that are no longer kept up to date must not be used.
      log.error('Authorizer lost its watch', { resource, error: describeError(error) });
      process.exit(1);
    });
  }
}

async function keepFollowing(
  store: Store,
  resource: string,
  afterRevision: number,
  follower: ObjectFollower,
  signal: AbortSignal,
): Promise<void> {
  for await (const { type, entry } of store.watch(resource, { afterRevision, signal })) {
    if (type === 'DELETED') follower.delete(entry.object);
    else follower.set(entry.object);
  }
}
