import type { Pod, StatefulSet } from '../../api/types.generated.ts';
import { hashOf } from '../common/history.ts';
import { resolveLimit } from '../common/limits.ts';
import { isTerminal, untilAvailableMs } from '../common/pods.ts';
import { ordinalOf } from './identity.ts';

/** A StatefulSet and its pods, while it is reconciled. */
export interface View {
  set: StatefulSet;
  pods: Pod[];
  /** Names of the revisions that all replicas had before the update, and that they get. */
  currentRevision: string;
  updateRevision: string;
  nowMs: number;
}

export interface StatefulPlan {
  create: { ordinal: number; revision: string }[];
  remove: Pod[];
}

const isEnding = ({ metadata }: Pod): boolean => metadata.deletionTimestamp !== undefined;

export function isAvailable({ set, nowMs }: View, pod: Pod): boolean {
  const minReadySeconds = set.spec?.minReadySeconds ?? 0;
  return pod.status?.phase === 'Running' && untilAvailableMs(pod, minReadySeconds, nowMs) === 0;
}

/** The ordinals that should exist, from the lowest. */
function ordinalsOf({ spec }: StatefulSet): number[] {
  const start = spec?.ordinals?.start ?? 0;
  return Array.from({ length: spec?.replicas ?? 1 }, (_, index) => start + index);
}

/** From which place on replicas are of the new revision, counted from the first ordinal. */
function partitionOf({ spec }: StatefulSet): number {
  if (spec?.updateStrategy?.type === 'OnDelete') return 0;
  return spec?.updateStrategy?.rollingUpdate?.partition ?? 0;
}

/**
 * The next step. Replicas are made from the lowest ordinal and taken away from the highest; where
 * their order is kept, each waits until those before it are available. An update begins at the
 * highest.
 */
export function planStep(view: View): StatefulPlan {
  const { set, pods } = view;
  const byOrdinal = new Map(pods.map((pod) => [ordinalOf(set, pod), pod]));
  const wanted = ordinalsOf(set);
  const isOrdered = set.spec?.podManagementPolicy !== 'Parallel';
  const plan: StatefulPlan = { create: [], remove: [] };
  for (const [place, ordinal] of wanted.entries()) {
    const pod = byOrdinal.get(ordinal);
    if (!pod) plan.create.push({ ordinal, revision: revisionFor(view, place) });
    else if (isTerminal(pod) && !isEnding(pod)) plan.remove.push(pod);
    else if (!isEnding(pod) && isAvailable(view, pod)) continue;
    // Where order is kept, nothing further happens before this one is available.
    if (isOrdered) return plan;
  }
  const isUnwanted = (pod: Pod) => !wanted.includes(ordinalOf(set, pod) ?? -1);
  const height = (pod: Pod) => ordinalOf(set, pod) ?? -1;
  const condemned = pods.filter(isUnwanted).sort((a, b) => height(b) - height(a));
  if (!isOrdered) plan.remove.push(...condemned.filter((pod) => !isEnding(pod)));
  else if (condemned[0]) {
    if (!isEnding(condemned[0])) plan.remove.push(condemned[0]);
    return plan;
  }
  if (plan.create.length + plan.remove.length > 0) return plan;
  return { create: [], remove: planUpdate(view, wanted, byOrdinal) };
}

/** A replica below the partition comes back as it was; all others come back updated. */
function revisionFor({ set, currentRevision, updateRevision }: View, place: number): string {
  return place < partitionOf(set) ? currentRevision : updateRevision;
}

/** Old replicas from the highest ordinal, no more than may be missing at a time. */
function planUpdate(view: View, wanted: number[], byOrdinal: Map<number | undefined, Pod>): Pod[] {
  const { set, updateRevision } = view;
  if (set.spec?.updateStrategy?.type === 'OnDelete') return [];
  const allowed = set.spec?.updateStrategy?.rollingUpdate?.maxUnavailable ?? 1;
  const limit = Math.max(1, resolveLimit(allowed, wanted.length, Math.ceil));
  const remove: Pod[] = [];
  let unavailable = 0;
  for (const one of wanted.slice(partitionOf(set)).reverse()) {
    const pod = byOrdinal.get(one);
    const isOld = pod && hashOf(pod) !== updateRevision && !isEnding(pod);
    if (isOld) remove.push(pod);
    if (isOld || !pod || isEnding(pod) || !isAvailable(view, pod)) unavailable += 1;
    if (unavailable >= limit) break;
  }
  return remove;
}
