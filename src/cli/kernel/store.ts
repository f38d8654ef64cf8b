import { systemClock } from '../../base/clock.ts';
import { systemRandom } from '../../base/random.ts';
import { openKernelStore } from '../../hyperd/guestkernel/disk-store.ts';
import { KernelError } from '../../hyperd/guestkernel/store.ts';
import type { KernelStore } from '../../hyperd/guestkernel/store.ts';
import { guestAssets } from '../assets.ts';
import { dataDirectory, dataPaths } from '../config.ts';
import type { DataPaths } from '../config.ts';
import { UsageError } from '../errors.ts';

/** The kernel that set-up unpacks. */
const BUILT_IN_NAME = 'debian';

/** The kernels of this node, as hyperd and the commands see them. */
export async function openKernels(paths: DataPaths): Promise<KernelStore> {
  const { kernelPath, initrdPath, kernelRelease, hyperstartPath } = await guestAssets(paths);
  return openKernelStore({
    directory: paths.kernels,
    builtIn: {
      name: BUILT_IN_NAME,
      release: kernelRelease,
      origin: 'unpacked by set-up',
      kernelPath,
      initrdPath,
    },
    hyperstartPath,
    clock: systemClock,
    random: systemRandom,
  });
}

/** Does something with the node's kernels. What the store refuses is told without a stack. */
export async function withKernels<T>(
  dataDir: string | undefined,
  action: (store: KernelStore, paths: DataPaths) => Promise<T>,
): Promise<T> {
  const paths = dataPaths(dataDirectory(dataDir));
  const store = await openKernels(paths);
  try {
    return await action(store, paths);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    const names = (await store.list()).flatMap((kernel) => kernel.names).join(', ');
    const hint = error.reason === 'NotFound' ? ` It has: ${names}.` : '';
    throw new UsageError(`${error.message}.${hint}`);
  }
}
