import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { createFakeNetwork } from '../../network/fake.ts';
import { createFakeHypervisor } from '../vmm/fake/fake.ts';
import type { FakeHypervisor, FakeStep } from '../vmm/fake/fake.ts';
import { createScriptedGuest } from '../daemon/testing/guest.fake.ts';
import type { ScriptedGuest } from '../daemon/testing/guest.fake.ts';
import { openSupply } from './index.ts';
import { makeVmDirectory, vmPaths } from './paths.ts';
import type { VmShape } from './shape.ts';
import type { StartedVm, VmSupply } from './supply.ts';
import { createUids } from './uids.ts';

/** Where VMs come from when something is wrong with the better ways: always from somewhere. */
let directory: string;
let hypervisor: FakeHypervisor;
let supply: VmSupply;
let fault: (step: FakeStep, vmId: string) => Promise<Error | undefined>;
let count = 0;

const SHAPE: VmShape = {
  ...{ owner: 'a', cpuCount: 1, memoryMib: 128 },
  ...{ kernelPath: '/bin/sh', initrdPath: '', kernelArguments: [] },
};
const REQUEST = { shape: SHAPE, network: null, scratchMib: 16 };
const LIMITS = { cpuMillis: 0, cpuWeightMillis: 100, memoryMib: 256, processCount: 64 };

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'supply-'));
  const program = join(directory, 'hyperstart');
  await writeFile(program, 'pretended');
  fault = async () => undefined;
  const guests = new Map<string, ScriptedGuest>();
  hypervisor = createFakeHypervisor({
    clock: systemClock,
    boot: (vm) => void guests.set(vm.spec.id, createScriptedGuest(vm)),
    agent: (connection, vm) => void connection.resume().write(vm.spec.id),
    fault: (step, vmId) => fault(step, vmId),
  });
  const random = seededRandom(1);
  supply = await openSupply({
    ...{ directory, vmsDirectory: join(directory, 'vms'), hypervisor, random },
    ...{ clock: systemClock, log: silentLog, uids: createUids(random) },
    network: createFakeNetwork({ random }),
    rehearsalProgramPath: program,
    policy: { kind: 'fixed', count: 1, memoryMib: 1024 },
    async connectAgent(connection, options) {
      const [id] = (await once(connection, 'data')) as [Buffer];
      const guest = guests.get(id.toString()) ?? assert.fail();
      const agent = guest.open(connection, options);
      // The program of the rehearsal has nothing to do and ends.
      const startContainer: typeof agent.startContainer = async (spec) => {
        await agent.startContainer(spec);
        await guest.exit(spec.id, 0);
      };
      return { ...agent, startContainer };
    },
  });
});
afterEach(async () => {
  await supply.close();
  await rm(directory, { recursive: true });
});

async function start(): Promise<StartedVm> {
  const id = `pod-${count++}`;
  const paths = vmPaths(join(directory, 'vms'), id);
  await makeVmDirectory(paths);
  const spec = {
    ...{ id, directory: paths.vm, cpuCount: 1, memoryMib: 128, disks: [], nic: undefined },
    ...{ kernelPath: '/bin/sh', initrdPath: '', kernelArguments: [], uid: 70_000 + count },
    limits: LIMITS,
  };
  const life = new AbortController();
  return supply.start(spec, SHAPE, Promise.resolve(), life.signal);
}

async function until(holds: () => boolean): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + 10_000;
  while (!holds()) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, JSON.stringify(supply.templates()));
    await systemClock.sleep(5);
  }
}

const isReady = () => supply.templates()[0]?.phase === 'ready';

test('a template that is deleted under a restore is none: the VM boots, and there is another', async () => {
  assert.equal((await start()).origin, 'cold');
  await until(isReady);
  assert.equal((await start()).origin, 'template');
  const [id = ''] = await readdir(join(directory, 'templates'));
  // It was whole when it was found; the emulator does not find it any more.
  fault = async (step, vmId) => {
    if (step === 'create' && vmId.startsWith('pod-')) {
      await rm(join(directory, 'templates', id), { recursive: true, force: true });
    }
    return undefined;
  };
  const fallen = await start();
  assert.equal(fallen.origin, 'cold');
  assert.ok(hypervisor.running.has(fallen.vm.id));
  fault = async () => undefined;
  await until(isReady);
  assert.equal((await start()).origin, 'template');
});

test('removeTemplate() while a VM starts from it does the same', async () => {
  await start();
  await until(isReady);
  fault = async (step, vmId) => {
    const [template] = supply.templates();
    if (step === 'create' && vmId.startsWith('pod-') && template) {
      await supply.removeTemplate(template.id);
    }
    return undefined;
  };
  assert.equal((await start()).origin, 'cold');
});

test('a full disk while a template is saved: VMs boot, it says why, and nothing is left', async () => {
  fault = async (step) =>
    step === 'saveTemplate' ? new Error('ENOSPC: no space left on device') : undefined;
  assert.equal((await start()).origin, 'cold');
  await until(() => supply.templates()[0]?.phase === 'resting');
  assert.match(supply.templates()[0]?.message ?? '', /no space left on device/);
  assert.deepEqual(await readdir(join(directory, 'templates')), []);
  assert.equal((await start()).origin, 'cold');
  assert.deepEqual(
    (await readdir(join(directory, 'vms'))).filter((id) => /^templ/.test(id)),
    [],
  );
});

test('what waits for pods weighs least until it is taken', async () => {
  await start();
  await until(isReady);
  await supply.takeWarm(REQUEST, LIMITS);
  await until(() => supply.pools()[0]?.waiting === 1);
  const [waiting] = [...hypervisor.running.values()].filter(({ paused }) => paused);
  assert.equal(waiting?.limits.cpuWeightMillis, 0);
  const warm = await supply.takeWarm(REQUEST, LIMITS);
  assert.equal(warm?.id, waiting?.guest.spec.id);
  assert.equal(waiting?.paused, false);
  assert.deepEqual(waiting?.limits, LIMITS);
});
