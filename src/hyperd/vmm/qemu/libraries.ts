import { access, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from '../../../base/exec.ts';

const TRANSLATOR_MODULE = 'accel-tcg-x86_64.so';

/**
 * Files that a dynamically linked emulator needs beside itself: its libraries, its loader, and
 * the translator that Debian ships as a module. They are all that its cell shows it.
 */
export async function emulatorLibraries(qemuPath: string): Promise<string[]> {
  const paths = parseLdd(await run('ldd', [qemuPath]));
  const modules = await translatorModules(paths);
  for (const module of modules) {
    for (const path of parseLdd(await run('ldd', [module]))) paths.add(path);
    paths.add(module);
  }
  return [...paths].sort();
}

/**
 * Each file of firmware from the first directory that has it, as QEMU looks for it. One that is
 * nowhere is not missed here: QEMU names it when a machine needs it.
 */
export async function emulatorFirmware(names: string[], directories: string[]): Promise<string[]> {
  const found: string[] = [];
  for (const name of names) {
    for (const path of directories.map((directory) => join(directory, name))) {
      const exists = await access(path).then(
        () => true,
        () => false,
      );
      if (!exists) continue;
      found.push(path);
      break;
    }
  }
  return found;
}

/** Absolute paths in the output of ldd: `libz.so.1 => /lib/libz.so.1 (0x…)` and the loader. */
export function parseLdd(output: string): Set<string> {
  const paths = new Set<string>();
  for (const line of output.split('\n')) {
    const path = /(?:^\s*|=> )(\/\S+) \(0x[0-9a-f]+\)$/.exec(line)?.[1];
    if (path !== undefined) paths.add(path);
  }
  return paths;
}

/**
 * QEMU looks for modules in `qemu` beside the libraries it was linked with, by the path without
 * symbolic links: where /lib is one, ldd tells the other.
 */
async function translatorModules(libraries: Set<string>): Promise<Set<string>> {
  const modules = new Set<string>();
  for (const directory of new Set([...libraries].map((path) => join(dirname(path), 'qemu')))) {
    const module = await realpath(join(directory, TRANSLATOR_MODULE)).catch(() => undefined);
    if (module !== undefined) modules.add(module);
  }
  return modules;
}
