import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import type { KubeObject } from '../../api/object.ts';
import { CompactedError, SlowWatcherError } from '../../store/store.ts';
import type { Store } from '../../store/store.ts';

/** Something that is kept up to date with the objects of some resources. */
export interface ObjectIndex {
  set(object: KubeObject): void;
  delete(object: KubeObject): void;
}

interface FollowOptions {
  signal: AbortSignal;
  log: Log;
}

/**
 * Tells `index` of every object of the resources, now and on each change, until the signal
 * aborts. What exists at the call is known when it returns.
 */
export function follow(
  store: Store,
  resources: readonly string[],
  index: ObjectIndex,
  options: FollowOptions,
): void {
  for (const resource of resources) {
    const known = new Map<string, KubeObject>();
    const revision = relist(store, resource, index, known);
    followOne(store, resource, revision, index, known, options).catch((error) => {
      options.log.error('Cannot follow a resource', { resource, error: describeError(error) });
      // An index that stands still would permit what is no longer permitted: rather end.
      setImmediate(() => {
        throw error;
      });
    });
  }
}

/** @returns the revision up to which `index` is then right */
function relist(
  store: Store,
  resource: string,
  index: ObjectIndex,
  known: Map<string, KubeObject>,
): number {
  const { entries, revision } = store.list(resource);
  const gone = new Map(known);
  for (const { object } of entries) {
    gone.delete(idOf(object));
    known.set(idOf(object), object);
    index.set(object);
  }
  for (const [id, object] of gone) {
    known.delete(id);
    index.delete(object);
  }
  return revision;
}

function idOf({ metadata }: KubeObject): string {
  return `${metadata.namespace ?? ''}/${metadata.name}`;
}

async function followOne(
  store: Store,
  resource: string,
  startRevision: number,
  index: ObjectIndex,
  known: Map<string, KubeObject>,
  { signal }: FollowOptions,
): Promise<void> {
  let afterRevision = startRevision;
  while (!signal.aborted) {
    try {
      for await (const event of store.watch(resource, { afterRevision, signal })) {
        const { object } = event.entry;
        if (event.type === 'DELETED') {
          known.delete(idOf(object));
          index.delete(object);
        } else {
          known.set(idOf(object), object);
          index.set(object);
        }
      }
      return;
    } catch (error) {
      if (!(error instanceof SlowWatcherError) && !(error instanceof CompactedError)) throw error;
      afterRevision = relist(store, resource, index, known);
    }
  }
}
