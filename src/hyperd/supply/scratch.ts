import { chown, rm } from 'node:fs/promises';
import { open } from 'node:fs/promises';
import { run } from '../../base/exec.ts';

/**
 * The pod's writable disk: container layers and emptyDir volumes lie on it. It lives as long as
 * the VM and is never looked into by the host. The file is sparse, so it costs what is written.
 *
 * No journal: after a crash of the VM nobody reads it again.
 */
export async function createScratchDisk(
  path: string,
  sizeMib: number,
  ownerUid: number,
  signal?: AbortSignal,
): Promise<void> {
  await rm(path, { force: true });
  const file = await open(path, 'wx', 0o600);
  try {
    await file.truncate(sizeMib * 1024 * 1024);
  } finally {
    await file.close();
  }
  const features = ['-O', '^has_journal,^resize_inode', '-m', '0'];
  const lazily = ['-E', 'lazy_itable_init=1,nodiscard,root_owner=0:0'];
  const options = ['-q', '-F', '-t', 'ext4', ...features, ...lazily, path];
  await run('/sbin/mke2fs', options, signal ? { signal } : {});
  await chown(path, ownerUid, ownerUid);
}
