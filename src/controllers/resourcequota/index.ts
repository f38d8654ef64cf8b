import type { KubeObject } from '../../api/object.ts';
import { addQuantities, canonicalQuantity } from '../../api/quantity.ts';
import { evaluate, isInScope, resourcesCountedBy } from '../../api/quota.ts';
import type { QuotaSpec, Usage } from '../../api/quota.ts';
import type { ResourceQuota } from '../../api/types.generated.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import type { Informer } from '../../client/informer.ts';
import { metadataOf, PODS, RESOURCE_QUOTAS, SERVICES } from '../../client/resources.ts';
import { PERSISTENT_VOLUME_CLAIMS } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { discover, hasVerbs } from '../common/discovery.ts';
import { isSameStatus } from '../common/status.ts';

/** Many objects come and go together: they are counted once for all. */
const SETTLE_MS = 200;
/** Kinds of which quotas limit more than how many there are. */
const MEASURED: Resource[] = [PODS, SERVICES, PERSISTENT_VOLUME_CLAIMS];

/**
 * Writes into each ResourceQuota what its namespace uses. Admission does not read it: that counts
 * for itself, at the moment of each creation. Of kinds that are only counted, metadata is enough.
 */
export function runResourceQuotaController(context: ControllerContext): Promise<void> {
  const { client, informers, clock, log, signal } = context;
  const quotas = informers.informer(RESOURCE_QUOTAS);
  const queue = createWorkQueue(clock);
  const enqueue = (quota: ResourceQuota) => queue.add(objectKey(quota));
  quotas.addHandler({ add: enqueue, update: enqueue });
  const recount = ({ metadata }: KubeObject): void => {
    for (const quota of quotas.list(metadata.namespace ?? '')) {
      queue.addAfter(objectKey(quota), SETTLE_MS);
    }
  };
  const counters = new Map<string, Counter>();
  const counterOf = (counted: string, served: Resource[]): Counter | undefined => {
    const known = counters.get(counted);
    if (known) return known;
    const isWanted = (resource: Resource) => idOf(resource) === counted;
    const measured = MEASURED.find(isWanted);
    const found = measured ?? served.find(isWanted);
    if (!found) return undefined;
    const informer = informers.informer<KubeObject>(measured ?? metadataOf(found));
    // Of a kind that is only counted, no change of an object changes the count.
    informer.addHandler({
      add: recount,
      delete: recount,
      ...(measured ? { update: recount } : {}),
    });
    const counter = { informer, isMeasured: measured !== undefined };
    counters.set(counted, counter);
    return counter;
  };

  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const quota = quotas.get(namespace, name);
    if (!quota || quota.metadata.deletionTimestamp) return;
    const hard = quota.spec?.hard ?? {};
    const resources = new Set(Object.keys(hard).flatMap(resourcesCountedBy));
    const isKnown = [...resources].every((id) => MEASURED.some((one) => idOf(one) === id));
    const served = isKnown
      ? []
      : (await discover(client)).filter((one) => hasVerbs(one, 'list', 'watch'));
    const followed = [...resources].map((id) => ({ id, counter: counterOf(id, served) }));
    await Promise.all(followed.map(({ counter }) => counter?.informer.synced));
    const used: Usage = Object.fromEntries(Object.keys(hard).map((limit) => [limit, '0']));
    for (const { id, counter } of followed) {
      if (counter) addUsage(used, quota, id, counter);
    }
    const status = { hard, used: canonical(used) };
    if (isSameStatus(quota.status, status)) return;
    await client.updateStatus(RESOURCE_QUOTAS, { ...quota, status });
  };
  return runController({
    name: 'resourcequota',
    queue,
    reconcile,
    informers: [quotas],
    clock,
    log,
    signal,
  });
}

interface Counter {
  informer: Informer<KubeObject>;
  /** Whole objects are there to be measured, and not only metadata to be counted. */
  isMeasured: boolean;
}

/** As quotas name kinds: `pods`, `apps/deployments`. */
function idOf({ group, resource }: Resource): string {
  return group ? `${group}/${resource}` : resource;
}

function addUsage(used: Usage, quota: ResourceQuota, id: string, counter: Counter): void {
  const limits = Object.keys(used).filter((limit) => resourcesCountedBy(limit).includes(id));
  const objects = counter.informer.list(quota.metadata.namespace ?? '');
  const spec = (quota.spec ?? {}) as QuotaSpec;
  if (!counter.isMeasured) {
    const isScoped = (spec.scopes?.length ?? 0) > 0 || spec.scopeSelector !== undefined;
    // Scopes tell pods apart; nothing else is in any.
    for (const limit of limits) used[limit] = isScoped ? '0' : String(objects.length);
    return;
  }
  for (const object of objects) {
    if (!isInScope(object, spec)) continue;
    for (const [limit, amount] of Object.entries(evaluate(object, limits))) {
      used[limit] = addQuantities(used[limit] ?? '0', amount);
    }
  }
}

function canonical(used: Usage): Usage {
  const entries = Object.entries(used);
  return Object.fromEntries(entries.map(([name, text]) => [name, canonicalQuantity(text).text]));
}
