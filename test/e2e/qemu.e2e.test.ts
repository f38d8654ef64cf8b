import assert from 'node:assert/strict';
import { constants } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { execute, run } from '../../src/base/exec.ts';
import { silentLog } from '../../src/base/log.ts';
import { seededRandom, systemRandom } from '../../src/base/random.ts';
import { guestAssets } from '../../src/cli/assets.ts';
import { dataDirectory, dataPaths } from '../../src/cli/config.ts';
import { hypervisorConformance } from '../../src/hyperd/vmm/conformance.ts';
import type { HypervisorUnderTest } from '../../src/hyperd/vmm/conformance-cases.ts';
import type { VmSpec } from '../../src/hyperd/vmm/hypervisor.ts';
import { SOCKET_NAMES, blockNode, hotFdset } from '../../src/hyperd/vmm/qemu/argv.ts';
import { createQemuHarness } from '../../src/hyperd/vmm/qemu/harness.ts';
import { connectSocket } from '../../src/hyperd/vmm/qemu/jail.ts';
import { MACHINE_TYPES } from '../../src/hyperd/vmm/qemu/models.ts';
import type { MachineType } from '../../src/hyperd/vmm/qemu/models.ts';
import { connectQmp } from '../../src/hyperd/vmm/qemu/qmp.ts';
import { namesOf } from '../../src/network/linux/commands.ts';
import { createLinuxNetwork } from '../../src/network/linux/driver.ts';

/*
 * Real VMs of each device model: the conformance suite with a guest that boots the product's kernel
 * and modules, the jail round a real emulator, and the count of what is left behind.
 */
const root = join(import.meta.dirname, '../..');
// Not those of another run of this file.
const UID_BASE = 1_000_000 + process.pid * 1000;
const UIDS_PER_HARNESS = 100;

let base: string;
const harnesses = new Map<MachineType, HypervisorUnderTest>();

before(async () => {
  base = await mkdtemp(join(tmpdir(), 'hypernetes-qemu-'));
  await run('make', ['-s', '-C', join(root, 'jail'), `OUT=${join(base, 'hyperjail')}`]);
  await run('make', ['-s', '-C', join(root, 'guest'), `OUT=${base}`, join(base, 'conformance')]);
});

after(async () => {
  for (const made of harnesses.values()) await made.dispose();
  await rm(base, { recursive: true });
});

/** One for each device model, as finding out about the machine takes a while. */
async function harness(machineType: MachineType): Promise<HypervisorUnderTest> {
  const known = harnesses.get(machineType);
  if (known !== undefined) return known;
  const { kernelPath, initrdPath } = await guestAssets(dataPaths(dataDirectory(undefined)));
  const workDirectory = join(base, machineType);
  await mkdir(workDirectory, { mode: 0o711 });
  const made = await createQemuHarness({
    ...{ machineType, workDirectory, kernelPath, initrdPath },
    directory: join(workDirectory, 'vmm'),
    ...{ qemuPath: '/usr/bin/qemu-system-x86_64', jailPath: join(base, 'hyperjail') },
    agentPath: join(base, 'conformance'),
    cgroupParent: `hypernetes-e2e-${process.pid}-${machineType}`,
    uidBase: UID_BASE + harnesses.size * UIDS_PER_HARNESS,
    ...{ exec: execute, clock: systemClock, random: systemRandom, log: silentLog },
  });
  harnesses.set(machineType, made);
  return made;
}

