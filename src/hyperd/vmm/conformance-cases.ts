import assert from 'node:assert/strict';
import { copyFile, readdir, rename, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { connectAgent } from './conformance-agent.ts';
import type { ConformanceAgent } from './conformance-agent.ts';
import type { DiskSpec, Hypervisor, HypervisorCapability, Vm, VmSpec } from './hypervisor.ts';

/**
 * What every hypervisor promises, as functions that throw where a promise is broken: the tests run
 * them on each driver, and `hypernetes doctor` on the machine that it is called on.
 */
export interface ConformanceCase {
  name: string;
  /** Not run against a driver that does not declare them. */
  needs: HypervisorCapability[];
  /** @throws Error, an AssertionError mostly, that says what is not as promised */
  run(under: HypervisorUnderTest, signal: AbortSignal): Promise<void>;
}

/**
 * What a case works with. Inside the guest it expects an agent that answers each line on the control
 * port:
 *
 *     ECHO text   -> ECHO text
 *     DISK serial -> DISK and the first 16 bytes of that disk, waiting until it is there
 *     KEEP text   -> KEEP text, and remembers it
 *     KEPT        -> KEPT and what it remembers, also in clones
 *     OFF         powers off
 *     PANIC       makes the kernel panic
 */
export interface HypervisorUnderTest {
  hypervisor: Hypervisor;
  /** A daemon started anew that finds the VMs of the first. */
  restarted(): Promise<Hypervisor>;
  /** A specification with an existing directory and an unused id. */
  spec(): Promise<VmSpec>;
  /** An empty directory for a template. */
  templateDirectory(): Promise<string>;
  /** A disk whose first 16 bytes are `content`. */
  disk(serial: string, content: string): Promise<DiskSpec>;
  /** What is left on the host of all VMs: processes, groups. Empty when all is well. */
  remains(): Promise<string[]>;
  /** Ends what a case that failed has left, and removes the files. */
  dispose(): Promise<void>;
}

const INVALID = { name: 'HypervisorError', reason: 'Invalid' };
const FAILED = { name: 'HypervisorError', reason: 'Failed' };
const GONE = { name: 'HypervisorError', reason: 'Gone' };
const UNSUPPORTED = { name: 'HypervisorError', reason: 'Unsupported' };

async function saysWhatItFound({ hypervisor }: HypervisorUnderTest, signal: AbortSignal) {
  const info = await hypervisor.probe(signal);
  assert.ok(info.version !== '');
  assert.equal(info.acceleratorReason === '', info.accelerator === 'kvm');
  assert.deepEqual(await hypervisor.probe(signal), info);
}

async function bootsAnswersAndIsKilled(under: HypervisorUnderTest, signal: AbortSignal) {
  const spec = await under.spec();
  spec.disks = [await under.disk('boot1', 'first disk......')];
  const vm = await under.hypervisor.create(spec, signal);
  assert.equal(vm.id, spec.id);
  let agent = await connectAgent(vm, signal);
  assert.equal(await agent.ask('ECHO hello'), 'ECHO hello');
  assert.equal(await agent.ask('DISK boot1'), 'DISK first disk......');
  await takesAndGivesUpDisks(under, vm, agent);
  await agent.close();
  agent = await connectAgent(vm, signal);
  assert.equal(await agent.ask('ECHO back again'), 'ECHO back again');
  const stats = await vm.stats();
  assert.ok(stats.cpuNanos >= 0 && stats.rssBytes > 0);
  const { limits } = spec;
  await vm.setLimits({ ...limits, cpuMillis: 900, cpuWeightMillis: 500 });
  await assert.rejects(vm.setLimits({ ...limits, cpuMillis: -1 }), INVALID);
  await vm.setLimits(limits);
  await pausesAndGoesOn(under, vm, agent);
  await vm.kill();
  const exit = await vm.exited;
  assert.deepEqual([exit.reason, exit.signal], ['killed', 'SIGKILL']);
  await vm.kill();
  await assert.rejects(vm.connectControl(), GONE);
  await assert.rejects(vm.stats(), GONE);
  await assert.rejects(vm.setLimits(limits), GONE);
  if (can(under, 'disk-hotplug')) {
    await assert.rejects(vm.attachDisk(await under.disk('late1', 'too late........')), GONE);
  }
  assert.deepEqual(await under.remains(), []);
}

async function takesAndGivesUpDisks(
  under: HypervisorUnderTest,
  vm: Vm,
  agent: ConformanceAgent,
): Promise<void> {
  const extra = await under.disk('extra1', 'second disk.....');
  if (!can(under, 'disk-hotplug')) {
    await assert.rejects(vm.attachDisk(extra), UNSUPPORTED);
    await assert.rejects(vm.detachDisk('extra1'), UNSUPPORTED);
    return;
  }
  await vm.attachDisk(extra);
  await vm.attachDisk(extra);
  assert.equal(await agent.ask('DISK extra1'), 'DISK second disk.....');
  await assert.rejects(vm.detachDisk('boot1'), INVALID);
  await vm.detachDisk('extra1');
  await vm.detachDisk('extra1');
  await vm.attachDisk(await under.disk('extra1', 'other content...'));
  assert.equal(await agent.ask('DISK extra1'), 'DISK other content...');
}

async function pausesAndGoesOn(
  under: HypervisorUnderTest,
  vm: Vm,
  agent: ConformanceAgent,
): Promise<void> {
  if (!can(under, 'pause')) {
    await assert.rejects(vm.pause(), UNSUPPORTED);
    await assert.rejects(vm.resume(), UNSUPPORTED);
    return;
  }
  await vm.pause();
  await vm.resume();
  assert.equal(await agent.ask('ECHO resumed'), 'ECHO resumed');
}

async function isAdoptedAndSeenToPowerOff(under: HypervisorUnderTest, signal: AbortSignal) {
  const hotplug = can(under, 'disk-hotplug');
  const spec = await under.spec();
  spec.disks = [await under.disk('boot1', 'first disk......')];
  const first = await under.hypervisor.create(spec, signal);
  const agent = await connectAgent(first, signal);
  await agent.ask('ECHO booted');
  if (hotplug) await first.attachDisk(await under.disk('kept1', 'kept disk.......'));
  await agent.close();
  first.release();
  const vm = await (await under.restarted()).adopt(spec.directory, signal);
  assert.ok(vm !== undefined);
  assert.equal(vm.pid, first.pid);
  const second = await connectAgent(vm, signal);
  assert.equal(await second.ask('DISK boot1'), 'DISK first disk......');
  if (hotplug) {
    assert.equal(await second.ask('DISK kept1'), 'DISK kept disk.......');
    await vm.attachDisk(await under.disk('more1', 'one disk more...'));
    assert.equal(await second.ask('DISK more1'), 'DISK one disk more...');
    await vm.detachDisk('kept1');
  }
  second.tell('OFF');
  assert.equal((await vm.exited).reason, 'powered-off');
  assert.deepEqual(await under.remains(), []);
  const late = await (await under.restarted()).adopt(spec.directory, signal);
  assert.equal((await late?.exited)?.reason, 'powered-off');
}

const NIC = { mac: '02:00:00:00:00:01' };

async function clonesOfSourceGoOn(under: HypervisorUnderTest, signal: AbortSignal) {
  const directory = await under.templateDirectory();
  await saveSource(under, directory, signal);
  await clonesGoOnEachByItself(under, directory, 'before', signal);
}

async function clonesOfHeirGoOn(under: HypervisorUnderTest, signal: AbortSignal) {
  const directory = await under.templateDirectory();
  await saveSource(under, directory, signal);
  await saveHeir(under, directory, signal);
  await clonesGoOnEachByItself(under, directory, 'later', signal);
}

async function clonesGoOnEachByItself(
  under: HypervisorUnderTest,
  directory: string,
  kept: string,
  signal: AbortSignal,
) {
  const { hypervisor } = under;
  const template = { role: 'clone', directory } as const;
  const specs = [await under.spec(), await under.spec()];
  const clones: Vm[] = [];
  for (const [i, spec] of specs.entries()) {
    const clone = await hypervisor.create({ ...spec, nic: NIC, template }, signal);
    await assert.rejects(clone.saveTemplate(), INVALID);
    clones.push(clone);
    const agent = await connectAgent(clone, signal);
    assert.equal(await agent.ask('KEPT'), `KEPT ${kept}`);
    assert.equal(await agent.ask(`KEEP after${i}`), `KEEP after${i}`);
    await agent.close();
  }
  for (const [i, clone] of clones.entries()) {
    const limits = { ...(specs[i] as VmSpec).limits, memoryMib: 512 };
    if (can(under, 'pause')) await clone.pause();
    await clone.setLimits(limits);
    if (can(under, 'pause')) await clone.resume();
    const agent = await connectAgent(clone, signal);
    assert.equal(await agent.ask('KEPT'), `KEPT after${i}`);
    if (can(under, 'disk-hotplug')) {
      await clone.attachDisk(await under.disk('late1', `disk of ${i}.......`));
      assert.equal(await agent.ask('DISK late1'), `DISK disk of ${i}.......`.slice(0, 21));
    }
    await agent.close();
  }
  const [first, second] = clones as [Vm, Vm];
  first.release();
  const { limits, ...spec } = specs[0] as VmSpec;
  const adopted = await (await under.restarted()).adopt(spec.directory, signal);
  assert.ok(adopted !== undefined);
  const agent = await connectAgent(adopted, signal);
  assert.equal(await agent.ask('KEPT'), 'KEPT after0');
  if (can(under, 'disk-hotplug')) {
    assert.equal(await agent.ask('DISK late1'), 'DISK disk of 0.......'.slice(0, 21));
  }
  await agent.close();
  await assert.rejects(adopted.setLimits({ ...limits, memoryMib: 1 }), INVALID);
  await adopted.kill();
  await second.kill();
  assert.deepEqual(await under.remains(), []);
}

async function saveSource(
  under: HypervisorUnderTest,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  const role = { role: 'source', directory } as const;
  const source: VmSpec = { ...(await under.spec()), nic: NIC, template: role };
  const original = await under.hypervisor.create(source, signal);
  const agent = await connectAgent(original, signal);
  assert.equal(await agent.ask('KEEP before'), 'KEEP before');
  await agent.close();
  await original.saveTemplate(signal);
  await assert.rejects(original.saveTemplate(signal), GONE);
}

async function saveHeir(
  under: HypervisorUnderTest,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  const template = { role: 'heir', directory } as const;
  const heir = await under.hypervisor.create(
    { ...(await under.spec()), nic: NIC, template },
    signal,
  );
  const agent = await connectAgent(heir, signal);
  assert.equal(await agent.ask('KEPT'), 'KEPT before');
  assert.equal(await agent.ask('KEEP later'), 'KEEP later');
  await agent.close();
  await heir.saveTemplate(signal);
  await assert.rejects(heir.saveTemplate(signal), GONE);
}

async function brokenTemplateStartsNothing(under: HypervisorUnderTest, signal: AbortSignal) {
  const directory = await under.templateDirectory();
  await saveSource(under, directory, signal);
  await refusesWhatIsNotWhole(under, directory, signal);
  await saveHeir(under, directory, signal);
  await refusesWhatIsNotWhole(under, directory, signal);
  assert.deepEqual(await under.remains(), []);
}

async function refusesWhatIsNotWhole(
  under: HypervisorUnderTest,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  const { hypervisor } = under;
  const names = await readdir(directory);
  assert.notEqual(names.length, 0);
  for (const name of names) {
    const path = join(directory, name);
    await copyFile(path, `${path}.whole`);
    await truncate(path, 7);
    const template = { role: 'clone', directory } as const;
    const spec = { ...(await under.spec()), nic: NIC, template };
    await assert.rejects(hypervisor.create(spec, signal), FAILED, name);
    await rename(`${path}.whole`, path);
  }
}

async function panicIsToldFromOrderlyEnd(under: HypervisorUnderTest, signal: AbortSignal) {
  const spec = await under.spec();
  const vm = await under.hypervisor.create(spec, signal);
  const agent = await connectAgent(vm, signal);
  await agent.ask('ECHO booted');
  agent.tell('PANIC');
  const exit = await vm.exited;
  assert.equal(exit.reason, 'panicked');
  assert.match(exit.message, /panic/i);
  assert.match(await vm.consoleTail(8192), /Kernel panic - not syncing/);
  const late = await (await under.restarted()).adopt(spec.directory, signal);
  assert.equal((await late?.exited)?.reason, 'panicked');
  assert.deepEqual(await under.remains(), []);
}

async function isDestroyedWithoutAHolder(under: HypervisorUnderTest, signal: AbortSignal) {
  const { hypervisor } = under;
  const spec = await under.spec();
  (await hypervisor.create(spec, signal)).release();
  await hypervisor.destroy(spec.directory);
  assert.deepEqual(await under.remains(), []);
  await hypervisor.destroy(spec.directory);
  await hypervisor.destroy(`${spec.directory}/nothing`);
  const late = await (await under.restarted()).adopt(spec.directory, signal);
  assert.equal((await late?.exited)?.reason, 'killed');
}

async function whatCannotStartLeavesNothing(under: HypervisorUnderTest, signal: AbortSignal) {
  const { hypervisor } = under;
  const spec = await under.spec();
  await assert.rejects(hypervisor.create({ ...spec, uid: 0 }, signal), INVALID);
  await assert.rejects(hypervisor.create({ ...spec, memoryMib: 1 }, signal), INVALID);
  await assert.rejects(hypervisor.create({ ...spec, id: '../../etc' }, signal), INVALID);
  await assert.rejects(hypervisor.create({ ...spec, kernelArguments: ['a\nb'] }, signal), INVALID);
  if (!can(under, 'template')) {
    const directory = await under.templateDirectory();
    for (const role of ['source', 'heir', 'clone'] as const) {
      const use = { ...spec, template: { role, directory } };
      await assert.rejects(hypervisor.create(use, signal), UNSUPPORTED);
    }
  }
  const aborted = AbortSignal.abort(new Error('enough'));
  await assert.rejects(hypervisor.create(spec, aborted), /enough/);
  assert.equal(await hypervisor.adopt(`${spec.directory}/nothing`, signal), undefined);
  assert.deepEqual(await under.remains(), []);
}

function can({ hypervisor }: HypervisorUnderTest, capability: HypervisorCapability): boolean {
  return hypervisor.capabilities.has(capability);
}

/** In the order in which they are run. What one leaves behind the next one finds. */
export const CONFORMANCE_CASES: readonly ConformanceCase[] = [
  { name: 'probe() says what it found, twice the same', needs: [], run: saysWhatItFound },
  {
    name: 'a VM boots, answers, does what its driver declares and no more, and is killed',
    needs: [],
    run: bootsAnswersAndIsKilled,
  },
  {
    name: 'a restarted daemon adopts a VM with its disks, and sees it power off',
    needs: [],
    run: isAdoptedAndSeenToPowerOff,
  },
  {
    name: 'clones of a template go on where its source was saved, each by itself',
    needs: ['template'],
    run: clonesOfSourceGoOn,
  },
  {
    name: 'an heir goes on with the template itself, and clones where the heir was saved',
    needs: ['template'],
    run: clonesOfHeirGoOn,
  },
  {
    name: 'a template that is not whole starts nothing',
    needs: ['template'],
    run: brokenTemplateStartsNothing,
  },
  {
    name: 'a panic is told from an orderly end, also by who comes late',
    needs: [],
    run: panicIsToldFromOrderlyEnd,
  },
  {
    name: 'destroy() ends what nobody holds, and what is not there is fine',
    needs: [],
    run: isDestroyedWithoutAHolder,
  },
  {
    name: 'what cannot start leaves nothing and says why',
    needs: [],
    run: whatCannotStartLeavesNothing,
  },
];
