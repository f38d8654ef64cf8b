import type { KubeObject, OwnerReference } from '../../api/object.ts';
import { isStatus } from '../../api/status.ts';
import { apiVersionOf, metadataOf } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';
import type { ControllerContext } from '../common/context.ts';
import { FOREGROUND, ORPHAN } from './graph.ts';
import type { GraphNode, OwnerGraph } from './graph.ts';

export interface Collector {
  /** So that an owner of this kind can be looked up. */
  learnKind(resource: Resource): void;
  /** Decides about one object: keep, loosen, delete, or let go. */
  collect(uid: string): Promise<void>;
}

/** Owners that were found absent; a uid never comes back. */
const ABSENT_LENGTH_LIMIT = 4096;

type Ownership = 'solid' | 'dangling' | 'waiting';

export function createCollector(
  context: ControllerContext,
  graph: OwnerGraph,
  queue: { now(uid: string): void; later(uid: string): void },
): Collector {
  const { client } = context;
  const kinds = new Map<string, Resource>();
  const absent = new Set<string>();

  /** Asked of the server, as the graph may merely be behind. Undefined: it cannot be known. */
  const exists = async (
    owner: OwnerReference,
    namespace: string | undefined,
  ): Promise<boolean | undefined> => {
    const key = `${namespace ?? ''} ${owner.uid}`;
    if (absent.has(key)) return false;
    const kind = kinds.get(`${owner.apiVersion} ${owner.kind}`) ?? kindInAnyVersion(kinds, owner);
    if (!kind) return undefined;
    if (kind.namespaced && !namespace) return true;
    const place = kind.namespaced ? { namespace } : {};
    const found = await getMetadata(context, kind, { ...place, name: owner.name });
    if (found?.metadata.uid === owner.uid) return true;
    if (absent.size >= ABSENT_LENGTH_LIMIT) absent.delete(absent.values().next().value ?? '');
    absent.add(key);
    return false;
  };

  const judge = async (node: GraphNode, owner: OwnerReference): Promise<Ownership> => {
    const known = graph.get(owner.uid);
    const isReachable = known && (!known.namespace || known.namespace === node.namespace);
    if (!isReachable) {
      const answer = await exists(owner, node.namespace);
      if (answer === false) return 'dangling';
      // A kind that is not served may be later: nothing is deleted on a guess.
      if (answer === undefined) queue.later(node.uid);
    }
    return known?.isWaiting && owner.blockOwnerDeletion ? 'waiting' : 'solid';
  };

  const collect = async (uid: string): Promise<void> => {
    const node = graph.get(uid);
    if (!node) return;
    if (node.isOrphaning) return letGo(context, graph, node);
    if (node.isWaiting) return collectDependents(context, graph, node, queue.now);
    if (node.isDeleting || node.owners.length === 0) return;
    const live = await getMetadata(context, node.resource, node);
    if (live?.metadata.uid !== uid || live.metadata.deletionTimestamp) return;
    const owners = live.metadata.ownerReferences ?? [];
    if (owners.length === 0) return;
    const judged = new Map<OwnerReference, Ownership>();
    for (const owner of owners) judged.set(owner, await judge(node, owner));
    const solid = owners.filter((owner) => judged.get(owner) === 'solid');
    if (solid.length === owners.length) return;
    if (solid.length > 0) return patchMetadata(context, node, live, { ownerReferences: solid });
    const isAwaited = [...judged.values()].includes('waiting');
    const dependents = graph.dependentsOf(uid);
    // Two that wait for each other would wait for ever: the one looked at first goes on.
    if (isAwaited) await unblockCycle(context, graph, node, dependents);
    const propagationPolicy = policyFor(live, isAwaited && dependents.length > 0);
    const { namespace, name } = node;
    try {
      const { resourceVersion } = live.metadata;
      const preconditions = { uid, resourceVersion, propagationPolicy };
      await client.delete(node.resource, { namespace, name }, preconditions);
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error;
    }
  };

  return {
    learnKind: (resource) => void kinds.set(`${apiVersionOf(resource)} ${resource.kind}`, resource),
    collect,
  };
}

