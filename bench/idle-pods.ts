import type { KubeObject } from '../src/api/object.ts';
import { isStatus } from '../src/api/status.ts';
import type { Pod } from '../src/api/types.generated.ts';
import { PODS } from '../src/client/resources.ts';
import { systemClock } from '../src/base/clock.ts';
import type { BenchContext } from './context.ts';

/** Pods that do nothing, as a benchmark starts them by the dozen. */
export function idlePodSpec(image: string): NonNullable<Pod['spec']> {
  const command = ['/bin/sleep', '100000'];
  return { terminationGracePeriodSeconds: 1, containers: [{ name: 'main', image, command }] };
}

/**
 * Follows the pods of the benchmark's namespace until `count` have been seen as `reached` says.
 *
 * @returns when each of them was, in order, in milliseconds of the monotonic clock
 */
export async function whenPods(
  { client, namespace }: BenchContext,
  count: number,
  reached: (pod: Pod) => boolean,
  signal: AbortSignal,
): Promise<number[]> {
  const times = new Map<string, number>();
  const look = (pod: Pod & KubeObject) => {
    const uid = pod.metadata.uid ?? '';
    if (!times.has(uid) && reached(pod)) times.set(uid, systemClock.monotonicMs());
  };
  const select = { namespace, signal };
  while (times.size < count) {
    const list = await client.list(PODS, select);
    list.items.forEach(look);
    const resourceVersion = list.metadata.resourceVersion ?? '';
    if (times.size >= count) break;
    for await (const { type, object } of client.watch(PODS, { ...select, resourceVersion })) {
      if (type !== 'BOOKMARK' && type !== 'DELETED') look(object);
      if (times.size >= count) break;
    }
  }
  return [...times.values()];
}

/** Removes all pods of the namespace and resolves when they are gone. */
export async function removePods({ client, namespace }: BenchContext, signal: AbortSignal) {
  const { items } = await client.list(PODS, { namespace });
  for (const { metadata } of items) {
    const key = { namespace, name: metadata.name ?? '' };
    // A controller that owns it may be quicker.
    await client.delete(PODS, key).catch((error: unknown) => {
      if (!isStatus(error, 'NotFound')) throw error;
    });
  }
  for (;;) {
    const { items: left, metadata } = await client.list(PODS, { namespace, signal });
    if (left.length === 0) return;
    const resourceVersion = metadata.resourceVersion ?? '';
    const seen = new Set<string>();
    for await (const { type, object } of client.watch(PODS, {
      namespace,
      resourceVersion,
      signal,
    })) {
      if (type === 'DELETED') seen.add(object.metadata.uid ?? '');
      if (left.every((pod) => seen.has(pod.metadata.uid ?? ''))) return;
    }
  }
}

export function isRunning(pod: Pod): boolean {
  return pod.status?.phase === 'Running';
}
