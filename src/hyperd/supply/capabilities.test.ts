import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { createFakeNetwork } from '../../network/fake.ts';
import { createFakeHypervisor } from '../vmm/fake/fake.ts';
import type { FakeHypervisor } from '../vmm/fake/fake.ts';
import { specIn } from '../vmm/fake/harness.fake.ts';
import { openSupply } from './index.ts';
import type { VmRequest, VmSupply } from './supply.ts';
import { createUids } from './uids.ts';

const LIMITS = { cpuMillis: 0, cpuWeightMillis: 100, memoryMib: 256, processCount: 64 };

let directory: string;
let hypervisor: FakeHypervisor;
let request: VmRequest;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'supply-'));
  hypervisor = createFakeHypervisor({ clock: systemClock });
  const kernelPath = join(directory, 'vmlinux');
  await writeFile(kernelPath, '');
  const shape = { owner: 'a', cpuCount: 1, memoryMib: 128, kernelPath, initrdPath: '' };
  request = { shape: { ...shape, kernelArguments: [] }, network: null, scratchMib: 1 };
});

afterEach(() => rm(directory, { recursive: true }));

function open(): Promise<VmSupply> {
  const random = seededRandom(1);
  return openSupply({
    ...{ hypervisor, random, clock: systemClock, log: silentLog },
    ...{ directory: join(directory, 'supply'), vmsDirectory: join(directory, 'vms') },
    network: createFakeNetwork({ random }),
    uids: createUids(random),
    connectAgent: async () => {
      throw new Error('There is no guest');
    },
    rehearsalProgramPath: join(directory, 'vmlinux'),
    policy: { kind: 'fixed', count: 1, memoryMib: 1024 },
  });
}

test('what a hypervisor cannot do the supply does without', async () => {
  const wants = async () => {
    const supply = await open();
    try {
      assert.equal(await supply.takeWarm(request, LIMITS), undefined);
      return supply.pools().map(({ wanted }) => wanted);
    } finally {
      await supply.close();
    }
  };
  assert.deepEqual(await wants(), [1]);
  hypervisor.capabilities.delete('pause');
  assert.deepEqual(await wants(), [], 'nothing waits that cannot stand still');

  hypervisor.capabilities.delete('template');
  const supply = await open();
  const spec = specIn(directory, 'vm');
  const { signal } = new AbortController();
  const { vm, origin } = await supply.start(spec, request.shape, Promise.resolve(), signal);
  assert.equal(origin, 'cold');
  assert.deepEqual(supply.templates(), []);
  await vm.kill();
  await supply.close();
});
