import { addResources, parseResources, podRequests } from '../api/pod-requests.ts';
import type { Quantities, Resources } from '../api/pod-requests.ts';
import type { HyperdInfo } from '../api/hyperd.ts';
import type { Pod } from '../api/types.generated.ts';
import { nodeCapacity } from './node.ts';
import { isTerminal } from './status.ts';

/** What pods may have of the node, and what they have already. */
export interface NodeRoom {
  readonly allocatable: Resources;
  /** What pods are promised, and what their VMs cost beside; without the containers of one pod. */
  used(exceptUid: string): Resources;
}

/** A pod with the resources that it is promised, whatever it wants. */
interface Occupant {
  readonly uid: string;
  allocatedPod(): Pod;
}

export function createNodeRoom(
  info: HyperdInfo,
  maxPods: number,
  occupants: () => Iterable<Occupant>,
): NodeRoom {
  const overhead = { memory: info.overhead.memoryMib * 2 ** 20 };
  return {
    allocatable: parseResources(nodeCapacity(info, maxPods).allocatable as Quantities),
    used(exceptUid) {
      let used: Resources = {};
      for (const occupant of occupants()) {
        const pod = occupant.allocatedPod();
        if (isTerminal(pod.status?.phase)) continue;
        used = addResources(used, overhead);
        if (occupant.uid === exceptUid) continue;
        used = addResources(used, podRequests({ ...pod, status: {} }));
      }
      return used;
    },
  };
}
