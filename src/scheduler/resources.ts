import { parseResources } from '../api/pod-requests.ts';
import type { Quantities, Resources } from '../api/pod-requests.ts';
import type { Node } from '../api/types.generated.ts';

/** What a VM costs the node beside what its pod asks for; the kubelet measures and writes it. */
const OVERHEAD_MEMORY_ANNOTATION = 'hypernetes.io/vm-overhead-memory';

/** What pods may use of a node; its capacity where it does not tell. */
export function nodeAllocatable(node: Node): Resources {
  return parseResources((node.status?.allocatable ?? node.status?.capacity) as Quantities);
}

/** What each pod of the node costs beside its containers, as its kubelet tells. */
export function vmOverhead(node: Node): Resources {
  const text = node.metadata.annotations?.[OVERHEAD_MEMORY_ANNOTATION];
  return text && /^\d+$/.test(text) ? { memory: Number(text) } : {};
}
