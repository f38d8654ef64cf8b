import { access, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../../src/base/exec.ts';

/**
 * Debian packages as files: downloaded once, unpacked, and never installed. So nothing starts by
 * itself, and nothing of the machine changes.
 */
const CACHE = join(import.meta.dirname, '../../../.cache/debian');

/** Unpacks a package of the machine's own release and returns the directory. */
export async function unpackPackage(name: string): Promise<string> {
  const directory = join(CACHE, name);
  if (await exists(directory)) return directory;
  await mkdir(CACHE, { recursive: true });
  const temporary = await mkdtemp(join(CACHE, '.download-'));
  try {
    await download(name, temporary);
    const file = (await readdir(temporary)).find((entry) => entry.endsWith('.deb'));
    if (file === undefined) throw new Error(`apt-get download ${name} left no package`);
    await run('dpkg-deb', ['-x', join(temporary, file), join(temporary, 'root')]);
    await rename(join(temporary, 'root'), directory);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return directory;
}

async function download(name: string, cwd: string): Promise<void> {
  const args = ['-q', '-o', 'APT::Sandbox::User=root', 'download', name];
  const options = { cwd, timeoutMs: 180_000 };
  try {
    await run('apt-get', args, options);
  } catch {
    await run('apt-get', ['-q', 'update'], options);
    await run('apt-get', args, options);
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** A program of an unpacked package, with the environment in which it finds its libraries. */
export interface PackagedProgram {
  path: string;
  env: NodeJS.ProcessEnv;
}

/** @param libraries packages that the program needs and a small machine may not have */
export async function packagedProgram(
  name: string,
  libraries: string[] = [],
): Promise<PackagedProgram> {
  const path = join(await unpackPackage(name), 'usr/bin', name);
  const roots = await Promise.all(libraries.map(unpackPackage));
  const folders = roots.flatMap((root) =>
    ['usr/lib', 'lib'].map((folder) => join(root, folder, `${debianMultiarch()}`)),
  );
  return { path, env: { ...process.env, LD_LIBRARY_PATH: folders.join(':') } };
}

function debianMultiarch(): string {
  return process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
}
