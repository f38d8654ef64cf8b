import { matchesLabelSelector } from '../../api/selectors.ts';
import type { Pod, Service } from '../../api/types.generated.ts';
import { isReady, isSuspended, isTerminal } from '../common/pods.ts';

export interface ResolvedPort {
  name: string;
  protocol: string;
  port: number;
  appProtocol?: string;
}

/** Pods behind one service that serve on the same port numbers. */
export interface PortGroup {
  ports: ResolvedPort[];
  pods: Pod[];
}

/** A service without a selector has endpoints of somebody else's making. */
export function hasSelector({ spec }: Service): boolean {
  return spec?.type !== 'ExternalName' && Object.keys(spec?.selector ?? {}).length > 0;
}

export function selects({ spec }: Service, pod: Pod): boolean {
  return matchesLabelSelector({ matchLabels: spec?.selector ?? {} }, pod.metadata.labels);
}

/** Whether traffic may be sent to the pod, as far as its own state goes. */
export function isServing(service: Service, pod: Pod): boolean {
  return service.spec?.publishNotReadyAddresses === true || isReady(pod);
}

/** The pods with an address, in groups, since a port's name may mean another number in each. */
export function groupByPorts(service: Service, pods: Pod[]): PortGroup[] {
  const groups = new Map<string, PortGroup>();
  // The VM of a suspended pod is gone, and its address may be another's soon.
  const reachable = pods.filter(
    (pod) => pod.status?.podIP && !isTerminal(pod) && !isSuspended(pod),
  );
  const name = ({ metadata }: Pod) => metadata.name ?? '';
  for (const pod of reachable.sort((a, b) => (name(a) < name(b) ? -1 : 1))) {
    const ports = resolvePorts(service, pod);
    const key = JSON.stringify(ports);
    const group = groups.get(key);
    if (group) group.pods.push(pod);
    else groups.set(key, { ports, pods: [pod] });
  }
  return [...groups.values()];
}

function resolvePorts({ spec }: Service, pod: Pod): ResolvedPort[] {
  return (spec?.ports ?? []).flatMap(({ name = '', protocol = 'TCP', ...rest }) => {
    const target = rest.targetPort ?? rest.port;
    const port = typeof target === 'number' ? target : namedPort(pod, target, protocol);
    if (port === undefined) return [];
    const { appProtocol } = rest;
    return [{ name, protocol, port, ...(appProtocol ? { appProtocol } : {}) }];
  });
}

function namedPort(pod: Pod, name: string, protocol: string): number | undefined {
  const sidecars = (pod.spec?.initContainers ?? []).filter(
    ({ restartPolicy }) => restartPolicy === 'Always',
  );
  return [...(pod.spec?.containers ?? []), ...sidecars]
    .flatMap(({ ports = [] }) => ports)
    .find((port) => port.name === name && (port.protocol ?? 'TCP') === protocol)?.containerPort;
}