/** References may name an older version of a group than the preferred one. */
function kindInAnyVersion(
  kinds: Map<string, Resource>,
  owner: OwnerReference,
): Resource | undefined {
  const group = owner.apiVersion.includes('/') ? owner.apiVersion.split('/')[0] : '';
  return [...kinds.values()].find((kind) => kind.group === group && kind.kind === owner.kind);
}

/** What the object's own finalizers ask for goes before the default. */
function policyFor(
  live: KubeObject,
  hasBlockingDependents: boolean,
): 'Orphan' | 'Foreground' | 'Background' {
  const finalizers = live.metadata.finalizers ?? [];
  if (finalizers.includes(ORPHAN)) return 'Orphan';
  if (finalizers.includes(FOREGROUND) || hasBlockingDependents) return 'Foreground';
  return 'Background';
}

/** An owner in foreground deletion goes once no dependent blocks it. */
async function collectDependents(
  context: ControllerContext,
  graph: OwnerGraph,
  node: GraphNode,
  enqueue: (uid: string) => void,
): Promise<void> {
  const dependents = graph.dependentsOf(node.uid);
  const isBlocking = ({ owners }: GraphNode) =>
    owners.some((owner) => owner.uid === node.uid && owner.blockOwnerDeletion);
  if (dependents.some(isBlocking)) {
    for (const dependent of dependents) if (!dependent.isDeleting) enqueue(dependent.uid);
    return;
  }
  for (const dependent of dependents) if (!dependent.isDeleting) enqueue(dependent.uid);
  await removeFinalizer(context, node, FOREGROUND);
}

/** Loosens all dependents, then the owner itself. */
async function letGo(
  context: ControllerContext,
  graph: OwnerGraph,
  node: GraphNode,
): Promise<void> {
  for (const dependent of graph.dependentsOf(node.uid)) {
    const live = await getMetadata(context, dependent.resource, dependent);
    if (live?.metadata.uid !== dependent.uid) continue;
    const owners = live.metadata.ownerReferences ?? [];
    const ownerReferences = owners.filter(({ uid }) => uid !== node.uid);
    if (ownerReferences.length === owners.length) continue;
    await patchMetadata(context, dependent, live, { ownerReferences });
  }
  await removeFinalizer(context, node, ORPHAN);
}

async function unblockCycle(
  context: ControllerContext,
  graph: OwnerGraph,
  node: GraphNode,
  dependents: GraphNode[],
): Promise<void> {
  if (!dependents.some(({ isWaiting }) => isWaiting)) return;
  const live = await getMetadata(context, node.resource, node);
  if (live?.metadata.uid !== node.uid) return;
  const ownerReferences = (live.metadata.ownerReferences ?? []).map((owner) =>
    graph.get(owner.uid)?.isWaiting ? { ...owner, blockOwnerDeletion: false } : owner,
  );
  await patchMetadata(context, node, live, { ownerReferences });
}

async function removeFinalizer(
  context: ControllerContext,
  node: GraphNode,
  finalizer: string,
): Promise<void> {
  const live = await getMetadata(context, node.resource, node);
  if (live?.metadata.uid !== node.uid) return;
  const before = live.metadata.finalizers ?? [];
  const finalizers = before.filter((one) => one !== finalizer);
  if (finalizers.length < before.length) await patchMetadata(context, node, live, { finalizers });
}

async function getMetadata(
  { client }: ControllerContext,
  resource: Resource,
  { namespace, name }: { namespace?: string | undefined; name: string },
): Promise<KubeObject | undefined> {
  try {
    return await client.get(metadataOf(resource), { namespace, name });
  } catch (error) {
    if (isStatus(error, 'NotFound')) return undefined;
    throw error;
  }
}

async function patchMetadata(
  { client }: ControllerContext,
  { resource, namespace, name, uid }: GraphNode,
  live: KubeObject,
  change: object,
): Promise<void> {
  const { resourceVersion } = live.metadata;
  const patch = { metadata: { uid, resourceVersion, ...change } };
  try {
    await client.patch(resource, { namespace, name }, 'merge', patch);
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
}
