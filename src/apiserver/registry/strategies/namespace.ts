import type { KubeObject } from '../../../api/object.ts';
import type { Strategy } from '../strategy.ts';

/** By which selectors find a namespace by its name. */
const NAME_LABEL = 'kubernetes.io/metadata.name';
/** Kept in the spec until the namespace controller has emptied the namespace. */
const CONTENT_FINALIZER = 'kubernetes';

interface NamespaceSpec {
  finalizers?: string[];
}

export const namespaceStrategy: Strategy = {
  returnsDeletedObject: true,
  statusWritesMetadata: true,
  prepareCreate(namespace) {
    const finalizers = new Set([...(specOf(namespace).finalizers ?? []), CONTENT_FINALIZER]);
    namespace.spec = { ...specOf(namespace), finalizers: [...finalizers] };
    namespace.status = { phase: 'Active' };
    labelWithName(namespace);
  },
  prepareUpdate(namespace, old, { subresource }) {
    // Its finalizers are given up through the subresource alone.
    if (subresource !== 'finalize') namespace.spec = old.spec;
    labelWithName(namespace);
  },
  isHeld: (namespace) => (specOf(namespace).finalizers ?? []).length > 0,
  markDeleted(namespace) {
    namespace.status = { ...(namespace.status as object | undefined), phase: 'Terminating' };
  },
};

function specOf(namespace: KubeObject): NamespaceSpec {
  return (namespace.spec ?? {}) as NamespaceSpec;
}

function labelWithName(namespace: KubeObject): void {
  const { labels, name = '' } = namespace.metadata;
  namespace.metadata.labels = { ...labels, [NAME_LABEL]: name };
}
