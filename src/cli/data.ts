import { chmod, mkdir, stat } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { readFileIfExists, writeFileAtomic } from '../base/files.ts';
import { MACHINE_TYPES } from '../hyperd/vmm/qemu/models.ts';
import { DATA_VERSION, DEFAULT_PORTS, MAX_PODS, defaultNodeName } from './config.ts';
import type { DataPaths, MachineConfig } from './config.ts';
import { UsageError } from './errors.ts';

/** unix(7) allows 107 bytes for a socket's path; the longest of ours adds 60 to the directory's. */
const DIRECTORY_BYTES_MAX = 47;

export type ConfigOverrides = Partial<Omit<MachineConfig, 'version' | 'role'>>;

/**
 * Reads the machine's configuration, or makes it at the first start. What is given on the command
 * line replaces what is stored, except the role: a server's data cannot become a node's.
 */
export async function prepareData(
  paths: DataPaths,
  role: MachineConfig['role'],
  overrides: ConfigOverrides,
): Promise<MachineConfig> {
  if (Buffer.byteLength(paths.root) > DIRECTORY_BYTES_MAX) {
    throw new UsageError(
      `Cannot use the data directory ${paths.root}: its path has ${Buffer.byteLength(paths.root)} bytes, ` +
        `at most ${DIRECTORY_BYTES_MAX} are possible, because unix sockets lie beneath it.`,
    );
  }
  const found = await stat(paths.root).catch(() => undefined);
  if (found && !found.isDirectory()) {
    throw new UsageError(
      `Cannot use the data directory ${paths.root}: it is not a directory. ` +
        'Choose another with --data-dir.',
    );
  }
  const stored = await readConfig(paths);
  // hyperd's own pods stay where it becomes part of a cluster.
  if (stored && stored.role !== role && stored.role !== 'standalone') {
    const wanted = { server: 'up', node: 'node', standalone: 'hyperctl daemon' }[role];
    throw new UsageError(
      `Cannot run "${wanted}" on ${paths.root}: it holds the data of a ${stored.role}. ` +
        'Choose another directory with --data-dir.',
    );
  }
  const given = Object.fromEntries(
    Object.entries(overrides).filter(([, value]) => value !== undefined),
  );
  const config = { ...defaultConfig(role), ...stored, ...given, role } as MachineConfig;
  // Whoever may write there may put another socket in place of ours.
  await mkdir(paths.run, { recursive: true, mode: 0o700 });
  await chmod(paths.run, 0o700);
  for (const path of [paths.log, paths.node, paths.hyperd, paths.images, paths.network]) {
    await mkdir(path, { recursive: true, mode: 0o711 });
  }
  if (role === 'server') await mkdir(paths.pki, { recursive: true, mode: 0o700 });
  await writeFileAtomic(paths.config, `${JSON.stringify(config, null, 2)}\n`);
  return config;
}

/** @throws UsageError when the directory is of another version of Hypernetes */
export async function readConfig(paths: DataPaths): Promise<MachineConfig | undefined> {
  const text = await readFileIfExists(paths.config);
  if (text === undefined) return undefined;
  const config = parse(text, paths.config);
  if (config.version !== DATA_VERSION) {
    throw new UsageError(
      `Cannot use the data directory ${paths.root}: its format is version ${config.version}, ` +
        `this is version ${DATA_VERSION}. Nothing was changed. Use the Hypernetes that made it, ` +
        'or another directory with --data-dir.',
    );
  }
  // What machines that were set up earlier do not say.
  const { hyperctlCidr = HYPERCTL_CIDR, machine = 'microvm', maxPods = MAX_PODS.default } = config;
  if (!MACHINE_TYPES.includes(machine)) {
    throw new UsageError(
      `Cannot use ${paths.config}: machine is "${machine}", wanted ${MACHINE_TYPES.join(' or ')}.`,
    );
  }
  return { ...config, hyperctlCidr, machine, maxPods };
}

function parse(text: string, path: string): MachineConfig {
  try {
    return JSON.parse(text) as MachineConfig;
  } catch (error) {
    throw new UsageError(`Cannot read ${path}: ${(error as Error).message}`);
  }
}

/** Beside the cluster's range, which is podman's too. */
const HYPERCTL_CIDR = '10.87.0.0/16';

function defaultConfig(role: MachineConfig['role']): MachineConfig {
  return {
    version: DATA_VERSION,
    role,
    nodeName: defaultNodeName(),
    address: defaultAddress(),
    apiPort: DEFAULT_PORTS.api,
    kubeletPort: DEFAULT_PORTS.kubelet,
    registryPort: DEFAULT_PORTS.registry,
    server: null,
    machine: 'microvm',
    warmPool: 'adaptive',
    maxPods: MAX_PODS.default,
    clusterCidr: '10.88.0.0/16',
    serviceCidr: '10.96.0.0/16',
    hyperctlCidr: HYPERCTL_CIDR,
    hyperdDoor: null,
    tenantNodes: 'hidden',
    keystone: null,
  };
}

/** Interfaces that lead to containers or to our own pods are nobody's way to this machine. */
const INTERNAL_INTERFACE = /^(lo|docker|br-|veth|virbr|cni|hn)/;

function defaultAddress(): string {
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (INTERNAL_INTERFACE.test(name)) continue;
    const found = addresses?.find(({ family, internal }) => family === 'IPv4' && !internal);
    if (found) return found.address;
  }
  return '127.0.0.1';
}
