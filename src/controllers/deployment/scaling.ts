import type { Deployment, ReplicaSet } from '../../api/types.generated.ts';
import {
  availableOf,
  byAge,
  DESIRED_REPLICAS,
  limitsOf,
  MAX_REPLICAS,
  size,
  sumOf,
  wanted,
} from './replicasets.ts';

/** Sizes to set, in order. Computed here, written by the caller. */
export type ScalePlan = { set: ReplicaSet; replicas: number }[];

/** The Deployment was scaled and not (only) changed: its sets still carry the former number. */
export function isScaled(deployment: Deployment, sets: ReplicaSet[]): boolean {
  return sets
    .filter((set) => size(set) > 0)
    .some((set) => {
      const known = set.metadata.annotations?.[DESIRED_REPLICAS];
      return known !== undefined && Number(known) !== wanted(deployment);
    });
}

function isSaturated(deployment: Deployment, newSet: ReplicaSet | undefined): boolean {
  if (!newSet) return false;
  const total = wanted(deployment);
  const desired = Number(newSet.metadata.annotations?.[DESIRED_REPLICAS]);
  return desired === total && size(newSet) === total && availableOf(newSet) === total;
}

/**
 * How a change of the wanted number is spread: onto the one active set; away from the old ones
 * once the new one is complete; else, in the middle of an update, over all in proportion.
 */
export function planScaling(
  deployment: Deployment,
  newSet: ReplicaSet | undefined,
  oldSets: ReplicaSet[],
): ScalePlan {
  const total = wanted(deployment);
  const single = activeOrLatest(newSet, oldSets);
  if (single) return size(single) === total ? [] : [{ set: single, replicas: total }];
  if (isSaturated(deployment, newSet)) {
    return oldSets.filter((set) => size(set) > 0).map((set) => ({ set, replicas: 0 }));
  }
  if (deployment.spec?.strategy?.type === 'Recreate') return [];
  return planProportionally(deployment, [...oldSets, ...(newSet ? [newSet] : [])]);
}

function activeOrLatest(
  newSet: ReplicaSet | undefined,
  oldSets: ReplicaSet[],
): ReplicaSet | undefined {
  const all = [...oldSets, ...(newSet ? [newSet] : [])];
  const active = all.filter((set) => size(set) > 0);
  if (active.length === 0) return newSet ?? oldSets.toSorted(byAge).at(-1);
  return active.length === 1 ? active[0] : undefined;
}

function planProportionally(deployment: Deployment, sets: ReplicaSet[]): ScalePlan {
  const total = wanted(deployment);
  const active = sets.filter((set) => size(set) > 0);
  const allowed = total > 0 ? total + limitsOf(deployment).surge : 0;
  const toAdd = allowed - sumOf(active, size);
  // The largest take most; of equals the newest grow and the oldest shrink first.
  const ordered = active.toSorted(
    (a, b) => size(b) - size(a) || (toAdd > 0 ? byAge(b, a) : byAge(a, b)),
  );
  let added = 0;
  const plan = ordered.map((set) => {
    const share = toAdd === 0 ? 0 : proportionOf(deployment, set, toAdd, added);
    added += share;
    return { set, replicas: size(set) + share };
  });
  const [first] = plan;
  if (first && toAdd !== 0) first.replicas = Math.max(0, first.replicas + toAdd - added);
  return plan;
}

/** A set's share of what is added (or, negative, taken away), rounded, within what is left. */
function proportionOf(
  deployment: Deployment,
  set: ReplicaSet,
  toAdd: number,
  added: number,
): number {
  if (size(set) === 0) return 0;
  const total = wanted(deployment);
  let fraction = -size(set);
  if (total > 0) {
    const before =
      Number(set.metadata.annotations?.[MAX_REPLICAS]) || (deployment.status?.replicas ?? 0);
    if (before === 0) return 0;
    const target = (size(set) * (total + limitsOf(deployment).surge)) / before;
    fraction = Math.round(target) - size(set);
  }
  const left = toAdd - added;
  return toAdd > 0 ? Math.min(fraction, left) : Math.max(fraction, left);
}

/** One step of a rolling update: first the new set up, then the old ones down. */
export function planOldSets(
  deployment: Deployment,
  newSet: ReplicaSet,
  oldSets: ReplicaSet[],
): ScalePlan {
  const all = [...oldSets, newSet];
  const minAvailable = wanted(deployment) - limitsOf(deployment).unavailable;
  const newUnavailable = size(newSet) - availableOf(newSet);
  let budget = sumOf(all, size) - minAvailable - newUnavailable;
  const sizes = new Map(oldSets.map((set) => [set, size(set)]));
  if (budget <= 0) return [];
  const ordered = oldSets.filter((set) => size(set) > 0).sort(byAge);
  // Pods that do not work go first: they are of no use to anybody.
  for (const set of ordered) {
    if (budget <= 0) break;
    const broken = Math.min(budget, Math.max(0, size(set) - availableOf(set)));
    sizes.set(set, size(set) - broken);
    budget -= broken;
  }
  let spare = sumOf(all, availableOf) - minAvailable;
  for (const set of ordered) {
    if (spare <= 0) break;
    const current = sizes.get(set) ?? 0;
    const fewer = Math.min(current, spare);
    sizes.set(set, current - fewer);
    spare -= fewer;
  }
  return ordered
    .map((set) => ({ set, replicas: sizes.get(set) ?? 0 }))
    .filter(({ set, replicas }) => replicas !== size(set));
}
