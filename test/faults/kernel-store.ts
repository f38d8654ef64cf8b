import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../src/base/clock.ts';
import { systemRandom } from '../../src/base/random.ts';
import { openKernelStore } from '../../src/hyperd/guestkernel/disk-store.ts';
import type { KernelStore } from '../../src/hyperd/guestkernel/store.ts';

/** The store of a test's directory, with a built-in kernel that nobody boots. */
export async function openTestKernels(directory: string): Promise<KernelStore> {
  await mkdir(directory, { recursive: true });
  const file = async (name: string) => {
    const path = join(directory, name);
    await writeFile(path, name);
    return path;
  };
  return openKernelStore({
    directory: join(directory, 'kernels'),
    builtIn: {
      name: 'debian',
      release: '6.1',
      origin: 'a test',
      kernelPath: await file('vmlinux'),
      initrdPath: await file('initrd'),
    },
    hyperstartPath: await file('hyperstart'),
    clock: systemClock,
    random: systemRandom,
  });
}
