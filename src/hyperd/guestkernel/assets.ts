import { mkdir, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readFileSync } from 'node:fs';
import { run } from '../../base/exec.ts';
import { readFileIfExists, writeFileAtomic } from '../../base/files.ts';
import { extractVmlinux } from './bzimage.ts';
import { initArchive, moduleArchive } from './initrd.ts';
import { GUEST_MODULES, OPTIONAL_MODULES, canonicalName, orderModules } from './modules.ts';

/**
 * Makes what a VM boots from: a kernel as an ELF file and an initial file system with hyperstart
 * and the modules that it loads. The kernel is a distribution's package, unpacked and never
 * installed.
 */
export interface GuestAssetsOptions {
  /** A `linux-image-…` package file; or `unpackedDir`, where one was unpacked already. */
  debPath?: string;
  unpackedDir?: string;
  /** The static program for `/init`, made by `guest/Makefile`. */
  hyperstartPath: string;
  /** Gets `vmlinux` and `initrd`. Made where it is missing. */
  outDir: string;
  signal?: AbortSignal;
}

export interface GuestAssets {
  kernelPath: string;
  initrdPath: string;
  /** As `uname -r` will say in the guest. */
  kernelRelease: string;
  kernelBytes: number;
  initrdBytes: number;
  modules: string[];
}

/** @throws Error naming the file and what is wrong with it */
export async function buildGuestAssets(options: GuestAssetsOptions): Promise<GuestAssets> {
  if (options.unpackedDir !== undefined) return buildFrom(options.unpackedDir, options);
  if (options.debPath === undefined) {
    throw new Error('Cannot build guest assets: neither debPath nor unpackedDir is given');
  }
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-kernel-'));
  try {
    await run('dpkg-deb', ['-x', options.debPath, directory], { signal: options.signal });
    return await buildFrom(directory, options);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function buildFrom(unpacked: string, options: GuestAssetsOptions): Promise<GuestAssets> {
  const { kernelRelease, image, modules } = await readKernelPackage(unpacked);
  const vmlinux = await extractVmlinux(image);
  const init = initArchive(await readFile(options.hyperstartPath));
  const initrd = Buffer.concat([init, moduleArchive(modules)]);
  const kernelPath = join(options.outDir, 'vmlinux');
  const initrdPath = join(options.outDir, 'initrd');
  await mkdir(options.outDir, { recursive: true });
  // Each VM runs as a user of its own and only reads them.
  await writeFileAtomic(kernelPath, vmlinux, { mode: 0o644 });
  await writeFileAtomic(initrdPath, initrd, { mode: 0o644 });
  return {
    kernelPath,
    initrdPath,
    kernelRelease,
    kernelBytes: vmlinux.length,
    initrdBytes: initrd.length,
    modules: modules.map((module) => module.name),
  };
}

export interface KernelPackage {
  kernelRelease: string;
  /** The bzImage. */
  image: Buffer;
  /** Those that guests need, in the order in which they are to be loaded. */
  modules: { name: string; content: Buffer }[];
  /** `.config` of the kernel, where the package has it. */
  config: string | undefined;
}

/**
 * What guests need of a distribution's kernel package.
 * @throws Error naming what is not in it
 */
export async function readKernelPackage(unpacked: string): Promise<KernelPackage> {
  const kernelRelease = await findRelease(unpacked);
  return {
    kernelRelease,
    image: await readFile(join(unpacked, 'boot', `vmlinuz-${kernelRelease}`)),
    modules: await findModules(unpacked, kernelRelease),
    config: await readFileIfExists(join(unpacked, 'boot', `config-${kernelRelease}`)),
  };
}

async function findRelease(unpacked: string): Promise<string> {
  const prefix = 'vmlinuz-';
  const names = await readdir(join(unpacked, 'boot')).catch(() => [] as string[]);
  const images = names.filter((name) => name.startsWith(prefix));
  const image = images[0];
  if (image === undefined || images.length > 1) {
    throw new Error(`Cannot find the kernel in "${unpacked}": ${images.length} images, wanted 1`);
  }
  return image.slice(prefix.length);
}

async function findModules(unpacked: string, release: string) {
  const root = join(unpacked, 'lib', 'modules', release);
  const directory = join(root, 'kernel');
  const options = { recursive: true, withFileTypes: true } as const;
  const files = await readdir(directory, options).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    throw new Error(`Cannot find the kernel's modules: there is no "${directory}"`);
  });
  const byName = new Map<string, string>();
  for (const file of files) {
    if (!file.name.endsWith('.ko')) continue;
    byName.set(canonicalName(file.name.slice(0, -3)), join(file.parentPath, file.name));
  }
  const list = await readFile(join(root, 'modules.builtin'), 'utf8');
  const builtIn = new Set(
    list.split('\n').map((line) => canonicalName((line.split('/').at(-1) ?? '').slice(0, -3))),
  );
  const load = (name: string) => {
    const path = byName.get(name);
    return path === undefined ? undefined : readFileSync(path);
  };
  const wanted = [...GUEST_MODULES, ...OPTIONAL_MODULES.filter((name) => byName.has(name))];
  return orderModules(wanted, load, (name) => builtIn.has(name));
}
