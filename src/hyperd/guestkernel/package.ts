import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../base/exec.ts';

/** Debian's kernel for virtual machines; the package only depends on the newest real one. */
const META_PACKAGE = 'linux-image-cloud-amd64';
const DOWNLOAD_TIMEOUT_MS = 600_000;

/**
 * Fetches the newest kernel package into `directory` with apt, unless one is there already. It
 * is not installed. Returns its path.
 * @throws Error when apt knows no such package or cannot fetch it
 */
export async function downloadKernelPackage(
  directory: string,
  signal?: AbortSignal,
): Promise<string> {
  await mkdir(directory, { recursive: true });
  const find = async () => {
    const names = await readdir(directory);
    const found = names
      .filter((name) => /^linux-image-.*\.deb$/.test(name))
      .sort()
      .at(-1);
    return found === undefined ? undefined : join(directory, found);
  };
  const present = await find();
  if (present !== undefined) return present;
  const depends = await run('apt-cache', ['depends', META_PACKAGE], { signal });
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (name === undefined) {
    throw new Error(`Cannot find a kernel: apt does not know ${META_PACKAGE}`);
  }
  const options = { signal, cwd: directory, timeoutMs: DOWNLOAD_TIMEOUT_MS };
  await run('apt-get', ['download', '-q', name], options);
  const path = await find();
  if (path === undefined) throw new Error(`Cannot find ${name}: apt-get download left no file`);
  return path;
}
