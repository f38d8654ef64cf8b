import type { KubeObject } from '../../api/object.ts';

/** Labels that scheduling is asked by; others are the operator's own business. */
const SHOWN_LABELS = new Set([
  'kubernetes.io/arch',
  'kubernetes.io/hostname',
  'kubernetes.io/os',
  'node.kubernetes.io/instance-type',
  'topology.kubernetes.io/region',
  'topology.kubernetes.io/zone',
]);

interface NodeStatus {
  conditions?: { type: string; status: string }[];
  nodeInfo?: Record<string, unknown>;
}

/**
 * A node as tenants see it, where they see any: that it is there, where it is and whether it works.
 * Neither its size and load nor its addresses and images, which tell of what others run.
 */
export function sanitisedNode(node: KubeObject): KubeObject {
  const { name, uid, resourceVersion, creationTimestamp, labels = {} } = node.metadata;
  const { conditions = [], nodeInfo = {} } = (node.status ?? {}) as NodeStatus;
  const { unschedulable } = (node.spec ?? {}) as { unschedulable?: boolean };
  const ready = conditions.filter(({ type }) => type === 'Ready');
  const { architecture, operatingSystem, kubeletVersion } = nodeInfo;
  return {
    apiVersion: node.apiVersion,
    kind: node.kind,
    metadata: {
      ...{ name, uid, resourceVersion, creationTimestamp },
      labels: Object.fromEntries(
        Object.entries(labels).filter(([label]) => SHOWN_LABELS.has(label)),
      ),
    },
    spec: unschedulable ? { unschedulable } : {},
    status: {
      conditions: ready.map(({ type, status }) => ({ type, status })),
      nodeInfo: { architecture, operatingSystem, kubeletVersion },
    },
  } as KubeObject;
}
