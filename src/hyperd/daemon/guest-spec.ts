import type { HyperContainerSpec, HyperPodSpec } from '../../api/hyperd.ts';
import type { Random } from '../../base/random.ts';
import type { GuestContainerSpec, PodSetup } from '../agent/agent.ts';
import { freshEntropy } from '../agent/own-pod.ts';
import type { GuestFiles } from '../guestkernel/files.ts';
import { SCRATCH_SERIAL, VMM_PROCESS_COUNT_MAX, nicOf } from '../supply/devices.ts';
import type { VmShape } from '../supply/shape.ts';
import type { VmLimits, VmSpec } from '../vmm/hypervisor.ts';
import type { PodRecord } from './record.ts';

/** What a pod's record means to the hypervisor and to the guest. Pure. */

/** The serial under which the guest finds an image's disk: 20 characters are allowed. */
export function imageSerial(imageId: string): string {
  return `i${imageId.replace(/^sha256:/, '').slice(0, 19)}`;
}

/** What the pod's VM has in common with others of its owner. */
export function vmShape(
  { owner = '', cpuCount, memoryMib }: HyperPodSpec,
  guest: GuestFiles,
): VmShape {
  const { kernelPath, initrdPath, kernelArguments } = guest;
  return { owner, cpuCount, memoryMib, kernelPath, initrdPath, kernelArguments };
}

export function vmLimits({ limits }: HyperPodSpec): VmLimits {
  return { ...limits, processCount: VMM_PROCESS_COUNT_MAX };
}

export function vmSpec(record: PodRecord, directory: string, guest: GuestFiles): VmSpec {
  const { spec, vmId, uid, port } = record;
  const { cpuCount, memoryMib } = spec;
  return {
    ...{ id: vmId, directory, cpuCount, memoryMib, ...guest, disks: [] },
    ...{ nic: nicOf(port), uid, limits: vmLimits(spec) },
  };
}

export function podSetup({ spec, port }: PodRecord, epochMs: number, random: Random): PodSetup {
  return {
    hostname: spec.hostname,
    domain: spec.domain,
    epochMs,
    entropy: freshEntropy(random),
    network: port && {
      mac: port.mac,
      address: port.address,
      gateway: port.gateway,
      mtu: port.mtu,
    },
    dns: spec.dns,
    hostAliases: spec.hostAliases,
    sysctls: spec.sysctls,
    shareProcessNamespace: spec.shareProcessNamespace,
    scratchSerial: SCRATCH_SERIAL,
    volumes: spec.volumes,
  };
}

export function guestContainerSpec(spec: HyperContainerSpec): GuestContainerSpec {
  return {
    id: spec.id,
    name: spec.name,
    imageSerial: imageSerial(spec.imageId),
    imageFsType: 'erofs',
    process: spec.process,
    readOnlyRootfs: spec.readOnlyRootfs,
    mounts: spec.mounts,
    resources: spec.resources,
    terminationMessagePath: spec.terminationMessagePath,
    stdin: spec.stdin,
  };
}
