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
import type { KernelContent } from '../../hyperd/guestkernel/store.ts';
import { guestAssets } from '../assets.ts';
import type { DataPaths } from '../config.ts';
import { UsageError } from '../errors.ts';
import { openHypervisor } from '../hypervisor.ts';

const BUSYBOX_PATH = '/bin/busybox';

/**
 * Runs a pod with a kernel that is not in the store yet.
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
  const parent = `hypernetes-kernel-${process.pid}`;
  const hypervisor = await openHypervisor(paths, parent, undefined, join(directory, 'vmm'));
  try {
    const files = await writeGuestFiles(directory, content, hyperstartPath);
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
    await rm(directory, { recursive: true, force: true });
  }
}
