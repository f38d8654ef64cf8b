import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { cgroupLayout, cgroupPlan } from './cgroup.ts';
import type { CgroupLayout } from './cgroup.ts';

const V1 = `
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
`;
const V2 = '41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n';

test('cgroupLayout() finds the controllers of version 1, version 2 and hybrids', () => {
  assert.deepEqual(cgroupLayout('hn', V1, () => '').controllers, {
    cpu: { version: 1, path: '/sys/fs/cgroup/cpu,cpuacct' },
    memory: { version: 1, path: '/sys/fs/cgroup/memory' },
    pids: { version: 1, path: '/sys/fs/cgroup/pids' },
  });
  const unified = { version: 2, path: '/sys/fs/cgroup' };
  assert.deepEqual(cgroupLayout('hn', V2, () => 'cpuset cpu io memory pids\n').controllers, {
    cpu: unified,
    memory: unified,
    pids: unified,
  });
  const hybrid =
    V1.replace(/.*pids.*\n/, '') + V2.replace('/sys/fs/cgroup rw', '/sys/fs/cgroup/unified rw');
  assert.deepEqual(cgroupLayout('hn', hybrid, () => 'hugetlb pids').controllers.pids, {
    version: 2,
    path: '/sys/fs/cgroup/unified',
  });
  assert.deepEqual(cgroupLayout('hn', '', () => '').controllers, {});
});

const LIMITS = { cpuMillis: 1500, cpuWeightMillis: 1000, memoryMib: 256, processCount: 64 };

/** A hierarchy made of plain files, for the settings that the kernel is asked to have. */
async function planFor(version: 1 | 2, files: string[], limits = LIMITS) {
  const path = await mkdtemp(join(tmpdir(), 'hypernetes-cgroup-'));
  try {
    await mkdir(join(path, 'hn/keepers'), { recursive: true });
    for (const file of files) await writeFile(join(path, 'hn/keepers', file), '');
    const root = { version, path };
    const layout: CgroupLayout = {
      parent: 'hn',
      controllers: { cpu: root, memory: root, pids: root },
    };
    const plan = await cgroupPlan(layout, 'vm', limits);
    assert.deepEqual(plan.directories, [join(path, 'hn/vm')]);
    assert.deepEqual(plan.keeperDirectories, [join(path, 'hn/keepers')]);
    return Object.fromEntries(
      plan.settings.map(({ file, value }) => [file.slice(join(path, 'hn/vm/').length), value]),
    );
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