for (const machineType of MACHINE_TYPES) {
  hypervisorConformance(`qemu-${machineType}`, async () => ({
    ...(await harness(machineType)),
    // The tests below have the same.
    dispose: async () => {},
  }));

  test(`qemu-${machineType}: the emulator is jailed and does its own sandboxing on top`, async () => {
    const { hypervisor, spec } = await harness(machineType);
    const wanted = await spec();
    const vm = await hypervisor.create(wanted);
    try {
      await assertJailed(vm.pid, wanted);
    } finally {
      await vm.kill();
    }
  });

  test(`qemu-${machineType}: so is one that was thawed, which goes by the name of its own VM`, async (t) => {
    const made = await harness(machineType);
    if ((await made.hypervisor.probe()).accelerator === 'kvm') return t.skip('nothing is frozen');
    const directory = await frozenTemplate(made);
    const wanted: VmSpec = { ...(await made.spec()), template: { role: 'clone', directory } };
    const vm = await made.hypervisor.create(wanted);
    try {
      await assertJailed(vm.pid, wanted);
      const commandLine = await readFile(`/proc/${vm.pid}/cmdline`, 'utf8');
      assert.equal(commandLine, `hypernetes-${wanted.id}\0`);
      // Of the template's files it has the memory open, for reading only.
      const open = new Set<string>();
      for (const fd of await readdir(`/proc/${vm.pid}/fd`)) {
        const path = await readlink(`/proc/${vm.pid}/fd/${fd}`);
        if (!path.startsWith(directory)) continue;
        open.add(basename(path));
        const info = await readFile(`/proc/${vm.pid}/fdinfo/${fd}`, 'utf8');
        const flags = Number.parseInt(/^flags:\s+(\d+)$/m.exec(info)?.[1] ?? '', 8);
        assert.equal(flags & (constants.O_WRONLY | constants.O_RDWR), 0, path);
      }
      assert.deepEqual([...open], ['memory']);
      // What made it has left nothing at a place that others know.
      const maps = await readFile(`/proc/${vm.pid}/maps`, 'utf8');
      assert.doesNotMatch(maps, /hyperthaw|^0000|^1000[0-9a-f]{4}-/m);
    } finally {
      await vm.kill();
    }
    assert.deepEqual(await made.remains(), []);
  });

  test(`qemu-${machineType}: a disk that its daemon did not live to attach can be attached by the next`, async () => {
    const { hypervisor, restarted, spec, disk: makeDisk } = await harness(machineType);
    const wanted = await spec();
    const { directory } = wanted;
    (await hypervisor.create(wanted)).release();
    const serial = 'half';
    const disk = await makeDisk(serial, 'half');
    const { path } = disk;
    const fdset = hotFdset(serial);
    const socket = join(directory, SOCKET_NAMES.attach);
    const attach = ['attach', '--socket', socket, '--fdset', `${fdset}`, '--disk-ro', path];
    const qmp = await connectQmp(await connectSocket(directory, SOCKET_NAMES.monitor));
    await run(join(base, 'hyperjail'), attach);
    await qmp.command('blockdev-add', { ...blockNode(disk, fdset, false) });
    qmp.close();
    await qmp.closed;
    const second = await (await restarted()).adopt(directory);
    assert.ok(second);
    try {
      await second.attachDisk(disk);
    } finally {
      await second.kill();
    }
  });
}

async function assertJailed(pid: number, { uid }: VmSpec): Promise<void> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  assert.match(status, new RegExp(`Uid:\\t${uid}\\t`));
  assert.match(status, /CapBnd:\t0+\n/);
  assert.match(status, /NoNewPrivs:\t1\n/);
  assert.match(status, /Seccomp_filters:\t2\n/);
  const sockets = await readFile(`/proc/${pid}/net/dev`, 'utf8');
  assert.equal(sockets.trim().split('\n').length, 3, 'no device but lo');
}

/** Saves a source, and its heir in its place. */
async function frozenTemplate({ hypervisor, spec }: HypervisorUnderTest): Promise<string> {
  const directory = await mkdtemp(join(base, 'template-'));
  for (const role of ['source', 'heir'] as const) {
    const vm = await hypervisor.create({ ...(await spec()), template: { role, directory } });
    await vm.saveTemplate();
  }
  assert.ok((await readdir(directory)).includes('monitor'));
  return directory;
}

test('qemu: an emulator that somebody talks to is not frozen; the next one is', async (t) => {
  const made = await harness('microvm');
  if ((await made.hypervisor.probe()).accelerator === 'kvm') return t.skip('nothing is frozen');
  const directory = await mkdtemp(join(base, 'template-'));
  const source = { role: 'source', directory } as const;
  await (await made.hypervisor.create({ ...(await made.spec()), template: source })).saveTemplate();
  const heir = await made.hypervisor.create({
    ...(await made.spec()),
    template: { role: 'heir', directory },
  });
  const client = await heir.connectControl();
  client.on('error', () => {});
  const refused = { reason: 'Failed', message: /cannot freeze a monitor that has clients/ };
  await assert.rejects(heir.saveTemplate(), refused);
  client.destroy();
  await heir.exited;
  await frozenTemplate(made);
  assert.deepEqual(await made.remains(), []);
});

test('qemu: one that dies under its daemon is reported, with its group removed', async () => {
  const { hypervisor, spec, remains } = await harness('microvm');
  const vm = await hypervisor.create(await spec());
  process.kill(vm.pid, 'SIGKILL');
  const exit = await vm.exited;
  assert.deepEqual([exit.reason, exit.signal], ['killed', 'SIGKILL']);
  assert.deepEqual(await remains(), []);
});

