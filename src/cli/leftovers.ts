import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { createLog } from '../base/log.ts';
import { isAlive, readJailProcesses } from '../hyperd/vmm/qemu/jail.ts';
import { vmPaths } from '../hyperd/supply/paths.ts';
import type { DataPaths } from './config.ts';
import { serveControl } from './control.ts';
import { readConfig } from './data.ts';
import { UsageError } from './errors.ts';
import { removeLocalPods, withHyperd } from './local-pods.ts';
import { superviseComponents } from './supervisor.ts';
import { componentSpecs } from './up.ts';
import { versionString } from './version.ts';

/**
 * What a supervisor that was killed, or told to keep the pods, has left on a data directory: VMs
 * are children of nobody.
 */

/** Components end by themselves when their supervisor is gone; this is the longest they take. */
const ORPHANS_TIMEOUT_MS = 10_000;
const POLL_MS = 50;

const podDirectories = async (paths: DataPaths): Promise<string[]> => {
  const directory = join(paths.hyperd, 'pods');
  const names = await readdir(directory).catch(() => []);
  return names.map((name) => join(directory, name));
};

/** How many VMs of the data directory run, whoever looks after them. */
export async function countVms(paths: DataPaths): Promise<number> {
  const directory = join(paths.hyperd, 'vms');
  const names = await readdir(directory).catch(() => []);
  const alive = names.map(async (name) => {
    const processes = await readJailProcesses(vmPaths(directory, name).vm).catch(() => undefined);
    return processes !== undefined && (await isAlive(processes.vmm));
  });
  return (await Promise.all(alive)).filter(Boolean).length;
}

/**
 * Ends every pod that nobody looks after, with its VM, network and files: by hyperd, which knows
 * how, and which runs for just as long.
 *
 * @returns how many there were
 */
export async function endLeftovers(paths: DataPaths): Promise<number> {
  const { length: count } = await podDirectories(paths);
  const config = count > 0 ? await readConfig(paths) : undefined;
  if (!config) return 0;
  await untilOrphansEnd(paths);
  const startedAtMs = systemClock.nowMs();
  const log = createLog({ component: 'supervisor' });
  const ended = Promise.withResolvers<void>();
  const specs = componentSpecs(paths, ['hyperd']);
  const about = { pid: process.pid, version: versionString(), startedAtMs };
  const { role, nodeName, machine } = config;
  // Whoever calls "up" meanwhile is told that this data directory is in use.
  const control = await serveControl(paths.supervisorSocket, {
    status: () => ({ ...about, role, nodeName, machine, components: supervisor.status() }),
    stop: () => ended.promise,
  });
  const supervisor = superviseComponents(specs, { clock: systemClock, log });
  try {
    await supervisor.ready();
    await removeLocalPods(paths.hyperdSocket, systemClock);
  } finally {
    await supervisor.stop();
    ended.resolve();
    await control.close();
  }
  return count;
}

async function untilOrphansEnd(paths: DataPaths): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + ORPHANS_TIMEOUT_MS;
  const answers = () =>
    withHyperd(paths.hyperdSocket, (hyperd) => hyperd.ping()).then(
      () => true,
      () => false,
    );
  while (await answers()) {
    if (systemClock.monotonicMs() > deadlineMs) {
      throw new UsageError(
        `Cannot end the pods on ${paths.root}: a hyperd without supervisor runs there and does ` +
          'not end. Look for it with "ps", end it, and call this again.',
      );
    }
    await systemClock.sleep(POLL_MS);
  }
}
