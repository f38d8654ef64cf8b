import type { HyperPodSpec, PodResources } from '../../api/hyperd.ts';
import { invalid } from '../../api/status.ts';
import type { StatusCause } from '../../api/status.ts';
import type { Agent } from '../agent/agent.ts';
import type { Vm } from '../vmm/hypervisor.ts';
import type { Container } from './container.ts';
import { vmLimits } from './guest-spec.ts';
import type { PodRecord } from './record.ts';
import type { RecordKeeper } from './record-keeper.ts';

interface ResizeOwner {
  readonly record: PodRecord;
  readonly keeper: RecordKeeper;
  container(containerId: string): Container;
  /** @throws StatusError when the pod does not run */
  assertRunning(): void;
  agent<T>(operation: (agent: Agent) => Promise<T>): Promise<T>;
}

const MIB = 2 ** 20;

/**
 * Gives a pod that runs, and containers of it, other limits. On the way the VM has the wider of the
 * old and the new ones, so that no container is held to less than it is promised; where one is
 * refused the VM keeps them, and what was done before stays done. Once the guest and the host hold
 * the limits they are recorded: what a crash leaves unrecorded is asked for again by who asked.
 *
 * @throws StatusError Invalid for what is beyond the VM, NotFound for a container
 * @throws AgentError Refused for less memory than is used
 */
export async function resizePod(
  owner: ResizeOwner,
  vm: Vm | undefined,
  wanted: PodResources,
): Promise<void> {
  const { record, keeper } = owner;
  owner.assertRunning();
  checkSize(record.spec, wanted);
  const changes = wanted.containers.map((change) => ({
    change,
    container: owner.container(change.id).record,
  }));
  const { limits } = wanted;
  const widest = widestOf(record.spec.limits, limits);
  await vm?.setLimits(vmLimits({ ...record.spec, limits: widest }));
  record.spec.limits = widest;
  try {
    for (const { change, container } of changes) {
      const { id, resources, labels } = change;
      const { spec, state } = container;
      if (state.phase === 'running') {
        await owner.agent((agent) => agent.setResources(id, resources));
      }
      container.spec = { ...spec, resources, labels: { ...spec.labels, ...labels } };
      state.labels = container.spec.labels;
    }
    await vm?.setLimits(vmLimits({ ...record.spec, limits }));
    record.spec.limits = limits;
  } finally {
    await keeper.changed();
  }
}

function checkSize({ id, memoryMib }: HyperPodSpec, { containers }: PodResources): void {
  const max = memoryMib * MIB;
  const causes: StatusCause[] = containers.flatMap(({ resources: { memoryBytes } }, index) => {
    if (memoryBytes <= max) return [];
    const field = `containers[${index}].resources.memoryBytes`;
    const message = `Invalid value: ${memoryBytes}: the VM was started with ${max} bytes in all`;
    return [{ reason: 'FieldValueInvalid', field, message }];
  });
  if (causes.length > 0) throw invalid('', 'PodResources', id, causes);
}

type Limits = HyperPodSpec['limits'];

/** 0 is no limit, of all but the weight and the memory. */
function widestOf(a: Limits, b: Limits): Limits {
  const wider = (x = 0, y = 0) => (x === 0 || y === 0 ? 0 : Math.max(x, y));
  return {
    cpuMillis: wider(a.cpuMillis, b.cpuMillis),
    cpuWeightMillis: Math.max(a.cpuWeightMillis, b.cpuWeightMillis),
    memoryMib: Math.max(a.memoryMib, b.memoryMib),
    diskBytesPerSecond: wider(a.diskBytesPerSecond, b.diskBytesPerSecond),
    diskOpsPerSecond: wider(a.diskOpsPerSecond, b.diskOpsPerSecond),
  };
}
