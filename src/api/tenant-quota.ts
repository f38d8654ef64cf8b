import type { KubeObject } from './object.ts';
import { formatQuantity, parseQuantity } from './quantity.ts';
import { evaluate, isQuotaName, resourcesCountedBy } from './quota.ts';
import type { Usage } from './quota.ts';

/**
 * What counts against a tenant's quota: what a ResourceQuota counts, over all namespaces; what only
 * tenants have; and the memory of each VM beside its containers'.
 */

/** In billionths, by the names that quotas use. */
export type Amounts = Map<string, bigint>;

/**
 * On pods of tenants: the bytes that its VM costs beside what its containers ask for. Written when
 * the pod is made, so that it counts the same for as long as the pod is there.
 */
export const VM_OVERHEAD_ANNOTATION = 'hypernetes.io/vm-overhead-memory';

const ONE = 1_000_000_000n;
export const MEMORY_NAMES = ['memory', 'requests.memory', 'limits.memory'];

/** Names that only a tenant's quota has, and the store's resource behind each. */
const TENANT_NAMES: Record<string, string> = {
  namespaces: 'namespaces',
  networks: 'hypernetes.io/networks',
  volumes: 'hypernetes.io/volumes',
  floatingips: 'hypernetes.io/floatingips',
};
/** Sub-tenants: counted where their parent is, unlike what they have. */
export const SUB_TENANTS = 'tenants';

/** Whether a tenant's quota may limit this name. */
export function isTenantQuotaName(name: string): boolean {
  if (Object.hasOwn(TENANT_NAMES, name) || name === SUB_TENANTS) return true;
  return isQuotaName(name) && name !== 'count/tenants.hypernetes.io';
}

/** The store's resources of which a tenant's objects count towards the name. */
export function resourcesOfTenantQuota(name: string): string[] {
  if (name === SUB_TENANTS) return [];
  return Object.hasOwn(TENANT_NAMES, name)
    ? [TENANT_NAMES[name] as string]
    : resourcesCountedBy(name);
}

/** What one object of the store's resource adds to each of the names; nothing is left out. */
export function amountsOf(resource: string, object: KubeObject, names: Iterable<string>): Amounts {
  const amounts: Amounts = new Map();
  const measured: string[] = [];
  for (const name of names) {
    if (!resourcesOfTenantQuota(name).includes(resource)) continue;
    if (Object.hasOwn(TENANT_NAMES, name)) amounts.set(name, ONE);
    else measured.push(name);
  }
  for (const [name, text] of Object.entries(evaluate(object, measured))) {
    const nanos = parseQuantity(text).nanos + overhead(object, name);
    if (nanos !== 0n) amounts.set(name, nanos);
  }
  return amounts;
}

function overhead({ kind, metadata }: KubeObject, name: string): bigint {
  if (kind !== 'Pod' || !MEMORY_NAMES.includes(name)) return 0n;
  const text = metadata.annotations?.[VM_OVERHEAD_ANNOTATION] ?? '';
  return /^\d{1,15}$/.test(text) ? BigInt(text) * ONE : 0n;
}

export function amountsFrom(usage: Usage | undefined): Amounts {
  const entries = Object.entries(usage ?? {});
  return new Map(entries.map(([name, text]) => [name, parseQuantity(text).nanos]));
}

/** As text, each in the format in which `like` writes it. */
export function usageFrom(amounts: Amounts, like: Usage): Usage {
  const entries = [...amounts].sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    entries.map(([name, nanos]) => {
      const { format } = parseQuantity(like[name] ?? '0');
      return [name, formatQuantity({ nanos, format })];
    }),
  );
}
