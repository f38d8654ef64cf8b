import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { execute, run } from '../../src/base/exec.ts';
import { silentLog } from '../../src/base/log.ts';
import { seededRandom, systemRandom } from '../../src/base/random.ts';
import { guestAssets } from '../../src/cli/assets.ts';
import { dataDirectory, dataPaths } from '../../src/cli/config.ts';
import { CPIO_FILE, cpioArchive } from '../../src/hyperd/guestkernel/cpio.ts';
import { hypervisorConformance } from '../../src/hyperd/vmm/conformance.ts';
import type { Hypervisor, VmSpec } from '../../src/hyperd/vmm/hypervisor.ts';
import { SOCKET_NAMES, blockNode, hotFdset } from '../../src/hyperd/vmm/qemu/argv.ts';
import { detectCgroups, removeCgroupParents } from '../../src/hyperd/vmm/qemu/cgroup.ts';
import { createQemuHypervisor } from '../../src/hyperd/vmm/qemu/driver.ts';
import { connectSocket } from '../../src/hyperd/vmm/qemu/jail.ts';
import { connectQmp } from '../../src/hyperd/vmm/qemu/qmp.ts';
import { namesOf } from '../../src/network/linux/commands.ts';
import { createLinuxNetwork } from '../../src/network/linux/driver.ts';

/*
 * Real VMs: the conformance suite with a guest that boots the product's kernel and modules, the
 * jail round a real emulator, and the count of what is left behind.
 */
const root = join(import.meta.dirname, '../..');
const CGROUP_PARENT = `hypernetes-e2e-${process.pid}`;
// Not those of another run of this file.
const UID_BASE = 1_000_000 + process.pid * 1000;

let base: string;
let kernelPath: string;
let initrdPath: string;
let count = 0;

before(async () => {
  base = await mkdtemp(join(tmpdir(), 'hypernetes-qemu-'));
  await run('make', ['-s', '-C', join(root, 'jail'), `OUT=${join(base, 'hyperjail')}`]);
  const source = join(root, 'test/e2e/support/vm-agent.c');
  const headers = ['-idirafter', '/usr/include', '-idirafter', '/usr/include/x86_64-linux-gnu'];
  await run('musl-gcc', ['-static', '-Os', '-w', '-o', join(base, 'agent'), source, ...headers]);
  const assets = await guestAssets(dataPaths(dataDirectory(undefined)));
  kernelPath = assets.kernelPath;
  initrdPath = join(base, 'initrd');
  // The kernel unpacks archives one after the other: the second replaces /init of the first.
  const init = await readFile(join(base, 'agent'));
  const replacement = cpioArchive([{ path: 'init', mode: CPIO_FILE | 0o755, content: init }]);
  const initrd = Buffer.concat([await readFile(assets.initrdPath), replacement]);
  await writeFile(initrdPath, initrd, { mode: 0o644 });
});

after(async () => {
  await removeCgroupParents(await detectCgroups(CGROUP_PARENT));
  await rm(base, { recursive: true });
});

async function hypervisor(): Promise<Hypervisor> {
  return createQemuHypervisor({
    qemuPath: '/usr/bin/qemu-system-x86_64',
    jailPath: join(base, 'hyperjail'),
    directory: join(base, 'vmm'),
    kernelPath,
    cgroupParent: CGROUP_PARENT,
    exec: execute,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  });
}

async function makeSpec(): Promise<VmSpec> {
  const id = `vm-${process.pid}-${count++}`;
  const directory = join(base, id);
  await mkdir(directory);
  return {
    id,
    directory,
    cpuCount: 1,
    memoryMib: 128,
    kernelPath,
    initrdPath,
    kernelArguments: [],
    disks: [],
    nic: undefined,
    uid: UID_BASE + count,
    limits: { cpuMillis: 0, cpuWeightMillis: 1000, memoryMib: 384, processCount: 64 },
  };
}

async function remains(): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const commandLine = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (commandLine.includes(base)) found.push(`process ${name}`);
    const status = await readFile(`/proc/${name}/status`, 'utf8').catch(() => '');
    const uid = Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
    if (uid >= UID_BASE && uid <= UID_BASE + count) found.push(`process ${name} of ${uid}`);
  }
  for (const { path } of Object.values((await detectCgroups(CGROUP_PARENT)).controllers)) {
    const groups = await readdir(join(path, CGROUP_PARENT));
    found.push(...groups.filter((name) => name.startsWith('vm-')).map((name) => `group ${name}`));
  }
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  if (mounts.includes(base)) found.push('a mount');
  return found;
}

