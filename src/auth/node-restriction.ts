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
}

/** With these labels operators fence off nodes; a node must not grant them to itself. */
const RESTRICTED_LABEL_PATTERN = /(^|\.)node-restriction\.kubernetes\.io\//;

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
      return;
    case 'serviceaccounts':
      if (write.subresource === 'token') checkTokenRequest(node, object, refuse);
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
    (label) => RESTRICTED_LABEL_PATTERN.test(label) && before[label] !== after[label],
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

/** A node asks for tokens on behalf of pods, so each token has to end with its pod. */
function checkTokenRequest(
  node: string,
  object: KubeObject | undefined,
  refuse: (why: string) => never,
): void {
  const spec = object?.spec as { boundObjectRef?: { kind?: string; uid?: string } } | undefined;
  if (spec?.boundObjectRef?.kind !== 'Pod') {
    refuse(`node "${node}" may only request tokens that are bound to a pod`);
  }
  if (!spec?.boundObjectRef?.uid) {
    refuse(`node "${node}" requested a token bound to a pod without its uid`);
  }
}
