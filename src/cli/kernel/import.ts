import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { run } from '../../base/exec.ts';
import { describeError } from '../../base/log.ts';
import { readKernelPackage } from '../../hyperd/guestkernel/assets.ts';
import { missingOptions, parseKernelConfig } from '../../hyperd/guestkernel/config.ts';
import { KERNEL_FILE_BYTES_MAX, readKernelImage } from '../../hyperd/guestkernel/image.ts';
import { moduleArchive } from '../../hyperd/guestkernel/initrd.ts';
import { kernelNameProblem } from '../../api/kernels.ts';
import type { KernelContent } from '../../hyperd/guestkernel/store.ts';
import { UsageError } from '../errors.ts';
import { print } from '../output.ts';
import { summary } from './manage.ts';
import type { KernelFlags } from './manage.ts';
import { withKernels } from './store.ts';
import { tryKernel } from './try.ts';

export interface ImportFlags extends KernelFlags {
  config?: string;
}

/** A kernel as somebody gave it, not yet looked at. */
interface Given {
  image: Buffer;
  modules: Buffer;
  config: string | undefined;
}

/**
 * Takes a kernel of the operator's own: looks at its file and its configuration, runs a pod with it,
 * and stores it. Nothing is kept of one that is refused.
 */
export async function importKernel(
  dataDir: string | undefined,
  { name, path }: { name: string; path: string },
  flags: ImportFlags,
): Promise<void> {
  const problem = kernelNameProblem(name);
  if (problem) throw new UsageError(`Invalid kernel name "${name}": ${problem}.`);
  const tell = (text: string) => process.stderr.write(`${text}\n`);
  const content = await examine(path, flags);
  tell(`${basename(path)} is Linux ${content.release}; running a pod with it`);
  await withKernels(dataDir, async (store, paths) => {
    const { signal } = interruptible();
    const { helloMs } = await tryKernel(paths, content, signal);
    const kernel = await store.import(name, content);
    print(flags.json, { ...summary(kernel), helloMs: Math.round(helloMs) }, () => {
      const seconds = (helloMs / 1000).toFixed(1);
      return (
        `Kernel "${name}" is imported: Linux ${kernel.release}, whose guest answered after ${seconds} s.\n` +
        `Pods get it by the annotation hypernetes.io/kernel: ${name}, or all of this node by ` +
        `"hypernetes kernel use ${name}".\n`
      );
    });
  });
}

/** Aborts at ctrl-C, so that a VM is ended and a half-made directory removed. */
export function interruptible(): { signal: AbortSignal } {
  const ending = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => ending.abort(new UsageError('Interrupted: nothing was kept.')));
  }
  return { signal: ending.signal };
}

async function examine(path: string, flags: ImportFlags): Promise<KernelContent> {
  try {
    const given = await read(path);
    const image = await readKernelImage(given.image);
    const text = flags.config === undefined ? given.config : await readFile(flags.config, 'utf8');
    const config = text === undefined ? image.config : parseKernelConfig(text);
    const missing = config ? missingOptions(config, given.modules.length > 0) : [];
    if (missing.length > 0) {
      const list = missing.map((one) => `  ${one}`).join('\n');
      throw new UsageError(
        `Cannot use the kernel "${path}": it lacks what pods need. Build it with\n${list}`,
      );
    }
    return {
      vmlinux: image.vmlinux,
      modules: given.modules,
      release: image.release,
      origin: `imported from ${basename(path)}`,
      ...(text === undefined ? {} : { config: text }),
    };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${describeError(error)} ("${path}").`);
  }
}

async function read(path: string): Promise<Given> {
  const found = await stat(path);
  if (found.isDirectory()) return readPackage(path);
  if (!path.endsWith('.deb')) {
    if (found.size > KERNEL_FILE_BYTES_MAX) {
      throw new Error(
        `Cannot read the kernel: it has ${found.size} bytes, at most ${KERNEL_FILE_BYTES_MAX} are possible`,
      );
    }
    return { image: await readFile(path), modules: Buffer.alloc(0), config: undefined };
  }
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-kernel-'));
  try {
    await run('dpkg-deb', ['-x', path, directory], { timeoutMs: 300_000 });
    return await readPackage(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function readPackage(unpacked: string): Promise<Given> {
  const { image, modules, config } = await readKernelPackage(unpacked);
  return { image, config, modules: modules.length > 0 ? moduleArchive(modules) : Buffer.alloc(0) };
}
