import type { UserInfo } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { qualifiedResource, StatusError } from '../api/status.ts';
import { nodeOfUser } from './node-authorizer.ts';

export interface NodeWrite {
  user: UserInfo;
  operation: 'create' | 'update' | 'delete';
  group: string;
  resource: string;
  subresource: string;
  object?: KubeObject;
  oldObject?: KubeObject;
  /** Of a token request: the pod that it names, where there is one. */
  boundPod?: KubeObject;
}

/**
 * With labels of these domains operators fence off nodes and give them roles; a node must not
 * grant them to itself, but for those that say what it is.
 */
const RESTRICTED_LABEL_PATTERN = /^([^/]*\.)?(kubernetes|k8s)\.io\//;
const OWN_LABEL_PATTERN = /^([^/]*\.)?(kubelet|node)\.kubernetes\.io\//;
const FENCE_LABEL_PATTERN = /^([^/]*\.)?node-restriction\.kubernetes\.io\//;
const OWN_LABELS = new Set([
  'kubernetes.io/arch',
  'kubernetes.io/hostname',
  'kubernetes.io/os',
  'beta.kubernetes.io/arch',
  'beta.kubernetes.io/instance-type',
  'beta.kubernetes.io/os',
  'failure-domain.beta.kubernetes.io/region',
  'failure-domain.beta.kubernetes.io/zone',
  'failure-domain.kubernetes.io/region',
  'failure-domain.kubernetes.io/zone',
  'topology.kubernetes.io/region',
  'topology.kubernetes.io/zone',
]);

function isRestricted(label: string): boolean {
  if (FENCE_LABEL_PATTERN.test(label)) return true;
  return (
    RESTRICTED_LABEL_PATTERN.test(label) && !OWN_LABEL_PATTERN.test(label) && !OWN_LABELS.has(label)
  );
}

/**
 * The part of a node's limits that can be judged only with the object in hand (Kubernetes'
 * NodeRestriction admission). Users that are not nodes pass.
 *
 * @throws StatusError Forbidden
 */
export function checkNodeRestriction(write: NodeWrite): void {
  const node = nodeOfUser(write.user);
  if (node === undefined) return;
  const { group, resource, operation, object, oldObject } = write;
  const name = (object ?? oldObject)?.metadata.name ?? '';
  const refuse = (why: string): never => {
    const subject = `${qualifiedResource(group, resource)} "${name}"`;
    const details = { name, group, kind: resource };
    throw new StatusError('Forbidden', `${subject} is forbidden: ${why}`, { details });
  };
  switch (qualifiedResource(group, resource)) {
    case 'nodes':
      if (name !== node) refuse(`node "${node}" is not allowed to modify node "${name}"`);
      if (object) checkNodeObject(node, object, oldObject, refuse);
      return;
    case 'leases.coordination.k8s.io':
      if (name !== node)
        refuse(`can only access node lease with the same name as the requesting node`);
      return;
    case 'csinodes.storage.k8s.io':
      if (name !== node)
        refuse('can only access CSINode with the same name as the requesting node');
      return;
    case 'pods':
      if (operation === 'create' && !write.subresource) {
        refuse(`node "${node}" is not allowed to create pods`);
      }
      // Services and controllers choose pods by their labels: a node must not choose for them.
      if (write.subresource === 'status' && labelsOf(object) !== labelsOf(oldObject)) {
        refuse(`node "${node}" cannot update labels through pod status`);
      }
      return;
    case 'serviceaccounts':
      if (write.subresource === 'token') checkTokenRequest(node, write, refuse);
      return;
    default:
  }
}

function checkNodeObject(
  node: string,
  object: KubeObject,
  oldObject: KubeObject | undefined,
  refuse: (why: string) => never,
): void {
  const before = oldObject?.metadata.labels ?? {};
  const after = object.metadata.labels ?? {};
  const changed = Object.keys({ ...before, ...after }).filter(
    (label) => isRestricted(label) && before[label] !== after[label],
  );
  if (changed.length) {
    refuse(`is not allowed to modify labels: ${changed.sort().join(', ')}`);
  }
  const taints = (from: KubeObject | undefined) =>
    JSON.stringify((from?.spec as { taints?: unknown[] } | undefined)?.taints ?? []);
  if (oldObject && taints(object) !== taints(oldObject)) {
    refuse(`node "${node}" is not allowed to modify taints`);
  }
  const owners = (from: KubeObject) => JSON.stringify(from.metadata.ownerReferences ?? []);
  if (oldObject && owners(object) !== owners(oldObject)) {
    refuse(`node "${node}" is not allowed to modify ownerReferences`);
  }
}

function labelsOf(object: KubeObject | undefined): string {
  return JSON.stringify(Object.entries(object?.metadata.labels ?? {}).sort());
}

/** A node asks for tokens on behalf of pods, so each token has to end with its pod. */
function checkTokenRequest(
  node: string,
  { object, boundPod }: NodeWrite,
  refuse: (why: string) => never,
): void {
  const spec = object?.spec as { boundObjectRef?: { kind?: string; uid?: string } } | undefined;
  if (spec?.boundObjectRef?.kind !== 'Pod') {
    refuse(`node "${node}" may only request tokens that are bound to a pod`);
  }
  if (!spec?.boundObjectRef?.uid) {
    refuse(`node "${node}" requested a token bound to a pod without its uid`);
  }
  if ((boundPod?.spec as { nodeName?: string } | undefined)?.nodeName !== node) {
    refuse(`node "${node}" requested a token bound to a pod scheduled on a different node`);
  }
}
