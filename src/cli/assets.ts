import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfExists, writeFileAtomic } from '../base/files.ts';
import { buildGuestAssets } from '../hyperd/guestkernel/assets.ts';
import { dataDirectory, dataPaths } from './config.ts';
import type { DataPaths } from './config.ts';
import { UsageError } from './errors.ts';

/** What hyperd needs to boot guests. */
export interface InstalledAssets {
  kernelPath: string;
  initrdPath: string;
  jailPath: string;
  /** What the jail loads into a VMM that starts from a template; it lies beside the jail. */
  lendPath: string;
  thawPath: string;
  /** hyperstart as a file: what a VM runs before it is a pod's. */
  hyperstartPath: string;
  kernelRelease: string;
}

/** The last step of set-up: kernel and initramfs out of an unpacked kernel package. */
export async function buildAssets(
  dataDir: string | undefined,
  options: { kernelDir: string },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const { kernelRelease } = await buildGuestAssets({
    unpackedDir: options.kernelDir,
    hyperstartPath: join(paths.assets, 'hyperstart'),
    outDir: paths.assets,
  });
  await writeFileAtomic(releasePath(paths), `${kernelRelease}\n`, { mode: 0o644 });
}

/** @throws UsageError when set-up has not been completed */
export async function guestAssets(paths: DataPaths): Promise<InstalledAssets> {
  const kernelRelease = (await readFileIfExists(releasePath(paths)))?.trim();
  const assets = {
    kernelPath: join(paths.assets, 'vmlinux'),
    initrdPath: join(paths.assets, 'initrd'),
    jailPath: join(paths.assets, 'hyperjail'),
    hyperstartPath: join(paths.assets, 'hyperstart'),
    lendPath: join(paths.assets, 'hyperlend.so'),
    thawPath: join(paths.assets, 'hyperthaw'),
  };
  const present = await Promise.all(Object.values(assets).map((path) => access(path))).then(
    () => true,
    () => false,
  );
  if (!kernelRelease || !present) {
    throw new UsageError(`Set-up is not complete in ${paths.assets}: run "./hypernetes setup".`);
  }
  return { ...assets, kernelRelease };
}

/**
 * What the suite of hypervisors is run with.
 * @throws UsageError when set-up has not been completed
 */
export async function conformanceGuest(
  paths: DataPaths,
): Promise<{ agentPath: string; initrdPath: string }> {
  const { initrdPath } = await guestAssets(paths);
  const agentPath = join(paths.assets, 'conformance');
  await access(agentPath).catch(() => {
    throw new UsageError(`There is no "${agentPath}": run "./hypernetes setup".`);
  });
  return { agentPath, initrdPath };
}

function releasePath(paths: DataPaths): string {
  return join(paths.assets, 'kernel-release');
}
