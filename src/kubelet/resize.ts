import type { Container, Pod, PodSpec, ResourceRequirements } from '../api/types.generated.ts';
import type { HyperPodSpec, PodState } from '../api/hyperd.ts';
import { podRequests } from '../api/pod-requests.ts';
import { compareQuantities } from '../api/quantity.ts';
import { latest } from './decide.ts';
import { isAlive } from './history.ts';
import type { Attempt, PodView } from './history.ts';
import type { NodeRoom } from './node-room.ts';
import type { Problem } from './pod-scope.ts';
import { volumeFileBytes } from './sandbox-spec.ts';
import { podSize } from './sizes.ts';
import type { NodeSize } from './sizes.ts';

/**
 * What becomes of a pod whose containers' resources were changed: a pure function of what is wanted
 * and of what hyperd has.
 *
 *   wanted = held by all that runs ──► nothing to do
 *   beyond the node or the pod's VM ──► Infeasible: all is as it was
 *   no room on the node now         ──► Deferred: the same, until other pods make room
 *   else ──► allocated: each container is given it where it runs, or is started with it
 *
 * A VM keeps its CPUs and its memory; one that is made anew has what is wanted then.
 */
export interface ResizePlan {
  /** What containers are to have now, by name. */
  allocated: ReadonlyMap<string, ResourceRequirements>;
  pending: Problem | undefined;
  /** Containers that run with something else. */
  changes: ResizeChange[];
  /** What the whole VM is to be held to; undefined where it is. */
  limits: HyperPodSpec['limits'] | undefined;
  /** Something is being changed, or started with what has changed. */
  isInProgress: boolean;
}

export interface ResizeChange {
  container: Container;
  attempt: Attempt;
  /** Its `resizePolicy` wants it to be started anew. */
  isRestart: boolean;
}

const RESIZABLE = ['cpu', 'memory'] as const;
const SIDES = ['requests', 'limits'] as const;
const MIB = 2 ** 20;

export function planResize(view: PodView, node: { size: NodeSize; room: NodeRoom }): ResizePlan {
  const { pod, sandbox } = view;
  const resizable = view.containers
    .filter(({ role }) => role !== 'init')
    .map((each) => {
      const last = latest(each);
      const isHere = last !== undefined && last.sandboxId === sandbox?.id;
      const attempt = isHere ? last : undefined;
      const held = attempt ? attempt.resources : each.madeFor;
      return { container: each.container, attempt, held };
    });
  const differing = resizable.filter(
    ({ container, held }) => held && changedResources(held, container.resources).length > 0,
  );
  const pending =
    differing.length > 0 && isAlive(sandbox) ? refusalOf(pod, sandbox, resizable, node) : undefined;
  const changes = differing.flatMap(({ container, attempt, held }) => {
    if (pending || !attempt || attempt.exit || attempt.phase !== 'running') return [];
    const changed = changedResources(held, container.resources);
    return [{ container, attempt, isRestart: needsRestart(container, changed) }];
  });
  const restarting = resizable.some(({ attempt }) => attempt?.exit && attempt.isRestarting);
  const allocated = new Map(
    resizable.map(({ container, held }) => [
      container.name,
      (pending ? held : undefined) ?? container.resources ?? {},
    ]),
  );
  const limits = limitsOf(view, allocated, node.size);
  const isInProgress = changes.length > 0 || restarting || limits !== undefined;
  return { allocated, pending, changes, limits, isInProgress };
}

/** Whether there is anything to carry out. */
export function hasWork({ changes, limits }: ResizePlan): boolean {
  return changes.length > 0 || limits !== undefined;
}

type Allocated = ResizePlan['allocated'];

/** Those of CPU are of what the containers have; that of memory is of the VM, and stays. */
function limitsOf(
  { pod, sandbox }: PodView,
  allocated: Allocated,
  size: NodeSize,
): ResizePlan['limits'] {
  if (sandbox?.phase !== 'running') return undefined;
  const spec = allocatedSpec(pod.spec ?? { containers: [] }, allocated);
  const { cpuMillis, cpuWeightMillis } = podSize(spec, 0, size).limits;
  const had = sandbox.spec.limits;
  const isSame = had.cpuMillis === cpuMillis && had.cpuWeightMillis === cpuWeightMillis;
  return isSame ? undefined : { ...had, cpuMillis, cpuWeightMillis };
}

