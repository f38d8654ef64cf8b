import { isIPv4 } from 'node:net';
import type { Exec } from '../../base/exec.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { parseCidr, validateNetwork, validatePortRequest } from '../address.ts';
import { allocatePort } from '../allocation.ts';
import type { PortRecord } from '../allocation.ts';
import { NetworkError } from '../driver.ts';
import type { NetworkDriver, NetworkSpec, Port, PortRequest } from '../driver.ts';
import {
  LINK_COUNT_MAX,
  bridgeCommands,
  guardedDevices,
  hostRules,
  hostRulesRemoval,
  isLink,
  isOwnLink,
  isOwnNamespace,
  isTap,
  linkAddresses,
  linkCommands,
  linkName,
  namesOf,
  namespaceName,
  networkRules,
  portCommands,
  portElement,
  tapName,
  uplinkCommands,
} from './commands.ts';
import type { HostService, Names } from './commands.ts';
import { createKernel } from './kernel.ts';
import type { Kernel } from './kernel.ts';
import { loadState, saveState } from './state.ts';
import type { LinuxNetworkRecord, LinuxNetworkState } from './state.ts';

export interface LinuxNetworkOptions {
  /** Absolute path; made if missing. Two daemons never share one. */
  stateDirectory: string;
  /** What pods may reach on this host itself: the API server. */
  hostServices: HostService[];
  exec: Exec;
  random: Random;
  log: Log;
}

interface Context extends LinuxNetworkOptions {
  names: Names;
  kernel: Kernel;
  state: LinuxNetworkState;
  save: () => Promise<void>;
  /** Networks that this process has set up, so that nothing is missing. */
  complete: Set<string>;
}

/** Where no device has a default route. */
const MTU_DEFAULT = 1500;

/**
 * Networks made of what every Linux has: a namespace, a bridge and nftables for each.
 *
 * Work on one network is done in turn. Records are written before the kernel is changed and
 * removed after, so whatever a crash interrupts is done by calling again.
 */
export async function createLinuxNetwork(options: LinuxNetworkOptions): Promise<NetworkDriver> {
  const state = await loadState(options.stateDirectory);
  const saving = mutex();
  const hostServices = options.hostServices.filter((service) => isIPv4(service.address));
  if (hostServices.length < options.hostServices.length) {
    options.log.warn('Pods will reach services of this host at IPv4 addresses only', {
      services: options.hostServices,
    });
  }
  const context: Context = {
    ...options,
    hostServices,
    names: namesOf(options.stateDirectory),
    kernel: createKernel(options.exec),
    state,
    save: () => saving(() => saveState(options.stateDirectory, state)),
    complete: new Set(),
  };
  await removeForgotten(context);
  const inTurn = keyedMutex();
  const hostInTurn = mutex();
  return {
    ensureNetwork: (network, signal) =>
      inTurn(network.id, async () => {
        const record = await recordNetwork(context, network);
        if (context.complete.has(network.id)) return;
        if (network.nat) await hostInTurn(() => ensureHost(context, signal));
        await buildNetwork(context, record, signal);
        context.complete.add(network.id);
      }),
    deleteNetwork: (networkId) =>
      inTurn(networkId, async () => {
        await removeNetwork(context, networkId);
        await hostInTurn(() => releaseHost(context));
        // Last, so that what the kernel has goes also when nothing can be written.
        await context.save();
      }),
    ensurePort: (request, signal) =>
      inTurn(request.networkId, () => ensurePort(context, request, signal)),
    async deletePort(portId) {
      const networkId = state.ports.get(portId)?.networkId;
      if (networkId !== undefined) await inTurn(networkId, () => removePort(context, portId));
    },
    list: () =>
      Promise.resolve({
        networks: [...state.networks.values()].map((record) => ({ ...record.spec })),
        ports: [...state.ports.values()].map((port) => describePort(context, port)),
      }),
  };
}

/**
 * What carries this daemon's names and is in no record: its state was deleted while networks were
 * there. Records are older than what they tell of, so nothing of a known network is found here.
 */
async function removeForgotten(context: Context): Promise<void> {
  const { kernel, names, state, log } = context;
  const records = [...state.networks.values()];
  const links = new Set(records.map((record) => linkName(names, record.slot)));
  const namespaces = new Set(records.map((record) => namespaceName(names, record.spec.id)));
  // Links first: a process that is still in a namespace would keep them.
  for (const device of await kernel.devices(undefined)) {
    if (!isOwnLink(names, device) || links.has(device)) continue;
    log.warn('Removing the link of a forgotten network', { device });
    await kernel.deleteDevice(undefined, device);
  }
  for (const namespace of await kernel.namespaces()) {
    if (!isOwnNamespace(names, namespace) || namespaces.has(namespace)) continue;
    log.warn('Removing the namespace of a forgotten network', { namespace });
    await kernel.deleteNamespace(namespace);
  }
  if (records.some((record) => record.spec.nat)) return;
  // Where the record of them is lost, the rules tell which settings were another's.
  const guarded = guardedDevices(await kernel.table(undefined, names.table));
  const present = await kernel.devices(undefined);
  const forgotten = guarded.filter((device) => present.has(device));
  state.forwardingWasOff = [...new Set([...state.forwardingWasOff, ...forgotten])];
  await releaseHost(context);
  await context.save();
}

