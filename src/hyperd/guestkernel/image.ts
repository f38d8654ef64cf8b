import { gunzipSync } from 'node:zlib';
import { extractVmlinux, isBzImage } from './bzimage.ts';
import { parseKernelConfig } from './config.ts';
import type { KernelConfig } from './config.ts';
import { checkPvhKernel, isElf } from './elf.ts';

/** A kernel's file, taken apart: what QEMU starts, and what the kernel says of itself. */
export interface KernelImage {
  /** The ELF file, as it was in the image. */
  vmlinux: Buffer;
  /** As `uname -r` will say. */
  release: string;
  /** What it was built with, where it carries that (CONFIG_IKCONFIG). */
  config: KernelConfig | undefined;
}

/** Debian's largest is 8 MiB packed and 40 MiB unpacked; one with debug information is far larger. */
export const KERNEL_FILE_BYTES_MAX = 256 << 20;
const RELEASE_LENGTH_MAX = 64;
const BANNER = 'Linux version ';
const CONFIG_BEGIN = Buffer.from('IKCFG_ST');
const CONFIG_END = Buffer.from('IKCFG_ED');
/** Debian's configuration has 250 KiB. */
const CONFIG_BYTES_MAX = 2 << 20;

/**
 * Reads a bzImage or an ELF kernel.
 * @throws Error naming what is wrong with it
 */
export async function readKernelImage(bytes: Buffer): Promise<KernelImage> {
  if (bytes.length > KERNEL_FILE_BYTES_MAX) {
    throw new Error(
      `Cannot read the kernel: it has ${bytes.length} bytes, at most ${KERNEL_FILE_BYTES_MAX} are ` +
        'possible. Is it one with debug information? "strip" takes that away.',
    );
  }
  let vmlinux: Buffer;
  if (isElf(bytes)) {
    checkPvhKernel(bytes);
    vmlinux = bytes;
  } else if (isBzImage(bytes)) {
    vmlinux = await extractVmlinux(bytes);
  } else {
    throw new Error('Cannot read the kernel: neither a bzImage nor an ELF file (vmlinux)');
  }
  return { vmlinux, release: releaseOf(vmlinux), config: embeddedConfig(vmlinux) };
}

function releaseOf(vmlinux: Buffer): string {
  for (let at = vmlinux.indexOf(BANNER); at >= 0; at = vmlinux.indexOf(BANNER, at + 1)) {
    const start = at + BANNER.length;
    const text = vmlinux.toString('latin1', start, start + RELEASE_LENGTH_MAX + 1);
    const release = /^(\d+\.[\w.+~-]*) /.exec(text)?.[1];
    if (release !== undefined) return release;
  }
  throw new Error('Cannot read the kernel: it does not say which Linux it is');
}

function embeddedConfig(vmlinux: Buffer): KernelConfig | undefined {
  const begin = vmlinux.indexOf(CONFIG_BEGIN);
  if (begin < 0) return undefined;
  const start = begin + CONFIG_BEGIN.length;
  const end = vmlinux.indexOf(CONFIG_END, start);
  if (end < 0) return undefined;
  try {
    const text = gunzipSync(vmlinux.subarray(start, end), { maxOutputLength: CONFIG_BYTES_MAX });
    return parseKernelConfig(text.toString('latin1'));
  } catch (cause) {
    throw new Error('Cannot read the configuration in the kernel (CONFIG_IKCONFIG)', { cause });
  }
}
