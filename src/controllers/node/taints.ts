import { isDeepStrictEqual } from 'node:util';
import { tolerates } from '../../api/placement.ts';
import type { Node, Pod, Taint } from '../../api/types.generated.ts';
import { nodeCondition } from './heartbeat.ts';

export const NOT_READY = 'node.kubernetes.io/not-ready';
const UNREACHABLE = 'node.kubernetes.io/unreachable';
const UNSCHEDULABLE = 'node.kubernetes.io/unschedulable';

/** Condition and its value → the taint that keeps new pods away. */
const CONDITION_TAINTS: [type: string, status: string, key: string][] = [
  ['Ready', 'False', NOT_READY],
  ['Ready', 'Unknown', UNREACHABLE],
  ['MemoryPressure', 'True', 'node.kubernetes.io/memory-pressure'],
  ['DiskPressure', 'True', 'node.kubernetes.io/disk-pressure'],
  ['PIDPressure', 'True', 'node.kubernetes.io/pid-pressure'],
  ['NetworkUnavailable', 'True', 'node.kubernetes.io/network-unavailable'],
];

const MANAGED_KEYS = new Set([UNSCHEDULABLE, ...CONDITION_TAINTS.map(([, , key]) => key)]);

/** The taint that drives pods off a node in this state, or undefined. */
export function evictionTaintKey(node: Node): string | undefined {
  const ready = nodeCondition(node, 'Ready')?.status;
  if (ready === 'False') return NOT_READY;
  return ready === 'Unknown' ? UNREACHABLE : undefined;
}

/**
 * The taints a node should have: those we do not manage as they are, and ours after its
 * conditions. Undefined when nothing changes.
 *
 * @param eviction what becomes of the NoExecute taint that drives pods away
 */
export function wantedTaints(
  node: Node,
  eviction: 'add' | 'keep' | 'remove',
  now: string,
): Taint[] | undefined {
  const current = node.spec?.taints ?? [];
  const foreign = current.filter(({ key }) => !MANAGED_KEYS.has(key));
  const keep = (key: string, effect: string): Taint => {
    const known = current.find((taint) => taint.key === key && taint.effect === effect);
    return known ?? { key, effect, ...(effect === 'NoExecute' ? { timeAdded: now } : {}) };
  };
  const own: Taint[] = [];
  for (const [type, status, key] of CONDITION_TAINTS) {
    if (nodeCondition(node, type)?.status === status) own.push(keep(key, 'NoSchedule'));
  }
  if (node.spec?.unschedulable) own.push(keep(UNSCHEDULABLE, 'NoSchedule'));
  const evicting = evictionTaintKey(node);
  const hasEvicting = current.some(({ key, effect }) => key === evicting && effect === 'NoExecute');
  const isWanted = eviction === 'add' || (eviction === 'keep' && hasEvicting);
  if (evicting && isWanted) own.push(keep(evicting, 'NoExecute'));
  const wanted = [...foreign, ...own];
  const sorted = (taints: Taint[]) =>
    taints.toSorted((a, b) => (`${a.key} ${a.effect}` < `${b.key} ${b.effect}` ? -1 : 1));
  return isDeepStrictEqual(sorted(wanted), sorted(current)) ? undefined : wanted;
}

/**
 * When a pod has to leave a node for its NoExecute taints, in milliseconds of the clock that
 * wrote `timeAdded`; undefined when never.
 */
export function evictionTimeMs(pod: Pod, taints: Taint[], nowMs: number): number | undefined {
  const tolerations = pod.spec?.tolerations ?? [];
  let soonestMs: number | undefined;
  for (const taint of taints) {
    if (taint.effect !== 'NoExecute') continue;
    const matching = tolerations.filter((toleration) => tolerates(toleration, taint));
    if (matching.length === 0) return nowMs;
    const seconds = matching.flatMap(({ tolerationSeconds }) => tolerationSeconds ?? []);
    if (seconds.length === 0) continue;
    const sinceMs = taint.timeAdded ? Date.parse(taint.timeAdded) : nowMs;
    const dueMs = sinceMs + Math.max(0, Math.min(...seconds)) * 1000;
    soonestMs = Math.min(soonestMs ?? Infinity, dueMs);
  }
  return soonestMs;
}
