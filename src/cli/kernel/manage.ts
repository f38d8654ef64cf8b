import type { Kernel } from '../../hyperd/guestkernel/store.ts';
import { age, print } from '../output.ts';
import { table } from '../table.ts';
import { withKernels } from './store.ts';

export interface KernelFlags {
  json?: boolean;
}

const HEADER = ['NAME', 'DEFAULT', 'RELEASE', 'SIZE', 'PODS', 'AGE', 'FROM'];
const ID_LENGTH_SHOWN = 12;

export async function listKernels(dataDir: string | undefined, flags: KernelFlags): Promise<void> {
  const kernels = await withKernels(dataDir, (store) => store.list());
  print(flags.json, kernels.map(summary), () => table(HEADER, kernels.map(row)));
}

export async function useKernel(
  dataDir: string | undefined,
  name: string,
  flags: KernelFlags,
): Promise<void> {
  const kernel = await withKernels(dataDir, (store) => store.use(name));
  print(
    flags.json,
    summary(kernel),
    () => `Pods that start from now on boot "${name}", Linux ${kernel.release}.\n`,
  );
}

export async function removeKernel(
  dataDir: string | undefined,
  name: string,
  flags: KernelFlags,
): Promise<void> {
  await withKernels(dataDir, (store) => store.remove(name));
  print(flags.json, { removed: name }, () => `The kernel "${name}" is removed.\n`);
}

/** As programs get it: without where the files lie. */
export function summary(kernel: Kernel): object {
  const { kernelPath: _, initrdPath: __, kernelArguments: ___, ...rest } = kernel;
  return rest;
}

function row(kernel: Kernel): string[] {
  const { names, id, isDefault, release, bytes, podCount, importedAtMs, origin } = kernel;
  return [
    names.join(',') || `<none> ${id.slice(0, ID_LENGTH_SHOWN)}`,
    isDefault ? 'yes' : '',
    release,
    `${(bytes / 2 ** 20).toFixed(1)} MiB`,
    podCount === undefined ? '' : String(podCount),
    age(new Date(importedAtMs).toISOString()),
    origin,
  ];
}
