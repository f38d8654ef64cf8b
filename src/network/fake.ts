import type { Random } from '../base/random.ts';
import { parseCidr, validateNetwork, validatePortRequest } from './address.ts';
import { allocatePort } from './allocation.ts';
import type { NetworkRecord, PortRecord } from './allocation.ts';
import { NetworkError } from './driver.ts';
import type { NetworkDriver, Port } from './driver.ts';

/** Where a network asks for none. */
const MTU_DEFAULT = 1500;

/**
 * Networks in memory: addresses are handed out and refused as by the real driver, and nothing
 * reaches the kernel. For thousands of pretended pods.
 */
export function createFakeNetwork(options: { random: Random }): NetworkDriver {
  const networks = new Map<string, NetworkRecord>();
  const ports = new Map<string, PortRecord>();
  const portsOn = (networkId: string) =>
    [...ports.values()].filter((p) => p.networkId === networkId);
  const refuseInUse = (networkId: string) => {
    const port = portsOn(networkId)[0];
    if (port === undefined) return;
    const message = `Cannot delete or move network "${networkId}": port "${port.id}" is on it`;
    throw new NetworkError('InUse', message);
  };
  const describe = (port: PortRecord): Port => {
    const spec = networks.get(port.networkId)?.spec;
    if (spec === undefined) throw new NetworkError('Failed', `Port "${port.id}" is on no network`);
    return {
      id: port.id,
      networkId: port.networkId,
      netns: `fake-${port.networkId}`,
      tapName: 'fake',
      mac: port.mac,
      address: `${port.address}/${parseCidr(spec.cidr).prefixLength}`,
      gateway: spec.gateway,
      mtu: spec.mtu || MTU_DEFAULT,
    };
  };
  return {
    async ensureNetwork(network) {
      validateNetwork(network);
      const known = networks.get(network.id)?.spec;
      if (
        known !== undefined &&
        (known.cidr !== network.cidr || known.gateway !== network.gateway)
      ) {
        refuseInUse(network.id);
      }
      const cursor = networks.get(network.id)?.cursor ?? network.gateway;
      networks.set(network.id, { spec: { ...network }, cursor });
    },
    async deleteNetwork(networkId) {
      refuseInUse(networkId);
      networks.delete(networkId);
    },
    async ensurePort(request) {
      validatePortRequest(request);
      const network = networks.get(request.networkId);
      if (network === undefined) {
        const state = `network "${request.networkId}" is not ensured`;
        const message = `Cannot make port "${request.id}": ${state}`;
        throw new NetworkError('NotFound', message);
      }
      const known = ports.get(request.id);
      const moved = known !== undefined && known.networkId !== request.networkId;
      const readdressed = request.address !== undefined && request.address !== known?.address;
      if (known !== undefined && (moved || readdressed)) {
        const state = `it is on "${known.networkId}" with ${known.address}`;
        const message = `Cannot make port "${request.id}": ${state}`;
        throw new NetworkError('InUse', message);
      }
      const port = known ?? allocatePort(network, ports.values(), request, options.random);
      ports.set(port.id, port);
      return describe(port);
    },
    async deletePort(portId) {
      ports.delete(portId);
    },
    list: async () => ({
      networks: [...networks.values()].map((network) => ({ ...network.spec })),
      ports: [...ports.values()].map(describe),
    }),
  };
}
