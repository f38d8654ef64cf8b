import type { Port } from '../../network/driver.ts';
import type { DiskSpec, NicSpec } from '../vmm/hypervisor.ts';

/** What a pod's VM is made of beside its shape. A template's source has the same devices. */

/** Of a NIC that nobody uses, and of a template's, whose clones' guests set their own. */
const UNUSED_MAC = '02:00:00:00:00:01';
export const SCRATCH_SERIAL = 'scratch';
/** Of the VMM: its threads. Containers' processes are the guest's. */
export const VMM_PROCESS_COUNT_MAX = 256;

/** Every VM has a NIC, so that all of a shape are alike; a cable is in it where there is a port. */
export function nicOf(port: Port | null): NicSpec {
  if (port === null) return { mac: UNUSED_MAC };
  return { mac: port.mac, tap: { netns: port.netns, name: port.tapName } };
}

/** The pod's writable disk, which nobody reads after the VM's end. */
export function scratchDisk(path: string): DiskSpec {
  return { serial: SCRATCH_SERIAL, path, readOnly: false, ephemeral: true };
}
