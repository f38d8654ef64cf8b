import type { KubeObject } from '../../api/object.ts';
import { StatusError, badRequest, notFound } from '../../api/status.ts';
import type { NodeAddress, ServerContext } from '../context.ts';

interface Container {
  name: string;
}

interface PodSpec {
  nodeName?: string;
  containers?: Container[];
  initContainers?: Container[];
  ephemeralContainers?: Container[];
}

interface NodeStatus {
  addresses?: { type: string; address: string }[];
  daemonEndpoints?: { kubeletEndpoint?: { Port?: number } };
}

const DEFAULT_KUBELET_PORT = 10_250;
const DEFAULT_CONTAINER = 'kubectl.kubernetes.io/default-container';
/** Best first. A name is tried where a node has told no address. */
const ADDRESS_TYPES = ['InternalIP', 'ExternalIP', 'InternalDNS', 'Hostname'];

/** Where a node's kubelet is reached. @throws StatusError when that is not known */
export function nodeAddress(server: ServerContext, name: string): NodeAddress {
  const node = server.store.get({ resource: 'nodes', namespace: '', name })?.object;
  if (!node) throw notFound('', 'nodes', name);
  const { addresses = [], daemonEndpoints } = (node.status ?? {}) as NodeStatus;
  const found = ADDRESS_TYPES.map((type) => addresses.find((one) => one.type === type)).find(
    Boolean,
  );
  if (!found) {
    const message = `the node "${name}" has told no address at which its kubelet is reached`;
    throw new StatusError('ServiceUnavailable', message);
  }
  const port = daemonEndpoints?.kubeletEndpoint?.Port || DEFAULT_KUBELET_PORT;
  return { name, host: found.address, port };
}

/** The node a pod runs on. @throws StatusError 400 before it was given one */
export function nodeOfPod(pod: KubeObject): string {
  const { nodeName } = (pod.spec ?? {}) as PodSpec;
  if (nodeName) return nodeName;
  throw badRequest(`pod ${pod.metadata.name} does not have a host assigned`);
}

/**
 * The container that is meant: the one named, the one the pod declares as its default, or its
 * only one.
 *
 * @throws StatusError 400 that lists the choices
 */
export function containerOf(pod: KubeObject, wanted: string | null): string {
  const spec = (pod.spec ?? {}) as PodSpec;
  const containers = (spec.containers ?? []).map(({ name }) => name);
  const others = [...(spec.initContainers ?? []), ...(spec.ephemeralContainers ?? [])];
  const all = [...containers, ...others.map(({ name }) => name)];
  const { name } = pod.metadata;
  if (wanted) {
    if (all.includes(wanted)) return wanted;
    throw badRequest(`container ${wanted} is not valid for pod ${name}`);
  }
  const declared = pod.metadata.annotations?.[DEFAULT_CONTAINER];
  if (declared && all.includes(declared)) return declared;
  if (containers.length === 1) return containers[0] as string;
  const choices = `choose one of: [${containers.join(' ')}]`;
  const inits = (spec.initContainers ?? []).map((container) => container.name);
  const more = inits.length > 0 ? ` or one of the init containers: [${inits.join(' ')}]` : '';
  throw badRequest(`a container name must be specified for pod ${name}, ${choices}${more}`);
}
