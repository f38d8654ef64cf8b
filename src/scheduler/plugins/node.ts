import { matchesNodeAffinity, matchesNodeTerm, tolerates } from '../../api/placement.ts';
import type { Pod, Taint, Toleration } from '../../api/types.generated.ts';
import type { Plugin } from '../framework.ts';

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

/** nodeSelector and required node affinity filter; preferred node affinity scores. */
export const nodeAffinity: Plugin<Pod> = {
  name: 'NodeAffinity',
  weight: 2,
  normalize: 'highest-best',
  prepare: (pod) => (pod.spec?.nodeSelector || pod.spec?.affinity?.nodeAffinity ? pod : undefined),
  filter: (pod, _pod, node) =>
    matchesNodeAffinity(pod, node.node)
      ? []
      : ["node(s) didn't match Pod's node affinity/selector"],
  score: (pod, _pod, node) =>
    (pod.spec?.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [])
      .filter(({ preference }) => matchesNodeTerm(preference, node.node))
      .reduce((sum, { weight }) => sum + weight, 0),
};
