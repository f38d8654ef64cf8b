import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { VmSpec } from '../hypervisor.ts';
import { blockNode, launchPlan } from './argv.ts';
import type { LaunchContext } from './argv.ts';
import { DEVICE_MODELS, MACHINE_TYPES } from './models.ts';

const SPEC: VmSpec = {
  id: '0a1b2c3d-0000-4000-8000-000000000001',
  directory: '/var/lib/hypernetes/hyperd/pods/0a1b/vm',
  cpuCount: 2,
  memoryMib: 256,
  kernelPath: '/var/lib/hypernetes/assets/vmlinux',
  initrdPath: '/var/lib/hypernetes/assets/initrd',
  kernelArguments: ['hypernetes.test=1'],
  disks: [
    { serial: 'scratch', path: '/pods/scratch.img', readOnly: false, ephemeral: true },
    { serial: 'image1', path: '/images/1.erofs', readOnly: true },
  ],
  nic: { mac: '02:11:22:33:44:55', tap: { netns: 'hn1234-default', name: 'tap0123456789ab' } },
  uid: 70_001,
  limits: { cpuMillis: 500, cpuWeightMillis: 100, memoryMib: 400, processCount: 64 },
};

const CONTEXT: LaunchContext = {
  qemuPath: '/usr/bin/qemu-system-x86_64',
  model: DEVICE_MODELS.microvm,
  accelerator: 'tcg',
  tscKhz: 2_445_424,
  libraries: ['/lib/x86_64-linux-gnu/libc.so.6', '/lib64/ld-linux-x86-64.so.2'],
  firmware: ['/usr/share/qemu/bios-microvm.bin', '/usr/share/qemu/pvh.bin'],
  cgroup: {
    directories: ['/sys/fs/cgroup/hypernetes/vm'],
    settings: [{ file: '/sys/fs/cgroup/hypernetes/vm/memory.max', value: '419430400' }],
    keeperDirectories: ['/sys/fs/cgroup/hypernetes/keepers'],
  },
  blockDevices: [false, false],
  lendPath: '/var/lib/hypernetes/assets/hyperlend.so',
  thawPath: '/var/lib/hypernetes/assets/hyperthaw',
  isFrozen: false,
};

/** One option with its value on a line, so that a reviewer sees what changes. */
function lines(args: string[]): string {
  return args.reduce((text, a, i) => {
    const value =
      i > 0 && !a.startsWith('-') && (args[i - 1] ?? '').startsWith('-') && args[i - 1] !== '--';
    return text + (i === 0 ? a : value ? ` ${a}` : `\n${a}`);
  }, '');
}

const TEMPLATE = '/var/lib/hypernetes/hyperd/templates/1';
const SPECS: Record<string, VmSpec> = {
  'disks and network': SPEC,
  'no disk, no network, no initial file system': {
    ...SPEC,
    disks: [],
    nic: undefined,
    initrdPath: '',
  },
  'source of a template': {
    ...SPEC,
    disks: [],
    nic: { mac: '02:00:00:00:00:01' },
    template: { role: 'source', directory: TEMPLATE },
  },
  'heir of it': { ...SPEC, disks: [], template: { role: 'heir', directory: TEMPLATE } },
  'clone of it': { ...SPEC, disks: [], template: { role: 'clone', directory: TEMPLATE } },
};
/** With KVM there is nothing that could be frozen. */
const FROZEN = ['heir of it', 'clone of it'];

for (const machineType of MACHINE_TYPES) {
  test(`the command line of jail and ${machineType} is that of the golden file`, async () => {
    const golden = join(import.meta.dirname, `argv.${machineType}.golden.txt`);
    const sections = (['tcg', 'kvm'] as const).flatMap((accelerator) =>
      Object.entries(SPECS).map(([title, spec]) => {
        const model = DEVICE_MODELS[machineType];
        const firmware = model.firmware.map((name) => `/usr/share/qemu/${name}`);
        const isFrozen = accelerator === 'tcg' && FROZEN.includes(title);
        const context = { ...CONTEXT, accelerator, model, firmware, isFrozen };
        return `# ${accelerator}, ${title}\n${lines(launchPlan(spec, context).arguments)}\n`;
      }),
    );
    const text = sections.join('\n');
    if (process.env.UPDATE_GOLDEN === '1') await writeFile(golden, text);
    assert.equal(text, await readFile(golden, 'utf8'));
  });
}

test('blockNode() opens block devices as such; what is read-only it neither writes nor locks', () => {
  const disk = { serial: 'a', path: '/dev/x', readOnly: true };
  const node = JSON.stringify(blockNode(disk, 7, true));
  assert.match(node, /"driver":"host_device","filename":"\/dev\/fdset\/7","read-only":true/);
  assert.doesNotMatch(node, /discard/);
  assert.match(node, /"locking":"off"/);
  assert.doesNotMatch(JSON.stringify(blockNode({ ...disk, readOnly: false }, 7, true)), /locking/);
});
