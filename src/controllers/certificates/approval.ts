import type { CertificateSigningRequest, Node } from '../../api/types.generated.ts';
import type { CertificateRequest } from '../../auth/csr.ts';
import { NODE_USER_PREFIX, NODES_GROUP } from '../../auth/pki.ts';

/** The signers of Kubernetes that this cluster answers for. */
export const SIGNER = {
  client: 'kubernetes.io/kube-apiserver-client',
  kubeletClient: 'kubernetes.io/kube-apiserver-client-kubelet',
  kubeletServing: 'kubernetes.io/kubelet-serving',
} as const;

const KEY_USAGES = ['digital signature', 'key encipherment'];

/** Purposes that a signer's certificates may have; the last one is required. */
const USAGES: Record<string, string[]> = {
  [SIGNER.client]: [...KEY_USAGES, 'client auth'],
  [SIGNER.kubeletClient]: [...KEY_USAGES, 'client auth'],
  [SIGNER.kubeletServing]: [...KEY_USAGES, 'server auth'],
};

/**
 * Why a request is not one its signer may ever sign; undefined when it is. The rules are those
 * of Kubernetes' certificates API documentation, one paragraph per signer.
 */
export function findViolation(
  spec: CertificateSigningRequest['spec'],
  request: CertificateRequest,
): string | undefined {
  const allowed = USAGES[spec.signerName];
  if (!allowed) return `signer "${spec.signerName}" is not served`;
  const usages = spec.usages ?? [];
  const purpose = allowed.at(-1) ?? '';
  if (!usages.includes(purpose) || !usages.every((usage) => allowed.includes(usage))) {
    return `usages must be "${purpose}", beside any of: ${KEY_USAGES.join(', ')}`;
  }
  const { names, organizations, commonName } = request;
  if (spec.signerName === SIGNER.client) {
    // Such a certificate would be above all rules and could not be taken back.
    if (organizations.includes('system:masters'))
      return 'organization system:masters is not allowed';
    return undefined;
  }
  const isNode = organizations.length === 1 && organizations[0] === NODES_GROUP;
  if (!isNode) return `organization must be ${NODES_GROUP} alone`;
  if (!commonName.startsWith(NODE_USER_PREFIX) || commonName === NODE_USER_PREFIX) {
    return `common name must begin with ${NODE_USER_PREFIX}`;
  }
  if (names.emails.length || names.uris.length) return 'email and URI names are not allowed';
  const hasNames = names.dns.length > 0 || names.ips.length > 0;
  if (spec.signerName === SIGNER.kubeletServing) {
    return hasNames ? undefined : 'at least one DNS or IP name is required';
  }
  return hasNames ? 'alternative names are not allowed' : undefined;
}

/** By these the API server itself goes: nobody else may answer to them. */
const SERVER_NAME_PATTERN = /^kubernetes(\.|$)/i;

/**
 * Whether the names a node's server certificate asks for are its own, as its Node object tells
 * them. The node writes those addresses itself: so none may be the API server's, whose clients
 * trust the same authority, nor that of a service or of a living node that was there before.
 *
 * @param others what else is in the cluster
 */
export function namesFitNode(
  { names }: CertificateRequest,
  nodeName: string,
  node: Node | undefined,
  others: { nodes: Node[]; serviceAddresses: string[] } = { nodes: [], serviceAddresses: [] },
): boolean {
  const addresses = addressesOf(node);
  const ips = addresses.filter(({ type }) => type.endsWith('IP')).map(({ address }) => address);
  const dns = addresses.filter(({ type }) => !type.endsWith('IP')).map(({ address }) => address);
  const since = node?.metadata.creationTimestamp ?? '';
  // A machine that joins under a new name has the addresses of one that is dead by now.
  const elders = others.nodes.filter(
    (other) =>
      other.metadata.name !== nodeName &&
      (other.metadata.creationTimestamp ?? '') <= since &&
      isAlive(other),
  );
  const taken = new Set([
    ...others.serviceAddresses,
    ...others.nodes.map(({ metadata }) => metadata.name).filter((name) => name !== nodeName),
    ...elders.flatMap((elder) => addressesOf(elder).map(({ address }) => address)),
  ]);
  return (
    names.ips.every((ip) => ips.includes(ip) && !taken.has(ip)) &&
    names.dns.every(
      (name) =>
        (name === nodeName || (dns.includes(name) && !taken.has(name))) &&
        !SERVER_NAME_PATTERN.test(name),
    )
  );
}

/** Whether its kubelet reports in time. */
export function isAlive(node: Node): boolean {
  return !!node.status?.conditions?.some(
    ({ type, status }) => type === 'Ready' && status === 'True',
  );
}

function addressesOf(node: Node | undefined): { type: string; address: string }[] {
  return node?.status?.addresses ?? [];
}