/** MTU of the way out, for whoever describes networks. */
async function uplinkMtu(exec: Exec): Promise<number> {
  const uplinks = await createKernel(exec).uplinks();
  return Math.min(MTU_DEFAULT, ...uplinks.map((uplink) => uplink.mtu));
}

async function recordNetwork(context: Context, spec: NetworkSpec): Promise<LinuxNetworkRecord> {
  validateNetwork(spec);
  const { state } = context;
  const known = state.networks.get(spec.id);
  if (known !== undefined && sameSpec(known.spec, spec)) return known;
  // Other addresses are another network: the old one goes, unless somebody is on it.
  if (
    known !== undefined &&
    (known.spec.cidr !== spec.cidr || known.spec.gateway !== spec.gateway)
  ) {
    await removeNetwork(context, spec.id);
  }
  const mtu = spec.mtu === 0 ? await uplinkMtu(context.exec) : spec.mtu;
  const hostAddresses = await context.kernel.addresses();
  // No await between choosing a link and recording it.
  const record: LinuxNetworkRecord = {
    spec: { ...spec },
    cursor: known?.cursor ?? spec.gateway,
    slot: known?.slot ?? freeSlot(state, hostAddresses),
    mtu,
  };
  state.networks.set(spec.id, record);
  context.complete.delete(spec.id);
  await context.save();
  return record;
}

function sameSpec(a: NetworkSpec, b: NetworkSpec): boolean {
  return a.cidr === b.cidr && a.gateway === b.gateway && a.mtu === b.mtu && a.nat === b.nat;
}

/** Links of another daemon on this machine take addresses of the same range. */
function freeSlot(state: LinuxNetworkState, hostAddresses: ReadonlySet<string>): number {
  const taken = new Set([...state.networks.values()].map((record) => record.slot));
  for (let slot = 0; slot < LINK_COUNT_MAX; slot++) {
    if (!taken.has(slot) && !hostAddresses.has(linkAddresses(slot).host)) return slot;
  }
  throw new NetworkError('Exhausted', `Cannot add a network: there are ${LINK_COUNT_MAX} already`);
}

async function buildNetwork(
  context: Context,
  record: LinuxNetworkRecord,
  signal?: AbortSignal,
): Promise<void> {
  const { kernel, names, state } = context;
  const { spec, slot, mtu } = record;
  const namespace = namespaceName(names, spec.id);
  const existing = await ensureNamespace(kernel, namespace, signal);
  // Before anything is connected, so that no packet passes unfiltered.
  const ports = [...state.ports.values()].filter((port) => port.networkId === spec.id);
  await kernel.nft(namespace, networkRules(names, spec, ports), signal);
  for (const device of existing) {
    if (isTap(device) && !ports.some((port) => tapName(port.id) === device)) {
      await kernel.deleteDevice(namespace, device);
    }
  }
  await kernel.ip(namespace, bridgeCommands(spec, mtu, existing), signal);
  await kernel.switchOn(namespace, [
    'net/ipv6/conf/all/disable_ipv6',
    'net/ipv6/conf/default/disable_ipv6',
    ...(spec.nat ? ['net/ipv4/ip_forward'] : []),
  ]);
  const link = linkName(names, slot);
  const hostDevices = await kernel.devices(undefined, signal);
  if (!spec.nat) {
    await kernel.deleteDevice(undefined, link);
    return;
  }
  // A link of which one end is missing has none: they are made and go together.
  await kernel.ip(
    undefined,
    linkCommands(names, spec.id, slot, mtu, hostDevices.has(link)),
    signal,
  );
  await kernel.ip(namespace, uplinkCommands(slot, mtu), signal);
  await kernel.setForwarding(link, true);
}

/** Returns the devices in it. What is left of an interrupted `ip netns add` is made anew. */
async function ensureNamespace(
  kernel: Kernel,
  namespace: string,
  signal?: AbortSignal,
): Promise<Set<string>> {
  if (!(await kernel.namespaceExists(namespace))) await kernel.addNamespace(namespace);
  try {
    return await kernel.devices(namespace, signal);
  } catch (error) {
    if (!String(error).includes('Invalid argument')) throw error;
    await kernel.deleteNamespace(namespace);
    await kernel.addNamespace(namespace);
    return kernel.devices(namespace, signal);
  }
}

/** The record of it goes too; to save that is the caller's. */
async function removeNetwork(context: Context, networkId: string): Promise<void> {
  const { kernel, names, state } = context;
  const record = state.networks.get(networkId);
  if (record === undefined) return;
  const port = [...state.ports.values()].find((candidate) => candidate.networkId === networkId);
  if (port !== undefined) {
    const message = `Cannot delete or move network "${networkId}": port "${port.id}" is on it`;
    throw new NetworkError('InUse', message);
  }
  context.complete.delete(networkId);
  await kernel.deleteDevice(undefined, linkName(names, record.slot));
  await kernel.deleteNamespace(namespaceName(names, networkId));
  state.networks.delete(networkId);
}

