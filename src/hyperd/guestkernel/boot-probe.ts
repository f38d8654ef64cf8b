import { chown, mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { abortable } from '../../base/abort.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import { nameSuffix } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import type { Agent, PodSetup } from '../agent/agent.ts';
import type { connectAgent } from '../agent/client.ts';
import { freshEntropy, ownContainer, ownSetup } from '../agent/own-pod.ts';
import { SCRATCH_SERIAL, scratchDisk } from '../supply/devices.ts';
import { createScratchDisk } from '../supply/scratch.ts';
import type { Hypervisor, Vm, VmExit } from '../vmm/hypervisor.ts';
import type { GuestFiles } from './files.ts';
import { createProbeImage } from './probe-image.ts';
import { optionsBehind } from './probe-verdict.ts';
import { KernelError } from './store.ts';

/**
 * Whether a kernel does what pods need, found out by a pod: a VM is booted with it, its writable
 * disk mounted, an image attached and mounted, and a container run that is limited in all ways.
 */
export interface BootProbeOptions {
  hypervisor: Hypervisor;
  connectAgent: typeof connectAgent;
  /** A static program that can be `sh`. */
  busyboxPath: string;
  /** Where the VM lives. Made, and removed in the end. */
  directory: string;
  clock: Clock;
  random: Random;
  log: Log;
}

export interface BootProbeResult {
  /** As the guest says it. */
  kernelVersion: string;
  /** From the start of the VMM to hyperstart's hello. */
  helloMs: number;
}

/** An emulated guest on a busy machine takes a minute. */
const PROBE_TIMEOUT_MS = 180_000;
const PROBE_MEMORY_MIB = 256;
const PROBE_SCRATCH_MIB = 32;
/** The user of probe VMs; below those of pods. */
const PROBE_UID = 64_998;
const CONSOLE_BYTES = 16 << 10;
const CONSOLE_LINES_SHOWN = 3;
const OUTPUT_BYTES_MAX = 4096;
const CONTROLLERS = ['cpu', 'memory', 'pids'] as const;

/**
 * @throws KernelError Refused, naming the options that seem to be missing, and what the guest or its
 *   console said
 */
export async function bootProbe(
  files: GuestFiles,
  options: BootProbeOptions,
  signal: AbortSignal,
): Promise<BootProbeResult> {
  const { directory, hypervisor, random, clock } = options;
  await mkdir(directory, { recursive: true, mode: 0o711 });
  const limit = new AbortController();
  const timer = clock.after(PROBE_TIMEOUT_MS, () =>
    limit.abort(new Error(`it was not done within ${PROBE_TIMEOUT_MS / 1000} s`)),
  );
  const bounded = AbortSignal.any([signal, limit.signal]);
  let vm: Vm | undefined;
  try {
    const image = join(directory, 'image.erofs');
    const scratch = join(directory, 'scratch.ext4');
    await createProbeImage(image, await readFile(options.busyboxPath));
    await chown(image, PROBE_UID, PROBE_UID);
    await createScratchDisk(scratch, PROBE_SCRATCH_MIB, PROBE_UID, bounded);
    await mkdir(join(directory, 'vm'), { mode: 0o700 });
    // What the machine can do is found out once, and is not the kernel's time.
    await hypervisor.probe(bounded);
    const startMs = clock.monotonicMs();
    vm = await hypervisor.create(
      {
        id: `kernel-probe-${nameSuffix(random, 8)}`,
        directory: join(directory, 'vm'),
        cpuCount: 1,
        memoryMib: PROBE_MEMORY_MIB,
        ...files,
        disks: [scratchDisk(scratch)],
        nic: undefined,
        uid: PROBE_UID,
        limits: { cpuMillis: 0, cpuWeightMillis: 1000, memoryMib: 1024, processCount: 64 },
      },
      bounded,
    );
    return await examine(vm, image, startMs, options, bounded);
  } catch (error) {
    signal.throwIfAborted();
    throw await refusal(hypervisor.name, vm, limit.signal.aborted ? limit.signal.reason : error);
  } finally {
    timer.cancel();
    await vm?.kill();
    await rm(directory, { recursive: true, force: true });
  }
}

async function examine(
  vm: Vm,
  image: string,
  startMs: number,
  options: BootProbeOptions,
  signal: AbortSignal,
): Promise<BootProbeResult> {
  const ended = vm.exited.then(throwExit);
  ended.catch(() => {});
  const within = <T>(work: Promise<T>): Promise<T> =>
    abortable(Promise.race([work, ended]), signal);
  const output: Buffer[] = [];
  const { promise: exited, resolve: onExit } = Promise.withResolvers<number>();
  let agent: Agent | undefined;
  try {
    const connection = await within(vm.connectControl(signal));
    connection.on('error', (error) => options.log.debug('probe', { error: error.message }));
    const { clock, log, random } = options;
    agent = await within(
      options.connectAgent(connection, {
        clock,
        log,
        random,
        signal,
        helloTimeoutMs: PROBE_TIMEOUT_MS,
        resumeOffsets: () => 0,
        onOutput: async ({ bytes }) => {
          const length = output.reduce((sum, part) => sum + part.length, 0);
          if (length < OUTPUT_BYTES_MAX) output.push(Buffer.from(bytes));
        },
        onContainerExit: async (_, { exitCode }) => onExit(exitCode),
      }),
    );
    const helloMs = clock.monotonicMs() - startMs;
    await within(agent.setupPod(podSetup(clock.nowMs(), random)));
    await within(vm.attachDisk({ serial: 'image', path: image, readOnly: true }, signal));
    await within(agent.startContainer(CONTAINER));
    const exitCode = await within(exited);
    judge(exitCode, Buffer.concat(output).toString('latin1'));
    return { kernelVersion: agent.hello.kernelVersion, helloMs };
  } finally {
    agent?.close();
  }
}

function judge(exitCode: number, output: string): void {
  if (exitCode !== 0) throw new Error(`a container ended with exit code ${exitCode}`);
  const words = new Set(output.split(/\s+/));
  const missing = CONTROLLERS.filter((name) => !words.has(name));
  if (missing.length === 0) return;
  throw new Error(`no controller for ${missing.join(', ')} in control groups`);
}

async function refusal(
  hypervisor: string,
  vm: Vm | undefined,
  error: unknown,
): Promise<KernelError> {
  const why = printable(describeError(error));
  // What the machine cannot do is not the kernel's fault.
  if (!vm) return new KernelError('Refused', `Cannot boot a VM to try the kernel: ${why}`);
  const printed = await vm.consoleTail(CONSOLE_BYTES).catch(() => '');
  const options = optionsBehind(why, printed);
  const last = printable(printed.trim().split('\n').slice(-CONSOLE_LINES_SHOWN).join(' | '));
  const told = last === '' ? 'Its console is empty' : `Its console ends with "${last}"`;
  const hint = options.length > 0 ? ` It seems to lack ${options.join(', ')}.` : '';
  return new KernelError(
    'Refused',
    `The kernel does not run a pod on ${hypervisor}: ${why}.${hint} ${told}`,
  );
}

/** The words are the kernel's: they may be meant for a terminal. */
function printable(text: string): string {
  return text.replaceAll(/[^\x21-\x7e]+/g, ' ').trim();
}

function throwExit({ message }: VmExit): never {
  throw new Error(message);
}

function podSetup(epochMs: number, random: Random): PodSetup {
  return ownSetup({
    hostname: 'kernel-probe',
    epochMs,
    entropy: freshEntropy(random),
    scratchSerial: SCRATCH_SERIAL,
    volumes: [{ name: 'memory', type: 'memory', sizeLimitMib: 1 }],
  });
}

const CONTAINER = ownContainer(
  {
    id: 'probe',
    imageSerial: 'image',
    process: {
      argv: ['/bin/sh', '-c', 'cat /sys/fs/cgroup/cgroup.controllers && echo ok > /written'],
      env: ['PATH=/bin'],
    },
    capabilities: ['CAP_CHOWN'],
  },
  {
    mounts: [{ volume: 'memory', path: '/memory', subPath: '', readOnly: false }],
    resources: { cpuMillis: 1000, cpuWeightMillis: 100, memoryBytes: 64 << 20 },
  },
);
