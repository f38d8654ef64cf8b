import type { Container, PodSpec, ResourceRequirements } from '../api/types.generated.ts';
import type { HyperContainerSpec, HyperPodSpec } from '../api/hyperd.ts';
import { amountOf } from './quantity.ts';

/**
 * How large a pod's VM is.
 *
 *   containers' memory = max( sum over containers and sidecars,
 *                             each init container + the sidecars before it )
 *     where one container counts with its limit, else its request, else 128 MiB
 *   guest memory       = containers' memory + 64 MiB for kernel, init and page cache
 *                        + the files of its volumes, which lie in guest memory
 *   host memory limit  = guest memory + what hyperd says a VMM costs
 *   vCPUs              = the same sum over CPU, rounded up, at least 1, at most the machine's
 *   scratch disk       = the ephemeral-storage limits, else 10 GiB (sparse)
 *
 * `spec.resources`, the pod's own, replaces the sums where it is given.
 */
const CONTAINER_MEMORY_DEFAULT_BYTES = 128 << 20;
const GUEST_MEMORY_MIB = 64;
const CPU_DEFAULT_MILLIS = 1000;
/** The least weight that Kubernetes gives (2 CPU shares of 1024). */
const CPU_WEIGHT_MIN_MILLIS = 2;
const SCRATCH_DEFAULT_MIB = 10 * 1024;
const SCRATCH_MIN_MIB = 64;
const MIB = 1 << 20;

export type PodSize = Pick<HyperPodSpec, 'cpuCount' | 'memoryMib' | 'limits' | 'scratchMib'>;

export interface NodeSize {
  cpuCount: number;
  /** Of HyperdInfo: what the VMM needs beside the guest's memory. */
  vmmOverheadMib: number;
}

/**
 * The size of a pod's VM, by the rules above.
 *
 * @param volumeFileBytes of ConfigMaps, Secrets and the like
 */
export function podSize(spec: PodSpec, volumeFileBytes: number, node: NodeSize): PodSize {
  const pod = spec.resources;
  const memoryBytes =
    amount(pod, 'memory') ??
    effective(spec, (each) => amount(each.resources, 'memory') ?? CONTAINER_MEMORY_DEFAULT_BYTES);
  const cpuLimit = effective(spec, (each) => limit(each.resources, 'cpu') ?? Number.NaN);
  const cpuLimitMillis = Math.round((limit(pod, 'cpu') ?? cpuLimit) * 1000);
  const cpuMillis = effective(spec, (each) => amount(each.resources, 'cpu') ?? 0) * 1000;
  const cpuWanted = (amount(pod, 'cpu') ?? 0) * 1000 || cpuMillis || CPU_DEFAULT_MILLIS;
  const weight = effective(spec, (each) => request(each.resources, 'cpu') ?? 0) * 1000;
  const scratchBytes = effective(spec, (each) => limit(each.resources, 'ephemeral-storage') ?? 0);
  const memoryMib = Math.ceil((memoryBytes + volumeFileBytes) / MIB) + GUEST_MEMORY_MIB;
  return {
    cpuCount: Math.min(Math.max(1, Math.ceil(cpuWanted / 1000)), node.cpuCount),
    memoryMib,
    limits: {
      // One container without a limit leaves the whole pod without one.
      cpuMillis: Number.isNaN(cpuLimitMillis) ? 0 : cpuLimitMillis,
      cpuWeightMillis: Math.max(
        CPU_WEIGHT_MIN_MILLIS,
        Math.round((request(pod, 'cpu') ?? 0) * 1000 || weight),
      ),
      memoryMib: memoryMib + node.vmmOverheadMib,
    },
    scratchMib: scratchBytes
      ? Math.max(SCRATCH_MIN_MIB, Math.ceil(scratchBytes / MIB))
      : SCRATCH_DEFAULT_MIB,
  };
}

/** What the guest enforces for one container inside of its VM. */
export function containerResources(
  resources: ResourceRequirements | undefined,
): HyperContainerSpec['resources'] {
  return {
    cpuMillis: Math.round((limit(resources, 'cpu') ?? 0) * 1000),
    cpuWeightMillis: Math.max(
      CPU_WEIGHT_MIN_MILLIS,
      Math.round((request(resources, 'cpu') ?? 0) * 1000),
    ),
    memoryBytes: Math.round(limit(resources, 'memory') ?? 0),
  };
}

/** An init container that runs as long as the pod does. */
export function isSidecar(container: Container): boolean {
  return container.restartPolicy === 'Always';
}

/** Guaranteed, Burstable or BestEffort, by Kubernetes' rules over cpu and memory. */
export function qosClass(spec: PodSpec): string {
  const all = [...spec.containers, ...(spec.initContainers ?? [])];
  let isGuaranteed = true;
  let isBestEffort = true;
  for (const { resources } of all) {
    for (const name of ['cpu', 'memory']) {
      const [requested, limited] = [request(resources, name), limit(resources, name)];
      if (requested || limited) isBestEffort = false;
      if (!limited || requested !== limited) isGuaranteed = false;
    }
  }
  if (isBestEffort) return 'BestEffort';
  return isGuaranteed ? 'Guaranteed' : 'Burstable';
}

function effective(spec: PodSpec, of: (container: Container) => number): number {
  let sidecars = 0;
  let peak = 0;
  for (const container of spec.initContainers ?? []) {
    if (isSidecar(container)) sidecars += of(container);
    peak = Math.max(peak, sidecars + (isSidecar(container) ? 0 : of(container)));
  }
  return Math.max(peak, sidecars + spec.containers.reduce((sum, each) => sum + of(each), 0));
}

function limit(resources: ResourceRequirements | undefined, name: string): number | undefined {
  return amountOf(resources?.limits?.[name]);
}

function request(resources: ResourceRequirements | undefined, name: string): number | undefined {
  return amountOf(resources?.requests?.[name]) ?? limit(resources, name);
}

function amount(resources: ResourceRequirements | undefined, name: string): number | undefined {
  return limit(resources, name) || request(resources, name) || undefined;
}
