import { arch, hostname } from 'node:os';
import { readFileIfExists } from '../base/files.ts';
import type { MachineFacts } from './node.ts';

/** The Kubernetes version whose kubelet's API and behaviour this one follows. */
const KUBELET_VERSION = 'v1.35.0';

const ARCHITECTURES: Record<string, string> = { x64: 'amd64', arm64: 'arm64' };

/** Facts for `Node.status.nodeInfo`. What the host does not tell is empty. */
export async function readMachineFacts(): Promise<MachineFacts> {
  const read = async (path: string) =>
    ((await readFileIfExists(path).catch(() => '')) ?? '').trim();
  const release = await read('/etc/os-release');
  const machineId = await read('/etc/machine-id');
  return {
    architecture: ARCHITECTURES[arch()] ?? arch(),
    operatingSystem: 'linux',
    osImage: /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(release)?.[1] ?? 'Linux',
    machineId: machineId || hostname(),
    systemUuid: (await read('/sys/class/dmi/id/product_uuid')) || machineId,
    bootId: await read('/proc/sys/kernel/random/boot_id'),
    kubeletVersion: KUBELET_VERSION,
  };
}
