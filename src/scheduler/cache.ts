import { addResources, podRequests, subtractResources } from '../api/pod-requests.ts';
import type { Namespace, Node, Pod } from '../api/types.generated.ts';
import type { NodeInfo, Snapshot } from './framework.ts';
import { nodeAllocatable, vmOverhead } from './resources.ts';

/**
 * The scheduler's view of the cluster: nodes with the pods on them, kept up to date from events,
 * plus the pods it has just placed and not yet seen come back (assumed).
 */
export interface SchedulerCache extends Snapshot {
  setNode(node: Node): void;
  removeNode(name: string): void;
  /** A pod as the API knows it; one that has ended or has no node takes no room. */
  setPod(pod: Pod): void;
  removePod(key: string): void;
  /** Counts the pod on the node until `setPod`, `removePod` or `forget` says otherwise. */
  assume(pod: Pod, nodeName: string): void;
  forget(key: string): void;
  setNamespace(namespace: Namespace): void;
  removeNamespace(name: string): void;
}

export function podKey(pod: Pod): string {
  return `${pod.metadata.namespace}/${pod.metadata.name}`;
}

/** Whether the pod uses nothing of its node any more. */
export function hasEnded(pod: Pod): boolean {
  return pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
}

interface MutableNode extends NodeInfo {
  known: boolean;
}

export function createSchedulerCache(): SchedulerCache {
  const nodes = new Map<string, MutableNode>();
  const placed = new Map<string, { pod: Pod; nodeName: string; assumed: boolean }>();
  const namespaces = new Map<string, Record<string, string>>();

  const entry = (name: string): MutableNode => {
    let info = nodes.get(name);
    if (!info) {
      const node = { apiVersion: 'v1', kind: 'Node', metadata: { name } };
      const none = { allocatable: {}, requested: {}, overhead: {} };
      info = { name, node, pods: [], ...none, known: false };
      nodes.set(name, info);
    }
    return info;
  };

  const place = (pod: Pod, nodeName: string, assumed: boolean) => {
    const info = entry(nodeName);
    info.pods.push(pod);
    info.requested = addResources(info.requested, addResources(podRequests(pod), info.overhead));
    placed.set(podKey(pod), { pod, nodeName, assumed });
  };

  const displace = (key: string) => {
    const found = placed.get(key);
    const info = found && nodes.get(found.nodeName);
    placed.delete(key);
    if (!found || !info) return;
    info.pods = info.pods.filter((pod) => pod !== found.pod);
    const freed = addResources(podRequests(found.pod), info.overhead);
    info.requested = subtractResources(info.requested, freed);
    if (!info.known && info.pods.length === 0) nodes.delete(found.nodeName);
  };

  return {
    get nodes() {
      return [...nodes.values()].filter(({ known }) => known);
    },
    namespaceLabels: (name) => namespaces.get(name) ?? {},
    setNode(node) {
      const info = entry(node.metadata.name ?? '');
      info.node = node;
      info.known = true;
      info.allocatable = nodeAllocatable(node);
      info.overhead = vmOverhead(node);
      info.requested = info.pods.reduce(
        (sum, pod) => addResources(sum, addResources(podRequests(pod), info.overhead)),
        {},
      );
    },
    removeNode(name) {
      const info = nodes.get(name);
      if (!info) return;
      info.known = false;
      if (info.pods.length === 0) nodes.delete(name);
    },
    setPod(pod) {
      const key = podKey(pod);
      const nodeName = pod.spec?.nodeName;
      // An update that was sent before the binding must not take back what was assumed.
      if (!nodeName && placed.get(key)?.assumed) return;
      displace(key);
      if (nodeName && !hasEnded(pod)) place(pod, nodeName, false);
    },
    removePod: displace,
    assume: (pod, nodeName) => place(pod, nodeName, true),
    forget(key) {
      if (placed.get(key)?.assumed) displace(key);
    },
    setNamespace(namespace) {
      namespaces.set(namespace.metadata.name ?? '', namespace.metadata.labels ?? {});
    },
    removeNamespace: (name) => void namespaces.delete(name),
  };
}
