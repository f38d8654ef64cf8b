import type { HyperVolume, ProcessExit } from '../../api/hyperd.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Port } from '../../network/driver.ts';
import type { Agent, ConnectAgent, PodSetup } from '../agent/agent.ts';
import { freshEntropy, ownContainer, ownSetup } from '../agent/own-pod.ts';
import type { DiskSpec, Vm } from '../vmm/hypervisor.ts';
import type { StartedImage } from './supply.ts';

/**
 * Has a VM do once what a pod's start is made of: take a disk, set up a pod, mount an image, run a
 * program and remove it. Emulators translate code when it first runs and kernels fill their caches
 * then, so the pod that comes later starts several times faster.
 */
export interface RehearsalOptions {
  connectAgent: ConnectAgent;
  clock: Clock;
  log: Log;
  random: Random;
  /** Read-only disk with the program that is run: see `createRehearsalDisk`. */
  imagePath: string;
}

export interface Rehearsal {
  vm: Vm;
  scratch: DiskSpec;
  port: Port | null;
  /** Whether the scratch disk stays mounted, for the pod that the VM will be; else it is taken away. */
  keepsScratch: boolean;
  /** An image that the pod is likely to use: it is attached, mounted and read from. */
  image?: StartedImage | undefined;
}

/** The program's name in the image's root. It is hyperstart itself. */
export const REHEARSAL_PROGRAM = 'rehearse';

const IMAGE_SERIAL = 'rehearsal';
const CONTAINER_ID = 'rehearsal';

/** @throws what agent and hypervisor throw; the VM is then of no use */
export async function rehearse(
  { vm, scratch, port, keepsScratch, image }: Rehearsal,
  options: RehearsalOptions,
  signal: AbortSignal,
): Promise<void> {
  const exited = Promise.withResolvers<ProcessExit>();
  const connection = await vm.connectControl(signal);
  connection.on('error', () => {});
  const agent = await options.connectAgent(connection, {
    ...{ clock: options.clock, log: options.log, signal },
    resumeOffsets: () => 0,
    onOutput: async () => {},
    onContainerExit: async (_id, exit) => exited.resolve(exit),
  });
  void agent.closed.then((error) => exited.reject(error ?? new Error('The VM has ended')));
  exited.promise.catch(() => {});
  try {
    await vm.attachDisk(scratch, signal);
    await vm.attachDisk({ serial: IMAGE_SERIAL, path: options.imagePath, readOnly: true }, signal);
    await agent.setupPod(rehearsalSetup(scratch.serial, port, options));
    await runProgram(agent, exited.promise);
    await agent.endRehearsal({ keepsScratch });
    await vm.detachDisk(IMAGE_SERIAL, signal);
    if (!keepsScratch) await vm.detachDisk(scratch.serial, signal);
    if (image === undefined) return;
    // Only a help: the image may have been removed meanwhile.
    await prefetch(vm, agent, image, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      options.log.info('VM that waits is not made ready for an image', { vm: vm.id, error });
    });
  } finally {
    agent.close();
    await agent.closed;
  }
}

async function prefetch(
  vm: Vm,
  agent: Agent,
  { serial, path, program, mountPaths }: StartedImage,
  signal: AbortSignal,
): Promise<void> {
  await vm.attachDisk({ serial, path, readOnly: true }, signal);
  await agent.prefetch({ imageSerial: serial, imageFsType: 'erofs', program, mountPaths });
}

async function runProgram(agent: Agent, exited: Promise<ProcessExit>): Promise<void> {
  await agent.startContainer(CONTAINER);
  const { exitCode, message } = await exited;
  if (exitCode !== 0) throw new Error(`The rehearsal ended with exit code ${exitCode}: ${message}`);
  await agent.removeContainer(CONTAINER_ID);
}

function rehearsalSetup(
  scratchSerial: string,
  port: Port | null,
  { clock, random }: RehearsalOptions,
): PodSetup {
  return ownSetup({
    rehearsal: true,
    hostname: 'rehearsal',
    epochMs: clock.nowMs(),
    entropy: freshEntropy(random),
    network: port && {
      ...{ mac: port.mac, address: port.address, gateway: port.gateway, mtu: port.mtu },
    },
    scratchSerial,
    volumes: [VOLUME],
  });
}

/** Nearly every pod has one, with the token of its service account. */
const VOLUME: HyperVolume = {
  name: 'rehearsal',
  type: 'files',
  content: { version: 1, files: [{ path: 'file', mode: 0o644, content: '' }] },
};

const CONTAINER = ownContainer(
  {
    id: CONTAINER_ID,
    imageSerial: IMAGE_SERIAL,
    process: { argv: [`/${REHEARSAL_PROGRAM}`, '--rehearse'], env: ['PATH=/'] },
  },
  { mounts: [{ volume: VOLUME.name, path: '/run/rehearsal', subPath: '', readOnly: true }] },
);
