import type { AuthorizationAttributes, AuthorizationDecision, Authorizer } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { parseFieldSelector } from '../api/selectors.ts';
import type { FieldRequirement } from '../api/selectors.ts';
import { NODE_USER_PREFIX, NODES_GROUP } from './pki.ts';
import type { PolicyRule } from './rbac.ts';
import { ruleAllows } from './rbac.ts';

/**
 * What a kubelet may do: read what the pods bound to its node refer to, and write about itself.
 * A machine that is broken into therefore gives away the secrets of the pods it runs, not those
 * of the cluster. Rules: Kubernetes' Node authorizer with selectors (1.34).
 */
export interface NodeAuthorizer extends Required<Authorizer> {
  /** Takes in a created or changed Pod, PersistentVolumeClaim or VolumeAttachment. */
  set(object: KubeObject): void;
  /** Forgets a deleted one. */
  delete(object: KubeObject): void;
}

const rule = (apiGroups: string, resources: string, verbs: string): PolicyRule => ({
  apiGroups: [apiGroups],
  resources: resources.split(' '),
  verbs: verbs.split(' '),
});

/** What does not depend on an object's relation to the node. */
const STATIC_RULES: PolicyRule[] = [
  rule('certificates.k8s.io', 'certificatesigningrequests', 'create get list watch'),
  rule('storage.k8s.io', 'csidrivers storageclasses', 'get list watch'),
  rule('node.k8s.io', 'runtimeclasses', 'get list watch'),
];

/** What a node sees in namespaces that have pods on it, and in no others. */
const NEIGHBOUR_RULES: PolicyRule[] = [
  rule('', 'services', 'get list watch'),
  rule('discovery.k8s.io', 'endpointslices', 'get list watch'),
  rule('', 'endpoints', 'get'),
];
const EVENT_RULES: PolicyRule[] = [
  rule('', 'events', 'create patch update'),
  rule('events.k8s.io', 'events', 'create patch update'),
];
/** Where events are that are about nodes themselves. */
const NODE_EVENTS_NAMESPACE = 'default';

/** Kinds of which a node reads single objects, those its pods refer to: resource → verbs. */
const REFERRED_READS: Record<string, string[]> = {
  secrets: ['get', 'list', 'watch'],
  configmaps: ['get', 'list', 'watch'],
  persistentvolumeclaims: ['get'],
  'persistentvolumeclaims/status': ['get', 'update', 'patch'],
  persistentvolumes: ['get'],
  serviceaccounts: ['get'],
  'serviceaccounts/token': ['create'],
};

const POD_WRITES = new Set([
  'pods delete',
  'pods/status update',
  'pods/status patch',
  'pods/eviction create',
]);

interface PodFacts {
  node: string;
  references: string[];
}

