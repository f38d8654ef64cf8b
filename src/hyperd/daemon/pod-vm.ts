import { rm } from 'node:fs/promises';
import { allOf } from '../../base/all-of.ts';
import type { Clock } from '../../base/clock.ts';
import { scratchDisk } from '../supply/devices.ts';
import { makeVmDirectory, vmPaths } from '../supply/paths.ts';
import type { VmPaths } from '../supply/paths.ts';
import { createScratchDisk } from '../supply/scratch.ts';
import type { VmShape } from '../supply/shape.ts';
import type { StartedImage, VmRequest } from '../supply/supply.ts';
import type { Vm } from '../vmm/hypervisor.ts';
import { vmLimits, vmShape, vmSpec } from './guest-spec.ts';
import { connectNetwork } from './holdings.ts';
import type { PodDependencies } from './pod-interface.ts';
import type { PodPaths, PodRecord } from './record.ts';
import type { RecordKeeper } from './record-keeper.ts';

/** How one pod comes to its VM, and what lies on the host of it. The record says which VM that is. */
export interface PodVm {
  /** Where the VM lies that the record names. */
  paths(): VmPaths;
  /**
   * Gets a VM for a pod that has none: one that waited, or else one that is started now.
   *
   * @param booted settles when its guest has answered, or never will
   * @throws HypervisorError, KernelError, NetworkError
   */
  take(booted: Promise<unknown>): Promise<Vm>;
  /** What the pod has started: others like it may start the same. */
  noteStart(image: StartedImage): void;
  /**
   * Ends what runs as this pod's VM, if anything does, and removes what lies there of it. The
   * record then names a VM of the pod's own, which is yet to be made.
   */
  discard(): Promise<void>;
}

export interface PodVmOwner {
  readonly record: PodRecord;
  readonly paths: PodPaths;
  readonly keeper: RecordKeeper;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** There is one, which the pod has to end from now on. */
  onVm(vm: Vm): void;
}

export function createPodVm(owner: PodVmOwner, dependencies: PodDependencies): PodVm {
  const { record, clock, signal } = owner;
  const { hypervisor, network, supply, kernels, uids, vmsDirectory } = dependencies;
  const { spec } = record;
  let request: VmRequest | undefined;
  const paths = () => vmPaths(vmsDirectory, record.vmId);

  /** One that has waited for such a pod, with its network and disk. */
  const takeWarm = async (shape: VmShape): Promise<Vm | undefined> => {
    request = { shape, network: spec.network, scratchMib: spec.scratchMib };
    const warm = await supply.takeWarm(request, vmLimits(spec));
    if (warm === undefined) return undefined;
    owner.onVm(warm.vm);
    uids.release(record.uid);
    const { id: vmId, uid, port } = warm;
    Object.assign(record, { vmId, uid, port, origin: 'warm' });
    record.timings.network = record.timings.disks = clock.nowMs();
    // So that the store counts it among those that run the kernel.
    await kernels.acquire(spec.kernel, owner.paths.root);
    return warm.vm;
  };

  const start = async (shape: VmShape, booted: Promise<unknown>): Promise<Vm> => {
    const { timings, uid } = record;
    const { vm: directory, scratch } = paths();
    await makeVmDirectory(paths());
    await allOf(
      connectNetwork(record, network, signal).then(() => (timings.network = clock.nowMs())),
      createScratchDisk(scratch, spec.scratchMib, uid, signal).then(
        () => (timings.disks = clock.nowMs()),
      ),
    );
    await owner.keeper.save();
    const guest = await kernels.acquire(spec.kernel, owner.paths.root);
    const wanted = vmSpec(record, directory, guest);
    const { vm, origin } = await supply.start(wanted, shape, booted, signal);
    owner.onVm(vm);
    record.origin = origin;
    await vm.attachDisk(scratchDisk(scratch), signal);
    return vm;
  };

  return {
    paths,
    noteStart: (image) => request && supply.noteStart(request, image),
    async take(booted) {
      const kernel = await (spec.kernel === undefined
        ? kernels.default()
        : kernels.get(spec.kernel));
      const shape = vmShape(spec, kernel);
      return (await takeWarm(shape)) ?? (await start(shape, booted));
    },
    async discard() {
      const { root, vm } = paths();
      // Its address is not the pod's before there is a port again.
      record.port = null;
      await hypervisor.destroy(vm);
      await rm(root, { recursive: true, force: true });
      if (record.vmId === spec.id) return;
      // It waited for the pod, and had its port under its own name. The user id is the pod's now.
      await network.deletePort(record.vmId);
      record.vmId = spec.id;
    },
  };
}
