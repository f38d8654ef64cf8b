import { matchesNodeAffinity, tolerates } from '../../api/placement.ts';
import { matchesLabelSelector } from '../../api/selectors.ts';
import type { LabelSelector, Pod, TopologySpreadConstraint } from '../../api/types.generated.ts';
import type { NodeInfo, Plugin, Snapshot } from '../framework.ts';

interface Constraint {
  spec: TopologySpreadConstraint;
  selector: LabelSelector | undefined;
  /** Topology value → matching pods there, over the nodes that count. */
  counts: Map<string, number>;
  /** Whether the pod itself will be counted once it is placed. */
  selfMatches: boolean;
}

/**
 * Spreads matching pods evenly over topology values: `DoNotSchedule` constraints filter by skew,
 * `ScheduleAnyway` ones score. Without any of its own, a pod of a workload is spread softly over
 * nodes and zones (kube-scheduler's default constraints).
 */
export const podTopologySpread: Plugin<Constraint[]> = {
  name: 'PodTopologySpread',
  weight: 2,
  normalize: 'lowest-best',
  prepare(pod, snapshot) {
    const constraints = constraintsOf(pod);
    if (constraints.length === 0) return undefined;
    return constraints.map((spec) => count(spec, pod, snapshot));
  },
  filter(constraints, _pod, node) {
    for (const { spec, counts, selfMatches } of constraints) {
      if (spec.whenUnsatisfiable !== 'DoNotSchedule') continue;
      const value = node.node.metadata.labels?.[spec.topologyKey];
      const problem = "node(s) didn't match pod topology spread constraints";
      if (value === undefined) return [`${problem} (missing required label)`];
      const domains = counts.size;
      const enough = domains >= (spec.minDomains ?? 1);
      const lowest = enough ? Math.min(...counts.values()) : 0;
      const skew = (counts.get(value) ?? 0) + (selfMatches ? 1 : 0) - lowest;
      if (skew > spec.maxSkew) return [problem];
    }
    return [];
  },
  score(constraints, _pod, node) {
    let sum = 0;
    for (const { spec, counts } of constraints) {
      if (spec.whenUnsatisfiable === 'DoNotSchedule') continue;
      const value = node.node.metadata.labels?.[spec.topologyKey];
      if (value !== undefined) sum += counts.get(value) ?? 0;
    }
    return sum;
  },
};

const DEFAULT_CONSTRAINTS = [
  { topologyKey: 'kubernetes.io/hostname', maxSkew: 3 },
  { topologyKey: 'topology.kubernetes.io/zone', maxSkew: 5 },
];

function constraintsOf(pod: Pod): TopologySpreadConstraint[] {
  const own = pod.spec?.topologySpreadConstraints ?? [];
  if (own.length > 0) return own;
  const owner = pod.metadata.ownerReferences?.find(({ controller }) => controller);
  const labels = pod.metadata.labels;
  if (!owner || !labels) return [];
  return DEFAULT_CONSTRAINTS.map(({ topologyKey, maxSkew }) => ({
    topologyKey,
    maxSkew,
    whenUnsatisfiable: 'ScheduleAnyway',
    labelSelector: { matchLabels: labels },
  }));
}

function count(spec: TopologySpreadConstraint, pod: Pod, snapshot: Snapshot): Constraint {
  const selector = withMatchLabelKeys(spec, pod);
  const counts = new Map<string, number>();
  for (const node of snapshot.nodes) {
    const value = node.node.metadata.labels?.[spec.topologyKey];
    if (value === undefined || !counted(spec, pod, node)) continue;
    const matching = node.pods.filter((other) => matches(selector, pod, other)).length;
    counts.set(value, (counts.get(value) ?? 0) + matching);
  }
  return { spec, selector, counts, selfMatches: matches(selector, pod, pod) };
}

function withMatchLabelKeys(spec: TopologySpreadConstraint, pod: Pod): LabelSelector | undefined {
  const pairs = (spec.matchLabelKeys ?? []).flatMap((key) => {
    const value = pod.metadata.labels?.[key];
    return value === undefined ? [] : [[key, value] as const];
  });
  if (pairs.length === 0) return spec.labelSelector;
  const matchLabels = { ...spec.labelSelector?.matchLabels, ...Object.fromEntries(pairs) };
  return { ...spec.labelSelector, matchLabels };
}

/** nodeAffinityPolicy defaults to Honor, nodeTaintsPolicy to Ignore. */
function counted(spec: TopologySpreadConstraint, pod: Pod, node: NodeInfo): boolean {
  if (spec.nodeAffinityPolicy !== 'Ignore' && !matchesNodeAffinity(pod, node.node)) return false;
  if (spec.nodeTaintsPolicy !== 'Honor') return true;
  const tolerations = pod.spec?.tolerations ?? [];
  return (node.node.spec?.taints ?? []).every(
    (taint) => taint.effect === 'PreferNoSchedule' || tolerations.some((t) => tolerates(t, taint)),
  );
}

function matches(selector: LabelSelector | undefined, pod: Pod, other: Pod): boolean {
  return (
    other.metadata.namespace === pod.metadata.namespace &&
    !other.metadata.deletionTimestamp &&
    selector !== undefined &&
    matchesLabelSelector(selector, other.metadata.labels ?? {})
  );
}
