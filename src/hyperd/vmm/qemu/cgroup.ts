import { access, mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { VmLimits } from '../hypervisor.ts';
import type { CgroupPlan } from './argv.ts';

/**
 * Where this host keeps its control groups. Version 1, version 2 and hybrids of both are all
 * described by the directory of each controller; a controller that is nowhere is not enforced.
 */
export interface CgroupLayout {
  /** Name of the group, under the root of each hierarchy, that holds one group for each VM. */
  parent: string;
  controllers: Partial<Record<Controller, ControllerRoot>>;
}

export interface ControllerRoot {
  version: 1 | 2;
  /** Mount point of the hierarchy. */
  path: string;
}

const CONTROLLERS = ['cpu', 'memory', 'pids', 'io'] as const;
export type Controller = (typeof CONTROLLERS)[number];
/** What version 1 calls them, where it is something else. */
const V1_NAMES: Record<string, string> = { blkio: 'io' };

/** Beside the groups of the VMs: their keepers, which no limit of a VM may stop. */
const KEEPERS = 'keepers';

const QUOTA_PERIOD_US = 100_000;
/** The kernel takes no less. */
const QUOTA_MIN_US = 1000;
const SHARES_MIN = 2;
const SHARES_MAX = 262_144;
/** The kernel's weight of a group that was given none: here that of a whole CPU. */
const IO_WEIGHT_OF_CPU = 100;
const BFQ_WEIGHT_MAX = 1000;
const IO_WEIGHT_MAX = 10_000;

/**
 * Reads the layout out of `/proc/self/mountinfo`; `controllersOf` gives the content of
 * cgroup.controllers for the mount point of a version 2 hierarchy.
 */
export function cgroupLayout(
  parent: string,
  mountinfo: string,
  controllersOf: (mountPoint: string) => string,
): CgroupLayout {
  const layout: CgroupLayout = { parent, controllers: {} };
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    if (before === undefined || after === undefined) continue;
    const path = before.split(' ')[4] ?? '';
    const [type, , options = ''] = after.split(' ');
    if (type !== 'cgroup' && type !== 'cgroup2') continue;
    const names =
      type === 'cgroup'
        ? options.split(',').map((name) => V1_NAMES[name] ?? name)
        : controllersOf(path).trim().split(/\s+/);
    for (const controller of CONTROLLERS) {
      if (!names.includes(controller)) continue;
      layout.controllers[controller] ??= { version: type === 'cgroup' ? 1 : 2, path };
    }
  }
  return layout;
}

export async function detectCgroups(parent: string): Promise<CgroupLayout> {
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8');
  const controllers = new Map<string, string>();
  for (const match of mountinfo.matchAll(/ (\/\S*) \S+ (?:\S+ )*- cgroup2 /g)) {
    const path = match[1] ?? '';
    controllers.set(path, await readFile(join(path, 'cgroup.controllers'), 'utf8').catch(() => ''));
  }
  return cgroupLayout(parent, mountinfo, (path) => controllers.get(path) ?? '');
}

/** Makes the parents of all VMs' groups and, for version 2, hands the controllers down. */
export async function prepareCgroups(layout: CgroupLayout): Promise<void> {
  for (const root of roots(layout)) {
    const parent = join(root.path, layout.parent);
    await mkdir(join(parent, KEEPERS), { recursive: true });
    if (root.version === 1) continue;
    const wanted = CONTROLLERS.filter((name) => layout.controllers[name]?.path === root.path);
    const text = wanted.map((name) => `+${name}`).join(' ');
    await writeFile(join(root.path, 'cgroup.subtree_control'), text);
    await writeFile(join(parent, 'cgroup.subtree_control'), text);
  }
}

/**
 * The group of one VM, with the settings of which the kernel has a file. Limits of disk traffic
 * are those of each of the host's devices, given as `major:minor`.
 */
export async function cgroupPlan(
  layout: CgroupLayout,
  vmId: string,
  limits: VmLimits,
  devices: string[] = [],
): Promise<CgroupPlan> {
  const settings: CgroupPlan['settings'] = [];
  for (const controller of CONTROLLERS) {
    const root = layout.controllers[controller];
    if (root === undefined) continue;
    const wanted = SETTINGS[controller][root.version](limits, devices);
    for (const [name, values] of Object.entries(wanted)) {
      // The keepers' group stands beside the VM's and has the same files.
      if (!(await exists(join(root.path, layout.parent, KEEPERS, name)))) continue;
      const file = join(root.path, layout.parent, vmId, name);
      settings.push(...[values].flat().map((value) => ({ file, value })));
    }
  }
  const all = roots(layout);
  return {
    directories: all.map((root) => join(root.path, layout.parent, vmId)),
    settings,
    keeperDirectories: all.map((root) => join(root.path, layout.parent, KEEPERS)),
  };
}

