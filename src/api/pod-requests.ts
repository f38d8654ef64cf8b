import { quantityMillis, quantityValue } from './quantity.ts';
import type { Container, Pod } from './types.generated.ts';

/** Amounts by resource name: `cpu` in thousandths of a CPU, everything else in whole units. */
export type Resources = Readonly<Record<string, number>>;

/** As Kubernetes writes them. */
export type Quantities = Record<string, string> | undefined;

export function parseResources(quantities: Quantities): Resources {
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
 * overhead that its runtime class declares. While it is being resized a container counts with the
 * most of what it is to have, was promised and has.
 */
export function podRequests(pod: Pod): Resources {
  const { containers = [], initContainers = [] } = pod.spec ?? {};
  const running = containers.reduce<Resources>(
    (all, container) => addResources(all, containerRequests(pod, container)),
    {},
  );
  let sidecars: Resources = {};
  let peak: Resources = {};
  for (const container of initContainers) {
    const requests = containerRequests(pod, container);
    if (container.restartPolicy === 'Always') {
      sidecars = addResources(sidecars, requests);
      peak = maxResources(peak, sidecars);
    } else {
      peak = maxResources(peak, addResources(sidecars, requests));
    }
  }
  const needed = maxResources(addResources(running, sidecars), peak);
  return addResources(needed, parseResources(pod.spec?.overhead as Quantities));
}

/** What no node can give is not waited for: then only what the container has counts. */
function containerRequests(pod: Pod, { name, resources }: Container): Resources {
  const { containerStatuses = [], initContainerStatuses = [], conditions = [] } = pod.status ?? {};
  const status = [...containerStatuses, ...initContainerStatuses].find(
    (each) => each.name === name,
  );
  const wanted = parseResources(resources?.requests as Quantities);
  if (!status?.resources && !status?.allocatedResources) return wanted;
  const isInfeasible = conditions.some(
    ({ type, reason }) => type === 'PodResizePending' && reason === 'Infeasible',
  );
  const held = maxResources(
    parseResources(status.allocatedResources as Quantities),
    parseResources(status.resources?.requests as Quantities),
  );
  return isInfeasible ? held : maxResources(wanted, held);
}
