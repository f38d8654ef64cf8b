import { KernelError } from './store.ts';
import type { Kernel, KernelStore } from './store.ts';

/** Kernels that nobody boots: `default`, and others that a test names. */
export function createFakeKernels(
  ...others: string[]
): Pick<KernelStore, 'get' | 'default' | 'acquire'> {
  const kernel = (name: string): Kernel => ({
    id: name,
    names: [name],
    release: '6.1.0-fake',
    origin: 'a test',
    isDefault: name === 'default',
    isBuiltIn: name === 'default',
    bytes: 1,
    podCount: 0,
    importedAtMs: 0,
    kernelPath: `/${name}/vmlinux`,
    initrdPath: `/${name}/initrd`,
    kernelArguments: [],
  });
  const get = async (name: string): Promise<Kernel> => {
    if (['default', ...others].includes(name)) return kernel(name);
    throw new KernelError('NotFound', `Cannot find kernel "${name}" on this node`);
  };
  return {
    get,
    default: () => get('default'),
    async acquire(name = 'default') {
      const { kernelPath, initrdPath, kernelArguments } = await get(name);
      return { kernelPath, initrdPath, kernelArguments };
    },
  };
}
