import { addResources, podRequests } from '../../api/pod-requests.ts';
import type { Resources } from '../../api/pod-requests.ts';
import type { Plugin } from '../framework.ts';
import { SCORE_MAX } from '../framework.ts';

/** For a pod that asks for nothing, so that such pods are spread too: kube-scheduler's values. */
const SCORED_DEFAULT: Resources = { cpu: 100, memory: 200 * 1024 * 1024 };
const SCORED = ['cpu', 'memory'];

interface FitState {
  requests: Resources;
  scored: Resources;
}

/**
 * The pod's requests, and the memory its VM adds, must fit into what the node has left. Among
 * nodes with room the emptier and the more balanced ones are preferred.
 */
export const nodeResourcesFit: Plugin<FitState> = {
  name: 'NodeResourcesFit',
  prepare(pod) {
    const requests = podRequests(pod);
    const scored = Object.fromEntries(
      SCORED.map((name) => [name, requests[name] || (SCORED_DEFAULT[name] ?? 0)]),
    );
    return { requests, scored };
  },
  filter({ requests }, _pod, node) {
    const problems: string[] = [];
    if (node.pods.length + 1 > (node.allocatable.pods ?? Infinity)) problems.push('Too many pods');
    const asked = addResources(requests, node.overhead);
    for (const [name, amount] of Object.entries(asked)) {
      const free = (node.allocatable[name] ?? 0) - (node.requested[name] ?? 0);
      if (amount > 0 && amount > free) problems.push(`Insufficient ${name}`);
    }
    return problems;
  },
  score({ scored }, _pod, node) {
    const shares = SCORED.map((name) => usedShare(name, scored, node.allocatable, node.requested));
    const least = shares.reduce((sum, share) => sum + (1 - share), 0) / shares.length;
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
    const deviation = Math.sqrt(
      shares.reduce((sum, share) => sum + (share - mean) ** 2, 0) / shares.length,
    );
    return (SCORE_MAX * (least + (1 - deviation))) / 2;
  },
};

function usedShare(
  name: string,
  asked: Resources,
  allocatable: Resources,
  used: Resources,
): number {
  const capacity = allocatable[name] ?? 0;
  if (capacity === 0) return 1;
  return Math.min(1, ((used[name] ?? 0) + (asked[name] ?? 0)) / capacity);
}
