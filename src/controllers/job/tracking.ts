import type { Job, JobStatus, Pod } from '../../api/types.generated.ts';
import { formatIndexes, indexOf, parseIndexes } from './indexes.ts';
import { finishedAtMs, hasFailed, hasSucceeded, isIndexed, isTracked } from './pods.ts';
import { judgeFailure } from './policy.ts';

/**
 * Counting the ends of pods exactly once, though any step may be the last before a crash: a pod
 * keeps a finalizer until its uid stands in `status.uncountedTerminatedPods`, and the uid becomes
 * a number only when the finalizer is gone.
 */
export interface Tally {
  /** Ended pods whose finalizer may go once `uncounted` is stored. */
  ended: Pod[];
  uncounted: { succeeded: string[]; failed: string[] };
  /** In all, those that are not yet a number in the status included. */
  succeeded: number;
  failed: number;
  /** Of an indexed Job. */
  succeededIndexes: Set<number>;
  /** Why a pod's failure fails the Job. */
  verdict: string | undefined;
  /** More have ended than one step counts: what is missing is not known. */
  isPartial: boolean;
  /** Ends that were not known before, in their order. */
  news: { isFailure: boolean; atMs: number }[];
}

/** Of one step; the rest follows in the next, so that a status stays small. */
const UNCOUNTED_COUNT_MAX = 500;

/**
 * @param released uids whose finalizer was taken away, whether the copy at hand shows it or not
 */
export function tally(job: Job, pods: Pod[], released: Set<string>, nowMs: number): Tally {
  const { status = {} } = job;
  const known = status.uncountedTerminatedPods ?? {};
  const uncounted = { succeeded: [...(known.succeeded ?? [])], failed: [...(known.failed ?? [])] };
  const completions = job.spec?.completions ?? 0;
  const result: Tally = {
    ended: [],
    uncounted,
    succeeded: 0,
    failed: 0,
    succeededIndexes: parseIndexes(status.completedIndexes, completions),
    verdict: undefined,
    isPartial: false,
    news: [],
  };
  const listed = new Set([...uncounted.succeeded, ...uncounted.failed]);
  for (const pod of pods) {
    const uid = pod.metadata.uid ?? '';
    if (!isTracked(pod) || released.has(uid)) continue;
    const isFailure = hasFailed(pod, job);
    if (!isFailure && !hasSucceeded(pod)) continue;
    if (result.ended.length >= UNCOUNTED_COUNT_MAX) {
      result.isPartial = true;
      break;
    }
    result.ended.push(pod);
    if (!listed.has(uid)) count(result, job, pod, isFailure, nowMs);
  }
  result.news.sort((a, b) => a.atMs - b.atMs);
  result.failed = (status.failed ?? 0) + uncounted.failed.length;
  result.succeeded = isIndexed(job)
    ? result.succeededIndexes.size
    : (status.succeeded ?? 0) + uncounted.succeeded.length;
  return result;
}

function count(result: Tally, job: Job, pod: Pod, isFailure: boolean, nowMs: number): void {
  const uid = pod.metadata.uid ?? '';
  const index = isIndexed(job) ? indexOf(pod) : undefined;
  if (isIndexed(job) && (index === undefined || index >= (job.spec?.completions ?? 0))) return;
  if (isFailure) {
    const { action, message } = judgeFailure(job, pod);
    if (action === 'Ignore') return;
    result.uncounted.failed.push(uid);
    result.verdict ??= message;
  } else if (index === undefined) result.uncounted.succeeded.push(uid);
  else if (result.succeededIndexes.has(index)) return;
  else result.succeededIndexes.add(index);
  result.news.push({ isFailure, atMs: finishedAtMs(pod, nowMs) });
}

/** The fields of the status in which the tally stands before the finalizers go. */
export function statusOfTally(job: Job, { uncounted, succeededIndexes }: Tally): JobStatus {
  const indexed = isIndexed(job)
    ? { succeeded: succeededIndexes.size, completedIndexes: formatIndexes(succeededIndexes) }
    : {};
  const lists = Object.entries(uncounted).filter(([, uids]) => uids.length > 0);
  return { ...job.status, ...indexed, uncountedTerminatedPods: Object.fromEntries(lists) };
}

/**
 * Turns uids into numbers, of pods that have no finalizer any more.
 * @param held uids whose finalizer is still there
 */
export function settleTally(status: JobStatus, held: Set<string>): JobStatus {
  const { succeeded = [], failed = [] } = status.uncountedTerminatedPods ?? {};
  const left = {
    succeeded: succeeded.filter((uid) => held.has(uid)),
    failed: failed.filter((uid) => held.has(uid)),
  };
  return {
    ...status,
    succeeded: (status.succeeded ?? 0) + succeeded.length - left.succeeded.length,
    failed: (status.failed ?? 0) + failed.length - left.failed.length,
    uncountedTerminatedPods: Object.fromEntries(
      Object.entries(left).filter(([, uids]) => uids.length > 0),
    ),
  };
}
