import { isStatus } from '../../api/status.ts';
import type { Pod } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { objectKey } from '../../client/informer.ts';
import { NODES, PODS } from '../../client/resources.ts';
import type { ControllerContext } from '../common/context.ts';
import { isTerminal } from '../common/pods.ts';

const INTERVAL_MS = 20_000;
/** A node has to be missing for so long before its pods are given up. */
const QUARANTINE_MS = 40_000;
/** Of pods that have ended so many are kept, for people to look at. */
const TERMINATED_COUNT_MAX = 12_500;

/** Removes pods that nobody will: on nodes that are gone, never placed, or ended and too many. */
export async function runPodGarbageCollector(context: ControllerContext): Promise<void> {
  const { informers, clock, log, signal } = context;
  const nodes = informers.informer(NODES);
  const pods = informers.informer(PODS);
  await Promise.race([
    Promise.all([nodes.synced, pods.synced]),
    new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true })),
  ]);
  const missingSinceMs = new Map<string, number>();
  while (!signal.aborted) {
    try {
      await sweep(context, missingSinceMs);
    } catch (error) {
      if (!signal.aborted) log.warn('Pod sweep failed', { error: describeError(error) });
    }
    await clock.sleep(INTERVAL_MS, signal).catch(() => {});
  }
}

async function sweep(context: ControllerContext, missingSinceMs: Map<string, number>) {
  const { informers, clock, log, signal } = context;
  const nodes = informers.informer(NODES);
  const nowMs = clock.monotonicMs();
  const missing = new Set<string>();
  const doomed: Pod[] = [];
  const ended: Pod[] = [];
  for (const pod of informers.informer(PODS).list()) {
    const node = pod.spec?.nodeName;
    if (!node) {
      if (pod.metadata.deletionTimestamp) doomed.push(pod);
    } else if (!nodes.get(undefined, node)) {
      missing.add(node);
      const sinceMs = missingSinceMs.get(node) ?? nowMs;
      missingSinceMs.set(node, sinceMs);
      if (nowMs - sinceMs >= QUARANTINE_MS && (await isGone(context, node))) doomed.push(pod);
    } else if (isTerminal(pod)) ended.push(pod);
  }
  for (const node of missingSinceMs.keys()) if (!missing.has(node)) missingSinceMs.delete(node);
  const created = ({ metadata }: Pod) => metadata.creationTimestamp ?? '';
  ended.sort((a, b) => (created(a) < created(b) ? -1 : 1));
  doomed.push(...ended.slice(0, Math.max(0, ended.length - TERMINATED_COUNT_MAX)));
  for (const pod of doomed) {
    if (signal.aborted) return;
    log.info('Removing pod that nobody will end', { pod: objectKey(pod) });
    await remove(context, pod);
  }
}

async function isGone({ client }: ControllerContext, node: string): Promise<boolean> {
  try {
    await client.get(NODES, { name: node });
    return false;
  } catch (error) {
    if (isStatus(error, 'NotFound')) return true;
    throw error;
  }
}

async function remove({ client, clock }: ControllerContext, pod: Pod): Promise<void> {
  const { namespace, name = '', uid } = pod.metadata;
  try {
    if (!isTerminal(pod) && pod.spec?.nodeName) {
      const others = (pod.status?.conditions ?? []).filter(
        ({ type }) => type !== 'DisruptionTarget',
      );
      const condition = {
        type: 'DisruptionTarget',
        status: 'True',
        reason: 'DeletionByPodGC',
        message: 'PodGC: node no longer exists',
        lastTransitionTime: rfc3339(clock.nowMs()),
      };
      const status = { ...pod.status, phase: 'Failed', conditions: [...others, condition] };
      await client.updateStatus(PODS, { ...pod, status });
    }
    await client.delete(PODS, { namespace, name }, { uid, gracePeriodSeconds: 0 });
  } catch (error) {
    if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error;
  }
}