/**
 * Replies come in by the uplinks, and the kernel forwards only what comes in by a device with
 * forwarding on. It is turned on there and for our links alone, never for all of the host.
 */
async function ensureHost(context: Context, signal?: AbortSignal): Promise<void> {
  const { kernel, names, state } = context;
  for (const { name } of await kernel.uplinks()) {
    if (await kernel.isForwarding(name)) continue;
    if (!state.forwardingWasOff.includes(name)) {
      state.forwardingWasOff.push(name);
      await context.save();
    }
    // The guard first: nothing but replies to pods is ever forwarded from there.
    await kernel.nft(
      undefined,
      hostRules(names, context.hostServices, state.forwardingWasOff),
      signal,
    );
    await kernel.setForwarding(name, true);
  }
  await kernel.nft(
    undefined,
    hostRules(names, context.hostServices, state.forwardingWasOff),
    signal,
  );
}

/**
 * With the last network that needs them go the host's rules and settings; the latter stay where
 * another daemon on this machine still needs them. To save that they are gone is the caller's.
 */
async function releaseHost(context: Context): Promise<void> {
  const { kernel, names, state } = context;
  if ([...state.networks.values()].some((record) => record.spec.nat)) return;
  const others = [...(await kernel.devices(undefined))].some(isLink);
  for (const name of others ? [] : state.forwardingWasOff) {
    await kernel.setForwarding(name, false).catch((error: unknown) => {
      context.log.warn('Cannot turn forwarding off again', { device: name, error });
    });
  }
  await kernel.nft(undefined, hostRulesRemoval(names));
  state.forwardingWasOff = [];
}

async function ensurePort(
  context: Context,
  request: PortRequest,
  signal?: AbortSignal,
): Promise<Port> {
  const { kernel, names, state } = context;
  validatePortRequest(request);
  const network = state.networks.get(request.networkId);
  if (network === undefined || !context.complete.has(request.networkId)) {
    const state = `network "${request.networkId}" is not ensured`;
    const message = `Cannot make port "${request.id}": ${state}`;
    throw new NetworkError('NotFound', message);
  }
  const namespace = namespaceName(names, request.networkId);
  const known = state.ports.get(request.id);
  if (known !== undefined && known.networkId !== request.networkId) {
    const message = `Cannot make port "${request.id}": it is on network "${known.networkId}"`;
    throw new NetworkError('InUse', message);
  }
  if (known !== undefined && request.address !== undefined && request.address !== known.address) {
    const wanted = `Cannot give "${request.id}" the address ${request.address}`;
    const message = `${wanted}: it has ${known.address}`;
    throw new NetworkError('InUse', message);
  }
  const port = known ?? allocatePort(network, state.ports.values(), request, context.random);
  let exists = false;
  if (known === undefined) {
    state.ports.set(port.id, port);
    await context.save();
  } else {
    exists = (await kernel.devices(namespace, signal)).has(tapName(port.id));
  }
  await Promise.all([
    kernel.ip(namespace, portCommands(port, network.mtu, exists), signal),
    kernel.nft(namespace, portElement(names, port, 'add'), signal),
  ]);
  return describePort(context, port);
}

async function removePort(context: Context, portId: string): Promise<void> {
  const { kernel, names, state } = context;
  const port = state.ports.get(portId);
  if (port === undefined) return;
  const namespace = namespaceName(names, port.networkId);
  if (await kernel.namespaceExists(namespace)) {
    await kernel.deleteDevice(namespace, tapName(portId));
    // After a crash the table may not be there yet; then it will come back without this port.
    await kernel.nft(namespace, portElement(names, port, 'delete')).catch((error: unknown) => {
      if (context.complete.has(port.networkId)) throw error;
    });
  }
  state.ports.delete(portId);
  await context.save();
}

function describePort(context: Context, port: PortRecord): Port {
  const network = context.state.networks.get(port.networkId);
  if (network === undefined) {
    throw new NetworkError('Failed', `Port "${port.id}" is on no known network`);
  }
  const { prefixLength } = parseCidr(network.spec.cidr);
  return {
    id: port.id,
    networkId: port.networkId,
    netns: namespaceName(context.names, port.networkId),
    tapName: tapName(port.id),
    mac: port.mac,
    address: `${port.address}/${prefixLength}`,
    gateway: network.spec.gateway,
    mtu: network.mtu,
  };
}

/** Runs what it is given one after the other. */
function mutex(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const result = last.then(work);
    last = result.catch(() => {});
    return result;
  };
}

/** The same for each key. A key is forgotten when nothing waits for it. */
function keyedMutex(): <T>(key: string, work: () => Promise<T>) => Promise<T> {
  const lasts = new Map<string, Promise<unknown>>();
  return (key, work) => {
    const result = (lasts.get(key) ?? Promise.resolve()).then(work);
    const last: Promise<unknown> = result
      .catch(() => {})
      .then(() => {
        if (lasts.get(key) === last) lasts.delete(key);
      });
    lasts.set(key, last);
    return result;
  };
}
