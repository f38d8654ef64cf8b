import { mkdir, mkdtemp, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CPIO_FILE, cpioArchive } from '../../guestkernel/cpio.ts';
import type { HypervisorUnderTest } from '../conformance-cases.ts';
import type { VmSpec } from '../hypervisor.ts';
import { detectCgroups, removeCgroupParents } from './cgroup.ts';
import { createQemuHypervisor } from './driver.ts';
import type { QemuOptions } from './driver.ts';

/** QEMU and its jail on this machine, as the conformance suite wants to have them. */
export interface QemuHarnessOptions extends QemuOptions {
  /** VMs and disks lie there. Made by the caller, and removed by the caller after `dispose`. */
  workDirectory: string;
  /** Nobody else's: what is left in it counts as left over. */
  cgroupParent: string;
  /** The initial file system of the product; its `/init` is replaced. */
  initrdPath: string;
  /** The suite's guest: `conformance` of `guest/Makefile`. */
  agentPath: string;
  /** User ids from here on are those of its VMs, and nobody else's. */
  uidBase: number;
}

export async function createQemuHarness(options: QemuHarnessOptions): Promise<HypervisorUnderTest> {
  const { workDirectory: directory, kernelPath, cgroupParent, uidBase } = options;
  const initrdPath = join(directory, 'initrd');
  // The kernel unpacks archives one after the other: the second replaces /init of the first.
  const content = await readFile(options.agentPath);
  const replacement = cpioArchive([{ path: 'init', mode: CPIO_FILE | 0o755, content }]);
  const initrd = Buffer.concat([await readFile(options.initrdPath), replacement]);
  await writeFile(initrdPath, initrd, { mode: 0o644 });
  const open = () => createQemuHypervisor(options);
  const hypervisor = open();
  const places: string[] = [];
  let diskCount = 0;
  return {
    hypervisor,
    restarted: async () => open(),
    async spec(): Promise<VmSpec> {
      const id = `vm-${uidBase + places.length}`;
      const place = join(directory, id);
      const uid = uidBase + places.push(place);
      await mkdir(place);
      return {
        ...{ id, directory: place, cpuCount: 1, memoryMib: 128, kernelPath, initrdPath, uid },
        ...{ kernelArguments: [], disks: [], nic: undefined },
        limits: { cpuMillis: 0, cpuWeightMillis: 1000, memoryMib: 384, processCount: 64 },
      };
    },
    templateDirectory: () => mkdtemp(join(directory, 'template-')),
    async disk(serial, text) {
      const path = join(directory, `disk-${diskCount++}`);
      await writeFile(path, text.padEnd(1 << 20, '\0'), { mode: 0o600 });
      return { serial, path, readOnly: true };
    },
    remains: () => findRemains(directory, cgroupParent, uidBase, places.length),
    async dispose() {
      await Promise.allSettled(places.map((place) => hypervisor.destroy(place)));
      await removeCgroupParents(await detectCgroups(cgroupParent));
    },
  };
}

async function findRemains(
  directory: string,
  cgroupParent: string,
  uidBase: number,
  uidCount: number,
): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const commandLine = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (commandLine.includes(`${directory}/`)) found.push(`process ${name}`);
    const status = await readFile(`/proc/${name}/status`, 'utf8').catch(() => '');
    const uid = Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
    if (uid >= uidBase && uid <= uidBase + uidCount) found.push(`process ${name} of ${uid}`);
  }
  for (const { path } of Object.values((await detectCgroups(cgroupParent)).controllers)) {
    const groups = await readdir(join(path, cgroupParent)).catch(() => [] as string[]);
    found.push(...groups.filter((name) => name.startsWith('vm-')).map((name) => `group ${name}`));
  }
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  if (mounts.includes(`${directory}/`)) found.push('a mount');
  return found;
}
