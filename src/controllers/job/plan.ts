import type { Job, JobStatus, Pod } from '../../api/types.generated.ts';
import { isActive, rankForDeletion } from '../common/pods.ts';
import { freeIndexes, indexOf } from './indexes.ts';
import { isIndexed, isTerminating, restartsOf, waitsForEnd } from './pods.ts';
import { matchSuccess } from './policy.ts';
import type { Outcome } from './status.ts';
import type { Tally } from './tracking.ts';

/** Of one step; the rest follows in the next. */
const CREATION_COUNT_MAX = 500;
const DEFAULT_BACKOFF_LIMIT = 6;

const failure = (reason: string, message: string): Outcome => ({
  isSuccess: false,
  reason,
  message,
});

/** Milliseconds until the Job's deadline, undefined without one or while it does not run. */
export function untilDeadlineMs(
  { spec }: Job,
  { startTime }: JobStatus,
  nowMs: number,
): number | undefined {
  if (spec?.activeDeadlineSeconds === undefined || spec.suspend || !startTime) return undefined;
  return Math.max(0, Date.parse(startTime) + spec.activeDeadlineSeconds * 1000 - nowMs);
}

/** Whether and how the Job ends. */
export function judgeJob(
  job: Job,
  status: JobStatus,
  pods: Pod[],
  counted: Tally,
  nowMs: number,
): Outcome | undefined {
  if (counted.verdict) return failure('PodFailurePolicy', counted.verdict);
  if (exceedsBackoffLimit(job, pods, counted)) {
    const message = 'Job has reached the specified backoff limit';
    return failure('BackoffLimitExceeded', message);
  }
  if (untilDeadlineMs(job, status, nowMs) === 0) {
    return failure('DeadlineExceeded', 'Job was active longer than specified deadline');
  }
  const { completions, successPolicy } = job.spec ?? {};
  const rule = isIndexed(job)
    ? matchSuccess(successPolicy, counted.succeededIndexes, completions ?? 0)
    : undefined;
  if (rule !== undefined) {
    const message = `Matched rules at index ${rule}`;
    return { isSuccess: true, reason: 'SuccessPolicy', message };
  }
  const isComplete =
    completions === undefined
      ? counted.succeeded > 0 && !pods.some(isActive)
      : counted.succeeded >= completions;
  if (!isComplete) return undefined;
  const message = 'Reached expected number of succeeded pods';
  return { isSuccess: true, reason: 'CompletionsReached', message };
}

/** Where containers start again in place, their restarts count as failures too. */
function exceedsBackoffLimit({ spec }: Job, pods: Pod[], { failed }: Tally): boolean {
  const limit = spec?.backoffLimit ?? DEFAULT_BACKOFF_LIMIT;
  if (failed > limit) return true;
  if (spec?.template.spec?.restartPolicy !== 'OnFailure') return false;
  const restarts = pods.filter(isActive).reduce((sum, pod) => sum + restartsOf(pod), 0);
  return limit === 0 ? restarts > 0 : restarts >= limit;
}

export interface PodPlan {
  surplus: Pod[];
  /** One entry for each pod to make: its index, or undefined where there are none. */
  missing: (number | undefined)[];
}

/** Which pods are too many and which are missing, of a Job that goes on. */
export function planPods(job: Job, pods: Pod[], counted: Tally, nowMs: number): PodPlan {
  const active = pods.filter(isActive);
  if (job.spec?.suspend) return { surplus: active, missing: [] };
  const wanted = wantedCount(job, counted, active.length);
  const ranked = rankForDeletion(active, () => 0, nowMs);
  const misfits = isIndexed(job) ? misfitsOf(job, ranked) : [];
  const others = ranked.filter((pod) => !misfits.includes(pod));
  const surplus = [...misfits, ...others.slice(0, Math.max(0, others.length - wanted))];
  const kept = active.filter((pod) => !surplus.includes(pod));
  // Those that may not be replaced yet hold their place.
  const holding = [...kept, ...(waitsForEnd(job) ? pods.filter(isTerminating) : [])];
  const count = Math.min(CREATION_COUNT_MAX, Math.max(0, wanted - holding.length));
  if (!isIndexed(job)) return { surplus, missing: Array.from({ length: count }, () => undefined) };
  const taken = new Set(counted.succeededIndexes);
  for (const pod of holding) taken.add(indexOf(pod) ?? -1);
  return { surplus, missing: freeIndexes(job.spec?.completions ?? 0, taken, count) };
}

/** How many pods should run now. Without a number of completions any success starts the end. */
function wantedCount({ spec }: Job, { succeeded }: Tally, activeCount: number): number {
  const parallelism = spec?.parallelism ?? 1;
  if (spec?.completions !== undefined) {
    return Math.max(0, Math.min(parallelism, spec.completions - succeeded));
  }
  return succeeded > 0 ? activeCount : parallelism;
}

/** Pods without a valid index of their own. */
function misfitsOf({ spec }: Job, ranked: Pod[]): Pod[] {
  const seen = new Set<number>();
  const misfits: Pod[] = [];
  for (const pod of ranked.toReversed()) {
    const index = indexOf(pod);
    const isValid = index !== undefined && index < (spec?.completions ?? 0) && !seen.has(index);
    if (isValid) seen.add(index);
    else misfits.push(pod);
  }
  return misfits;
}
