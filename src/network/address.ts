import { NetworkError } from './driver.ts';
import type { NetworkSpec, PortRequest } from './driver.ts';

/** An IPv4 range as numbers. */
export interface Range {
  network: number;
  broadcast: number;
  prefixLength: number;
}

/** Smaller ranges hold no pod beside the gateway; larger ones no node needs. */
const PREFIX_LENGTH_MIN = 12;
const PREFIX_LENGTH_MAX = 29;
const MTU_MIN = 576;
const MTU_MAX = 65_520;

/** @throws NetworkError Invalid for anything but four decimal octets without leading zeros */
export function parseAddress(text: string): number {
  const octets = text.split('.');
  const valid =
    octets.length === 4 && octets.every((o) => /^(0|[1-9]\d{0,2})$/.test(o) && +o < 256);
  if (!valid) throw new NetworkError('Invalid', `Invalid address "${text}": not an IPv4 address`);
  return octets.reduce((value, octet) => value * 256 + Number(octet), 0);
}

export function formatAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');
}

/** @throws NetworkError Invalid where host bits are set or the length is out of bounds */
export function parseCidr(text: string): Range {
  const [address, length] = text.split('/');
  const prefixLength = /^\d{1,2}$/.test(length ?? '') ? Number(length) : -1;
  if (prefixLength < PREFIX_LENGTH_MIN || prefixLength > PREFIX_LENGTH_MAX) {
    const wanted = `wanted a length from ${PREFIX_LENGTH_MIN} to ${PREFIX_LENGTH_MAX}`;
    throw new NetworkError('Invalid', `Invalid range "${text}": ${wanted}`);
  }
  const network = parseAddress(address ?? '');
  const size = 2 ** (32 - prefixLength);
  if (network % size !== 0) {
    throw new NetworkError('Invalid', `Invalid range "${text}": host bits are set`);
  }
  return { network, broadcast: network + size - 1, prefixLength };
}

/** What can be handed out: neither the network's nor the broadcast address. */
export function isUsable(range: Range, address: number): boolean {
  return address > range.network && address < range.broadcast;
}

/**
 * The next free address after `cursor`, round and round: an address comes back as late as
 * possible, because peers remember who had it. Undefined when all are taken.
 */
export function nextAddress(
  range: Range,
  taken: ReadonlySet<number>,
  cursor: number,
): number | undefined {
  const count = range.broadcast - range.network - 1;
  const start = isUsable(range, cursor) ? cursor - range.network : 0;
  for (let i = 0; i < count; i++) {
    const address = range.network + 1 + ((start + i) % count);
    if (!taken.has(address)) return address;
  }
  return undefined;
}

/** @throws NetworkError Invalid, naming the field */
export function validateNetwork(network: NetworkSpec): Range {
  if (!/^[a-z0-9-]{1,40}$/.test(network.id)) {
    throw new NetworkError(
      'Invalid',
      `Invalid network id "${network.id}": wanted 1 to 40 of [a-z0-9-]`,
    );
  }
  const range = parseCidr(network.cidr);
  if (!isUsable(range, parseAddress(network.gateway))) {
    const message = `Invalid gateway "${network.gateway}": not an address in ${network.cidr}`;
    throw new NetworkError('Invalid', message);
  }
  const { mtu } = network;
  if (mtu !== 0 && (!Number.isInteger(mtu) || mtu < MTU_MIN || mtu > MTU_MAX)) {
    const message = `Invalid mtu ${mtu}: wanted 0 or ${MTU_MIN} to ${MTU_MAX}`;
    throw new NetworkError('Invalid', message);
  }
  return range;
}

/** @throws NetworkError Invalid */
export function validatePortRequest(request: PortRequest): void {
  if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(request.id)) {
    throw new NetworkError(
      'Invalid',
      `Invalid port id "${request.id}": wanted 1 to 63 of [a-z0-9-]`,
    );
  }
  if (!Number.isInteger(request.ownerUid) || request.ownerUid < 0) {
    throw new NetworkError('Invalid', `Invalid owner ${request.ownerUid} of port "${request.id}"`);
  }
  if (request.address !== undefined) parseAddress(request.address);
}