/** The spec with what its containers are to have now. */
export function allocatedSpec(spec: PodSpec, allocated: Allocated): PodSpec {
  const given = (containers: Container[]) =>
    containers.map((each) => ({ ...each, resources: allocated.get(each.name) ?? each.resources }));
  return {
    ...spec,
    containers: given(spec.containers),
    ...(spec.initContainers ? { initContainers: given(spec.initContainers) } : {}),
  };
}

function changedResources(
  before: ResourceRequirements | undefined,
  after: ResourceRequirements | undefined,
): string[] {
  return RESIZABLE.filter((name) =>
    SIDES.some((side) => !isSameAmount(before?.[side]?.[name], after?.[side]?.[name])),
  );
}

type Amount = string | number | undefined;

function isSameAmount(a: Amount, b: Amount): boolean {
  if (a === undefined || b === undefined) return a === b;
  return compareQuantities(a, b) === 0;
}

function needsRestart({ resizePolicy = [] }: Container, changed: string[]): boolean {
  return resizePolicy.some(
    ({ resourceName, restartPolicy }) =>
      restartPolicy === 'RestartContainer' && changed.includes(resourceName),
  );
}

interface Held {
  container: Container;
  held: ResourceRequirements | undefined;
}

/** In the words of Kubernetes' kubelet where it is the node, in ours where it is the VM. */
function refusalOf(
  pod: Pod,
  sandbox: PodState,
  resizable: Held[],
  { size, room }: { size: NodeSize; room: NodeRoom },
): Problem | undefined {
  const wanted = podRequests({ ...pod, status: {} });
  const before = podRequests(withHeld(pod, resizable));
  for (const name of RESIZABLE) {
    const [requested, capacity] = [wanted[name] ?? 0, room.allocatable[name] ?? 0];
    if (requested <= capacity) continue;
    const amounts = `${name}, requested: ${requested}, capacity: ${capacity}`;
    return { reason: 'Infeasible', message: `Node didn't have enough capacity: ${amounts}` };
  }
  const tooLarge = beyondVm(pod, sandbox, resizable, size);
  if (tooLarge) return { reason: 'Infeasible', message: tooLarge };
  const used = room.used(pod.metadata.uid ?? '');
  for (const name of RESIZABLE) {
    const [requested, capacity] = [wanted[name] ?? 0, room.allocatable[name] ?? 0];
    const isGrowing = requested > (before[name] ?? 0);
    if (!isGrowing || requested + (used[name] ?? 0) <= capacity) continue;
    const amounts = `${name}, requested: ${requested}, used: ${used[name]}, capacity: ${capacity}`;
    return { reason: 'Deferred', message: `Node didn't have enough resource: ${amounts}` };
  }
  return undefined;
}

function withHeld(pod: Pod, resizable: Held[]): Pod {
  const allocated = new Map(
    resizable.map(({ container, held }) => [container.name, held ?? container.resources ?? {}]),
  );
  return { ...pod, status: {}, spec: allocatedSpec(pod.spec ?? { containers: [] }, allocated) };
}

/** Why the VM that the pod has cannot give it this; undefined where it can. */
function beyondVm(
  pod: Pod,
  sandbox: PodState,
  resizable: Held[],
  node: NodeSize,
): string | undefined {
  const { spec } = sandbox;
  const fileBytes = volumeFileBytes(spec.volumes);
  const sizeOf = ({ spec: wanted = { containers: [] } }: Pod) => podSize(wanted, fileBytes, node);
  const [wanted, held] = [sizeOf(pod), sizeOf(withHeld(pod, resizable))];
  const until = 'which it keeps until the pod is created anew';
  if (wanted.cpuCount > Math.max(spec.cpuCount, held.cpuCount)) {
    return (
      `The pod's virtual machine has too few CPUs: cpu, needed: ${wanted.cpuCount}, ` +
      `capacity: ${spec.cpuCount}, ${until}`
    );
  }
  if (wanted.memoryMib > Math.max(spec.memoryMib, held.memoryMib)) {
    const needed = wanted.memoryMib * MIB;
    return (
      `The pod's virtual machine has too little memory: memory, needed: ${needed}, ` +
      `capacity: ${spec.memoryMib * MIB}, ${until}`
    );
  }
  return undefined;
}
