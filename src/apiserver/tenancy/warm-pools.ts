import { NOTHING, allowancesOf, holdingsOf } from '../../api/holdings.ts';
import type { Allowance } from '../../api/holdings.ts';
import { POOL_MEMORY_FRACTION } from '../../api/hyperd.ts';
import type { KubeObject } from '../../api/object.ts';
import { parseQuantity } from '../../api/quantity.ts';
import type { Usage } from '../../api/quota.ts';
import { MEMORY_NAMES, amountsFrom, usageFrom } from '../../api/tenant-quota.ts';
import type { ObjectIndex } from '../server/follower.ts';

/**
 * VMs that wait for a tenant's pods, as its nodes tell of them (`api/holdings.ts`). Their memory is
 * part of what the tenant uses, and gives way to pods: they may take what the tenant's pods leave of
 * its quota, and no pod is refused because of them.
 */
export interface WarmPools extends ObjectIndex {
  /** What `used` is with the memory of waiting VMs. */
  addTo(tenant: string, used: Usage): Usage;
  /**
   * What nodes have to be told, so that the waiting VMs of the tenant fit into what there is for them.
   *
   * @param freeBytes as `memoryLeft` says, or 0 for a tenant that is to have none
   */
  corrections(tenant: string, freeBytes: number): Correction[];
  onChange: (tenant: string) => void;
}

export interface Correction {
  node: string;
  /** Bytes; `null` where the node's own bounds are enough. */
  allowance: number | null;
}

interface NodePools {
  holdings: Map<string, number>;
  allowances: Map<string, Allowance>;
  /** As much as VMs of all tenants may take there while they wait. */
  mostBytes: number;
}

/** Allowances change in steps of this, so that not every pod makes a node's object change. */
const STEP_BYTES = 64 * 2 ** 20;
const NANOS = 1_000_000_000n;

export function createWarmPools(): WarmPools {
  const nodes = new Map<string, NodePools>();
  const namesOf = (node: NodePools | undefined) => [
    ...(node?.holdings.keys() ?? []),
    ...(node?.allowances.keys() ?? []),
  ];
  const replace = (name: string, next: NodePools | undefined) => {
    const before = nodes.get(name);
    if (next) nodes.set(name, next);
    else nodes.delete(name);
    for (const tenant of new Set([...namesOf(before), ...namesOf(next)])) {
      const isSame =
        before?.holdings.get(tenant) === next?.holdings.get(tenant) &&
        before?.allowances.get(tenant) === next?.allowances.get(tenant);
      if (!isSame) pools.onChange(tenant);
    }
  };
  const pools: WarmPools = {
    onChange: () => {},
    set(object) {
      replace(object.metadata.name ?? '', {
        holdings: holdingsOf(object),
        allowances: allowancesOf(object),
        mostBytes: capacityBytes(object) * POOL_MEMORY_FRACTION,
      });
    },
    delete: ({ metadata }) => replace(metadata.name ?? '', undefined),
    addTo(tenant, used) {
      const bytes = [...nodes.values()].reduce(
        (sum, { holdings }) => sum + (holdings.get(tenant) ?? 0),
        0,
      );
      const amounts = amountsFrom(used);
      for (const name of MEMORY_NAMES) {
        const amount = amounts.get(name);
        if (amount !== undefined) amounts.set(name, amount + BigInt(bytes) * NANOS);
      }
      return usageFrom(amounts, used);
    },
    corrections(tenant, freeBytes) {
      const all = [...nodes].filter(([, node]) => namesOf(node).includes(tenant));
      const holderCount = all.filter(([, { holdings }]) => holdings.has(tenant)).length;
      return all.flatMap(([name, { holdings, allowances, mostBytes }]) => {
        const now = allowances.get(tenant) ?? null;
        // A tenant that is going is the tenant controller's business.
        if (now === NOTHING) return [];
        const share = Math.floor(freeBytes / Math.max(1, holderCount) / STEP_BYTES) * STEP_BYTES;
        const isBound = holdings.has(tenant) && share < mostBytes;
        const allowance = isBound ? share : null;
        return allowance === now ? [] : [{ node: name, allowance }];
      });
    },
  };
  return pools;
}

/**
 * Bytes that pods leave of a quota, by the limit that leaves least; infinite without any on memory.
 *
 * @param used by pods, of what `hard` limits
 */
export function memoryLeft(hard: Usage, used: Usage): number {
  const [limits, amounts] = [amountsFrom(hard), amountsFrom(used)];
  let least = Number.POSITIVE_INFINITY;
  for (const name of MEMORY_NAMES) {
    const limit = limits.get(name);
    if (limit === undefined) continue;
    const left = Number((limit - (amounts.get(name) ?? 0n)) / NANOS);
    least = Math.min(least, Math.max(0, left));
  }
  return least;
}

function capacityBytes({ status }: KubeObject): number {
  const { memory } = (status as { capacity?: Record<string, string> } | undefined)?.capacity ?? {};
  return memory === undefined ? 0 : Number(parseQuantity(memory).nanos / NANOS);
}
