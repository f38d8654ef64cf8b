import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, rmdir } from 'node:fs/promises';
import { systemClock } from '../../base/clock.ts';
import { execute } from '../../base/exec.ts';
import { createLog, describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { connectAgent } from '../../hyperd/agent/client.ts';
import { serveHyperd } from '../../hyperd/api/server.ts';
import type { TlsDoor } from '../../hyperd/api/server.ts';
import { startDaemon } from '../../hyperd/daemon/daemon.ts';
import type { Daemon } from '../../hyperd/daemon/daemon.ts';
import { openImageStore } from '../../hyperd/image/index.ts';
import { readNodeDns } from '../../kubelet/resolv-conf.ts';
import { createLinuxNetwork } from '../../network/linux/driver.ts';
import { guestAssets } from '../assets.ts';
import { cgroupParent, openHypervisor } from '../hypervisor.ts';
import type { DataPaths, DoorConfig, MachineConfig } from '../config.ts';
import { holdDirectory } from '../data-watch.ts';
import { UsageError } from '../errors.ts';
import { openKernels } from '../kernel/store.ts';
import type { ComponentContext } from '../run.ts';
import { versionString } from '../version.ts';
import { warmPoolPolicy } from '../warm-pool.ts';
import { nodeRegistries } from './registries.ts';
import { serveRegistry } from './registry.ts';
import { segment } from './segment.ts';

/** hyperd, and on the server's machine the embedded registry beside it. */
export async function runHyperd({ paths, config, signal, ready }: ComponentContext): Promise<void> {
  const log = createLog({ component: 'hyperd' });
  await using directory = await holdDirectory(paths.hyperd);
  const common = { clock: systemClock, random: systemRandom, log };
  const network = await createLinuxNetwork({
    stateDirectory: paths.network,
    hostServices: hostServices(config),
    exec: execute,
    random: systemRandom,
    log,
  });
  const images = await openImageStore({
    ...common,
    directory: paths.images,
    registries: await nodeRegistries(paths, config),
  });
  const daemon = await startDaemon({
    ...common,
    directory: paths.hyperd,
    version: versionString(),
    hypervisor: await openHypervisor(paths, config.machine, cgroupParent(paths), log),
    images,
    network,
    connectAgent,
    rehearsalProgramPath: (await guestAssets(paths)).hyperstartPath,
    kernels: await openKernels(paths),
    policy: warmPoolPolicy(config.warmPool),
    podDefaults: async () => ({
      network: segment(HYPERCTL_NETWORK, config.hyperctlCidr),
      dns: await readNodeDns(),
    }),
  });
  const door = await serveHyperd({
    daemon,
    socketPath: paths.hyperdSocket,
    tls: config.hyperdDoor ? await readDoor(config.hyperdDoor) : undefined,
    clock: systemClock,
    log,
  });
  const registry = config.role === 'server' ? await serveRegistry(paths, config, log) : undefined;
  ready();
  if (!signal.aborted) await once(signal, 'abort');
  await door.close();
  await registry?.close();
  // Where somebody has begun anew, what has this one's names is theirs by now.
  const isGone = !(await directory.isThere()) && !existsSync(paths.config);
  if (isGone) await endLostPods(paths, daemon, log);
  await daemon.close();
  if (isGone) await removeResidue(paths);
}

/** Of pods that nobody could find again, before they are given up: a minute. */
const REMOVE_ATTEMPTS_MAX = 12;
const REMOVE_RETRY_MS = 5_000;

/** Of pods that are no cluster's. */
const HYPERCTL_NETWORK = 'hyperctl';

/** What pods may reach of this machine: the API server, where there is one. */
function hostServices({ role, server, address, apiPort }: MachineConfig) {
  if (role === 'standalone') return [];
  const url = server ? new URL(server.url) : undefined;
  return [{ address: url?.hostname ?? address, port: Number(url?.port || apiPort) }];
}

async function readDoor(door: DoorConfig): Promise<TlsDoor> {
  const { host, port, certFile, keyFile, clientCaFile } = door;
  const read = async (path: string) => {
    const text = await readFile(path, 'utf8').catch((error: Error) => error);
    if (typeof text === 'string') return text;
    throw new UsageError(`Cannot serve hyperd by TLS: ${text.message}`);
  };
  const [cert, key, clientCa] = [
    await read(certFile),
    await read(keyFile),
    await read(clientCaFile),
  ];
  return { host, port, cert, key, clientCa };
}

/**
 * The data directory was deleted: nobody could find the VMs again. What ends them keeps its
 * records as ever, so it gets a directory for them once more.
 */
async function endLostPods(paths: DataPaths, daemon: Daemon, log: Log): Promise<void> {
  await mkdir(paths.network, { recursive: true, mode: 0o700 });
  for (let attempt = 1; attempt <= REMOVE_ATTEMPTS_MAX; attempt += 1) {
    const left = await daemon.removeAllPods();
    if (left.size === 0) return;
    for (const [pod, error] of left) {
      log.error('lost pod cannot be removed', { pod, attempt, error: describeError(error) });
    }
    await systemClock.sleep(REMOVE_RETRY_MS);
  }
}

async function removeResidue(paths: DataPaths): Promise<void> {
  // Somebody has begun anew there.
  if (existsSync(paths.config)) return;
  await rm(paths.hyperd, { recursive: true, force: true });
  await rmdir(paths.root).catch(() => {});
}
