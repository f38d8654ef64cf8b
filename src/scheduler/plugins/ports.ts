import type { Pod } from '../../api/types.generated.ts';
import type { Plugin } from '../framework.ts';

interface HostPort {
  ip: string;
  protocol: string;
  port: number;
}

/** Two pods cannot have the same host port of the same protocol on overlapping addresses. */
export const nodePorts: Plugin<HostPort[]> = {
  name: 'NodePorts',
  prepare(pod) {
    const wanted = hostPorts(pod);
    return wanted.length > 0 ? wanted : undefined;
  },
  filter(wanted, _pod, node) {
    const taken = node.pods.flatMap(hostPorts);
    const clash = wanted.some((port) => taken.some((other) => conflicts(port, other)));
    return clash ? ["node(s) didn't have free ports for the requested pod ports"] : [];
  },
};

const ANY_ADDRESS = '0.0.0.0';

function hostPorts(pod: Pod): HostPort[] {
  return (pod.spec?.containers ?? []).flatMap(({ ports = [] }) =>
    ports
      .filter(({ hostPort }) => hostPort)
      .map(({ hostIP, protocol, hostPort }) => ({
        ip: hostIP || ANY_ADDRESS,
        protocol: protocol ?? 'TCP',
        port: hostPort ?? 0,
      })),
  );
}

function conflicts(a: HostPort, b: HostPort): boolean {
  if (a.port !== b.port || a.protocol !== b.protocol) return false;
  return a.ip === b.ip || a.ip === ANY_ADDRESS || b.ip === ANY_ADDRESS;
}
