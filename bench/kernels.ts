import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../src/base/clock.ts';
import { silentLog } from '../src/base/log.ts';
import { nameSuffix, systemRandom } from '../src/base/random.ts';
import type { DataPaths } from '../src/cli/config.ts';
import { readConfig } from '../src/cli/data.ts';
import { openHypervisor } from '../src/cli/hypervisor.ts';
import { openKernels } from '../src/cli/kernel/store.ts';
import { connectAgent } from '../src/hyperd/agent/client.ts';
import type { KernelStore } from '../src/hyperd/guestkernel/store.ts';
import type { Hypervisor } from '../src/hyperd/vmm/hypervisor.ts';
import { pssMib } from './memory.ts';
import { describeMachine, series } from './report.ts';
import type { BenchReport } from './report.ts';

const COUNT = 10;
const MEMORY_MIB = 128;
const BENCH_UID = 64_997;
/** What a start has begun in the background comes to an end, before memory is looked at. */
const SETTLE_MS = 1_500;

interface Sample {
  helloMs: number;
  kernelMs: number;
  pssMib: number;
}

/**
 * Cold starts of each of the node's kernels in turn, in the jail, until hyperstart answers; and the
 * memory of the emulator after that. Other pods of the machine disturb it: none should run.
 */
export async function benchKernels(paths: DataPaths, count = COUNT): Promise<BenchReport> {
  const store = await openKernels(paths);
  const names = (await store.list()).flatMap((kernel) => kernel.names.slice(0, 1));
  const directory = await mkdtemp(join(paths.kernels, `.new-${process.pid}-`));
  const parent = `hypernetes-bench-${process.pid}`;
  const machine = (await readConfig(paths))?.machine ?? 'microvm';
  const place = join(directory, 'vmm');
  const hypervisor = await openHypervisor(paths, machine, parent, undefined, place);
  const samples = new Map(names.map((name): [string, Sample[]] => [name, []]));
  try {
    const { accelerator } = await hypervisor.probe();
    for (let index = 0; index < count; index += 1) {
      for (const name of names) {
        const place = join(directory, `${name}-${index}`);
        samples.get(name)?.push(await startOnce(hypervisor, store, name, place));
      }
    }
    return {
      name: 'kernels',
      machine: describeMachine(accelerator),
      series: [...samples].flatMap(([name, list]) => [
        series(
          `${name}: start to hello`,
          list.map(({ helloMs }) => helloMs),
        ),
        series(
          `${name}: kernel until PID 1, by its own clock`,
          list.map(({ kernelMs }) => kernelMs),
        ),
        series(
          `${name}: PSS of the emulator`,
          list.map(({ pssMib }) => pssMib),
          'MiB',
        ),
      ]),
      notes: [
        `VMs of ${MEMORY_MIB} MiB and one CPU, without disks and network, on ${hypervisor.name}.`,
      ],
    };
  } finally {
    await hypervisor.close();
    await rm(directory, { recursive: true, force: true });
  }
}

async function startOnce(
  hypervisor: Hypervisor,
  store: KernelStore,
  name: string,
  place: string,
): Promise<Sample> {
  await mkdir(join(place, 'vm'), { recursive: true, mode: 0o711 });
  const files = await store.acquire(name, place);
  const startMs = systemClock.monotonicMs();
  const vm = await hypervisor.create({
    id: `bench-${nameSuffix(systemRandom, 8)}`,
    directory: join(place, 'vm'),
    cpuCount: 1,
    memoryMib: MEMORY_MIB,
    ...files,
    disks: [],
    nic: undefined,
    uid: BENCH_UID,
    limits: { cpuMillis: 0, cpuWeightMillis: 1000, memoryMib: 1024, processCount: 64 },
  });
  try {
    const agent = await connectAgent(await vm.connectControl(), {
      clock: systemClock,
      log: silentLog,
      resumeOffsets: () => 0,
      onOutput: async () => {},
      onContainerExit: async () => {},
    });
    const helloMs = systemClock.monotonicMs() - startMs;
    await systemClock.sleep(SETTLE_MS);
    agent.close();
    return { helloMs, kernelMs: agent.hello.startedUptimeMs, pssMib: await pssMib(vm.pid) };
  } finally {
    await vm.kill();
    await rm(place, { recursive: true, force: true });
  }
}
