import { join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { execute } from '../base/exec.ts';
import { createLog } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { systemRandom } from '../base/random.ts';
import { createQemuHypervisor } from '../hyperd/vmm/qemu/driver.ts';
import type { Hypervisor } from '../hyperd/vmm/hypervisor.ts';
import { guestAssets } from './assets.ts';
import type { DataPaths } from './config.ts';

const QEMU_PATH = '/usr/bin/qemu-system-x86_64';

/** This machine's hypervisor, as hyperd and `doctor` use it. */
export async function openHypervisor(paths: DataPaths, log?: Log): Promise<Hypervisor> {
  const { jailPath, kernelPath } = await guestAssets(paths);
  return createQemuHypervisor({
    qemuPath: QEMU_PATH,
    jailPath,
    directory: join(paths.hyperd, 'vmm'),
    kernelPath,
    exec: execute,
    clock: systemClock,
    random: systemRandom,
    log: log ?? createLog({ component: 'hypernetes', level: 'error' }),
  });
}
