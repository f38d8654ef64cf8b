import { createHash } from 'node:crypto';
import { formatAddress, parseAddress, parseCidr } from '../address.ts';
import type { NetworkSpec } from '../driver.ts';
import type { PortRecord } from '../allocation.ts';

/**
 * The kernel's side of a network, as input for `ip -batch -` and `nft -f -`. Pure.
 *
 *     namespace hnXXXX-<network>                          host
 *     tap ... tap --- br0 (gateway)      up0 ------------ hnXXXXu<slot> --- uplink
 *              |          forward, masquerade   169.254.64.0/18 in /30s   forward, masquerade
 *              +-- bridge filter: own MAC and address only
 *
 * Addresses of tenants overlap, so they are translated before they leave the namespace; the host
 * sees only the link's, and translates that once more.
 */
export interface Names {
  /** Short hash of the state directory: several daemons on one machine do not meet. */
  scope: string;
  /** nftables table, in the host's and in every network's namespace. */
  table: string;
  /** Host ends of the links, as nftables matches them. */
  linkPattern: string;
}

const BRIDGE = 'br0';
const UPLINK = 'up0';

/** Links of all daemons on this machine, as nftables matches them. */
const ANY_LINK = 'hn*';

/** Link-local, so never routed to from elsewhere; clear of the cloud's 169.254.169.254. */
const LINK_RANGE = parseCidr('169.254.64.0/18');
const LINK_ADDRESSES = 4;
export const LINK_COUNT_MAX = (LINK_RANGE.broadcast - LINK_RANGE.network + 1) / LINK_ADDRESSES;

/** Flows that one pod may hold open to the outside: the host's table of flows is everybody's. */
const FLOWS_PER_POD_MAX = 4096;

const IFNAME_HASH_DIGITS = 12;
/** As long as names of links allow: what carries another daemon's scope is never touched. */
const SCOPE_DIGITS = 8;

/** The names that belong to one daemon, by its state directory: two of them share a machine. */
export function namesOf(stateDirectory: string): Names {
  const scope = hash(stateDirectory).slice(0, SCOPE_DIGITS);
  return { scope, table: `hypernetes-${scope}`, linkPattern: `hn${scope}u*` };
}

/** The network namespace of a network. */
export function namespaceName(names: Names, networkId: string): string {
  return `hn${names.scope}-${networkId}`;
}

/** The host's end of the link to the namespace of a network, which has this slot. */
export function linkName(names: Names, slot: number): string {
  return `hn${names.scope}u${slot}`;
}

/** Whether a network namespace is that of a network of this daemon, known or forgotten. */
export function isOwnNamespace(names: Names, name: string): boolean {
  return name.startsWith(namespaceName(names, ''));
}

/** The same for a device of the host. */
export function isOwnLink(names: Names, device: string): boolean {
  return isLink(device) && device.startsWith(linkName(names, 0).slice(0, -1));
}

/** The tap device of a port, inside of its network's namespace. */
export function tapName(portId: string): string {
  return `tap${hash(portId).slice(0, IFNAME_HASH_DIGITS)}`;
}

/** Whether a device is the tap of a port, known or forgotten. */
export function isTap(device: string): boolean {
  return new RegExp(`^tap[0-9a-f]{${IFNAME_HASH_DIGITS}}$`).test(device);
}

/** Whether a device of the host is such a link, of whatever daemon. */
export function isLink(device: string): boolean {
  return new RegExp(`^hn[0-9a-f]{${SCOPE_DIGITS}}u\\d+$`).test(device);
}

/** The two addresses of a link, host first. */
export function linkAddresses(slot: number): { host: string; network: string } {
  const base = LINK_RANGE.network + slot * LINK_ADDRESSES;
  return { host: formatAddress(base + 1), network: formatAddress(base + 2) };
}

/** The bridge keeps this address whatever ports come and go. */
function bridgeMac(networkId: string): string {
  return `02:${(hash(networkId).slice(0, 10).match(/../g) ?? []).join(':')}`;
}

/** In the network's namespace; `existing` are the devices that are there. */
export function bridgeCommands(
  network: NetworkSpec,
  mtu: number,
  existing: ReadonlySet<string>,
): string[] {
  const { prefixLength } = parseCidr(network.cidr);
  return [
    'link set lo up',
    ...(existing.has(BRIDGE)
      ? []
      : [
          `link add ${BRIDGE} address ${bridgeMac(network.id)} type bridge stp_state 0 mcast_snooping 0`,
        ]),
    `link set ${BRIDGE} mtu ${mtu}`,
    `addr replace ${network.gateway}/${prefixLength} dev ${BRIDGE}`,
    `link set ${BRIDGE} up`,
  ];
}

/** In the host's namespace: the link, one end moved into the network's namespace. */
export function linkCommands(
  names: Names,
  networkId: string,
  slot: number,
  mtu: number,
  exists: boolean,
): string[] {
  const name = linkName(names, slot);
  const peer = `peer name ${UPLINK} netns ${namespaceName(names, networkId)}`;
  return [
    ...(exists ? [] : [`link add ${name} type veth ${peer}`]),
    `addr replace ${linkAddresses(slot).host}/30 dev ${name}`,
    `link set ${name} mtu ${mtu} up`,
  ];
}

