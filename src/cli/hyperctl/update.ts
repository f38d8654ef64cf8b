import type { HyperContainerSpec, PodResources, PodState } from '../../api/hyperd.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import { UsageError } from '../errors.ts';
import { findContainer, podName, refuseForeign } from './names.ts';
import { parseCpus, parseMemory } from './run-options.ts';

export interface UpdateOptions {
  memory?: string;
  cpus?: string;
  container?: string;
  force?: boolean;
}

/**
 * Gives a container that runs another limit of CPU or memory, within what its pod's VM has.
 * @throws UsageError where nothing is to be changed, or more is wanted than the VM has
 */
export async function updatePod(
  client: HyperdClient,
  pod: PodState,
  { memory, cpus, container, force }: UpdateOptions,
): Promise<void> {
  if (memory === undefined && cpus === undefined) {
    throw new UsageError('Cannot update a pod: say --memory or --cpus.');
  }
  refuseForeign(pod, 'update', force);
  const cpuMillis = cpus === undefined ? undefined : Math.round(parseCpus(cpus) * 1000);
  const { cpuCount } = pod.spec;
  if (cpuMillis !== undefined && cpuMillis > cpuCount * 1000) {
    const why = `it was started with ${cpuCount} processors`;
    throw new UsageError(`Cannot give pod "${podName(pod)}" ${cpus} CPUs: ${why}.`);
  }
  const id = findContainer(pod, container);
  const given = await givenTo(client, pod);
  const before = given.get(id);
  if (!before) throw new UsageError(`Cannot update pod "${podName(pod)}": it does not run.`);
  const after = {
    cpuMillis: cpuMillis ?? before.cpuMillis,
    cpuWeightMillis: cpuMillis ?? before.cpuWeightMillis,
    memoryBytes: memory === undefined ? before.memoryBytes : Math.ceil(parseMemory(memory)),
  };
  given.set(id, after);
  const resources: PodResources = {
    limits: { ...pod.spec.limits, ...totalOf([...given.values()]) },
    containers: [{ id, resources: after }],
  };
  await client.setResources(pod.id, resources);
}

/** What those containers have that run. */
async function givenTo(client: HyperdClient, pod: PodState) {
  const running = pod.containers.filter(({ phase }) => phase !== 'exited');
  const specs = await Promise.all(running.map(({ id }) => client.containerSpec(pod.id, id)));
  return new Map(specs.map(({ id, resources }) => [id, resources]));
}

/** One container without a limit leaves the whole pod without one. */
function totalOf(all: HyperContainerSpec['resources'][]) {
  const sum = (field: 'cpuMillis' | 'cpuWeightMillis') =>
    all.reduce((total, each) => total + each[field], 0);
  const isLimited = all.every(({ cpuMillis }) => cpuMillis > 0);
  return { cpuMillis: isLimited ? sum('cpuMillis') : 0, cpuWeightMillis: sum('cpuWeightMillis') };
}