export function createNodeAuthorizer(): NodeAuthorizer {
  const pods = new Map<string, PodFacts>();
  /** node → reference → how many of its pods refer to it. */
  const referenceCounts = new Map<string, Map<string, number>>();
  /** Volume that a claim is bound to: `namespace/name` of the claim → name of the volume. */
  const volumeOfClaim = new Map<string, string>();
  const claimOfVolume = new Map<string, string>();
  const attachmentNode = new Map<string, string>();

  const count = ({ node, references }: PodFacts, delta: 1 | -1): void => {
    const counts = referenceCounts.get(node) ?? new Map<string, number>();
    referenceCounts.set(node, counts);
    for (const reference of references) {
      const next = (counts.get(reference) ?? 0) + delta;
      if (next) counts.set(reference, next);
      else counts.delete(reference);
    }
    if (!counts.size) referenceCounts.delete(node);
  };

  const forgetPod = (key: string): void => {
    const facts = pods.get(key);
    if (facts) count(facts, -1);
    pods.delete(key);
  };

  const isReferred = (node: string, attributes: AuthorizationAttributes): boolean => {
    const { resource, namespace, name } = attributes;
    const counts = referenceCounts.get(node);
    if (!counts || !name) return false;
    if (resource !== 'persistentvolumes') return counts.has(`${resource}/${namespace}/${name}`);
    const claim = claimOfVolume.get(name);
    return claim !== undefined && counts.has(`persistentvolumeclaims/${claim}`);
  };

  const forgetClaim = (key: string): void => {
    const volume = volumeOfClaim.get(key);
    if (volume !== undefined) claimOfVolume.delete(volume);
    volumeOfClaim.delete(key);
  };

  const allows = (node: string, attributes: AuthorizationAttributes): boolean => {
    const { group, resource, subresource, verb, namespace, name } = attributes;
    const full = subresource ? `${resource}/${subresource}` : resource;
    if (!attributes.isResourceRequest) return false;
    if (group === '' && REFERRED_READS[full]) {
      return REFERRED_READS[full].includes(verb) && isReferred(node, attributes);
    }
    if (group === '' && resource === 'nodes') return mayTouchNode(node, full, attributes);
    if (group === '' && resource === 'pods') {
      if (full === 'pods' && (verb === 'list' || verb === 'watch')) {
        return selects(attributes.fieldSelector, 'spec.nodeName', node);
      }
      const isOwn = pods.get(`${namespace}/${name}`)?.node === node;
      return isOwn && (`${full} ${verb}` === 'pods get' || POD_WRITES.has(`${full} ${verb}`));
    }
    if (group === 'coordination.k8s.io' && full === 'leases' && namespace === 'kube-node-lease') {
      // The name of a new object is in its body; admission compares it.
      if (verb === 'create') return true;
      return name === node && ['get', 'update', 'patch', 'delete'].includes(verb);
    }
    if (group === 'storage.k8s.io' && full === 'csinodes') {
      if (verb === 'create') return true;
      return name === node && ['get', 'update', 'patch', 'delete'].includes(verb);
    }
    if (group === 'storage.k8s.io' && full === 'volumeattachments') {
      return verb === 'get' && attachmentNode.get(name) === node;
    }
    const isNeighbour = referenceCounts.get(node)?.has(namespaceReference(namespace)) === true;
    if (isNeighbour || namespace === NODE_EVENTS_NAMESPACE) {
      if (EVENT_RULES.some((rule) => ruleAllows(rule, attributes))) return true;
    }
    if (isNeighbour && NEIGHBOUR_RULES.some((rule) => ruleAllows(rule, attributes))) return true;
    return STATIC_RULES.some((rule) => ruleAllows(rule, attributes));
  };

  return {
    set(object) {
      const key = `${object.metadata.namespace ?? ''}/${object.metadata.name ?? ''}`;
      if (object.kind === 'Pod') {
        forgetPod(key);
        const facts = readPod(object);
        if (!facts) return;
        pods.set(key, facts);
        count(facts, 1);
      } else if (object.kind === 'PersistentVolumeClaim') {
        forgetClaim(key);
        const volume = (object.spec as { volumeName?: string } | undefined)?.volumeName;
        if (!volume) return;
        volumeOfClaim.set(key, volume);
        claimOfVolume.set(volume, key);
      } else if (object.kind === 'VolumeAttachment') {
        const node = (object.spec as { nodeName?: string } | undefined)?.nodeName;
        attachmentNode.set(object.metadata.name ?? '', node ?? '');
      }
    },

    delete(object) {
      const key = `${object.metadata.namespace ?? ''}/${object.metadata.name ?? ''}`;
      if (object.kind === 'Pod') forgetPod(key);
      else if (object.kind === 'PersistentVolumeClaim') forgetClaim(key);
      else if (object.kind === 'VolumeAttachment')
        attachmentNode.delete(object.metadata.name ?? '');
    },

    explain(attributes) {
      const { decision, reason } = this.authorize(attributes);
      const isNode = nodeOfUser(attributes.user) !== undefined;
      const granted = decision === 'allow' ? 'the node runs, or is, what it is about' : reason;
      return [{ authorizer: 'node', decision, reason: isNode ? granted : 'the user is no node' }];
    },

    authorize(attributes): AuthorizationDecision {
      const node = nodeOfUser(attributes.user);
      if (node === undefined) return { decision: 'no-opinion', reason: '' };
      if (allows(node, attributes)) return { decision: 'allow', reason: '' };
      const reason = `no relationship found between node '${node}' and this object`;
      return { decision: 'no-opinion', reason };
    },
  };
}

