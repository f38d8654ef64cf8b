import { isStatus } from '../../api/status.ts';
import type { Job } from '../../api/types.generated.ts';
import { JOBS } from '../../client/resources.ts';
import type { ControllerContext } from '../common/context.ts';
import { finalCondition } from './status.ts';

/** Milliseconds until a Job that has ended is to be deleted; undefined when it stays. */
function untilExpiryMs(job: Job, nowMs: number): number | undefined {
  if (job.metadata.deletionTimestamp) return undefined;
  const seconds = job.spec?.ttlSecondsAfterFinished;
  const endMs = Date.parse(finalCondition(job)?.lastTransitionTime ?? '');
  if (seconds === undefined || Number.isNaN(endMs)) return undefined;
  return Math.max(0, endMs + seconds * 1000 - nowMs);
}

/**
 * Deletes a Job that has ended, with its pods, when its time to live is over.
 * @returns after how long to look again
 */
export async function expireJob(
  { client, clock, log }: ControllerContext,
  seen: Job,
): Promise<number | undefined> {
  const { namespace, name = '' } = seen.metadata;
  const leftMs = untilExpiryMs(seen, clock.nowMs());
  if (leftMs !== 0) return leftMs;
  try {
    // Asked again: the time to live may just have been made longer.
    const job = await client.get(JOBS, { namespace, name });
    if (job.metadata.uid !== seen.metadata.uid) return undefined;
    const stillLeftMs = untilExpiryMs(job, clock.nowMs());
    if (stillLeftMs !== 0) return stillLeftMs;
    const { uid, resourceVersion } = job.metadata;
    const preconditions = { uid, resourceVersion };
    const propagationPolicy = 'Foreground';
    await client.delete(JOBS, { namespace, name }, { ...preconditions, propagationPolicy });
    log.info('Deleted finished job', { job: `${namespace}/${name}` });
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
  return undefined;
}
