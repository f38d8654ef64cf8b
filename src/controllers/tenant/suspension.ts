import { SUSPENDED_ANNOTATION, isStopped } from '../../api/tenancy.ts';
import type { Tenant } from '../../api/tenancy.ts';
import { isStatus } from '../../api/status.ts';
import type { Pod } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import type { Clock } from '../../base/clock.ts';
import type { Client } from '../../client/client.ts';
import { PODS } from '../../client/resources.ts';
import { isTerminal } from '../common/pods.ts';
import type { Finding } from './conditions.ts';

/** Pods that are marked at a time. */
const MARKED_AT_ONCE = 16;

/** Says why, for a tenant that is suspended itself or by one of those above it, nearest first. */
export function judgeSuspension(chain: Tenant[], pods: Pod[]): Finding {
  const [tenant] = chain;
  const stopped = chain.find(isStopped);
  if (!stopped) {
    return { type: 'Suspended', status: 'False', reason: 'NotSuspended', message: '' };
  }
  const { name } = stopped.metadata;
  const [reason, cause] =
    stopped !== tenant
      ? ['ParentSuspended', `the tenant ${name} is suspended`]
      : stopped.spec.suspended
        ? ['SuspendedBySpec', 'spec.suspended is set']
        : ['ProjectDisabled', 'its project is disabled'];
  const live = pods.filter((pod) => !isTerminal(pod));
  const still = live.filter(isRunning).length;
  const progress = `${live.length - still} of ${live.length} pods have stopped`;
  return { type: 'Suspended', status: 'True', reason, message: `${cause}; ${progress}` };
}

function isRunning({ status }: Pod): boolean {
  const statuses = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  return statuses.some(({ state }) => state?.running !== undefined);
}

/** Whether the pod has still to be told. */
export function isMarkedWrongly(pod: Pod, isSuspended: boolean): boolean {
  const isMarked = pod.metadata.annotations?.[SUSPENDED_ANNOTATION] !== undefined;
  return isMarked !== isSuspended && !isTerminal(pod);
}

/** Tells every pod. The server has the last word on what the annotation says. */
export async function markPods(
  client: Client,
  clock: Clock,
  pods: Pod[],
  isSuspended: boolean,
): Promise<void> {
  const wrong = pods.filter((pod) => isMarkedWrongly(pod, isSuspended));
  const value = isSuspended ? rfc3339(clock.nowMs()) : null;
  for (let start = 0; start < wrong.length; start += MARKED_AT_ONCE) {
    const some = wrong.slice(start, start + MARKED_AT_ONCE);
    await Promise.all(some.map((pod) => mark(client, pod, value)));
  }
}

async function mark(client: Client, { metadata }: Pod, value: string | null): Promise<void> {
  const { namespace, name = '', uid } = metadata;
  const body = { metadata: { uid, annotations: { [SUSPENDED_ANNOTATION]: value } } };
  try {
    await client.patch(PODS, { namespace, name }, 'merge', body);
  } catch (error) {
    // Gone, or another of that name, which will be told for itself.
    if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error;
  }
}
