import type { HyperContainerSpec } from '../../api/hyperd.ts';
import type { Random } from '../../base/random.ts';
import type { GuestContainerSpec, PodSetup } from '../agent/agent.ts';
import type { GuestFiles } from '../guestkernel/files.ts';
import type { VmSpec } from '../vmm/hypervisor.ts';
import type { PodPaths, PodRecord } from './record.ts';

/** What a pod's record means to the hypervisor and to the guest. Pure. */

const SCRATCH_SERIAL = 'scratch';
const ENTROPY_BYTES = 64;
/** Of the VMM: its threads. Containers' processes are the guest's. */
const VMM_PROCESS_COUNT_MAX = 256;

/** The serial under which the guest finds an image's disk: 20 characters are allowed. */
export function imageSerial(imageId: string): string {
  return `i${imageId.replace(/^sha256:/, '').slice(0, 19)}`;
}

export function vmSpec({ spec, uid, port }: PodRecord, paths: PodPaths, guest: GuestFiles): VmSpec {
  return {
    id: spec.id,
    directory: paths.vm,
    cpuCount: spec.cpuCount,
    memoryMib: spec.memoryMib,
    ...guest,
    disks: [{ serial: SCRATCH_SERIAL, path: paths.scratch, readOnly: false, ephemeral: true }],
    nic: port ? { mac: port.mac, netns: port.netns, tapName: port.tapName } : undefined,
    uid,
    limits: { ...spec.limits, processCount: VMM_PROCESS_COUNT_MAX },
  };
}

export function podSetup({ spec, port }: PodRecord, epochMs: number, random: Random): PodSetup {
  return {
    hostname: spec.hostname,
    domain: spec.domain,
    epochMs,
    entropy: Buffer.from(random.bytes(ENTROPY_BYTES)).toString('base64'),
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
