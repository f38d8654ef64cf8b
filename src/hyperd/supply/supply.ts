import type { HyperPodSpec, PoolStatus, TemplateStatus, VmStatus } from '../../api/hyperd.ts';
import type { Port } from '../../network/driver.ts';
import type { Vm, VmLimits, VmSpec } from '../vmm/hypervisor.ts';
import type { VmShape } from './shape.ts';

/**
 * Where pods' VMs come from. The best there is at the moment:
 *
 *   warm      started from a template, rehearsed and paused before anybody asked for it
 *   template  started from a template of its owner, kernel and size
 *   cold      booted
 *
 * What is missing of the better ways is made in the background meanwhile, and a failure of theirs
 * is never one of the pod: it gets its VM by the next way. Nothing passes from one owner to another.
 */
export interface VmSupply {
  /** A VM that waits for such a pod, running again with these limits; it is the caller's from now on. */
  takeWarm(request: VmRequest, limits: VmLimits): Promise<WarmVm | undefined>;
  /** Tells what a pod has started, so that VMs that wait for its like are made ready for it. */
  noteStart(request: VmRequest, image: StartedImage): void;
  /**
   * Starts the VM of `spec`, whose shape is `shape`.
   *
   * @param booted settles when its guest has answered, or never will
   * @throws HypervisorError when none starts
   */
  start(
    spec: VmSpec,
    shape: VmShape,
    booted: Promise<unknown>,
    signal: AbortSignal,
  ): Promise<StartedVm>;
  templates(): OwnTemplateStatus[];
  /** Also while VMs start from it. Unknown ids are fine. */
  removeTemplate(id: string): Promise<void>;
  pools(): PoolStatus[];
  /** How much memory of an owner's VMs may wait for its pods; undefined: as much as anybody's. */
  limitPool(owner: string, memoryMib: number | undefined): void;
  /** Ends and removes what there is of an owner; resolves when it is gone. It must have no pods. */
  forget(owner: string): Promise<void>;
  counts(): SupplyCounts;
  /** VMs that wait for pods. */
  idleVms(): Promise<VmStatus[]>;
  /** Ends the VMs that wait. Templates stay for the next daemon. */
  close(): Promise<void>;
}

/** What a pod asks of its VM that cannot be changed any more once it waits. */
export interface VmRequest {
  shape: VmShape;
  network: HyperPodSpec['network'];
  scratchMib: number;
}

/** What the pods to come are likely to start. */
export interface StartedImage {
  serial: string;
  /** Of the image's read-only disk. */
  path: string;
  program: string;
  /** Where a container of it mounts volumes. */
  mountPaths: string[];
}

export type VmOrigin = 'warm' | 'template' | 'cold';

/** What has happened since the daemon began. */
export interface SupplyCounts {
  starts: Record<VmOrigin, number>;
  /** VMs that booted because their template did not start them. */
  fallbacks: number;
  templateBuilds: number;
  templateFailures: number;
}

/** A template by the file of its kernel; which kernel that is the store of kernels knows. */
export type OwnTemplateStatus = Omit<TemplateStatus, 'kernel'> & { kernelPath: string };

export interface StartedVm {
  vm: Vm;
  origin: Exclude<VmOrigin, 'warm'>;
}

/** A VM with all that it has on the host. Its directory is found by its id. */
export interface WarmVm {
  id: string;
  vm: Vm;
  uid: number;
  port: Port | null;
}
