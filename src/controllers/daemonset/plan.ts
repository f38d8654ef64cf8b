import type { DaemonSet, Node, Pod } from '../../api/types.generated.ts';
import { hashOf } from '../common/history.ts';
import { isTerminal, untilAvailableMs } from '../common/pods.ts';
import { resolveLimit } from '../common/limits.ts';
import { judgeNode, nodeOf } from './nodes.ts';

/** A DaemonSet, its nodes and its pods, while it is reconciled. */
export interface View {
  set: DaemonSet;
  nodes: Node[];
  podsByNode: Map<string, Pod[]>;
  /** Of the template that is wanted. */
  hash: string;
  nowMs: number;
}

export interface DaemonPlan {
  /** Names of nodes that get a pod. */
  create: string[];
  remove: Pod[];
  /** Ended pods; they are removed too, but not too fast. */
  ended: Pod[];
}

export function groupByNode(pods: Pod[]): Map<string, Pod[]> {
  const groups = new Map<string, Pod[]>();
  for (const pod of pods) {
    const node = nodeOf(pod);
    if (node) groups.set(node, [...(groups.get(node) ?? []), pod]);
  }
  return groups;
}

const isEnding = ({ metadata }: Pod): boolean => metadata.deletionTimestamp !== undefined;

export function isAvailable({ set, nowMs }: View, pod: Pod): boolean {
  return !isEnding(pod) && untilAvailableMs(pod, set.spec?.minReadySeconds ?? 0, nowMs) === 0;
}

function byAge(a: Pod, b: Pod): number {
  const [first = '', second = ''] = [a, b].map(({ metadata }) => metadata.creationTimestamp);
  if (first !== second) return first < second ? -1 : 1;
  return (a.metadata.name ?? '') < (b.metadata.name ?? '') ? -1 : 1;
}

/** What has to happen for every node to have the one pod it should. */
export function planNodes(view: View): DaemonPlan {
  const plan: DaemonPlan = { create: [], remove: [], ended: [] };
  const known = new Set<string>();
  for (const node of view.nodes) {
    const { name = '' } = node.metadata;
    known.add(name);
    planNode(view, node, view.podsByNode.get(name) ?? [], plan);
  }
  // Bound for a node that is gone: nobody else will end them.
  for (const [name, pods] of view.podsByNode) {
    if (known.has(name)) continue;
    plan.remove.push(...pods.filter((pod) => !pod.spec?.nodeName && !isEnding(pod)));
  }
  return plan;
}

function planNode(view: View, node: Node, pods: Pod[], plan: DaemonPlan): void {
  const { shouldRun, mayStay } = judgeNode(view.set, node);
  const staying = pods.filter((pod) => !isEnding(pod));
  if (!mayStay) plan.remove.push(...staying);
  else if (shouldRun && pods.length === 0) plan.create.push(node.metadata.name ?? '');
  else {
    plan.ended.push(...staying.filter(isTerminal));
    plan.remove.push(...surplusOf(view, staying.filter((pod) => !isTerminal(pod)).sort(byAge)));
  }
}

/** Of several pods on a node the oldest stays; in a surge the oldest of each revision does. */
function surplusOf(view: View, pods: Pod[]): Pod[] {
  if (limitsOf(view).surge === 0) return pods.slice(1);
  const current = pods.filter((pod) => hashOf(pod) === view.hash);
  const old = pods.filter((pod) => hashOf(pod) !== view.hash);
  const isReplaced = current[0] !== undefined && isAvailable(view, current[0]);
  return [...current.slice(1), ...old.slice(isReplaced ? 0 : 1)];
}

/** Both limits at nothing would let no update ever proceed. */
function limitsOf({ set, nodes }: View): { surge: number; unavailable: number } {
  const update = set.spec?.updateStrategy?.rollingUpdate;
  const desired = nodes.filter((node) => judgeNode(set, node).shouldRun).length;
  const surge = resolveLimit(update?.maxSurge ?? 0, desired, Math.ceil);
  const unavailable = resolveLimit(update?.maxUnavailable ?? 1, desired, Math.ceil);
  return { surge, unavailable: surge === 0 ? Math.max(1, unavailable) : unavailable };
}

/** The next step of a rolling update, on nodes that need nothing else. */
export function planUpdate(view: View): Pick<DaemonPlan, 'create' | 'remove'> {
  const limits = limitsOf(view);
  const places = view.nodes
    .filter((node) => judgeNode(view.set, node).shouldRun)
    .map((node) => {
      const { name = '' } = node.metadata;
      const pods = (view.podsByNode.get(name) ?? []).filter((pod) => !isTerminal(pod));
      const current = pods.find((pod) => hashOf(pod) === view.hash);
      const old = pods.find((pod) => hashOf(pod) !== view.hash);
      return { name, current, old };
    });
  return limits.surge > 0
    ? planSurge(view, places, limits.surge)
    : planReplacement(view, places, limits.unavailable);
}

interface Place {
  name: string;
  current: Pod | undefined;
  old: Pod | undefined;
}

/** Old pods that do not work go at once, working ones as the limit of unavailability allows. */
function planReplacement(view: View, places: Place[], limit: number) {
  const broken: Pod[] = [];
  const working: Pod[] = [];
  let unavailable = 0;
  for (const { current, old } of places) {
    const only = current && old ? undefined : (current ?? old);
    if (!only || !isAvailable(view, only)) unavailable += 1;
    if (!only || only === current || isEnding(only)) continue;
    (isAvailable(view, only) ? working : broken).push(only);
  }
  const allowed = working.slice(0, Math.max(0, limit - unavailable));
  return { create: [], remove: [...broken, ...allowed] };
}

/** New pods start beside the old ones, which go when these are available. */
function planSurge(view: View, places: Place[], limit: number) {
  const urgent: string[] = [];
  const others: string[] = [];
  let surging = 0;
  for (const { name, current, old } of places) {
    if (!old) continue;
    if (current) surging += isAvailable(view, current) ? 0 : 1;
    else (isAvailable(view, old) ? others : urgent).push(name);
  }
  const create = [...urgent, ...others].slice(0, Math.max(0, limit - surging));
  return { create, remove: [] };
}
