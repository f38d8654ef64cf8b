import assert from 'node:assert/strict';
import { once } from 'node:events';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ControlConnection, DiskSpec, Hypervisor, Vm, VmSpec } from './hypervisor.ts';

/**
 * What the suite expects inside the guest: an agent that answers each line on the control port.
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
  dispose(): Promise<void>;
}

/** What every hypervisor promises. All tests share what `make` gives, as VMs boot slowly. */
export function hypervisorConformance(
  name: string,
  make: () => Promise<HypervisorUnderTest>,
): void {
  test(`${name} hypervisor`, async (t) => {
    const under = await make();
    const { hypervisor } = under;
    t.after(() => under.dispose());

    await t.test('probe() says what it found, twice the same', async () => {
      const info = await hypervisor.probe();
      assert.ok(info.version !== '');
      assert.equal(info.acceleratorReason === '', info.accelerator === 'kvm');
      assert.deepEqual(await hypervisor.probe(), info);
    });

    await t.test('a VM boots, answers, takes and gives up disks, and is killed', async () => {
      const spec = await under.spec();
      spec.disks = [await under.disk('boot1', 'first disk......')];
      const vm = await hypervisor.create(spec);
      assert.equal(vm.id, spec.id);
      let agent = await connectAgent(vm);
      assert.equal(await agent.ask('ECHO hello'), 'ECHO hello');
      assert.equal(await agent.ask('DISK boot1'), 'DISK first disk......');
      const extra = await under.disk('extra1', 'second disk.....');
      await vm.attachDisk(extra);
      await vm.attachDisk(extra);
      assert.equal(await agent.ask('DISK extra1'), 'DISK second disk.....');
      await assert.rejects(vm.detachDisk('boot1'), { name: 'HypervisorError', reason: 'Invalid' });
      await vm.detachDisk('extra1');
      await vm.detachDisk('extra1');
      const again = await under.disk('extra1', 'other content...');
      await vm.attachDisk(again);
      assert.equal(await agent.ask('DISK extra1'), 'DISK other content...');
      await agent.close();
      agent = await connectAgent(vm);
      assert.equal(await agent.ask('ECHO back again'), 'ECHO back again');
      const stats = await vm.stats();
      assert.ok(stats.cpuNanos >= 0 && stats.rssBytes > 0);
      const { limits } = spec;
      await vm.setLimits({ ...limits, cpuMillis: 900, cpuWeightMillis: 500 });
      await assert.rejects(vm.setLimits({ ...limits, cpuMillis: -1 }), { reason: 'Invalid' });
      await vm.setLimits(limits);
      await vm.pause();
      await vm.resume();
      assert.equal(await agent.ask('ECHO resumed'), 'ECHO resumed');
      await vm.kill();
      const exit = await vm.exited;
      assert.deepEqual([exit.reason, exit.signal], ['killed', 'SIGKILL']);
      await vm.kill();
      await assert.rejects(vm.connectControl(), { name: 'HypervisorError', reason: 'Gone' });
      await assert.rejects(vm.attachDisk(extra), { name: 'HypervisorError', reason: 'Gone' });
      await assert.rejects(vm.stats(), { name: 'HypervisorError', reason: 'Gone' });
      await assert.rejects(vm.setLimits(limits), { name: 'HypervisorError', reason: 'Gone' });
      assert.deepEqual(await under.remains(), []);
    });

    await t.test(
      'a restarted daemon adopts a VM with its disks, and sees it power off',
      async () => {
        const spec = await under.spec();
        const first = await hypervisor.create(spec);
        const agent = await connectAgent(first);
        await agent.ask('ECHO booted');
        await first.attachDisk(await under.disk('kept1', 'kept disk.......'));
        await agent.close();
        first.release();
        const vm = await (await under.restarted()).adopt(spec.directory);
        assert.ok(vm !== undefined);
        assert.equal(vm.pid, first.pid);
        const second = await connectAgent(vm);
        assert.equal(await second.ask('DISK kept1'), 'DISK kept disk.......');
        await vm.attachDisk(await under.disk('more1', 'one disk more...'));
        assert.equal(await second.ask('DISK more1'), 'DISK one disk more...');
        await vm.detachDisk('kept1');
        second.tell('OFF');
        assert.equal((await vm.exited).reason, 'powered-off');
        assert.deepEqual(await under.remains(), []);
        const late = await (await under.restarted()).adopt(spec.directory);
        assert.equal((await late?.exited)?.reason, 'powered-off');
      },
    );

    await t.test('clones of a template go on where it was saved, each by itself', async (each) => {
      if (!hypervisor.capabilities.has('template')) return each.skip('it cannot save VMs');
      const template = { role: 'clone', directory: await under.templateDirectory() } as const;
      const nic = { mac: '02:00:00:00:00:01' };
      const source = { ...(await under.spec()), nic, template: { ...template, role: 'source' } };
      const original = await hypervisor.create(source as VmSpec);
      let agent = await connectAgent(original);
      assert.equal(await agent.ask('KEEP before'), 'KEEP before');
      await agent.close();
      await original.saveTemplate();
      await assert.rejects(original.saveTemplate(), { reason: 'Gone' });
      const specs = [await under.spec(), await under.spec()];
      const clones: Vm[] = [];
      for (const [i, spec] of specs.entries()) {
        const clone = await hypervisor.create({ ...spec, nic, template });
        await assert.rejects(clone.saveTemplate(), { name: 'HypervisorError', reason: 'Invalid' });
        clones.push(clone);
        agent = await connectAgent(clone);
        assert.equal(await agent.ask('KEPT'), 'KEPT before');
        assert.equal(await agent.ask(`KEEP after${i}`), `KEEP after${i}`);
        await agent.close();
      }
      for (const [i, clone] of clones.entries()) {
        await clone.pause();
        await clone.setLimits({ ...(specs[i] as VmSpec).limits, memoryMib: 512 });
        await clone.resume();
        await clone.attachDisk(await under.disk('late1', `disk of ${i}.......`));
        agent = await connectAgent(clone);
        assert.equal(await agent.ask('KEPT'), `KEPT after${i}`);
        assert.equal(await agent.ask('DISK late1'), `DISK disk of ${i}.......`.slice(0, 21));
        await agent.close();
      }
      const [first, second] = clones as [Vm, Vm];
      first.release();
      const adopted = await (await under.restarted()).adopt((specs[0] as VmSpec).directory);
      agent = await connectAgent(adopted as Vm);
      assert.equal(await agent.ask('DISK late1'), 'DISK disk of 0.......'.slice(0, 21));
      await agent.close();
      assert.ok(adopted !== undefined);
      const tooLittle = { ...(specs[0] as VmSpec).limits, memoryMib: 1 };
      await assert.rejects(adopted.setLimits(tooLittle), { reason: 'Invalid' });
      await adopted.kill();
      await second.kill();
      await assert.rejects(second.setLimits((specs[1] as VmSpec).limits), { reason: 'Gone' });
      assert.deepEqual(await under.remains(), []);
    });

    await t.test('a template that is not whole starts nothing', async (each) => {
      if (!hypervisor.capabilities.has('template')) return each.skip('it cannot save VMs');
      const directory = await under.templateDirectory();
      const source = { role: 'source', directory } as const;
      const original = await hypervisor.create({ ...(await under.spec()), template: source });
      await original.saveTemplate();
      await truncate(join(directory, 'state'), 7);
      const spec = { ...(await under.spec()), template: { role: 'clone', directory } as const };
      await assert.rejects(hypervisor.create(spec), { name: 'HypervisorError', reason: 'Failed' });
      assert.deepEqual(await under.remains(), []);
    });

    await t.test('a panic is told from an orderly end, also by who comes late', async () => {
      const spec = await under.spec();
      const vm = await hypervisor.create(spec);
      const agent = await connectAgent(vm);
      await agent.ask('ECHO booted');
      agent.tell('PANIC');
      const exit = await vm.exited;
      assert.equal(exit.reason, 'panicked');
      assert.match(exit.message, /panic/i);
      assert.match(await vm.consoleTail(8192), /Kernel panic - not syncing/);
      const late = await (await under.restarted()).adopt(spec.directory);
      assert.equal((await late?.exited)?.reason, 'panicked');
      assert.deepEqual(await under.remains(), []);
    });

    await t.test('destroy() ends what nobody holds, and what is not there is fine', async () => {
      const spec = await under.spec();
      (await hypervisor.create(spec)).release();
      await hypervisor.destroy(spec.directory);
      assert.deepEqual(await under.remains(), []);
      await hypervisor.destroy(spec.directory);
      await hypervisor.destroy(`${spec.directory}/nothing`);
      const late = await (await under.restarted()).adopt(spec.directory);
      assert.equal((await late?.exited)?.reason, 'killed');
    });

    await t.test('what cannot start leaves nothing and says why', async () => {
      const spec = await under.spec();
      const invalid = { name: 'HypervisorError', reason: 'Invalid' };
      await assert.rejects(hypervisor.create({ ...spec, uid: 0 }), invalid);
      await assert.rejects(hypervisor.create({ ...spec, memoryMib: 1 }), invalid);
      await assert.rejects(hypervisor.create({ ...spec, id: '../../etc' }), invalid);
      await assert.rejects(hypervisor.create({ ...spec, kernelArguments: ['a\nb'] }), invalid);
      const aborted = AbortSignal.abort(new Error('enough'));
      await assert.rejects(hypervisor.create(spec, aborted), /enough/);
      assert.equal(await hypervisor.adopt(`${spec.directory}/nothing`), undefined);
      assert.deepEqual(await under.remains(), []);
    });
  });
}

interface TestAgent {
  ask(line: string): Promise<string>;
  tell(line: string): void;
  close(): Promise<void>;
}

async function connectAgent(vm: Vm): Promise<TestAgent> {
  const connection: ControlConnection = await vm.connectControl();
  let buffer = '';
  let wake: (() => void) | undefined;
  connection.on('data', (chunk: Buffer) => {
    buffer += chunk.toString('utf8');
    wake?.();
  });
  connection.on('error', () => {});
  connection.on('close', () => wake?.());
  const tell = (line: string) => void connection.write(`${line}\n`);
  return {
    tell,
    async ask(line) {
      tell(line);
      for (;;) {
        const end = buffer.indexOf('\n');
        if (end >= 0) {
          const answer = buffer.slice(0, end);
          buffer = buffer.slice(end + 1);
          return answer;
        }
        assert.ok(!connection.destroyed, `the VM ended before it answered ${line}`);
        await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    async close() {
      const closed = once(connection, 'close');
      connection.destroy();
      await closed;
    },
  };
}
