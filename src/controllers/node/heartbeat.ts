import type { Lease, Node, NodeCondition } from '../../api/types.generated.ts';

/** When a node was last heard of, by our own clock: those of nodes may be wrong. */
export interface HeartbeatRecord {
  seenMs: number;
  renewTime: string | undefined;
  heartbeatTime: string | undefined;
}

/** Without a sign for so long a node is taken for lost. */
const NODE_GRACE_MS = 40_000;
/** A node that registered but never reported gets longer: it is still starting. */
const NODE_STARTUP_GRACE_MS = 60_000;

/** Conditions that become Unknown with the node. */
const REPORTED = ['Ready', 'MemoryPressure', 'DiskPressure', 'PIDPressure'];

export function nodeCondition(node: Node, type: string): NodeCondition | undefined {
  return node.status?.conditions?.find((condition) => condition.type === type);
}

/** Notes a sign of life: the lease was renewed, or the status was written. */
export function updateRecord(
  known: HeartbeatRecord | undefined,
  node: Node,
  lease: Lease | undefined,
  nowMs: number,
): HeartbeatRecord {
  const renewTime = lease?.spec?.renewTime;
  const heartbeatTime = nodeCondition(node, 'Ready')?.lastHeartbeatTime;
  const isSame = known && known.renewTime === renewTime && known.heartbeatTime === heartbeatTime;
  return isSame ? known : { seenMs: nowMs, renewTime, heartbeatTime };
}

export function isLost(record: HeartbeatRecord, node: Node, nowMs: number): boolean {
  const hasReported = nodeCondition(node, 'Ready') !== undefined;
  return nowMs - record.seenMs > (hasReported ? NODE_GRACE_MS : NODE_STARTUP_GRACE_MS);
}

/** The conditions of a node that is lost; undefined when they say so already. */
export function unknownConditions(node: Node, now: string): NodeCondition[] | undefined {
  const conditions = node.status?.conditions ?? [];
  const others = conditions.filter(({ type }) => !REPORTED.includes(type));
  let hasChanged = false;
  const reported = REPORTED.map((type): NodeCondition => {
    const known = nodeCondition(node, type);
    if (known?.status === 'Unknown') return known;
    hasChanged = true;
    return {
      type,
      status: 'Unknown',
      reason: known ? 'NodeStatusUnknown' : 'NodeStatusNeverUpdated',
      message: known ? 'Kubelet stopped posting node status.' : 'Kubelet never posted node status.',
      lastHeartbeatTime: known?.lastHeartbeatTime ?? node.metadata.creationTimestamp,
      lastTransitionTime: now,
    };
  });
  return hasChanged ? [...others, ...reported] : undefined;
}
