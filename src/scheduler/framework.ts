import type { Resources } from '../api/pod-requests.ts';
import type { Node, Pod } from '../api/types.generated.ts';

/**
 * The shape of a scheduling decision, after kube-scheduler's framework: `prepare` once per pod,
 * then `filter` and `score` for each node. A plugin is data and pure functions over a snapshot;
 * it keeps nothing between pods.
 */
export interface Plugin<State = unknown> {
  name: string;
  /**
   * What filter and score share for this pod. `undefined` says that the plugin has nothing to do
   * with it, and it is left out.
   */
  prepare(pod: Pod, snapshot: Snapshot): State | undefined;
  /** Why the node cannot take the pod, in kube-scheduler's words; empty when it can. */
  filter?(state: State, pod: Pod, node: NodeInfo): string[];
  /** How well it would, 0 to SCORE_MAX after `normalize`. */
  score?(state: State, pod: Pod, node: NodeInfo): number;
  /** How raw scores become 0 to SCORE_MAX over all feasible nodes. */
  normalize?: 'none' | 'highest-best' | 'lowest-best';
  weight?: number;
}

export const SCORE_MAX = 100;

export interface NodeInfo {
  name: string;
  node: Node;
  /** Pods bound or assumed here that have not ended. */
  pods: Pod[];
  allocatable: Resources;
  requested: Resources;
  /** What a VM costs this node for each pod beside what the pod asks for. */
  overhead: Resources;
}

/** The nodes as they are while one pod is placed. */
export interface Snapshot {
  nodes: NodeInfo[];
  /** Labels of a namespace, for namespaceSelector. */
  namespaceLabels(namespace: string): Record<string, string>;
}

export interface Placement {
  /** Undefined when no node is feasible. */
  node: NodeInfo | undefined;
  feasibleCount: number;
  /** Reason → number of nodes that gave it. */
  reasons: Map<string, number>;
}

/**
 * Chooses a node. Among equally good ones the first by `tieBreak` order wins, so that load is
 * spread without randomness deciding anything that matters.
 */
export function placePod(
  pod: Pod,
  snapshot: Snapshot,
  plugins: readonly Plugin[],
  tieBreak: (node: NodeInfo) => number,
): Placement {
  const active = plugins.flatMap((plugin) => {
    const state = plugin.prepare(pod, snapshot);
    return state === undefined ? [] : [{ plugin, state }];
  });
  const reasons = new Map<string, number>();
  const feasible = snapshot.nodes.filter((node) => {
    for (const { plugin, state } of active) {
      const problems = plugin.filter?.(state, pod, node) ?? [];
      for (const problem of problems) reasons.set(problem, (reasons.get(problem) ?? 0) + 1);
      if (problems.length > 0) return false;
    }
    return true;
  });
  const totals = new Map<NodeInfo, number>(feasible.map((node) => [node, 0]));
  if (feasible.length > 1) {
    for (const { plugin, state } of active) {
      if (!plugin.score) continue;
      const score = plugin.score;
      const scores = normalize(
        feasible.map((node) => score(state, pod, node)),
        plugin.normalize,
      );
      for (const [index, node] of feasible.entries()) {
        const weighted = (scores[index] ?? 0) * (plugin.weight ?? 1);
        totals.set(node, (totals.get(node) ?? 0) + weighted);
      }
    }
  }
  const best = feasible.reduce<NodeInfo | undefined>((winner, node) => {
    if (!winner) return node;
    const difference = (totals.get(node) ?? 0) - (totals.get(winner) ?? 0);
    if (difference !== 0) return difference > 0 ? node : winner;
    return tieBreak(node) < tieBreak(winner) ? node : winner;
  }, undefined);
  return { node: best, feasibleCount: feasible.length, reasons };
}

function normalize(scores: number[], how: Plugin['normalize'] = 'none'): number[] {
  if (how === 'none') return scores;
  const max = Math.max(...scores);
  const min = Math.min(...scores);
  if (max === min) return scores.map(() => (how === 'lowest-best' || max > 0 ? SCORE_MAX : 0));
  return scores.map((score) => {
    const share = (score - min) / (max - min);
    return SCORE_MAX * (how === 'highest-best' ? share : 1 - share);
  });
}

/** `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.` */
export function describeFailure(placement: Placement, nodeCount: number): string {
  if (nodeCount === 0) return 'no nodes available to schedule pods';
  const sorted = [...placement.reasons].map(([reason, count]) => `${count} ${reason}`).sort();
  return `0/${nodeCount} nodes are available: ${sorted.join(', ')}.`;
}
