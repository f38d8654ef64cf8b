import type { PodState, VmStatus } from '../../api/hyperd.ts';
import { connectPort } from '../../network/connect.ts';
import type { NetworkDriver } from '../../network/driver.ts';
import type { ImageStore } from '../image/store.ts';
import type { Vm, VmExit } from '../vmm/hypervisor.ts';
import type { PodRecord } from './record.ts';

/** What a pod has of its host as long as it has a VM. */

/** How the end of a VM is told of its pod. */
export const EXIT_REASONS: Record<VmExit['reason'], PodState['reason']> = {
  'powered-off': 'PoweredOff',
  panicked: 'GuestPanic',
  killed: 'VmmKilled',
  failed: 'VmmFailed',
};

/** Of ends that hyperd itself brings about. */
export const END_MESSAGES = {
  stopped: 'The pod was stopped as requested',
  done: 'All containers of the pod have ended',
};

/** Gives the pod its place on the network that its spec names, if any. */
export async function connectNetwork(
  record: PodRecord,
  network: NetworkDriver,
  signal: AbortSignal,
): Promise<void> {
  const { spec, vmId, uid } = record;
  const request = { id: vmId, ownerUid: uid };
  record.port = await connectPort(network, spec.network, request, signal);
}

/** Takes back the place on the network and the image disks. May be repeated. */
export async function giveBack(
  record: PodRecord,
  { network, images }: { network: NetworkDriver; images: ImageStore },
): Promise<void> {
  const { id } = record.spec;
  await network.deletePort(record.vmId);
  Object.assign(record, { port: null, ports: [], paused: false });
  for (const { imageId, owner } of images.leases()) {
    if (owner === id) await images.release(imageId, owner);
  }
}

/** What the VM is and uses now; undefined where there is none. */
export async function vmStatusOf(
  { spec, vmId, paused, phase }: PodRecord,
  vm: Vm | undefined,
): Promise<VmStatus | undefined> {
  const used = await vm?.stats().catch(() => undefined);
  if (!vm || !used || phase === 'stopped') return undefined;
  const { id: pod, cpuCount, memoryMib } = spec;
  const size = { pid: vm.pid, cpuCount, memoryMib };
  const use = { cpuNanos: used.cpuNanos, hostMemoryBytes: used.rssBytes };
  return { id: vmId, pod, state: paused ? 'paused' : 'running', ...size, ...use };
}

const CONSOLE_TAIL_BYTES = 2048;

/** A guest that died says why on its console. */
export async function explainEnd(
  vm: Vm | undefined,
  reason: PodState['reason'],
  message: string,
): Promise<string> {
  if (reason !== 'GuestPanic' && reason !== 'StartFailed') return message;
  const tail = await vm?.consoleTail(CONSOLE_TAIL_BYTES).catch(() => '');
  const panic = tail?.split('\n').find((line) => line.includes('Kernel panic'));
  return panic ? `${message}: ${panic.replace(/^\[[^\]]*\]\s*/, '').trim()}` : message;
}