test('qemu: what the host cannot do is refused with the reason', async () => {
  const { hypervisor: driver, remains, ...made } = await harness('q35');
  const spec = await made.spec();
  const nic = { mac: '02:00:00:00:00:01', tap: { netns: 'hnnone', name: 'tap0' } };
  await assert.rejects(driver.create({ ...spec, nic }), /network namespace "\/run\/netns\/hnnone"/);
  const notKernel = { ...spec, kernelPath: join(root, 'package.json') };
  await assert.rejects(driver.create(notKernel), /Cannot start VM/);
  const disks = [{ serial: 'x', path: '/nowhere', readOnly: true }];
  await assert.rejects(driver.create({ ...spec, disks }), { reason: 'Invalid' });
  assert.deepEqual(await remains(), []);
});

test('qemu: a disk that fills up while a template is saved is told, and the VM can be ended', async () => {
  const { hypervisor, spec: makeSpec, remains } = await harness('microvm');
  const directory = await mkdtemp(join(base, 'template-'));
  const spec = await makeSpec();
  // Room for the memory, and not for the state of the devices.
  const size = `${spec.memoryMib * 1024 + 4}k`;
  await run('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=700`, 'template', directory]);
  try {
    const template = { role: 'source', directory } as const;
    const vm = await hypervisor.create({ ...spec, template });
    try {
      await assert.rejects(vm.saveTemplate(), { reason: 'Failed', message: /Cannot save the VM/ });
    } finally {
      await vm.kill();
    }
  } finally {
    await run('umount', [directory]);
  }
  assert.deepEqual(await remains(), []);
});

const ROUNDS = 30;

test(`qemu: ${ROUNDS} random rounds of create, kill and delete leave nothing behind`, async () => {
  const seed = Date.now() % 2 ** 32;
  const random = seededRandom(seed);
  const stateDirectory = join(base, 'network');
  const network = await createLinuxNetwork({
    stateDirectory,
    hostServices: [],
    exec: execute,
    random,
    log: silentLog,
  });
  const segment = { id: 'rounds', cidr: '10.91.0.0/24', gateway: '10.91.0.1', mtu: 0, nat: true };
  const { scope, table } = namesOf(stateDirectory);
  // Its own only: clusters of others on this machine come and go meanwhile.
  const counted = async () => {
    const links = JSON.parse(await run('ip', ['-json', 'link', 'show'])) as { ifname: string }[];
    const tables = (await run('nft', ['list', 'tables'])).split('\n');
    const namespaces = await readdir('/run/netns').catch(() => [] as string[]);
    const names = [...links.map((l) => l.ifname), ...tables, ...namespaces];
    return names.filter((name) => name.includes(`hn${scope}`) || name.includes(table));
  };
  await network.ensureNetwork(segment);
  assert.equal((await counted()).length, 3, 'a link, a table and a namespace');
  const round = async () => {
    const machineType = MACHINE_TYPES[Math.floor(random.next() * MACHINE_TYPES.length)];
    const { hypervisor: driver, spec: make } = await harness(machineType ?? 'q35');
    const spec = await make();
    const port = await network.ensurePort({ id: spec.id, networkId: 'rounds', ownerUid: spec.uid });
    spec.nic = { mac: port.mac, tap: { netns: port.netns, name: port.tapName } };
    // Aborted at any moment of the start, killed from outside, or ended in order.
    const aborter = new AbortController();
    const delayMs = Math.floor(random.next() * 400);
    const way = Math.floor(random.next() * 3);
    if (way === 0)
      void systemClock.sleep(delayMs).then(() => aborter.abort(new Error('changed mind')));
    const vm = await driver.create(spec, aborter.signal).catch(() => undefined);
    assert.ok(vm !== undefined || way === 0, `seed ${seed}`);
    await systemClock.sleep(delayMs);
    if (vm !== undefined && way === 1) process.kill(vm.pid, 'SIGKILL');
    else await vm?.kill();
    await vm?.exited;
    await network.deletePort(spec.id);
    await rm(spec.directory, { recursive: true });
  };
  for (let done = 0; done < ROUNDS; done += 3) await Promise.all([round(), round(), round()]);
  await network.deleteNetwork('rounds');
  for (const { remains } of harnesses.values()) {
    assert.deepEqual(await remains(), [], `seed ${seed}`);
  }
  assert.deepEqual(await counted(), [], `seed ${seed}`);
});
