import { isIPv4 } from 'node:net';
import { loadServingPair } from '../../auth/pki.ts';
import { systemClock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { authenticateCertificate, createRegistry } from '../../hyperd/registry/index.ts';
import type { Principal, Registry } from '../../hyperd/registry/index.ts';
import type { DataPaths, MachineConfig } from '../config.ts';

const NODES_GROUP = 'system:nodes';

/**
 * The cluster's registry, at two addresses under one port: in the clear on the loopback, where
 * this machine pushes and pulls, and by TLS where the other nodes are. These may only pull.
 */
export async function serveRegistry(
  paths: DataPaths,
  { address, registryPort: port }: MachineConfig,
  log: Log,
): Promise<Registry> {
  const clock = systemClock;
  const registry = await createRegistry({
    ...{ clock, log, random: systemRandom },
    directory: paths.registry,
  });
  await registry.listen({ host: '127.0.0.1', port });
  if (!isIPv4(address) || address.startsWith('127.')) return registry;
  const { cert, key, caCert } = await loadServingPair(paths.pki);
  const authenticate = authenticateCertificate(({ commonName, organizations }) =>
    organizations.includes(NODES_GROUP) ? pullerOf(commonName) : undefined,
  );
  await registry
    .listen({ host: address, port, tls: { cert, key, clientCa: caCert }, authenticate })
    .catch((error: NodeJS.ErrnoException) => {
      // An address that a router translates for this machine: it is the nodes' way to the API.
      if (error.code !== 'EADDRNOTAVAIL') throw error;
      log.warn('other nodes cannot pull from the registry: the address is not on this machine', {
        address,
      });
    });
  return registry;
}

function pullerOf(name: string): Principal {
  return { name, allows: (action) => action === 'pull' };
}