/** The node a user is, or undefined for everybody else. */
export function nodeOfUser(user: { name: string; groups: string[] }): string | undefined {
  if (!user.groups.includes(NODES_GROUP) || !user.name.startsWith(NODE_USER_PREFIX)) {
    return undefined;
  }
  return user.name.slice(NODE_USER_PREFIX.length) || undefined;
}

function mayTouchNode(node: string, full: string, attributes: AuthorizationAttributes): boolean {
  const { verb, name } = attributes;
  if (full === 'nodes/status') return name === node && (verb === 'update' || verb === 'patch');
  if (full !== 'nodes') return false;
  if (verb === 'create') return true;
  return name === node && ['get', 'list', 'watch', 'update', 'patch'].includes(verb);
}

/**
 * Whether a field selector asks for exactly this value, among other requirements or none. Read as
 * the list itself reads it: what is taken for a requirement here has to be one there.
 */
function selects(fieldSelector: string | undefined, field: string, value: string): boolean {
  let requirements: FieldRequirement[];
  try {
    requirements = parseFieldSelector(fieldSelector ?? '');
  } catch {
    return false;
  }
  return requirements.some(
    (one) => one.field === field && one.operator === '=' && one.value === value,
  );
}

interface Named {
  name?: string;
}

interface VolumeFields {
  secret?: { secretName?: string };
  configMap?: Named;
  persistentVolumeClaim?: { claimName?: string };
  ephemeral?: object;
  name?: string;
  projected?: { sources?: { secret?: Named; configMap?: Named }[] };
  [driver: string]: unknown;
}

interface EnvFields {
  env?: { valueFrom?: { secretKeyRef?: Named; configMapKeyRef?: Named } }[];
  envFrom?: { secretRef?: Named; configMapRef?: Named }[];
}

const namespaceReference = (namespace: string): string => `namespaces/${namespace}`;

/** Every object of its namespace that a pod refers to, as `resource/namespace/name`; and that. */
function readPod(pod: KubeObject): PodFacts | undefined {
  const spec = pod.spec as {
    nodeName?: string;
    serviceAccountName?: string;
    imagePullSecrets?: Named[];
    volumes?: VolumeFields[];
    containers?: EnvFields[];
    initContainers?: EnvFields[];
    ephemeralContainers?: EnvFields[];
  };
  if (!spec?.nodeName) return undefined;
  const references = new Set<string>();
  const add = (resource: string, name: string | undefined) => {
    if (name) references.add(`${resource}/${pod.metadata.namespace ?? ''}/${name}`);
  };
  references.add(namespaceReference(pod.metadata.namespace ?? ''));
  add('serviceaccounts', spec.serviceAccountName);
  for (const secret of spec.imagePullSecrets ?? []) add('secrets', secret.name);
  const { containers = [], initContainers = [], ephemeralContainers = [] } = spec;
  for (const container of [...containers, ...initContainers, ...ephemeralContainers]) {
    for (const { valueFrom } of container.env ?? []) {
      add('secrets', valueFrom?.secretKeyRef?.name);
      add('configmaps', valueFrom?.configMapKeyRef?.name);
    }
    for (const source of container.envFrom ?? []) {
      add('secrets', source.secretRef?.name);
      add('configmaps', source.configMapRef?.name);
    }
  }
  for (const volume of spec.volumes ?? []) addVolume(volume, pod.metadata.name ?? '', add);
  return { node: spec.nodeName, references: [...references] };
}

function addVolume(
  volume: VolumeFields,
  podName: string,
  add: (resource: string, name: string | undefined) => void,
): void {
  add('secrets', volume.secret?.secretName);
  add('configmaps', volume.configMap?.name);
  add('persistentvolumeclaims', volume.persistentVolumeClaim?.claimName);
  if (volume.ephemeral) add('persistentvolumeclaims', `${podName}-${volume.name}`);
  for (const source of volume.projected?.sources ?? []) {
    add('secrets', source.secret?.name);
    add('configmaps', source.configMap?.name);
  }
  // Drivers name the secret for mounting `secretRef` or, in CSI, `nodePublishSecretRef`.
  for (const driver of Object.values(volume)) {
    if (typeof driver !== 'object' || driver === null) continue;
    const { secretRef, nodePublishSecretRef } = driver as Record<string, Named | undefined>;
    add('secrets', secretRef?.name);
    add('secrets', nodePublishSecretRef?.name);
  }
}
