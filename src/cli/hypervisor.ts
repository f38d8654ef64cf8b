import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { execute } from '../base/exec.ts';
import { createLog } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { systemRandom } from '../base/random.ts';
import { createQemuHypervisor } from '../hyperd/vmm/qemu/driver.ts';
import type { QemuOptions } from '../hyperd/vmm/qemu/driver.ts';
import type { MachineType } from '../hyperd/vmm/qemu/models.ts';
import type { Hypervisor } from '../hyperd/vmm/hypervisor.ts';
import { guestAssets } from './assets.ts';
import type { DataPaths } from './config.ts';

const QEMU_PATH = '/usr/bin/qemu-system-x86_64';

/** Of the control groups, as of network namespaces: clusters on one machine do not meet. */
export function cgroupParent(paths: DataPaths): string {
  return `hypernetes-${createHash('sha256').update(paths.hyperd).digest('hex').slice(0, 8)}`;
}

/**
 * This machine's hypervisor, as hyperd and `doctor` use it.
 *
 * @param machineType of the VMs that it starts
 * @param parent of all control groups; one for each that is open at the same time, because
 *   `close` removes it
 * @param directory where the result of the probe is kept
 */
export async function openHypervisor(
  paths: DataPaths,
  machineType: MachineType,
  parent: string,
  log?: Log,
  directory?: string,
): Promise<Hypervisor> {
  return createQemuHypervisor(await qemuOptions(paths, machineType, parent, log, directory));
}

/** As `openHypervisor` takes them. */
export async function qemuOptions(
  paths: DataPaths,
  machineType: MachineType,
  cgroupParent: string,
  log = createLog({ component: 'hypernetes', level: 'error' }),
  directory = join(paths.hyperd, 'vmm'),
): Promise<QemuOptions> {
  const { jailPath, kernelPath } = await guestAssets(paths);
  return {
    ...{ qemuPath: QEMU_PATH, machineType, jailPath, directory, kernelPath, cgroupParent, log },
    ...{ exec: execute, clock: systemClock, random: systemRandom },
  };
}
