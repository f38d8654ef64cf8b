import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { VmLimits } from '../hypervisor.ts';
import { cgroupLayout, cgroupPlan } from './cgroup.ts';
import type { CgroupLayout } from './cgroup.ts';

const V1 = `
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
`;
const V2 = '41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n';

test('cgroupLayout() finds the controllers of version 1, version 2 and hybrids', () => {
  assert.deepEqual(cgroupLayout('hn', V1, () => '').controllers, {
    cpu: { version: 1, path: '/sys/fs/cgroup/cpu,cpuacct' },
    memory: { version: 1, path: '/sys/fs/cgroup/memory' },
    pids: { version: 1, path: '/sys/fs/cgroup/pids' },
    io: { version: 1, path: '/sys/fs/cgroup/blkio' },
  });
  const unified = { version: 2, path: '/sys/fs/cgroup' };
  assert.deepEqual(cgroupLayout('hn', V2, () => 'cpuset cpu io memory pids\n').controllers, {
    cpu: unified,
    memory: unified,
    pids: unified,
    io: unified,
  });
  const hybrid =
    V1.replace(/.*pids.*\n/, '') + V2.replace('/sys/fs/cgroup rw', '/sys/fs/cgroup/unified rw');
  const { pids, io } = cgroupLayout('hn', hybrid, () => 'hugetlb pids').controllers;
  assert.deepEqual(pids, { version: 2, path: '/sys/fs/cgroup/unified' });
  assert.deepEqual(io, { version: 1, path: '/sys/fs/cgroup/blkio' });
  assert.deepEqual(cgroupLayout('hn', '', () => '').controllers, {});
});

const LIMITS = { cpuMillis: 1500, cpuWeightMillis: 1000, memoryMib: 256, processCount: 64 };

/** A hierarchy made of plain files, for the settings that the kernel is asked to have. */
async function planFor(
  version: 1 | 2,
  files: string[],
  limits: VmLimits = LIMITS,
  devices: string[] = [],
) {
  const path = await mkdtemp(join(tmpdir(), 'hypernetes-cgroup-'));
  try {
    await mkdir(join(path, 'hn/keepers'), { recursive: true });
    for (const file of files) await writeFile(join(path, 'hn/keepers', file), '');
    const root = { version, path };
    const layout: CgroupLayout = {
      parent: 'hn',
      controllers: { cpu: root, memory: root, pids: root, io: root },
    };
    const plan = await cgroupPlan(layout, 'vm', limits, devices);
    assert.deepEqual(plan.directories, [join(path, 'hn/vm')]);
    assert.deepEqual(plan.keeperDirectories, [join(path, 'hn/keepers')]);
    const written: Record<string, string> = {};
    for (const { file, value } of plan.settings) {
      const name = file.slice(join(path, 'hn/vm/').length);
      written[name] = [written[name], value].filter((text) => text !== undefined).join('\n');
    }
    return written;
  } finally {
    await rm(path, { recursive: true });
  }
}

test('cgroupPlan() sets what the kernel has', async () => {
  const v2 = ['cpu.weight', 'cpu.max', 'memory.max', 'memory.swap.max', 'pids.max'];
  assert.deepEqual(await planFor(2, v2), {
    'cpu.weight': '39',
    'cpu.max': '150000 100000',
    'memory.max': '268435456',
    'memory.swap.max': '0',
    'pids.max': '64',
  });
  const v1 = [
    'cpu.shares',
    'cpu.cfs_quota_us',
    'cpu.cfs_period_us',
    'memory.limit_in_bytes',
    'pids.max',
  ];
  assert.deepEqual(await planFor(1, v1), {
    'cpu.shares': '1024',
    'cpu.cfs_period_us': '100000',
    'cpu.cfs_quota_us': '150000',
    'memory.limit_in_bytes': '268435456',
    'pids.max': '64',
  });
});

test('cgroupPlan() keeps weights and quotas where the kernel takes them', async () => {
  const least = { ...LIMITS, cpuMillis: 1, cpuWeightMillis: 0 };
  assert.deepEqual(await planFor(2, ['cpu.weight', 'cpu.max'], least), {
    'cpu.weight': '1',
    'cpu.max': '1000 100000',
  });
  const most = { ...LIMITS, cpuMillis: 0, cpuWeightMillis: 1_000_000 };
  assert.deepEqual(await planFor(2, ['cpu.weight', 'cpu.max'], most), {
    'cpu.weight': '10000',
    'cpu.max': 'max 100000',
  });
});

const IO_V1 = [
  'blkio.bfq.weight',
  'blkio.throttle.read_bps_device',
  'blkio.throttle.write_bps_device',
  'blkio.throttle.read_iops_device',
  'blkio.throttle.write_iops_device',
];
const IO_V2 = ['io.weight', 'io.bfq.weight', 'io.max'];
const DEVICES = ['8:0', '254:16'];

test('cgroupPlan() weights disk traffic like computing, as far as the kernel has weights', async () => {
  const half = { ...LIMITS, cpuWeightMillis: 500 };
  assert.deepEqual(await planFor(1, IO_V1, half, DEVICES), { 'blkio.bfq.weight': '50' });
  assert.deepEqual(await planFor(1, IO_V1.slice(1), half, DEVICES), {});
  assert.deepEqual(await planFor(2, IO_V2, half, DEVICES), {
    'io.weight': '50',
    'io.bfq.weight': '50',
  });
  const most = { ...LIMITS, cpuWeightMillis: 1_000_000 };
  assert.deepEqual(await planFor(2, IO_V2, most), {
    'io.weight': '10000',
    'io.bfq.weight': '1000',
  });
  const least = { ...LIMITS, cpuWeightMillis: 0 };
  assert.deepEqual(await planFor(2, IO_V2, least), { 'io.weight': '1', 'io.bfq.weight': '1' });
});

test('cgroupPlan() limits disk traffic on each device, where it is asked to', async () => {
  const limited = { ...LIMITS, diskBytesPerSecond: 1 << 20 };
  assert.deepEqual(await planFor(1, IO_V1.slice(1), limited, DEVICES), {
    'blkio.throttle.read_bps_device': '8:0 1048576\n254:16 1048576',
    'blkio.throttle.write_bps_device': '8:0 1048576\n254:16 1048576',
  });
  assert.deepEqual(await planFor(2, ['io.max'], limited, DEVICES), {
    'io.max':
      '8:0 rbps=1048576 wbps=1048576 riops=max wiops=max\n' +
      '254:16 rbps=1048576 wbps=1048576 riops=max wiops=max',
  });
  const both = { ...limited, diskOpsPerSecond: 500 };
  const { 'blkio.throttle.write_iops_device': ops } = await planFor(1, IO_V1, both, ['8:0']);
  assert.equal(ops, '8:0 500');
  assert.deepEqual(await planFor(2, ['io.max'], both, ['8:0']), {
    'io.max': '8:0 rbps=1048576 wbps=1048576 riops=500 wiops=500',
  });
  assert.deepEqual(await planFor(2, ['io.max'], both, []), {});
});
