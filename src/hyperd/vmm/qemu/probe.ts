import { access, constants, mkdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfExists, writeFileAtomic } from '../../../base/files.ts';
import { describeError } from '../../../base/log.ts';
import { nameSuffix } from '../../../base/random.ts';
import { HypervisorError } from '../hypervisor.ts';
import type { Vm, VmSpec } from '../hypervisor.ts';
import type { QemuOptions } from './driver.ts';

/** What was found out about this machine, for the rest of its uptime. */
export interface Machine {
  accelerator: 'kvm' | 'tcg';
  acceleratorReason: string;
  version: string;
  overheadMemoryMib: number;
  /** Frequency of the time stamp counter. */
  tscKhz: number;
}

export type Launch = (
  spec: VmSpec,
  found: Pick<Machine, 'accelerator' | 'tscKhz'>,
  signal?: AbortSignal,
) => Promise<Vm>;

const PROBE_MEMORY_MIB = 128;
const PROBE_UID = 64_999;
/** A kernel under KVM panics for want of a root file system after some 0.3 s. */
const PROBE_TIMEOUT_MS = 5000;
const CACHE_FILE = 'probe.json';
const KVM_DEVICE = '/dev/kvm';

/**
 * Memory of emulator and jail beyond the guest's own. Measured with TCG: heap, stacks and device
 * state 15 MiB, libraries 10 MiB, translation buffer 28 MiB after boot and 64 MiB at most. With
 * KVM there is no such buffer; that figure is a sum and not yet a measurement.
 */
const OVERHEAD_MIB = { kvm: 40, tcg: 96 } as const;

/**
 * KVM is trusted only after a kernel has run to its end under it: there are machines on which
 * /dev/kvm opens and no guest gets past its first instructions.
 */
export async function probeMachine(options: QemuOptions, launch: Launch): Promise<Machine> {
  const version = await emulatorVersion(options);
  const key = await cacheKey(options, version);
  const path = join(options.directory, CACHE_FILE);
  const cached = parseCache(await readFileIfExists(path), key);
  if (cached !== undefined) return cached;
  const tscKhz = await measureTsc(options);
  const acceleratorReason = await whyNotKvm(options, launch, tscKhz);
  const accelerator = acceleratorReason === '' ? 'kvm' : 'tcg';
  const overheadMemoryMib = OVERHEAD_MIB[accelerator];
  const machine: Machine = { accelerator, acceleratorReason, version, overheadMemoryMib, tscKhz };
  await writeFileAtomic(path, JSON.stringify({ key, machine }));
  return machine;
}

/** Empty when KVM works. */
async function whyNotKvm(options: QemuOptions, launch: Launch, tscKhz: number): Promise<string> {
  try {
    await access(KVM_DEVICE, constants.R_OK | constants.W_OK);
  } catch (error) {
    return `/dev/kvm cannot be opened: ${describeError(error)}`;
  }
  const directory = join(options.directory, `probe-${nameSuffix(options.random)}`);
  await mkdir(directory, { mode: 0o700 });
  try {
    const spec = probeSpec(directory, options.kernelPath, nameSuffix(options.random, 8));
    return await bootProbe(options, await launch(spec, { accelerator: 'kvm', tscKhz }));
  } catch (error) {
    return `A probe VM does not start under KVM: ${describeError(error)}`;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function bootProbe(options: QemuOptions, vm: Vm): Promise<string> {
  const late = options.clock.sleep(PROBE_TIMEOUT_MS).then(() => undefined);
  const exit = await Promise.race([vm.exited, late]);
  if (exit === undefined) {
    const printed = (await vm.consoleTail(4096)).trim();
    await vm.kill();
    const state = printed === '' ? 'prints nothing' : `hangs after "${printed.split('\n').at(-1)}"`;
    return `/dev/kvm opens, but a guest ${state} within ${PROBE_TIMEOUT_MS} ms under it`;
  }
  // One that resets itself without a word has not come far: it is no proof of anything.
  if (exit.reason === 'panicked' && exit.message.startsWith('Kernel panic')) return '';
  return `/dev/kvm opens, but a guest under it ended early: ${exit.message}`;
}

/** No initial file system and no disk: the kernel comes up, finds no root, and panics. */
export function probeSpec(directory: string, kernelPath: string, suffix: string): VmSpec {
  return {
    id: `probe-${suffix}`,
    directory,
    cpuCount: 1,
    memoryMib: PROBE_MEMORY_MIB,
    kernelPath,
    initrdPath: '',
    kernelArguments: [],
    disks: [],
    nic: undefined,
    uid: PROBE_UID,
    limits: { cpuMillis: 0, cpuWeightMillis: 1000, memoryMib: 512, processCount: 64 },
  };
}

async function emulatorVersion(options: QemuOptions): Promise<string> {
  const { stdout, exitCode } = await options.exec(options.qemuPath, ['--version']);
  const version = /version (\S+)/.exec(stdout)?.[1];
  if (exitCode !== 0 || version === undefined) {
    throw new HypervisorError('Failed', `Cannot run "${options.qemuPath}" to learn its version`);
  }
  return version;
}

async function measureTsc(options: QemuOptions): Promise<number> {
  const { stdout, stderr } = await options.exec(options.jailPath, ['tsc']);
  const khz = Number(stdout.trim());
  if (!Number.isInteger(khz) || khz < 100_000) {
    const message = `Cannot measure the time stamp counter with "${options.jailPath}": ${stderr}`;
    throw new HypervisorError('Failed', message);
  }
  return khz;
}

/** Whatever may change the answer. */
async function cacheKey(options: QemuOptions, version: string): Promise<string> {
  const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
  const kernel = await stat(options.kernelPath).catch((error: unknown) => {
    throw new HypervisorError('Failed', `Cannot find guest kernel "${options.kernelPath}"`, error);
  });
  // Its module can be loaded, and its permissions changed, at any time.
  const kvm = await access(KVM_DEVICE, constants.R_OK | constants.W_OK).then(
    () => 'kvm',
    () => 'no-kvm',
  );
  const guest = [options.machineType, options.kernelPath, kernel.size, kernel.mtimeMs];
  return [bootId.trim(), kvm, version, ...guest].join(' ');
}

function parseCache(text: string | undefined, key: string): Machine | undefined {
  if (text === undefined) return undefined;
  try {
    const cache = JSON.parse(text) as { key: string; machine: Machine };
    return cache.key === key ? cache.machine : undefined;
  } catch {
    return undefined;
  }
}