hypervisorConformance('qemu', async () => ({
  hypervisor: await hypervisor(),
  restarted: hypervisor,
  spec: makeSpec,
  templateDirectory: () => mkdtemp(join(base, 'template-')),
  async disk(serial, content) {
    const path = join(base, `disk-${count++}`);
    await writeFile(path, content.padEnd(1 << 20, '\0'), { mode: 0o600 });
    return { serial, path, readOnly: true };
  },
  remains,
  dispose: async () => {},
}));

test('qemu: the emulator is jailed and does its own sandboxing on top', async () => {
  const vm = await (await hypervisor()).create(await makeSpec());
  try {
    const status = await readFile(`/proc/${vm.pid}/status`, 'utf8');
    assert.match(status, new RegExp(`Uid:\\t${UID_BASE + count}\\t`));
    assert.match(status, /CapBnd:\t0+\n/);
    assert.match(status, /NoNewPrivs:\t1\n/);
    assert.match(status, /Seccomp_filters:\t2\n/);
    const sockets = await readFile(`/proc/${vm.pid}/net/dev`, 'utf8');
    assert.equal(sockets.trim().split('\n').length, 3, 'no device but lo');
  } finally {
    await vm.kill();
  }
});

test('qemu: one that dies under its daemon is reported, with its group removed', async () => {
  const vm = await (await hypervisor()).create(await makeSpec());
  process.kill(vm.pid, 'SIGKILL');
  const exit = await vm.exited;
  assert.deepEqual([exit.reason, exit.signal], ['killed', 'SIGKILL']);
  assert.deepEqual(await remains(), []);
});

test('qemu: a disk that its daemon did not live to attach can be attached by the next', async () => {
  const first = await (await hypervisor()).create(await makeSpec());
  const directory = join(base, first.id);
  first.release();
  const serial = 'half';
  const path = join(base, `disk-${count++}`);
  await writeFile(path, 'half'.padEnd(1 << 20, '\0'));
  const disk = { serial, path, readOnly: true };
  const fdset = hotFdset(serial);
  const socket = join(directory, SOCKET_NAMES.attach);
  const attach = ['attach', '--socket', socket, '--fdset', `${fdset}`, '--disk-ro', path];
  const qmp = await connectQmp(await connectSocket(directory, SOCKET_NAMES.monitor));
  await run(join(base, 'hyperjail'), attach);
  await qmp.command('blockdev-add', { ...blockNode(disk, fdset, false) });
  qmp.close();
  await qmp.closed;
  const second = await (await hypervisor()).adopt(directory);
  assert.ok(second);
  try {
    await second.attachDisk(disk);
  } finally {
    await second.kill();
  }
});

test('qemu: what the host cannot do is refused with the reason', async () => {
  const driver = await hypervisor();
  const spec = await makeSpec();
  const nic = { mac: '02:00:00:00:00:01', tap: { netns: 'hnnone', name: 'tap0' } };
  await assert.rejects(driver.create({ ...spec, nic }), /network namespace "\/run\/netns\/hnnone"/);
  const notKernel = { ...spec, kernelPath: join(root, 'package.json') };
  await assert.rejects(driver.create(notKernel), /Cannot start VM/);
  const disks = [{ serial: 'x', path: '/nowhere', readOnly: true }];
  await assert.rejects(driver.create({ ...spec, disks }), { reason: 'Invalid' });
  assert.deepEqual(await remains(), []);
});

test('qemu: a disk that fills up while a template is saved is told, and the VM can be ended', async () => {
  const directory = await mkdtemp(join(base, 'template-'));
  const spec = await makeSpec();
  // Room for the memory, and not for the state of the devices.
  const size = `${spec.memoryMib * 1024 + 4}k`;
  await run('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=700`, 'template', directory]);
  try {
    const template = { role: 'source', directory } as const;
    const vm = await (await hypervisor()).create({ ...spec, template });
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
  const driver = await hypervisor();
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
    const spec = await makeSpec();
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
  assert.deepEqual(await remains(), [], `seed ${seed}`);
  assert.deepEqual(await counted(), [], `seed ${seed}`);
});
