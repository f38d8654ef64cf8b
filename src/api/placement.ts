import type { Node, NodeSelectorTerm, Pod, Taint, Toleration } from './types.generated.ts';

/** Which nodes a pod may run on by the words of core/v1: what every component must agree upon. */

/** The rule of core/v1 Toleration: an empty key with Exists tolerates everything. */
export function tolerates(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect && toleration.effect !== taint.effect) return false;
  if (toleration.key && toleration.key !== taint.key) return false;
  if (toleration.operator === 'Exists') return true;
  return Boolean(toleration.key) && (toleration.value ?? '') === (taint.value ?? '');
}

/** The node satisfies the pod's nodeSelector and required node affinity. */
export function matchesNodeAffinity({ spec }: Pod, node: Node): boolean {
  const labels = node.metadata.labels ?? {};
  const selector = Object.entries(spec?.nodeSelector ?? {});
  if (!selector.every(([key, value]) => labels[key] === value)) return false;
  const required = spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  return !required || required.nodeSelectorTerms.some((term) => matchesNodeTerm(term, node));
}

/** A term without expressions matches nothing; all of its expressions must hold. */
export function matchesNodeTerm(term: NodeSelectorTerm, { metadata }: Node): boolean {
  const { matchExpressions = [], matchFields = [] } = term;
  if (matchExpressions.length === 0 && matchFields.length === 0) return false;
  const labels = metadata.labels ?? {};
  const fields: Record<string, string> = { 'metadata.name': metadata.name ?? '' };
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
