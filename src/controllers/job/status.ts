import type { Job, JobCondition, JobStatus } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';

/** What is about to end a Job, or has. */
export interface Outcome {
  isSuccess: boolean;
  reason: string;
  message: string;
}

/** The condition that tells the outcome while pods still end, and the final one. */
const INTERIM = { true: 'SuccessCriteriaMet', false: 'FailureTarget' } as const;
const FINAL = { true: 'Complete', false: 'Failed' } as const;

export function conditionOf(status: JobStatus | undefined, type: string): JobCondition | undefined {
  return status?.conditions?.find((condition) => condition.type === type);
}

const holds = (job: Job, type: string): JobCondition | undefined => {
  const condition = conditionOf(job.status, type);
  return condition?.status === 'True' ? condition : undefined;
};

/** The final condition. After it nothing about the Job changes any more. */
export function finalCondition(job: Job): JobCondition | undefined {
  return holds(job, FINAL.true) ?? holds(job, FINAL.false);
}

/** An outcome that was decided before. */
export function decidedOutcome(job: Job): Outcome | undefined {
  for (const isSuccess of [false, true]) {
    const condition = holds(job, INTERIM[`${isSuccess}`]);
    const { reason = '', message = '' } = condition ?? {};
    if (condition) return { isSuccess, reason, message };
  }
  return undefined;
}

/** Adds or replaces; nothing changes when status, reason and message are the same. */
export function withCondition(
  conditions: JobCondition[],
  condition: { type: string; status: string; reason: string; message: string },
  nowMs: number,
): JobCondition[] {
  const known = conditions.find(({ type }) => type === condition.type);
  const isSame =
    known?.status === condition.status &&
    known.reason === condition.reason &&
    known.message === condition.message;
  if (isSame) return conditions;
  const now = rfc3339(nowMs);
  const next = { ...condition, lastProbeTime: now, lastTransitionTime: now };
  return known ? conditions.map((one) => (one === known ? next : one)) : [...conditions, next];
}

export function withOutcome(
  conditions: JobCondition[],
  outcome: Outcome,
  isFinal: boolean,
  nowMs: number,
): JobCondition[] {
  const { isSuccess, reason, message } = outcome;
  const types = [INTERIM[`${isSuccess}`], ...(isFinal ? [FINAL[`${isSuccess}`]] : [])];
  return types.reduce(
    (list, type) => withCondition(list, { type, status: 'True', reason, message }, nowMs),
    conditions,
  );
}

/** A Job that never was suspended says nothing about it. */
export function withSuspension(
  conditions: JobCondition[],
  isSuspended: boolean,
  nowMs: number,
): JobCondition[] {
  const known = conditions.find(({ type }) => type === 'Suspended');
  if (!isSuspended && known?.status !== 'True') return conditions;
  const condition = isSuspended
    ? { status: 'True', reason: 'JobSuspended', message: 'Job suspended' }
    : { status: 'False', reason: 'JobResumed', message: 'Job resumed' };
  return withCondition(conditions, { type: 'Suspended', ...condition }, nowMs);
}
