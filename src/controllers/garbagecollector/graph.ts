import type { KubeObject, OwnerReference } from '../../api/object.ts';
import type { Resource } from '../../client/resources.ts';

/** What the collector has to know of an object. */
export interface GraphNode {
  uid: string;
  resource: Resource;
  namespace: string | undefined;
  name: string;
  owners: OwnerReference[];
  isDeleting: boolean;
  /** It stays until the dependents that block it are gone. */
  isWaiting: boolean;
  /** It stays until its dependents have been let go. */
  isOrphaning: boolean;
}

export const FOREGROUND = 'foregroundDeletion';
export const ORPHAN = 'orphan';

/** Who owns whom, over all kinds, by uid. */
export interface OwnerGraph {
  get(uid: string): GraphNode | undefined;
  set(resource: Resource, object: KubeObject): GraphNode | undefined;
  delete(uid: string): GraphNode | undefined;
  dependentsOf(uid: string): GraphNode[];
  readonly size: number;
}

export function createOwnerGraph(): OwnerGraph {
  const nodes = new Map<string, GraphNode>();
  const dependents = new Map<string, Set<string>>();
  const unlink = (node: GraphNode): void => {
    for (const { uid } of node.owners) {
      const set = dependents.get(uid);
      set?.delete(node.uid);
      if (!set?.size) dependents.delete(uid);
    }
  };
  return {
    get: (uid) => nodes.get(uid),
    get size() {
      return nodes.size;
    },
    set(resource, { metadata }) {
      const uid = metadata.uid ?? '';
      if (!uid) return undefined;
      const before = nodes.get(uid);
      if (before) unlink(before);
      const isDeleting = metadata.deletionTimestamp !== undefined;
      const node: GraphNode = {
        uid,
        resource,
        namespace: metadata.namespace,
        name: metadata.name ?? '',
        owners: metadata.ownerReferences ?? NONE,
        isDeleting,
        isWaiting: isDeleting && !!metadata.finalizers?.includes(FOREGROUND),
        isOrphaning: isDeleting && !!metadata.finalizers?.includes(ORPHAN),
      };
      nodes.set(uid, node);
      for (const owner of node.owners) {
        const set = dependents.get(owner.uid);
        if (set) set.add(uid);
        else dependents.set(owner.uid, new Set([uid]));
      }
      return node;
    },
    delete(uid) {
      const node = nodes.get(uid);
      if (node) unlink(node);
      nodes.delete(uid);
      return node;
    },
    dependentsOf: (uid) =>
      [...(dependents.get(uid) ?? [])].flatMap((dependent) => nodes.get(dependent) ?? []),
  };
}

const NONE: OwnerReference[] = [];
