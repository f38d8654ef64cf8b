import type { Pod } from '../api/types.generated.ts';
import { isStatus } from '../api/status.ts';
import { PODS } from '../client/resources.ts';
import { latest } from './decide.ts';
import { isAlive } from './history.ts';
import type { ContainerView, PodView } from './history.ts';
import type { PodScope } from './pod-scope.ts';
import { stopContainer } from './stop.ts';
import type { RunningContainer } from './stop.ts';

/** The end of a pod: its containers, its VM, its object. Each step may be repeated. */

/** Kubernetes' default of `terminationGracePeriodSeconds`. */
const GRACE_DEFAULT_SECONDS = 30;

/** The whole grace period: what the deletion asked for, or else the pod. */
export function graceSeconds({ spec, metadata }: Pod): number {
  const wanted = spec?.terminationGracePeriodSeconds ?? GRACE_DEFAULT_SECONDS;
  return metadata.deletionGracePeriodSeconds ?? wanted;
}

/** What is left of the grace period, also for a kubelet that was restarted within it. */
export function graceMs(pod: Pod, nowMs: number): number {
  const { deletionTimestamp } = pod.metadata;
  const wholeMs = graceSeconds(pod) * 1000;
  if (!deletionTimestamp) return wholeMs;
  // Written in whole seconds, rounded down: nobody gets less than was asked for.
  const leftMs = Date.parse(deletionTimestamp) + 1000 - nowMs;
  return Math.max(0, Math.min(wholeMs, leftMs));
}

/** Whether anything in the pod's VM may still run. */
export function hasRunning(view: PodView): boolean {
  return view.containers.some((each) => {
    const attempt = latest(each);
    return attempt !== undefined && !attempt.exit && isAlive(view.sandbox);
  });
}

/**
 * Stops containers first, all at once; then sidecars, the last one started first. What does not
 * die by a signal goes with its VM.
 */
export async function stopContainers(
  scope: PodScope,
  running: (containerName: string) => RunningContainer | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { context } = scope;
  const { clock, hyperd, sandboxes } = context;
  const deadlineMs = clock.monotonicMs() + graceMs(scope.pod, clock.nowMs());
  const stop = async ({ container: { name } }: ContainerView) => {
    const target = running(name);
    if (!target) return;
    const leftMs = Math.max(0, deadlineMs - clock.monotonicMs());
    await stopContainer(context, target, leftMs, `Stopping container ${name}`, signal);
  };
  const { containers, sandbox } = scope.view();
  await Promise.all(containers.filter(({ role }) => role !== 'sidecar').map(stop));
  for (const each of containers.filter(({ role }) => role === 'sidecar').reverse()) {
    await stop(each);
  }
  if (hasRunning(scope.view()) && sandbox && !signal.aborted) {
    await hyperd.deletePod(sandbox.id, signal);
    await sandboxes.refresh(sandbox.id);
  }
}

/** A pod that has ended needs no VM; its logs and exit codes stay with hyperd. */
export async function stopSandbox(scope: PodScope, id: string, signal: AbortSignal): Promise<void> {
  const { hyperd, sandboxes } = scope.context;
  await hyperd.stopPod(id, signal);
  await sandboxes.refresh(id);
}

/** Removes all that the node has of the pod. */
export async function deleteSandboxes(scope: PodScope, signal: AbortSignal): Promise<void> {
  const { hyperd, sandboxes, tokens } = scope.context;
  const uid = scope.pod.metadata.uid ?? '';
  for (const sandbox of sandboxes.of(uid)) {
    await hyperd.deletePod(sandbox.id, signal);
    await sandboxes.refresh(sandbox.id);
  }
  tokens.forget(uid);
}

/** Ends the deletion that the API server has begun: the object goes, or waits for finalizers. */
export async function deleteObject(scope: PodScope, signal: AbortSignal): Promise<void> {
  const { namespace, name = '', uid } = scope.pod.metadata;
  const options = { uid, gracePeriodSeconds: 0, signal };
  await scope.context.client.delete(PODS, { namespace, name }, options).catch((error: unknown) => {
    // Gone, or another pod of the same name: either way this one has been deleted.
    if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error;
  });
}
