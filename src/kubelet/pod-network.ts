import type { HyperPodSpec } from '../api/hyperd.ts';
import type { Node } from '../api/types.generated.ts';

export type NetworkSegment = NonNullable<HyperPodSpec['network']>;

/**
 * Where the node's pods get their addresses: a range of the cluster's that is the node's alone,
 * assigned to it after it has registered.
 */
export interface PodNetwork {
  /** For a new VM; null for none, undefined while the range is not known: pods wait then. */
  segment(): HyperPodSpec['network'] | undefined;
  /** Why pods wait; empty when they need not. */
  problem(): string;
  /** Takes in the node's own object. True when the range is another than before. */
  observe(node: Node): boolean;
}

/** @param segmentOf null where pods have no network */
export function createPodNetwork(
  segmentOf: ((podCidr: string) => NetworkSegment) | null,
): PodNetwork {
  let podCidr = '';
  return {
    segment: () => (segmentOf === null ? null : podCidr ? segmentOf(podCidr) : undefined),
    problem: () => (segmentOf === null || podCidr ? '' : NOT_READY),
    observe(node) {
      const assigned = node.spec?.podCIDR;
      if (!assigned || assigned === podCidr) return false;
      podCidr = assigned;
      return true;
    },
  };
}

/** In the words of a kubelet whose container runtime has no network yet. */
const NOT_READY =
  'container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady ' +
  'message:the node has no range of pod addresses (spec.podCIDR) yet';
