import { join } from 'node:path';
import { loadRegistriesConfig } from '../../hyperd/image/index.ts';
import type { RegistriesConfig } from '../../hyperd/image/registries.ts';
import type { DataPaths, MachineConfig } from '../config.ts';

/**
 * The node's registries: what the operator wrote (docs/registries.md), and the cluster's own
 * registry, which references on every node call `localhost:<port>`.
 */
export async function readRegistries(
  paths: DataPaths,
  config: MachineConfig,
): Promise<RegistriesConfig> {
  const registries = await loadRegistriesConfig(join(paths.root, 'registries.yaml'));
  const own = `localhost:${config.registryPort}`;
  if (config.role === 'server' && !registries.mirrors.has(own)) {
    const endpoint = new URL(`http://127.0.0.1:${config.registryPort}/v2`);
    registries.mirrors.set(own, { endpoints: [endpoint] });
  }
  return registries;
}
