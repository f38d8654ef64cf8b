import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { execute } from '../../base/exec.ts';
import { silentLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { connectAgent } from '../../hyperd/agent/client.ts';
import { bootProbe } from '../../hyperd/guestkernel/boot-probe.ts';
import type { BootProbeResult } from '../../hyperd/guestkernel/boot-probe.ts';
import { writeGuestFiles } from '../../hyperd/guestkernel/files.ts';
import type { GuestFiles } from '../../hyperd/guestkernel/files.ts';
import type { KernelContent } from '../../hyperd/guestkernel/store.ts';
import { MACHINE_TYPES } from '../../hyperd/vmm/qemu/models.ts';
import type { MachineType } from '../../hyperd/vmm/qemu/models.ts';
import { guestAssets } from '../assets.ts';
import type { DataPaths } from '../config.ts';
import { readConfig } from '../data.ts';
import { UsageError } from '../errors.ts';
import { openHypervisor } from '../hypervisor.ts';

const BUSYBOX_PATH = '/bin/busybox';

/**
 * Runs a pod with a kernel that is not in the store yet, on each device model: the node may be given
 * another later, and then all its kernels have to do.
 *
 * @returns how it was on the node's own
 * @throws KernelError Refused, naming what is missing
 */
export async function tryKernel(
  paths: DataPaths,
  content: Pick<KernelContent, 'vmlinux' | 'modules'>,
  signal: AbortSignal,
): Promise<BootProbeResult> {
  const { exitCode } = await execute(BUSYBOX_PATH, ['true']).catch(() => ({ exitCode: 1 }));
  if (exitCode !== 0) {
    throw new UsageError(`Cannot try the kernel: "${BUSYBOX_PATH}" does not run. Set up again.`);
  }
  const { hyperstartPath } = await guestAssets(paths);
  // Beneath the data directory: in others the VM's user may not come to its files.
  const directory = await mkdtemp(join(paths.kernels, `.new-${process.pid}-`));
  try {
    const files = await writeGuestFiles(directory, content, hyperstartPath);
    const results = new Map<MachineType, BootProbeResult>();
    for (const machineType of MACHINE_TYPES) {
      results.set(machineType, await tryOn(machineType, files, paths, directory, signal));
    }
    const { machine = 'microvm' } = (await readConfig(paths)) ?? {};
    return results.get(machine) as BootProbeResult;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function tryOn(
  machineType: MachineType,
  files: GuestFiles,
  paths: DataPaths,
  directory: string,
  signal: AbortSignal,
): Promise<BootProbeResult> {
  const parent = `hypernetes-kernel-${process.pid}`;
  const place = join(directory, 'vmm');
  const hypervisor = await openHypervisor(paths, machineType, parent, undefined, place);
  try {
    return await bootProbe(
      files,
      {
        hypervisor,
        connectAgent,
        busyboxPath: BUSYBOX_PATH,
        directory: join(directory, 'probe'),
        clock: systemClock,
        random: systemRandom,
        log: silentLog,
      },
      signal,
    );
  } finally {
    await hypervisor.close();
  }
}
