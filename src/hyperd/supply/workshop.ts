import { rm } from 'node:fs/promises';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { connectPort } from '../../network/connect.ts';
import type { NetworkDriver } from '../../network/driver.ts';
import type { ConnectAgent } from '../agent/agent.ts';
import { withDeadline } from '../vmm/deadline.ts';
import type { Hypervisor, Vm, VmLimits, VmSpec } from '../vmm/hypervisor.ts';
import { VMM_PROCESS_COUNT_MAX, nicOf, scratchDisk } from './devices.ts';
import { makeVmDirectory, vmPaths } from './paths.ts';
import type { VmPaths } from './paths.ts';
import { TEMPLATE_NETWORK, rehearse } from './rehearsal.ts';
import type { RehearsalOptions } from './rehearsal.ts';
import { createScratchDisk } from './scratch.ts';
import type { VmShape } from './shape.ts';
import type { StartedImage, VmRequest, WarmVm } from './supply.ts';
import type { Template } from './templates.ts';
import type { Uids } from './uids.ts';

export interface WorkshopOptions {
  /** One directory for each VM, as `vmPaths` says. */
  vmsDirectory: string;
  hypervisor: Hypervisor;
  network: NetworkDriver;
  connectAgent: ConnectAgent;
  uids: Uids;
  clock: Clock;
  random: Random;
  log: Log;
}

/** Of a VM of nobody yet: the least there is, which no pod has less of. Who takes it sets its own. */
const BACKGROUND_WEIGHT_MILLIS = 0;
/** A guest from a template answers within 50 ms; on a machine that starts fifty, within seconds. */
const ANSWER_TIMEOUT_MS = 30_000;
/** Of the size that pods have: how a file system is used depends on it. */
const REHEARSAL_SCRATCH_MIB = 10 * 1024;
const TEMPLATE_ROUNDS = 3;

/** Makes templates and the VMs that wait for pods. */
export interface Workshop {
  /** Boots, rehearses and saves. */
  build(template: Template, signal: AbortSignal): Promise<void>;
  /** Resolves when the guest has answered. */
  startClone(spec: VmSpec, template: Template, signal: AbortSignal): Promise<Vm>;
  makeWarm(
    request: VmRequest,
    image: StartedImage | undefined,
    start: (spec: VmSpec) => Promise<Vm>,
    signal: AbortSignal,
  ): Promise<WarmVm>;
  /** Takes back all that a VM of nobody has. Never rejects. */
  end(warm: Pick<WarmVm, 'id' | 'uid'>): Promise<void>;
}

export function createWorkshop(options: WorkshopOptions, imagePath: string): Workshop {
  const { hypervisor, network, uids, clock, random, log, connectAgent, vmsDirectory } = options;
  const rehearsal: RehearsalOptions = { connectAgent, clock, log, random, imagePath };

  const end = async ({ id, uid }: Pick<WarmVm, 'id' | 'uid'>) => {
    const paths = vmPaths(vmsDirectory, id);
    try {
      await hypervisor.destroy(paths.vm);
      await network.deletePort(id);
      await rm(paths.root, { recursive: true, force: true });
      uids.release(uid);
    } catch (error) {
      log.error('VM of the pool cannot be removed', { vm: id, error: describeError(error) });
    }
  };

  /** A VM that is nobody's, with a place to lie and a disk; removed again when `work` fails. */
  const withVm = async <T>(
    kind: string,
    scratchMib: number,
    signal: AbortSignal,
    work: (made: { id: string; uid: number; paths: VmPaths }) => Promise<T>,
  ): Promise<T> => {
    const made = { id: `${kind}-${random.uuid()}`, uid: uids.draw() };
    const paths = vmPaths(vmsDirectory, made.id);
    try {
      await makeVmDirectory(paths);
      await createScratchDisk(paths.scratch, scratchMib, made.uid, signal);
      return await work({ ...made, paths });
    } catch (error) {
      await end(made);
      throw error;
    }
  };

  return {
    end,
    build: (template, signal) =>
      withVm('template', REHEARSAL_SCRATCH_MIB, signal, async ({ id, uid, paths }) => {
        const { shape, directory } = template;
        const limits = await backgroundLimits(hypervisor, shape);
        const start = (role: 'source' | 'heir') =>
          hypervisor.create(
            {
              ...sharedSpec(shape),
              ...{ id, uid, limits, directory: paths.vm, nic: nicOf(null) },
              template: { role, directory },
            },
            signal,
          );
        // What clones inherit is to be a pod's start, and nothing of the boot.
        const source = await start('source');
        await answers(source, rehearsal, signal);
        await source.saveTemplate(signal);
        const vm = await start('heir');
        await rehearse(
          {
            ...{ vm, scratch: scratchDisk(paths.scratch), network: TEMPLATE_NETWORK },
            ...{ keepsScratch: false, rounds: TEMPLATE_ROUNDS },
          },
          rehearsal,
          signal,
        );
        await vm.saveTemplate(signal);
        await end({ id, uid });
      }),
    async startClone(spec, { directory }, signal) {
      const vm = await hypervisor.create(
        { ...spec, template: { role: 'clone', directory } },
        signal,
      );
      try {
        await answers(vm, rehearsal, signal);
        return vm;
      } catch (error) {
        await vm.kill();
        throw error;
      }
    },
    makeWarm: (request, image, start, signal) =>
      withVm('warm', request.scratchMib, signal, async ({ id, uid, paths }) => {
        const port = await connectPort(network, request.network, { id, ownerUid: uid }, signal);
        const limits = await backgroundLimits(hypervisor, request.shape);
        const vm = await start({
          ...sharedSpec(request.shape),
          ...{ id, uid, limits, directory: paths.vm, nic: nicOf(port) },
        });
        await rehearse(
          {
            ...{ vm, scratch: scratchDisk(paths.scratch), network: port, image },
            ...{ keepsScratch: true, rounds: 1 },
          },
          rehearsal,
          signal,
        );
        await vm.pause();
        return { id, vm, uid, port };
      }),
  };
}

/** Waits until the guest says hello. */
async function answers(
  vm: Vm,
  { connectAgent, clock, log }: RehearsalOptions,
  signal: AbortSignal,
): Promise<void> {
  await withDeadline(
    clock,
    ANSWER_TIMEOUT_MS,
    'The answer of the guest',
    signal,
    async (bounded) => {
      const connection = await vm.connectControl(bounded);
      connection.on('error', () => {});
      const agent = await connectAgent(connection, {
        ...{ clock, log, signal: bounded, resumeOffsets: () => 0 },
        ...{ onOutput: async () => {}, onContainerExit: async () => {} },
      });
      agent.close();
      await agent.closed;
    },
  );
}

function sharedSpec({ owner: _, ...machine }: VmShape) {
  return { ...machine, disks: [] };
}

async function backgroundLimits(hypervisor: Hypervisor, shape: VmShape): Promise<VmLimits> {
  const { overheadMemoryMib } = await hypervisor.probe();
  return {
    cpuMillis: 0,
    cpuWeightMillis: BACKGROUND_WEIGHT_MILLIS,
    memoryMib: shape.memoryMib + overheadMemoryMib,
    processCount: VMM_PROCESS_COUNT_MAX,
  };
}
