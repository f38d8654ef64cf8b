import type { KubeObject } from '../../api/object.ts';
import { isStatus, qualifiedResource } from '../../api/status.ts';
import type { Namespace, NamespaceCondition } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { runController } from '../../client/controller.ts';
import { metadataOf, NAMESPACES, PODS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { discover, hasVerbs } from '../common/discovery.ts';
import type { DiscoveredResource } from '../common/discovery.ts';
import { isSameStatus } from '../common/status.ts';

const FINALIZER = 'kubernetes';
/** How soon a namespace that is not empty yet is looked at again, if nothing tells sooner. */
const RECHECK_MS = 2000;
const CONCURRENCY = 4;

/** Empties namespaces that are being deleted, and lets them go. */
export function runNamespaceController(context: ControllerContext): Promise<void> {
  const { informers, clock, log, signal } = context;
  const namespaces = informers.informer(NAMESPACES);
  const pods = informers.informer(PODS);
  const queue = createWorkQueue(clock);
  const enqueue = ({ metadata }: Namespace): void => {
    if (metadata.deletionTimestamp) queue.add(metadata.name ?? '');
  };
  namespaces.addHandler({ add: enqueue, update: enqueue });
  pods.addHandler({
    delete({ metadata }) {
      const namespace = namespaces.get(undefined, metadata.namespace ?? '');
      if (namespace) enqueue(namespace);
    },
  });
  const reconcile = async (name: string): Promise<void> => {
    const namespace = namespaces.get(undefined, name);
    if (!namespace?.metadata.deletionTimestamp) return;
    if (!namespace.spec?.finalizers?.includes(FINALIZER)) return;
    const isEmpty = await empty(context, namespace);
    if (!isEmpty) queue.addAfter(name, RECHECK_MS);
  };
  return runController({
    name: 'namespace',
    queue,
    reconcile,
    informers: [namespaces, pods],
    concurrency: CONCURRENCY,
    clock,
    log,
    signal,
  });
}

interface Remains {
  /** `pods` → how many are left. */
  resources: Map<string, number>;
  /** Finalizer → how many objects carry it. */
  finalizers: Map<string, number>;
  failures: string[];
  discoveryFailure: string | undefined;
}

/** One pass over the content. @returns whether the namespace is gone */
async function empty(context: ControllerContext, namespace: Namespace): Promise<boolean> {
  const { client } = context;
  const name = namespace.metadata.name ?? '';
  const remains: Remains = {
    resources: new Map(),
    finalizers: new Map(),
    failures: [],
    discoveryFailure: undefined,
  };
  let resources: DiscoveredResource[] = [];
  try {
    resources = (await discover(client)).filter(
      (resource) => resource.namespaced && hasVerbs(resource, 'list', 'delete'),
    );
  } catch (error) {
    remains.discoveryFailure = describeError(error);
  }
  // Pods first: what protects them, such as their network policies, must not go before them.
  const isPod = ({ group, resource }: DiscoveredResource) => group === '' && resource === 'pods';
  for (const resource of resources.filter(isPod)) await clear(context, resource, name, remains);
  if (remains.resources.size === 0) {
    const others = resources.filter((resource) => !isPod(resource));
    await Promise.all(others.map((resource) => clear(context, resource, name, remains)));
  }
  const isEmpty =
    !remains.discoveryFailure && remains.resources.size === 0 && remains.failures.length === 0;
  const current = await writeConditions(context, namespace, remains);
  if (!isEmpty || !current) return !current;
  const finalizers = (current.spec?.finalizers ?? []).filter((one) => one !== FINALIZER);
  const finalized = { ...current, spec: { ...current.spec, finalizers } };
  try {
    await client.update(NAMESPACES, finalized, { subresource: 'finalize' });
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
  return true;
}

/** Deletes all objects of one kind and notes what is still there. */
async function clear(
  { client }: ControllerContext,
  resource: DiscoveredResource,
  namespace: string,
  remains: Remains,
): Promise<void> {
  const label = qualifiedResource(resource.group, resource.resource);
  const metadata = metadataOf(resource);
  try {
    const before = await client.list(metadata, { namespace, limit: 1 });
    if (before.items.length === 0) return;
    await removeAll(client, resource, namespace);
    const { items } = await client.listAll(metadata, { namespace });
    if (items.length > 0) remains.resources.set(label, items.length);
    for (const finalizer of items.flatMap((item: KubeObject) => item.metadata.finalizers ?? [])) {
      remains.finalizers.set(finalizer, (remains.finalizers.get(finalizer) ?? 0) + 1);
    }
  } catch (error) {
    // A kind that vanished meanwhile holds nothing back.
    if (isStatus(error, 'NotFound')) return;
    remains.failures.push(`${label}: ${describeError(error)}`);
  }
}

async function removeAll(
  client: ControllerContext['client'],
  resource: DiscoveredResource,
  namespace: string,
): Promise<void> {
  if (hasVerbs(resource, 'deletecollection')) {
    await client.deleteCollection(resource, { namespace, propagationPolicy: 'Background' });
    return;
  }
  const { items } = await client.listAll(metadataOf(resource), { namespace });
  for (const { metadata } of items) {
    try {
      const { name = '', uid } = metadata;
      await client.delete(resource, { namespace, name }, { uid, propagationPolicy: 'Background' });
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error;
    }
  }
}

/** Tells in the status what keeps the namespace. @returns undefined when it is gone */
async function writeConditions(
  { client, clock }: ControllerContext,
  namespace: Namespace,
  remains: Remains,
): Promise<Namespace | undefined> {
  const now = rfc3339(clock.nowMs());
  const conditions = describeRemains(remains).map((condition) => {
    const known = namespace.status?.conditions?.find(({ type }) => type === condition.type);
    const isSame = known?.status === condition.status;
    return { ...condition, lastTransitionTime: isSame ? known.lastTransitionTime : now };
  });
  const status = { phase: 'Terminating', conditions };
  if (isSameStatus(namespace.status, status)) return namespace;
  try {
    return await client.updateStatus(NAMESPACES, { ...namespace, status });
  } catch (error) {
    if (isStatus(error, 'NotFound')) return undefined;
    throw error;
  }
}

/** The conditions, reasons and words that clients of Kubernetes print for a stuck namespace. */
function describeRemains(remains: Remains): Omit<NamespaceCondition, 'lastTransitionTime'>[] {
  const list = (counts: Map<string, number>, join: (name: string, count: number) => string) =>
    [...counts]
      .sort()
      .map(([name, count]) => join(name, count))
      .join(', ');
  const held = list(remains.resources, (name, count) => `${name}. has ${count} resource instances`);
  const kept = list(remains.finalizers, (name, count) => `${name} in ${count} resource instances`);
  const failures = remains.failures.join('; ');
  const judge = (
    type: string,
    problem: string | undefined,
    [badReason, badText]: [string, string],
    [goodReason, goodText]: [string, string],
  ) =>
    problem
      ? { type, status: 'True', reason: badReason, message: `${badText}${problem}` }
      : { type, status: 'False', reason: goodReason, message: goodText };
  return [
    judge(
      'NamespaceDeletionDiscoveryFailure',
      remains.discoveryFailure,
      ['DiscoveryFailed', 'Discovery failed for some groups: '],
      ['ResourcesDiscovered', 'All resources successfully discovered'],
    ),
    judge(
      'NamespaceDeletionGroupVersionParsingFailure',
      undefined,
      ['GroupVersionParsingFailed', ''],
      ['ParsedGroupVersions', 'All legacy kube types successfully parsed'],
    ),
    judge(
      'NamespaceDeletionContentFailure',
      failures,
      ['ContentDeletionFailed', 'Failed to delete all resource types: '],
      ['ContentDeleted', 'All content successfully deleted, may be waiting on finalization'],
    ),
    judge(
      'NamespaceContentRemaining',
      held,
      ['SomeResourcesRemain', 'Some resources are remaining: '],
      ['ContentRemoved', 'All content successfully removed'],
    ),
    judge(
      'NamespaceFinalizersRemaining',
      kept,
      ['SomeFinalizersRemain', 'Some content in the namespace has finalizers remaining: '],
      ['ContentHasNoFinalizers', 'All content-preserving finalizers finished'],
    ),
  ];
}
