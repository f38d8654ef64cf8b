import { createHash } from 'node:crypto';
import type {
  Container,
  ContainerStatus,
  Pod,
  ResourceRequirements,
} from '../api/types.generated.ts';
import type { ContainerState, PodState, ProcessExit } from '../api/hyperd.ts';
import { SUSPENDED_ANNOTATION } from '../api/tenancy.ts';
import { isSidecar } from './sizes.ts';

/**
 * What has happened to a pod so far, put together from hyperd (the VMs and containers that it
 * still knows) and, for what it does not, from the status that was written to the API. The
 * kubelet holds no state of its own that is not in one of the two.
 *
 * One pod has one VM at a time. When a VM dies a new one takes its place; the latest dead one is
 * kept, for its logs and exit codes.
 */
export const LABEL = {
  podUid: 'io.kubernetes.pod.uid',
  podNamespace: 'io.kubernetes.pod.namespace',
  podName: 'io.kubernetes.pod.name',
  /** How many VMs of this pod came before. */
  sandbox: 'hypernetes.io/sandbox',
  /** Restarts in a row, see `backoff.ts`. */
  streak: 'hypernetes.io/streak',
  /**
   * The resources that a container runs with, as its pod's spec had them; of a VM what its
   * containers were to have when it was made, by their names.
   */
  resources: 'hypernetes.io/resources',
  /** The resources that it is stopped for, to be started with them. */
  restartFor: 'hypernetes.io/restart-for',
} as const;

export type Role = 'init' | 'sidecar' | 'main';

export interface Attempt {
  containerId: string;
  number: number;
  imageId: string;
  phase: ContainerState['phase'];
  createdMs: number;
  startedMs: number;
  firstByteMs: number;
  exit: ProcessExit | undefined;
  streak: number;
  /** What it was started with or resized to; undefined where nobody has noted it. */
  resources: ResourceRequirements | undefined;
  /** It ends to be started with the resources that its pod's spec has now. */
  isRestarting: boolean;
  /** Undefined for one that only the API remembers. */
  sandboxId: string | undefined;
}

export interface ContainerView {
  container: Container;
  role: Role;
  /** Oldest first. */
  attempts: Attempt[];
  /** What it was to have when the newest VM was made. */
  madeFor: ResourceRequirements | undefined;
}

export interface PodView {
  pod: Pod;
  /** The newest VM, dead or alive. */
  sandbox: PodState | undefined;
  /** The one before it, kept for its logs. */
  previous: PodState | undefined;
  containers: ContainerView[];
}

/** hyperd's id of a pod's VM: the uid, with a number from the second VM on. */
export function sandboxId(uid: string, number: number): string {
  return number === 0 ? uid : `${uid}-${number}`;
}

/** The same for the same attempt, so that a request that is repeated starts nothing twice. */
export function containerId(uid: string, name: string, attempt: number): string {
  return createHash('sha256').update(`${uid}/${name}/${attempt}`).digest('hex');
}

/** How many VMs of the pod came before this one. */
export function sandboxNumber(state: PodState): number {
  return Number(state.labels[LABEL.sandbox] ?? 0);
}

/** Whether the VM runs or is about to. */
export function isAlive(state: PodState | undefined): state is PodState {
  return state?.phase === 'creating' || state?.phase === 'running';
}

/** The reason of a container that ended because its tenant was suspended: it goes on afterwards. */
export const TENANT_SUSPENDED = 'TenantSuspended';

export function isSuspended({ metadata }: Pod): boolean {
  return metadata.annotations?.[SUSPENDED_ANNOTATION] !== undefined;
}

export function wasSuspended(attempt: Attempt | undefined): boolean {
  return attempt?.exit?.reason === TENANT_SUSPENDED;
}

/** It ended for reasons of its pod and not of its own, and is started again at once. */
export function goesOn(attempt: Attempt | undefined): boolean {
  return wasSuspended(attempt) || (attempt?.isRestarting ?? false);
}

const NONE: ReadonlySet<string> = new Set();

/**
 * Puts a pod together from its object and from what hyperd has of it, in any order.
 *
 * @param suspended containers that are known to have been stopped with their tenant; a kubelet that
 *   was started later tells them by the time, and by the status that was written
 */
export function viewPod(
  pod: Pod,
  sandboxes: PodState[],
  suspended: ReadonlySet<string> = NONE,
): PodView {
  const usable = sandboxes.filter((each) => each.phase !== 'deleting');
  const ordered = usable.sort((a, b) => sandboxNumber(b) - sandboxNumber(a));
  const init = (pod.spec?.initContainers ?? []).map((container) =>
    viewContainer(container, isSidecar(container) ? 'sidecar' : 'init', pod, ordered),
  );
  const main = (pod.spec?.containers ?? []).map((container) =>
    viewContainer(container, 'main', pod, ordered),
  );
  const containers = [...init, ...main];
  for (const { attempts } of containers) markSuspended(pod, attempts, suspended);
  return { pod, sandbox: ordered[0], previous: ordered[1], containers };
}

function markSuspended(pod: Pod, attempts: Attempt[], known: ReadonlySet<string>): void {
  const { containerStatuses = [], initContainerStatuses = [] } = pod.status ?? {};
  const told = [...containerStatuses, ...initContainerStatuses]
    .flatMap(({ state, lastState }) => [state?.terminated, lastState?.terminated])
    .filter((end) => end?.reason === TENANT_SUSPENDED)
    .map((end) => bareId(end?.containerID ?? ''));
  const sinceMs = Date.parse(pod.metadata.annotations?.[SUSPENDED_ANNOTATION] ?? '');
  for (const attempt of attempts) {
    const { exit, containerId: id } = attempt;
    if (!exit) continue;
    if (!known.has(id) && !told.includes(id) && !(exit.finishedAtMs >= sinceMs)) continue;
    attempt.exit = { ...exit, reason: TENANT_SUSPENDED };
    attempt.streak = 0;
  }
}

