import type { Random } from '../base/random.ts';
import { formatAddress, isUsable, nextAddress, parseAddress, parseCidr } from './address.ts';
import { NetworkError } from './driver.ts';
import type { NetworkSpec, PortRequest } from './driver.ts';

/** What a driver remembers of a port; the rest of `Port` follows from it and from the network. */
export interface PortRecord {
  id: string;
  networkId: string;
  address: string;
  mac: string;
  ownerUid: number;
}

export interface NetworkRecord {
  spec: NetworkSpec;
  /** Last address that was handed out. */
  cursor: string;
}

/** A locally administered, individual address. */
const MAC_FIRST_OCTET = '02';
const MAC_RANDOM_OCTETS = 5;

/**
 * Chooses address and MAC of a new port and moves the network's cursor.
 * @throws NetworkError Invalid, InUse, Exhausted
 */
export function allocatePort(
  network: NetworkRecord,
  ports: Iterable<PortRecord>,
  request: PortRequest,
  random: Random,
): PortRecord {
  const { spec } = network;
  const range = parseCidr(spec.cidr);
  const taken = new Set([parseAddress(spec.gateway)]);
  const macs = new Set<string>();
  for (const port of ports) {
    macs.add(port.mac);
    if (port.networkId === spec.id) taken.add(parseAddress(port.address));
  }
  let address: number | undefined;
  if (request.address === undefined) {
    address = nextAddress(range, taken, parseAddress(network.cursor));
    if (address === undefined) {
      const message = `Cannot give "${request.id}" an address: all of ${spec.cidr} are in use`;
      throw new NetworkError('Exhausted', message);
    }
    network.cursor = formatAddress(address);
  } else {
    address = parseAddress(request.address);
    const where = `Cannot give "${request.id}" the address ${request.address}`;
    if (!isUsable(range, address))
      throw new NetworkError('Invalid', `${where}: not in ${spec.cidr}`);
    if (taken.has(address)) throw new NetworkError('InUse', `${where}: it is in use`);
  }
  let mac: string;
  do mac = randomMac(random);
  while (macs.has(mac));
  const { id, networkId, ownerUid } = request;
  return { id, networkId, address: formatAddress(address), mac, ownerUid };
}

function randomMac(random: Random): string {
  const octets = [...random.bytes(MAC_RANDOM_OCTETS)].map((b) => b.toString(16).padStart(2, '0'));
  return [MAC_FIRST_OCTET, ...octets].join(':');
}
