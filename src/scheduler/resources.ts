import { quantityMillis, quantityValue } from '../api/quantity.ts';
import type { Node, Pod } from '../api/types.generated.ts';

/** Amounts by resource name: `cpu` in thousandths of a CPU, everything else in whole units. */
export type Resources = Readonly<Record<string, number>>;

/** What a VM costs the node beside what its pod asks for; the kubelet measures and writes it. */
const OVERHEAD_MEMORY_ANNOTATION = 'hypernetes.io/vm-overhead-memory';

type Quantities = Record<string, string> | undefined;

function parseResources(quantities: Quantities): Resources {
  const entries = Object.entries(quantities ?? {});
  return Object.fromEntries(
    entries.map(([name, text]) => [
      name,
      name === 'cpu' ? quantityMillis(text) : quantityValue(text),
    ]),
  );
}

export function addResources(a: Resources, b: Resources): Resources {
  return combine(a, b, (x, y) => x + y);
}

export function subtractResources(a: Resources, b: Resources): Resources {
  return combine(a, b, (x, y) => x - y);
}

function maxResources(a: Resources, b: Resources): Resources {
  return combine(a, b, Math.max);
}

function combine(
  a: Resources,
  b: Resources,
  operation: (x: number, y: number) => number,
): Resources {
  const out: Record<string, number> = { ...a };
  for (const [name, amount] of Object.entries(b)) out[name] = operation(out[name] ?? 0, amount);
  return out;
}

/**
 * What a pod needs of a node: its containers together, or the most that any moment of its init
 * containers needs where that is more (sidecars, which stay, count from their place on), and the
 * overhead that its runtime class declares.
 */
export function podRequests(pod: Pod): Resources {
  const sum = (all: Resources, requests: Quantities) => addResources(all, parseResources(requests));
  const running = (pod.spec?.containers ?? []).reduce<Resources>(
    (all, container) => sum(all, container.resources?.requests as Quantities),
    {},
  );
  let sidecars: Resources = {};
  let peak: Resources = {};
  for (const container of pod.spec?.initContainers ?? []) {
    const requests = container.resources?.requests as Quantities;
    if (container.restartPolicy === 'Always') {
      sidecars = sum(sidecars, requests);
      peak = maxResources(peak, sidecars);
    } else {
      peak = maxResources(peak, sum(sidecars, requests));
    }
  }
  const needed = maxResources(addResources(running, sidecars), peak);
  return addResources(needed, parseResources(pod.spec?.overhead as Quantities));
}

/** What pods may use of a node; its capacity where it does not tell. */
export function nodeAllocatable(node: Node): Resources {
  return parseResources((node.status?.allocatable ?? node.status?.capacity) as Quantities);
}

/** What each pod of the node costs beside its containers, as its kubelet tells. */
export function vmOverhead(node: Node): Resources {
  const text = node.metadata.annotations?.[OVERHEAD_MEMORY_ANNOTATION];
  return text && /^\d+$/.test(text) ? { memory: Number(text) } : {};
}
