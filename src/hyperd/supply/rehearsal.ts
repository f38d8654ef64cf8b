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
  /** How the guest sets up its NIC; null for one that is without a network. */
  network: RehearsalNetwork | null;
  /** Whether disk and network stay, for the pod that the VM will be; else they are taken away. */
  keepsScratch: boolean;
  /** How often the same is done. What is done a second time takes another way in places. */
  rounds: number;
  /** An image that the pod is likely to use: it is attached, mounted and read from. */
  image?: StartedImage | undefined;
}

export type RehearsalNetwork = Pick<Port, 'mac' | 'address' | 'gateway' | 'mtu'>;

/**
 * For a template, whose NIC leads nowhere: addresses for documentation (RFC 5737). Nothing is sent
 * from them, or the kernel would draw secrets that all clones would have.
 */
export const TEMPLATE_NETWORK: RehearsalNetwork = {
  ...{ mac: '02:00:00:00:00:02', address: '192.0.2.2/24', gateway: '192.0.2.1', mtu: 1400 },
};

/** The program's name in the image's /usr/bin. It is hyperstart itself. */
export const REHEARSAL_PROGRAM = 'rehearse';

const IMAGE_SERIAL = 'rehearsal';
const CONTAINER_ID = 'rehearsal';

/** @throws what agent and hypervisor throw; the VM is then of no use */
export async function rehearse(
  { vm, scratch, network, keepsScratch, rounds, image }: Rehearsal,
  options: RehearsalOptions,
  signal: AbortSignal,
): Promise<void> {
  let exited = nextExit();
  const connection = await vm.connectControl(signal);
  connection.on('error', () => {});
  const agent = await options.connectAgent(connection, {
    ...{ clock: options.clock, log: options.log, signal },
    resumeOffsets: () => 0,
    onOutput: async () => {},
    onContainerExit: async (_id, exit) => exited.resolve(exit),
  });
  void agent.closed.then((error) => exited.reject(error ?? new Error('The VM has ended')));
  try {
    await vm.attachDisk(scratch, signal);
    await vm.attachDisk({ serial: IMAGE_SERIAL, path: options.imagePath, readOnly: true }, signal);
    for (let round = 1; round <= rounds; round++) {
      exited = nextExit();
      await agent.setupPod(rehearsalSetup(scratch.serial, network, options));
      await runProgram(agent, exited.promise);
      await agent.endRehearsal({ keepsScratch });
    }
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

/** Settles also when nobody waits for it any more. */
function nextExit(): PromiseWithResolvers<ProcessExit> {
  const exit = Promise.withResolvers<ProcessExit>();
  exit.promise.catch(() => {});
  return exit;
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
  network: RehearsalNetwork | null,
  { clock, random }: RehearsalOptions,
): PodSetup {
  return ownSetup({
    rehearsal: true,
    hostname: 'rehearsal',
    domain: 'rehearsal.invalid',
    dns: { nameservers: ['192.0.2.3'], searches: ['rehearsal.invalid'], options: ['ndots:5'] },
    hostAliases: [{ ip: '192.0.2.4', hostnames: ['alias.invalid'] }],
    epochMs: clock.nowMs(),
    entropy: freshEntropy(random),
    network: network && {
      ...{ mac: network.mac, address: network.address },
      ...{ gateway: network.gateway, mtu: network.mtu },
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

/** With what most containers have: a path to be searched, an environment and limits. */
const CONTAINER = ownContainer(
  {
    id: CONTAINER_ID,
    imageSerial: IMAGE_SERIAL,
    process: {
      argv: [REHEARSAL_PROGRAM, '--rehearse'],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/root'],
    },
  },
  {
    mounts: [{ volume: VOLUME.name, path: '/run/rehearsal', subPath: '', readOnly: true }],
    resources: { cpuMillis: 1000, cpuWeightMillis: 100, memoryBytes: 64 * 2 ** 20 },
  },
);
