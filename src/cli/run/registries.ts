import { join } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { readFileIfExists } from '../../base/files.ts';
import { loadRegistriesConfig, withEmbeddedRegistry } from '../../hyperd/image/index.ts';
import type { HostConfig, RegistriesConfig } from '../../hyperd/image/registries.ts';
import { loadPair } from '../../kubelet/certificates.ts';
import type { DataPaths, MachineConfig } from '../config.ts';

/**
 * The node's registries: what the operator wrote (docs/registries.md), and the cluster's own
 * registry, which references on every node call `localhost:<port>`. On the server's machine that
 * is the truth; on others it stands for the server's address, where a node shows the certificate
 * that it has got by joining.
 *
 * @throws RegistriesConfigError where the operator's file cannot be used
 */
export async function nodeRegistries(
  paths: DataPaths,
  config: MachineConfig,
): Promise<() => Promise<RegistriesConfig>> {
  const written = await loadRegistriesConfig(join(paths.root, 'registries.yaml'));
  if (!config.server) {
    const own = withEmbeddedRegistry(written, config.registryPort);
    return () => Promise.resolve(own);
  }
  const { hostname } = new URL(config.server.url);
  const endpoint = new URL(`https://${hostname}:${config.registryPort}/v2`);
  const mirrors: RegistriesConfig['mirrors'] = new Map();
  for (const host of ['localhost', '127.0.0.1']) {
    mirrors.set(`${host}:${config.registryPort}`, { endpoints: [endpoint] });
  }
  for (const [name, mirror] of written.mirrors) mirrors.set(name, mirror);
  let credentials: HostConfig | undefined;
  return async () => {
    credentials = await nodeCredentials(paths.node, credentials);
    const own = credentials ? [[endpoint.host, credentials] as const] : [];
    return { mirrors, hosts: new Map([...own, ...written.hosts]) };
  };
}

/** The node's certificate as it is now: there once it has joined, and renewed from time to time. */
async function nodeCredentials(
  directory: string,
  known: HostConfig | undefined,
): Promise<HostConfig | undefined> {
  const ca = await readFileIfExists(join(directory, 'ca.crt'));
  const pair = ca && (await loadPair(directory, 'client', ca, systemClock.nowMs()));
  if (!pair) return undefined;
  // Connections are kept by this object.
  if (known?.tls?.cert === pair.cert && known.tls.ca === ca) return known;
  return { credential: undefined, tls: { ca, ...pair, insecureSkipVerify: false } };
}
