import type { NetworkSegment } from '../../kubelet/pod-network.ts';
import { formatAddress, parseCidr } from '../../network/address.ts';

/** A network of this machine's pods, with the outside behind address translation. */
export function segment(id: string, cidr: string): NetworkSegment {
  const gateway = formatAddress(parseCidr(cidr).network + 1);
  return { id, cidr, gateway, mtu: 0, nat: true };
}
