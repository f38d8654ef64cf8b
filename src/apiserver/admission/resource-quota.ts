import type { KubeObject } from '../../api/object.ts';
import { addQuantities, compareQuantities, subtractQuantities } from '../../api/quantity.ts';
import type { Entry, Store } from '../../store/store.ts';
import type { AdmissionPlugin, AdmissionRequest, Release } from './chain.ts';
import { forbidden } from './chain.ts';
import { evaluate, isInScope, resourcesCountedBy } from '../../api/quota.ts';
import type { QuotaSpec, Usage } from '../../api/quota.ts';

interface Quota {
  name: string;
  spec: QuotaSpec;
}

/**
 * A namespace's quotas. Usage is counted from the objects that exist, under a lock for each
 * namespace that has a quota: two creations never both see the last free place, nor two resizes.
 */
export const resourceQuota: AdmissionPlugin = {
  name: 'ResourceQuota',
  operations: ['CREATE', 'UPDATE'],
  subresources: ['resize'],
  async prepare(request) {
    const { namespace, server, dryRun } = request;
    if (!namespace || dryRun || quotasOf(request).length === 0) return undefined;
    return lock(server.store, namespace);
  },
  validate(request) {
    const { object, operation, subresource } = request;
    if (!object || !request.namespace) return;
    // Of all changes a resize alone makes an object count for more.
    if (operation === 'UPDATE' && subresource !== 'resize') return;
    for (const quota of quotasOf(request)) checkQuota(request, object, quota);
  },
};

const locks = new WeakMap<Store, Map<string, Promise<void>>>();

/** Resolves when nobody else creates in the namespace; the result lets the next one in. */
async function lock(store: Store, namespace: string): Promise<Release> {
  let byNamespace = locks.get(store);
  if (!byNamespace) locks.set(store, (byNamespace = new Map()));
  const before = byNamespace.get(namespace) ?? Promise.resolve();
  let open = () => {};
  const held = new Promise<void>((resolve) => {
    open = resolve;
  });
  const mine = before.then(() => held);
  byNamespace.set(namespace, mine);
  await before;
  const known = byNamespace;
  return () => {
    open();
    if (known.get(namespace) === mine) known.delete(namespace);
  };
}

function quotasOf({ server, namespace }: AdmissionRequest): Quota[] {
  const { entries } = server.store.list('resourcequotas', { namespace });
  return entries.map(({ key, object }) => ({
    name: key.name,
    spec: (object.spec ?? {}) as QuotaSpec,
  }));
}

function checkQuota(request: AdmissionRequest, object: KubeObject, quota: Quota): void {
  const hard = quota.spec.hard ?? {};
  if (!isInScope(object, quota.spec)) return;
  const requested = growthOf(request, object, Object.keys(hard));
  const isNew = request.operation === 'CREATE';
  const unspecified = isNew ? missingAmounts(object, Object.keys(hard)) : [];
  if (unspecified.length > 0) {
    throw forbidden(request, `failed quota: ${quota.name}: must specify ${unspecified.join(',')}`);
  }
  const names = Object.keys(requested).filter((name) => requested[name] !== '0');
  if (names.length === 0) return;
  const used = usageOf(request, quota, names);
  const exceeded = names.filter(
    (name) =>
      compareQuantities(
        addQuantities(used[name] ?? '0', requested[name] as string),
        hard[name] as string,
      ) > 0,
  );
  if (exceeded.length === 0) return;
  const print = (amounts: Usage) =>
    exceeded
      .sort()
      .map((name) => `${name}=${amounts[name] ?? '0'}`)
      .join(',');
  const why =
    `exceeded quota: ${quota.name}, requested: ${print(requested)}, ` +
    `used: ${print(used)}, limited: ${print(hard)}`;
  throw forbidden(request, why);
}

/** What the object adds to what is used: of one that is there already, what it counts for more. */
function growthOf({ oldObject }: AdmissionRequest, object: KubeObject, names: string[]): Usage {
  const wanted = evaluate(object, names);
  if (!oldObject) return wanted;
  const before = evaluate(oldObject, names);
  const more = Object.entries(wanted).map(([name, amount]): [string, string] => {
    const was = before[name] ?? '0';
    return [name, compareQuantities(amount, was) > 0 ? subtractQuantities(amount, was) : '0'];
  });
  return Object.fromEntries(more);
}

/** What one stored object counts never changes as long as its entry lives. */
const counted = new WeakMap<Entry, Map<string, Usage>>();

function usageOf({ server, namespace }: AdmissionRequest, quota: Quota, names: string[]): Usage {
  const total: Usage = {};
  const resources = new Set(names.flatMap((name) => resourcesCountedBy(name)));
  const key = names.join(',');
  for (const resource of resources) {
    for (const entry of server.store.list(resource, { namespace }).entries) {
      if (!isInScope(entry.object, quota.spec)) continue;
      let known = counted.get(entry);
      if (!known) counted.set(entry, (known = new Map()));
      let usage = known.get(key);
      if (!usage) known.set(key, (usage = evaluate(entry.object, names)));
      for (const [name, amount] of Object.entries(usage)) {
        total[name] = total[name] === undefined ? amount : addQuantities(total[name], amount);
      }
    }
  }
  return total;
}

/** A pod that does not say what it uses cannot be counted where that is limited. */
export function missingAmounts(object: KubeObject, names: string[]): string[] {
  if (object.kind !== 'Pod') return [];
  const { containers = [] } = (object.spec ?? {}) as {
    containers?: { name: string; resources?: Record<string, Record<string, string>> }[];
  };
  const missing: string[] = [];
  for (const name of names.sort()) {
    const match = /^(?:(requests|limits)\.)?(cpu|memory)$/.exec(name);
    if (!match) continue;
    const [, side = 'requests', resource = ''] = match;
    const silent = containers.filter(
      ({ resources }) => resources?.[side]?.[resource] === undefined,
    );
    if (silent.length > 0) {
      missing.push(`${name} for: ${silent.map((container) => container.name).join(',')}`);
    }
  }
  return missing;
}