function viewContainer(
  container: Container,
  role: Role,
  pod: Pod,
  sandboxes: PodState[],
): ContainerView {
  const attempts: Attempt[] = sandboxes.flatMap((sandbox) =>
    sandbox.containers
      .filter((state) => state.name === container.name)
      .map((state) => toAttempt(state, sandbox, container)),
  );
  const known = new Set(attempts.map((each) => each.containerId));
  const statuses = [
    ...(pod.status?.containerStatuses ?? []),
    ...(pod.status?.initContainerStatuses ?? []),
  ];
  const status = statuses.find((each) => each.name === container.name);
  for (const remembered of status ? fromStatus(status) : []) {
    if (!known.has(remembered.containerId)) attempts.push(remembered);
  }
  // What an earlier kubelet started it has not noted; it told it later.
  for (const attempt of attempts) {
    if (bareId(status?.containerID ?? '') !== attempt.containerId) continue;
    attempt.resources ??= status?.resources;
  }
  attempts.sort((a, b) => a.number - b.number);
  const made = sandboxes[0]?.labels[LABEL.resources];
  return { container, role, attempts, madeFor: made ? madeFor(made, container.name) : undefined };
}

function toAttempt(state: ContainerState, sandbox: PodState, container: Container): Attempt {
  const { [LABEL.resources]: resources, [LABEL.restartFor]: restartFor } = state.labels;
  const exit = state.exit ? explainExit(state.exit, sandbox) : undefined;
  return {
    containerId: state.id,
    number: state.attempt,
    imageId: state.imageId,
    phase: exit ? 'exited' : state.phase,
    createdMs: state.createdAtMs,
    // The start is told by the host's clock, the end by the guest's.
    startedMs: Math.min(state.startedAtMs, exit?.finishedAtMs ?? state.startedAtMs),
    firstByteMs: state.firstByteAtMs,
    exit,
    streak: Number(state.labels[LABEL.streak] ?? 0),
    resources: resources === undefined ? undefined : parseLabel(resources),
    isRestarting: restartFor !== undefined && restartFor === resourcesLabel(container.resources),
    sandboxId: sandbox.id,
  };
}

/** Resources as a label has them, the same text for the same ones. */
export function resourcesLabel(resources: ResourceRequirements | undefined): string {
  return JSON.stringify(resources ?? {});
}

function madeFor(label: string, name: string): ResourceRequirements | undefined {
  return (JSON.parse(label) as Record<string, ResourceRequirements>)[name];
}

function parseLabel(text: string): ResourceRequirements {
  return JSON.parse(text) as ResourceRequirements;
}

/** A container that died with its VM says so, instead of a bare `Error`. */
const VM_REASONS: Record<PodState['reason'], string> = {
  '': 'Error',
  PoweredOff: 'VMPoweredOff',
  GuestPanic: 'GuestPanic',
  VmmKilled: 'VMKilled',
  VmmFailed: 'VMFailed',
  StartFailed: 'VMStartFailed',
};

const SIGKILL = 9;

function explainExit(exit: ProcessExit, sandbox: PodState): ProcessExit {
  const diedWithVm =
    sandbox.phase === 'stopped' && exit.signal === SIGKILL && exit.message === sandbox.message;
  return diedWithVm && !exit.oomKilled ? { ...exit, reason: VM_REASONS[sandbox.reason] } : exit;
}

const LOST = 'ContainerStatusUnknown';

/** Attempts that the API's status tells of: the current one and the one before it. */
function fromStatus(status: ContainerStatus): Attempt[] {
  const attempts: Attempt[] = [];
  const { state, lastState, restartCount, imageID } = status;
  const add = (
    terminated: NonNullable<ContainerStatus['state']>['terminated'],
    number: number,
  ): void => {
    if (!terminated?.containerID || number < 0) return;
    const finishedAtMs = Date.parse(terminated.finishedAt ?? '') || 0;
    const { exitCode, reason = 'Error', message = '', signal = 0 } = terminated;
    attempts.push({
      containerId: bareId(terminated.containerID),
      number,
      imageId: imageID,
      phase: 'exited',
      createdMs: 0,
      startedMs: Date.parse(terminated.startedAt ?? '') || 0,
      firstByteMs: 0,
      exit: { exitCode, signal, reason, message, finishedAtMs, oomKilled: reason === 'OOMKilled' },
      // What was lost with its VM, as by a reboot, has not failed.
      streak: reason === LOST ? 0 : number,
      resources: undefined,
      isRestarting: false,
      sandboxId: undefined,
    });
  };
  // The one that ended last is the newest, or the one before a newest that is on its way or runs.
  const isNewest = lastState?.terminated?.containerID === status.containerID;
  add(lastState?.terminated, isNewest ? restartCount : restartCount - 1);
  add(state?.terminated, restartCount);
  if (state?.running && status.containerID) {
    // It ran when the kubelet last looked, and now nobody knows of it.
    add(
      {
        containerID: status.containerID,
        exitCode: 137,
        reason: LOST,
        message: 'The container could not be located when the pod was terminated',
        startedAt: state.running.startedAt,
        finishedAt: state.running.startedAt,
      },
      restartCount,
    );
  }
  return attempts;
}

/** `hyper://<id>`, as the API's status has it, without the runtime's name. */
export function bareId(containerID: string): string {
  return containerID.replace(/^hyper:\/\//, '');
}
