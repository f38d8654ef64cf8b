import { rm, writeFile } from 'node:fs/promises';
import { execute, run } from '../../../src/base/exec.ts';

/**
 * Debian packages that have to be installed, because their programs look for their parts in fixed
 * places. Nothing that is recommended comes along, and nothing starts by itself.
 */
const POLICY = '/usr/sbin/policy-rc.d';
const INSTALL_TIMEOUT_MS = 600_000;

const OPTIONS = [
  ...['-y', '-q', '--no-install-recommends'],
  ...['-o', 'DPkg::Lock::Timeout=300', '-o', 'Dpkg::Options::=--force-confold'],
];

/** The installed version, or undefined. */
export async function packageVersion(name: string): Promise<string | undefined> {
  const format = '--showformat=${db:Status-Status} ${Version}';
  const { stdout } = await execute('dpkg-query', ['--show', format, name]);
  const [status, version] = stdout.split(' ');
  return status === 'installed' ? version : undefined;
}

/** Installs those of the packages that are missing. */
export async function installPackages(names: string[]): Promise<void> {
  const versions = await Promise.all(names.map(packageVersion));
  const missing = names.filter((_, index) => versions[index] === undefined);
  if (missing.length === 0) return;
  const forbidsStarts = await forbidStarts();
  const options = {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    timeoutMs: INSTALL_TIMEOUT_MS,
  };
  try {
    const first = await execute('apt-get', [...OPTIONS, 'install', ...missing], options);
    if (first.exitCode === 0) return;
    // The list of packages may be older than the archive.
    await run('apt-get', ['-q', 'update'], options);
    await run('apt-get', [...OPTIONS, 'install', ...missing], options);
  } finally {
    if (forbidsStarts) await rm(POLICY, { force: true });
  }
}

/** Makes Debian's packages start no service. False where a policy of the machine exists. */
async function forbidStarts(): Promise<boolean> {
  try {
    // 101: not allowed.
    await writeFile(POLICY, '#!/bin/sh\nexit 101\n', { flag: 'wx', mode: 0o755 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}
