import type { KubeObject } from '../../api/object.ts';
import { describeError } from '../../base/log.ts';
import { runController } from '../../client/controller.ts';
import { metadataOf } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { discover, hasVerbs } from '../common/discovery.ts';
import { createCollector } from './collect.ts';
import { createOwnerGraph } from './graph.ts';
import type { GraphNode } from './graph.ts';

/** How soon a new kind is noticed. Kubernetes looks as often. */
const DISCOVERY_INTERVAL_MS = 30_000;
const CONCURRENCY = 8;
/** Events never own nor are owned, and are the most numerous kind. */
const IGNORED = new Set(['events', 'events.events.k8s.io']);

/**
 * Deletes what nobody owns any more. It follows the metadata of every kind, so that the question
 * "who belongs to this object" needs no search.
 *
 * @param full resources whose whole objects other controllers hold anyway: their informers are
 *   used instead of one more for the metadata
 */
export async function runGarbageCollector(
  context: ControllerContext,
  full: Resource[],
): Promise<void> {
  const { client, informers, clock, log, signal } = context;
  const graph = createOwnerGraph();
  const queue = createWorkQueue(clock);
  const followed = new Map<string, Promise<void>>();
  const collector = createCollector(context, graph, {
    now: (uid) => queue.add(uid),
    later: (uid) => queue.addAfter(uid, DISCOVERY_INTERVAL_MS),
  });

  /** Looks again at whoever may be affected by a change of this object. */
  const react = (node: GraphNode): void => {
    if (node.isWaiting || node.isOrphaning) queue.add(node.uid);
    const isUnsure = node.owners.some(({ uid }) => {
      const owner = graph.get(uid);
      return !owner || owner.isWaiting;
    });
    if (isUnsure && !node.isDeleting) queue.add(node.uid);
    for (const { uid } of node.owners) if (graph.get(uid)?.isWaiting) queue.add(uid);
  };

  const follow = (resource: Resource): Promise<void> => {
    const isFull = full.some(
      (one) => one.group === resource.group && one.resource === resource.resource,
    );
    const informer = informers.informer<KubeObject>(isFull ? resource : metadataOf(resource));
    const learn = (object: KubeObject): void => {
      const node = graph.set(resource, object);
      if (node) react(node);
    };
    informer.addHandler({
      add: learn,
      update: learn,
      delete({ metadata }) {
        const node = graph.delete(metadata.uid ?? '');
        if (!node) return;
        for (const dependent of graph.dependentsOf(node.uid)) queue.add(dependent.uid);
        for (const { uid } of node.owners) if (graph.get(uid)?.isWaiting) queue.add(uid);
      },
    });
    return informer.synced;
  };

  const look = async (): Promise<void> => {
    for (const resource of await discover(client)) {
      const id = resource.group ? `${resource.resource}.${resource.group}` : resource.resource;
      const isCollected = hasVerbs(resource, 'list', 'watch', 'delete') && !IGNORED.has(id);
      collector.learnKind(resource);
      if (isCollected && !followed.has(id)) followed.set(id, follow(resource));
    }
  };
  const lookUntilSeen = async (): Promise<void> => {
    while (!signal.aborted) {
      try {
        await look();
        return;
      } catch (error) {
        log.warn('Discovery failed', { error: describeError(error) });
        await clock.sleep(1000, signal).catch(() => {});
      }
    }
  };
  const lookAgain = async (): Promise<void> => {
    while (!signal.aborted) {
      await clock.sleep(DISCOVERY_INTERVAL_MS, signal).catch(() => {});
      if (!signal.aborted) await lookUntilSeen();
    }
  };

  await lookUntilSeen();
  const working = runController({
    name: 'garbagecollector',
    queue,
    reconcile: (uid) => collector.collect(uid),
    informers: [...followed.values()].map((synced) => ({ synced })),
    concurrency: CONCURRENCY,
    clock,
    log,
    signal,
  });
  await Promise.all([working, lookAgain()]);
}
