import { matchesNodeAffinity, tolerates } from '../../api/placement.ts';
import type { DaemonSet, Node, Pod, Toleration } from '../../api/types.generated.ts';
import { DAEMON_SETS } from '../../client/resources.ts';
import { REVISION_HASH_LABEL } from '../common/history.ts';
import { podFromTemplate } from '../common/pods.ts';

/** Daemons stay where other pods are driven away, and start where others may not yet. */
const TOLERATIONS: Toleration[] = [
  ['not-ready', 'NoExecute'],
  ['unreachable', 'NoExecute'],
  ['disk-pressure', 'NoSchedule'],
  ['memory-pressure', 'NoSchedule'],
  ['pid-pressure', 'NoSchedule'],
  ['unschedulable', 'NoSchedule'],
].map(([name, effect]) => ({ key: `node.kubernetes.io/${name}`, operator: 'Exists', effect }));

const NETWORK_TOLERATION: Toleration = {
  key: 'node.kubernetes.io/network-unavailable',
  operator: 'Exists',
  effect: 'NoSchedule',
};

const GENERATION_ANNOTATION = 'deprecated.daemonset.template.generation';
const GENERATION_LABEL = 'pod-template-generation';

/** A pod for one node: the scheduler binds it, but can choose only that one. */
export function podFor(set: DaemonSet, node: string, hash: string): Pod {
  const pod = podFromTemplate(set.spec?.template, set, DAEMON_SETS);
  const generation = set.metadata.annotations?.[GENERATION_ANNOTATION];
  pod.metadata.labels = {
    ...pod.metadata.labels,
    [REVISION_HASH_LABEL]: hash,
    ...(generation ? { [GENERATION_LABEL]: generation } : {}),
  };
  if (!pod.spec) return pod;
  const terms = [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: [node] }] }];
  const { affinity } = pod.spec;
  const nodeAffinity = {
    ...affinity?.nodeAffinity,
    requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms },
  };
  pod.spec = {
    ...pod.spec,
    affinity: { ...affinity, nodeAffinity },
    tolerations: tolerationsOf(set),
  };
  return pod;
}

function tolerationsOf({ spec }: DaemonSet): Toleration[] {
  const { tolerations = [], hostNetwork } = spec?.template.spec ?? {};
  const added = [...TOLERATIONS, ...(hostNetwork ? [NETWORK_TOLERATION] : [])];
  const isNew = (one: Toleration) =>
    !tolerations.some(({ key, effect }) => key === one.key && effect === one.effect);
  return [...tolerations, ...added.filter(isNew)];
}

/** The node that a pod is on, or is bound for. */
export function nodeOf({ spec }: Pod): string | undefined {
  if (spec?.nodeName) return spec.nodeName;
  const required = spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  for (const { matchFields } of required?.nodeSelectorTerms ?? []) {
    const field = matchFields?.find(({ key }) => key === 'metadata.name');
    if (field?.operator === 'In' && field.values?.length === 1) return field.values[0];
  }
  return undefined;
}

/** Whether a daemon belongs on a node, and whether one that is there may stay. */
export function judgeNode(set: DaemonSet, node: Node): { shouldRun: boolean; mayStay: boolean } {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {},
    ...(set.spec?.template.spec ? { spec: set.spec.template.spec } : {}),
  };
  const wantedNode = pod.spec?.nodeName;
  const isElsewhere = wantedNode ? wantedNode !== node.metadata.name : false;
  if (isElsewhere || !matchesNodeAffinity(pod, node)) return { shouldRun: false, mayStay: false };
  const tolerations = tolerationsOf(set);
  const untolerated = (node.spec?.taints ?? []).filter(
    (taint) => !tolerations.some((toleration) => tolerates(toleration, taint)),
  );
  return {
    shouldRun: untolerated.every(({ effect }) => effect === 'PreferNoSchedule'),
    mayStay: untolerated.every(({ effect }) => effect !== 'NoExecute'),
  };
}
