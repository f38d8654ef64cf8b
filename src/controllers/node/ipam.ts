import type { Node } from '../../api/types.generated.ts';
import { assert } from '../../base/assert.ts';
import { runController } from '../../client/controller.ts';
import { NODES } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';

export interface NodeIpamOptions {
  /** IPv4 range of all pods. */
  clusterCidr: string;
  /** Prefix length of a node's part. */
  nodeMaskSize: number;
}

/** How often a node that found no range is looked at again. */
const FULL_RETRY_MS = 30_000;

/** Gives every node a range of pod addresses of its own. */
export function runNodeIpamController(
  context: ControllerContext,
  options: NodeIpamOptions,
): Promise<void> {
  const { client, informers, events, clock, log, signal } = context;
  const nodes = informers.informer(NODES);
  const ranges = createRanges(options);
  const queue = createWorkQueue(clock);
  const claim = (node: Node): void => {
    const { podCIDR } = node.spec ?? {};
    if (podCIDR) ranges.occupy(podCIDR, node.metadata.name ?? '');
    else queue.add(node.metadata.name ?? '');
  };
  nodes.addHandler({
    add: claim,
    update: claim,
    delete: ({ spec, metadata }) => ranges.release(spec?.podCIDR ?? '', metadata.name ?? ''),
  });
  const reconcile = async (name: string): Promise<void> => {
    const node = nodes.get(undefined, name);
    if (!node || node.spec?.podCIDR) return;
    const podCIDR = ranges.take(name);
    if (!podCIDR) {
      const message = `Node ${name} status is now: CIDRNotAvailable`;
      events.event(node, 'Normal', 'CIDRNotAvailable', message);
      queue.addAfter(name, FULL_RETRY_MS);
      return;
    }
    try {
      const patch = {
        metadata: { uid: node.metadata.uid },
        spec: { podCIDR, podCIDRs: [podCIDR] },
      };
      await client.patch(NODES, { name }, 'merge', patch);
    } catch (error) {
      ranges.release(podCIDR, name);
      throw error;
    }
  };
  // One worker: two would give out the same range.
  return runController({
    name: 'node-ipam',
    queue,
    reconcile,
    informers: [nodes],
    concurrency: 1,
    clock,
    log,
    signal,
  });
}

export interface Ranges {
  occupy(cidr: string, owner: string): void;
  /** Frees the range if the owner holds it. */
  release(cidr: string, owner: string): void;
  /** The lowest free range, now the owner's; undefined when all are taken. */
  take(owner: string): string | undefined;
}

/** Cuts a range into equal parts and remembers who holds which. */
export function createRanges({ clusterCidr, nodeMaskSize }: NodeIpamOptions): Ranges {
  const [address = '', prefix = ''] = clusterCidr.split('/');
  const mask = Number(prefix);
  const isValid = mask >= 8 && nodeMaskSize >= mask && nodeMaskSize <= 30;
  assert(isValid, `node ranges /${nodeMaskSize} fit into ${clusterCidr}`);
  const base = address.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
  const step = 2 ** (32 - nodeMaskSize);
  const count = 2 ** (nodeMaskSize - mask);
  const owners = new Map<string, string>();
  const format = (value: number) => {
    const octets = [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256);
    return `${octets.join('.')}/${nodeMaskSize}`;
  };
  return {
    occupy(cidr, owner) {
      if (!owners.has(cidr)) owners.set(cidr, owner);
    },
    release(cidr, owner) {
      if (owners.get(cidr) === owner) owners.delete(cidr);
    },
    take(owner) {
      for (let index = 0; index < count; index++) {
        const cidr = format(base + index * step);
        if (owners.has(cidr)) continue;
        owners.set(cidr, owner);
        return cidr;
      }
      return undefined;
    },
  };
}
