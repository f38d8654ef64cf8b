import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { execute } from '../../base/exec.ts';
import { describeError } from '../../base/log.ts';
import { nameSuffix, systemRandom } from '../../base/random.ts';
import type { Hypervisor, HypervisorInfo } from '../../hyperd/vmm/hypervisor.ts';
import type { MachineType } from '../../hyperd/vmm/qemu/models.ts';
import { probeSpec } from '../../hyperd/vmm/qemu/probe.ts';
import { guestAssets } from '../assets.ts';
import { readConfig } from '../data.ts';
import { openHypervisor } from '../hypervisor.ts';
import { good, limit, missing } from './check.ts';
import type { Check, CheckContext, Finding } from './check.ts';

/** A kernel needs 0.3 s under KVM; emulated on a busy machine it may be a hundred times slower. */
const BOOT_TIMEOUT_MS = 60_000;
const CONSOLE_BYTES = 4096;

/**
 * Boots a VM: under KVM within a time limit, and where that fails under emulation. Nothing is taken
 * from what a daemon has found out before, and the verdict is about a guest that ran to its end.
 */
export const hypervisorCheck: Check = {
  name: 'virtual machines',
  async run(context) {
    const { paths, directory, signal } = context;
    try {
      return await withProbedHypervisor(context, async ({ hypervisor, info }) => {
        const { kernelPath } = await guestAssets(paths);
        return judge(info, await bootProbeVm(hypervisor, kernelPath, directory, signal));
      });
    } catch (error) {
      return missing(describeError(error), 'No VM could be booted: pods cannot run.');
    }
  },
};

/** The device model that this node's pods get. */
export async function nodeMachine({ paths }: CheckContext): Promise<MachineType> {
  return (await readConfig(paths))?.machine ?? 'microvm';
}

/** The machine is probed by the first of the checks that want it. */
export async function withProbedHypervisor<T>(
  context: CheckContext,
  work: (probed: { hypervisor: Hypervisor; info: HypervisorInfo }) => Promise<T>,
): Promise<T> {
  const { paths, directory, signal } = context;
  const machine = await nodeMachine(context);
  const parent = `hypernetes-doctor-${process.pid}`;
  const place = join(directory, 'vmm');
  const hypervisor = await openHypervisor(paths, machine, parent, undefined, place);
  try {
    return await work({ hypervisor, info: await hypervisor.probe(signal) });
  } finally {
    await hypervisor.close();
  }
}

function judge(found: HypervisorInfo, bootMs: number): Finding {
  const { accelerator, acceleratorReason, version } = found;
  const seconds = (bootMs / 1000).toFixed(1);
  const detail = `QEMU ${version}, ${accelerator}: a probe VM was booted in ${seconds} s`;
  if (accelerator === 'kvm') return good(detail);
  const reason = acceleratorReason.replaceAll(/\s*\n\s*/g, '; ');
  return limit(detail, `Guests are emulated (TCG), several times slower. ${reason}`);
}

/** @returns how long its kernel took, in milliseconds. @throws Error that says how it ended */
async function bootProbeVm(
  hypervisor: Hypervisor,
  kernelPath: string,
  directory: string,
  signal: AbortSignal,
): Promise<number> {
  const place = join(directory, 'vm');
  await mkdir(place, { mode: 0o700 });
  const startMs = systemClock.monotonicMs();
  const vm = await hypervisor.create(
    probeSpec(place, kernelPath, nameSuffix(systemRandom, 8)),
    signal,
  );
  const waiting = new AbortController();
  try {
    const late = systemClock.sleep(BOOT_TIMEOUT_MS, waiting.signal).catch(() => {});
    const exit = await Promise.race([vm.exited, late]);
    if (exit?.reason === 'panicked' && exit.message.startsWith('Kernel panic')) {
      return systemClock.monotonicMs() - startMs;
    }
    const printed = (await vm.consoleTail(CONSOLE_BYTES)).trim().split('\n').at(-1) ?? '';
    const how = exit?.message ?? `it did not come to its end within ${BOOT_TIMEOUT_MS / 1000} s`;
    throw new Error(
      `The probe VM failed: ${how}; its console ends with ${JSON.stringify(printed)}`,
    );
  } finally {
    waiting.abort();
    await vm.kill();
  }
}

export const toolsCheck: Check = {
  name: 'programs',
  async run({ signal }) {
    const programs: [command: string, args: string[]][] = [
      ['ip', ['-V']],
      ['nft', ['--version']],
      ['/sbin/mke2fs', ['-V']],
      ['qemu-system-x86_64', ['--version']],
    ];
    const absent: string[] = [];
    for (const [command, args] of programs) {
      const works = await execute(command, args, { signal }).catch(() => undefined);
      if (!works) absent.push(command);
    }
    if (absent.length === 0) return good(programs.map(([command]) => command).join(', '));
    return missing(`without ${absent.join(', ')}`, 'Run "hypernetes setup", which installs them.');
  },
};
