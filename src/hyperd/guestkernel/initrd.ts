import { CPIO_CHARACTER_DEVICE, CPIO_DIRECTORY, CPIO_FILE, cpioArchive } from './cpio.ts';
import { MODULE_PARAMETERS, stripModule } from './modules.ts';

/**
 * The initial file system is two archives, one after the other: hyperstart, which changes with us,
 * and a kernel's modules, which change with it. The kernel unpacks them into one.
 */

/** With `/init` and what the kernel needs before it. */
export function initArchive(hyperstart: Buffer): Buffer {
  return cpioArchive([
    { path: 'dev', mode: CPIO_DIRECTORY | 0o755 },
    // The kernel opens it for PID 1 before anything is mounted.
    { path: 'dev/console', mode: CPIO_CHARACTER_DEVICE | 0o600, device: { major: 5, minor: 1 } },
    { path: 'init', mode: CPIO_FILE | 0o755, content: hyperstart },
  ]);
}

/** @param modules in the order in which they are to be loaded */
export function moduleArchive(modules: { name: string; content: Buffer }[]): Buffer {
  const line = (name: string) => [`${name}.ko`, MODULE_PARAMETERS[name] ?? ''].join(' ').trim();
  const list = modules.map(({ name }) => `${line(name)}\n`).join('');
  return cpioArchive([
    { path: 'modules', mode: CPIO_DIRECTORY | 0o755 },
    { path: 'modules/list', mode: CPIO_FILE | 0o644, content: Buffer.from(list) },
    ...modules.map((module) => ({
      path: `modules/${module.name}.ko`,
      mode: CPIO_FILE | 0o644,
      content: stripModule(module.content),
    })),
  ]);
}
