import type { KubeObject } from '../../api/object.ts';
import { matchesLabelSelector } from '../../api/selectors.ts';
import type { LabelSelectorObject } from '../../api/selectors.ts';
import type { Pod } from '../../api/types.generated.ts';
import type { Informer } from '../../client/informer.ts';
import { objectKey } from '../../client/informer.ts';
import type { WorkQueue } from '../../client/workqueue.ts';
import type { Expectations } from './expectations.ts';
import { controllerOf, indexByController } from './ownership.ts';

interface Selecting extends KubeObject {
  spec?: { selector?: LabelSelectorObject };
}

/**
 * Queues the owners of pods when their pods change, and every owner that selects an orphan, and
 * tells the expectations what was seen.
 */
export function followPods<T extends Selecting>(options: {
  pods: Informer<Pod>;
  owners: Informer<T>;
  queue: WorkQueue;
  expectations: Expectations;
}): void {
  const { pods, owners, queue, expectations } = options;
  indexByController(pods);
  const enqueueOrphan = (pod: Pod): void => {
    for (const owner of owners.list(pod.metadata.namespace ?? '')) {
      const { selector } = owner.spec ?? {};
      if (matchesLabelSelector(selector, pod.metadata.labels)) queue.add(objectKey(owner));
    }
  };
  /** Undefined for pods of other kinds of owners, and of owners that are gone. */
  const ownerKey = (pod: Pod): string | undefined => {
    const reference = controllerOf(pod);
    if (reference?.kind !== owners.resource.kind) return undefined;
    const owner = owners.get(pod.metadata.namespace, reference.name);
    return owner?.metadata.uid === reference.uid ? objectKey(owner) : undefined;
  };
  const observe = (pod: Pod, key: string, isNew: boolean): void => {
    if (pod.metadata.deletionTimestamp) {
      expectations.deletionObserved(key, pod.metadata.uid ?? '');
    } else if (isNew) expectations.creationObserved(key);
    queue.add(key);
  };
  pods.addHandler({
    add(pod) {
      const key = ownerKey(pod);
      if (key !== undefined) observe(pod, key, true);
      else if (!controllerOf(pod)) enqueueOrphan(pod);
    },
    update(pod, previous) {
      const before = ownerKey(previous);
      const key = ownerKey(pod);
      if (before !== undefined && before !== key) queue.add(before);
      if (key !== undefined) observe(pod, key, false);
      else if (!controllerOf(pod)) enqueueOrphan(pod);
    },
    delete(pod) {
      const key = ownerKey(pod);
      if (key === undefined) return;
      expectations.deletionObserved(key, pod.metadata.uid ?? '');
      queue.add(key);
    },
  });
}

/** Queues owners as they change; what was expected of one that is gone is forgotten. */
export function followOwners<T extends KubeObject>(
  owners: Informer<T>,
  queue: WorkQueue,
  expectations: Expectations,
): void {
  const enqueue = (owner: T) => queue.add(objectKey(owner));
  owners.addHandler({
    add: enqueue,
    update: enqueue,
    delete(owner) {
      expectations.forget(objectKey(owner));
      enqueue(owner);
    },
  });
}