/** In the network's namespace: the other end of it, and the way out. */
export function uplinkCommands(slot: number, mtu: number): string[] {
  const { host, network } = linkAddresses(slot);
  return [
    `addr replace ${network}/30 dev ${UPLINK}`,
    `link set ${UPLINK} mtu ${mtu} up`,
    `route replace default via ${host}`,
  ];
}

/** In the network's namespace. `guard`: no pod takes part in a spanning tree. */
export function portCommands(port: PortRecord, mtu: number, exists: boolean): string[] {
  const tap = tapName(port.id);
  return [
    ...(exists ? [] : [`tuntap add dev ${tap} mode tap user ${port.ownerUid}`]),
    `link set dev ${tap} mtu ${mtu} master ${BRIDGE} up`,
    `link set dev ${tap} type bridge_slave guard on`,
  ];
}

/** Adding an element twice is fine, removing one that is not there is not: hence the pair. */
export function portElement(names: Names, port: PortRecord, verb: 'add' | 'delete'): string {
  const lines = (operation: string) => [
    `${operation} element bridge ${names.table} stations { ${tapName(port.id)} . ${port.mac} }`,
    `${operation} element bridge ${names.table} owners ` +
      `{ ${tapName(port.id)} . ${port.mac} . ${port.address} }`,
  ];
  return [...lines('add'), ...(verb === 'add' ? [] : lines('delete'))]
    .map((l) => `${l}\n`)
    .join('');
}

/**
 * Rules of a network's namespace. The bridge filter lets a pod send IPv4 and ARP, and only as
 * itself. Nothing in the namespace answers but the gateway's ping.
 */
export function networkRules(names: Names, network: NetworkSpec, ports: PortRecord[]): string {
  const { table } = names;
  const elements = ports.map((port) => portElement(names, port, 'add')).join('');
  const out = `iifname "${BRIDGE}" oifname "${UPLINK}"`;
  const egress = network.nat
    ? `    ip daddr { 169.254.0.0/16, 127.0.0.0/8 } drop
    ${out} ct state new add @flows { ip saddr ct count over ${FLOWS_PER_POD_MAX} } drop
    ${out} accept
`
    : '';
  return `table bridge ${table}
delete table bridge ${table}
table bridge ${table} {
  set stations {
    type ifname . ether_addr
  }
  set owners {
    type ifname . ether_addr . ipv4_addr
  }
  chain prerouting {
    type filter hook prerouting priority -300; policy drop;
    iifname . ether saddr != @stations drop
    ether type arp arp htype 1 arp ptype ip arp plen 4 iifname . arp saddr ether . arp saddr ip @owners accept
    ether type ip iifname . ether saddr . ip saddr @owners accept
  }
}
${elements}table inet ${table}
delete table inet ${table}
table inet ${table} {
  set flows {
    type ipv4_addr
    size 65535
    flags dynamic
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    iifname "${BRIDGE}" icmp type echo-request limit rate 50/second accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "${BRIDGE}" oifname "${BRIDGE}" accept
    ct state established,related accept
${egress}  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${UPLINK}" masquerade
  }
}
`;
}

export interface HostService {
  /** Address of this host at which pods may reach it. */
  address: string;
  port: number;
}

/**
 * Rules of the host: pods reach the named services of the host and what lies beyond it, never the
 * host itself nor, through it, another network of pods. `guarded` are uplinks on which forwarding
 * was off before we needed it for the way back: for everything else it stays off.
 */
export function hostRules(names: Names, services: HostService[], guarded: string[]): string {
  const { table, linkPattern } = names;
  const pods = `iifname "${linkPattern}"`;
  const allowed = services.map(
    (s) =>
      `    ${pods} ip daddr ${formatAddress(parseAddress(s.address))} tcp dport ${s.port} accept\n`,
  );
  const guards = guarded.map((name) => `    iifname "${name}" oifname != "${ANY_LINK}" drop\n`);
  return `table inet ${table}
delete table inet ${table}
table inet ${table} {
  chain input {
    type filter hook input priority filter; policy accept;
    ${pods} ct state established,related accept
${allowed.join('')}    ${pods} drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ${pods} oifname "${linkPattern}" drop
    oifname "${linkPattern}" ct state established,related accept
    oifname "${linkPattern}" drop
${guards.join('')}  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ${pods} oifname != "${linkPattern}" masquerade
  }
}
`;
}

/** The `guarded` of rules as `nft list table` prints them. */
export function guardedDevices(table: string): string[] {
  const guards = table.matchAll(/iifname "([^"]+)" oifname != "hn\*" drop/g);
  return [...guards].map((match) => match[1] ?? '');
}

export function hostRulesRemoval(names: Names): string {
  return `table inet ${names.table}\ndelete table inet ${names.table}\n`;
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
