import type {
  NodeSelector,
  NodeSelectorTerm,
  Pod,
  Taint,
  Toleration,
} from '../../api/types.generated.ts';
import type { NodeInfo, Plugin } from '../framework.ts';

/** `spec.nodeName` was given by the pod's author: only that node. */
export const nodeName: Plugin<string> = {
  name: 'NodeName',
  prepare: (pod) => pod.spec?.nodeName || undefined,
  filter: (wanted, _pod, node) =>
    node.name === wanted ? [] : ["node(s) didn't match the requested node name"],
};

const UNSCHEDULABLE_TAINT: Taint = {
  key: 'node.kubernetes.io/unschedulable',
  effect: 'NoSchedule',
};

export const nodeUnschedulable: Plugin<Toleration[]> = {
  name: 'NodeUnschedulable',
  prepare: (pod) => pod.spec?.tolerations ?? [],
  filter: (tolerations, _pod, node) =>
    node.node.spec?.unschedulable && !tolerations.some((t) => tolerates(t, UNSCHEDULABLE_TAINT))
      ? ['node(s) were unschedulable']
      : [],
};

/** NoSchedule and NoExecute taints keep pods away; PreferNoSchedule ones cost score. */
export const taintToleration: Plugin<Toleration[]> = {
  name: 'TaintToleration',
  weight: 3,
  normalize: 'lowest-best',
  prepare: (pod) => pod.spec?.tolerations ?? [],
  filter(tolerations, _pod, node) {
    const taint = node.node.spec?.taints?.find(
      (candidate) =>
        candidate.effect !== 'PreferNoSchedule' &&
        !tolerations.some((t) => tolerates(t, candidate)),
    );
    return taint ? [`node(s) had untolerated taint {${taint.key}: ${taint.value ?? ''}}`] : [];
  },
  score: (tolerations, _pod, node) =>
    (node.node.spec?.taints ?? []).filter(
      (taint) =>
        taint.effect === 'PreferNoSchedule' && !tolerations.some((t) => tolerates(t, taint)),
    ).length,
};

/** The rule of core/v1 Toleration: an empty key with Exists tolerates everything. */
export function tolerates(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect && toleration.effect !== taint.effect) return false;
  if (toleration.key && toleration.key !== taint.key) return false;
  if (toleration.operator === 'Exists') return true;
  return Boolean(toleration.key) && (toleration.value ?? '') === (taint.value ?? '');
}

/** nodeSelector and required node affinity filter; preferred node affinity scores. */
export const nodeAffinity: Plugin<Pod> = {
  name: 'NodeAffinity',
  weight: 2,
  normalize: 'highest-best',
  prepare: (pod) => (pod.spec?.nodeSelector || pod.spec?.affinity?.nodeAffinity ? pod : undefined),
  filter: (pod, _pod, node) =>
    matchesNodeAffinity(pod, node) ? [] : ["node(s) didn't match Pod's node affinity/selector"],
  score: (pod, _pod, node) =>
    (pod.spec?.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [])
      .filter(({ preference }) => matchesTerm(preference, node))
      .reduce((sum, { weight }) => sum + weight, 0),
};

/** Also asked by topology spread, which counts only nodes that the pod may use. */
export function matchesNodeAffinity(pod: Pod, node: NodeInfo): boolean {
  const labels = node.node.metadata.labels ?? {};
  const selector = pod.spec?.nodeSelector ?? {};
  if (!Object.entries(selector).every(([key, value]) => labels[key] === value)) return false;
  const required = pod.spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  return !required || matchesNodeSelector(required, node);
}

function matchesNodeSelector(selector: NodeSelector, node: NodeInfo): boolean {
  return selector.nodeSelectorTerms.some((term) => matchesTerm(term, node));
}

/** A term without expressions matches nothing; all of its expressions must hold. */
function matchesTerm(term: NodeSelectorTerm, node: NodeInfo): boolean {
  const { matchExpressions = [], matchFields = [] } = term;
  if (matchExpressions.length === 0 && matchFields.length === 0) return false;
  const labels = node.node.metadata.labels ?? {};
  const fields: Record<string, string> = { 'metadata.name': node.name };
  return (
    matchExpressions.every((requirement) => matchesRequirement(requirement, labels)) &&
    matchFields.every((requirement) => matchesRequirement(requirement, fields))
  );
}

interface Requirement {
  key: string;
  operator: string;
  values?: string[];
}

const OPERATORS: Record<string, (value: string | undefined, values: string[]) => boolean> = {
  In: (value, values) => value !== undefined && values.includes(value),
  NotIn: (value, values) => value === undefined || !values.includes(value),
  Exists: (value) => value !== undefined,
  DoesNotExist: (value) => value === undefined,
  Gt: (value, [limit]) => isInteger(value) && isInteger(limit) && BigInt(value) > BigInt(limit),
  Lt: (value, [limit]) => isInteger(value) && isInteger(limit) && BigInt(value) < BigInt(limit),
};

function matchesRequirement(requirement: Requirement, values: Record<string, string>): boolean {
  const check = OPERATORS[requirement.operator];
  return check?.(values[requirement.key], requirement.values ?? []) ?? false;
}

function isInteger(value: string | undefined): value is string {
  return value !== undefined && /^[+-]?\d{1,18}$/.test(value);
}