/** Removes the group of a VM whose keeper could not do it any more. */
export async function removeCgroups(layout: CgroupLayout, vmId: string): Promise<void> {
  for (const root of roots(layout)) {
    await rmdir(join(root.path, layout.parent, vmId)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
  }
}

/** Removes the parents that `prepareCgroups` made; VMs' groups must be gone. */
export async function removeCgroupParents(layout: CgroupLayout): Promise<void> {
  for (const root of roots(layout)) {
    await rmdir(join(root.path, layout.parent, KEEPERS));
    await rmdir(join(root.path, layout.parent));
  }
}

/** The same where no VM is left; else they stay as they are. */
export async function removeUnusedParents(layout: CgroupLayout): Promise<void> {
  await removeCgroupParents(layout).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EBUSY' && error.code !== 'ENOENT') throw error;
  });
}

/** A file that takes one device at a time is written once for each. */
type Settings = (limits: VmLimits, devices: string[]) => Record<string, string | string[]>;

/** What each limit is called. Factors and bounds are those of the kernel's and of runc. */
const SETTINGS: Record<Controller, Record<1 | 2, Settings>> = {
  cpu: {
    1: (limits) => ({
      'cpu.shares': String(cpuShares(limits)),
      'cpu.cfs_period_us': String(QUOTA_PERIOD_US),
      'cpu.cfs_quota_us': limits.cpuMillis === 0 ? '-1' : String(quotaUs(limits)),
    }),
    2: (limits) => ({
      'cpu.weight': String(
        1 + Math.floor(((cpuShares(limits) - SHARES_MIN) * 9999) / (SHARES_MAX - SHARES_MIN)),
      ),
      'cpu.max': `${limits.cpuMillis === 0 ? 'max' : quotaUs(limits)} ${QUOTA_PERIOD_US}`,
    }),
  },
  memory: {
    1: (limits) => ({
      'memory.limit_in_bytes': String(limits.memoryMib * 2 ** 20),
      'memory.memsw.limit_in_bytes': String(limits.memoryMib * 2 ** 20),
    }),
    2: (limits) => ({
      'memory.max': String(limits.memoryMib * 2 ** 20),
      'memory.swap.max': '0',
    }),
  },
  pids: {
    1: (limits) => ({ 'pids.max': String(limits.processCount) }),
    2: (limits) => ({ 'pids.max': String(limits.processCount) }),
  },
  io: {
    1: (limits, devices) => {
      const each = (max?: number) => (max ? devices.map((device) => `${device} ${max}`) : []);
      return {
        'blkio.bfq.weight': String(ioWeight(limits, BFQ_WEIGHT_MAX)),
        'blkio.throttle.read_bps_device': each(limits.diskBytesPerSecond),
        'blkio.throttle.write_bps_device': each(limits.diskBytesPerSecond),
        'blkio.throttle.read_iops_device': each(limits.diskOpsPerSecond),
        'blkio.throttle.write_iops_device': each(limits.diskOpsPerSecond),
      };
    },
    2: (limits, devices) => {
      const bytes = limits.diskBytesPerSecond || 'max';
      const ops = limits.diskOpsPerSecond || 'max';
      const max = `rbps=${bytes} wbps=${bytes} riops=${ops} wiops=${ops}`;
      return {
        'io.weight': String(ioWeight(limits, IO_WEIGHT_MAX)),
        'io.bfq.weight': String(ioWeight(limits, BFQ_WEIGHT_MAX)),
        'io.max': isDiskLimited(limits) ? devices.map((device) => `${device} ${max}`) : [],
      };
    },
  },
};

/** Whether disk traffic is bounded beyond its weight, so that the devices have to be known. */
export function isDiskLimited(limits: VmLimits): boolean {
  return Boolean(limits.diskBytesPerSecond || limits.diskOpsPerSecond);
}

/** Kubernetes has no request for disk traffic: who may compute more may also read more. */
function ioWeight(limits: VmLimits, max: number): number {
  const weight = Math.round((limits.cpuWeightMillis * IO_WEIGHT_OF_CPU) / 1000);
  return Math.min(Math.max(weight, 1), max);
}

function cpuShares(limits: VmLimits): number {
  const shares = Math.floor((limits.cpuWeightMillis * 1024) / 1000);
  return Math.min(Math.max(shares, SHARES_MIN), SHARES_MAX);
}

function quotaUs(limits: VmLimits): number {
  return Math.max(Math.floor((limits.cpuMillis * QUOTA_PERIOD_US) / 1000), QUOTA_MIN_US);
}

/** Each hierarchy once, though it may carry several controllers. */
function roots(layout: CgroupLayout): ControllerRoot[] {
  const byPath = new Map<string, ControllerRoot>();
  for (const controller of CONTROLLERS) {
    const root = layout.controllers[controller];
    if (root !== undefined) byPath.set(root.path, root);
  }
  return [...byPath.values()];
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
