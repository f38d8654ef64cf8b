import { isStatus } from '../../api/status.ts';
import type { Job, JobStatus, Pod } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { objectKey } from '../../client/informer.ts';
import { JOBS, PODS } from '../../client/resources.ts';
import type { ControllerContext } from '../common/context.ts';
import type { Expectations } from '../common/expectations.ts';
import { claim } from '../common/ownership.ts';
import { createPods, deletePods } from '../common/pod-control.ts';
import { isActive, isReady } from '../common/pods.ts';
import { isSameStatus } from '../common/status.ts';
import { nextBackoff, untilRetryMs } from './backoff.ts';
import type { Backoff } from './backoff.ts';
import { isTerminating, isTracked, podOf, TRACKING_FINALIZER } from './pods.ts';
import { judgeJob, planPods, untilDeadlineMs } from './plan.ts';
import { conditionOf, decidedOutcome, withOutcome, withSuspension } from './status.ts';
import type { Outcome } from './status.ts';
import { settleTally, statusOfTally, tally } from './tracking.ts';
import type { Tally } from './tracking.ts';

/** What the controller remembers between steps. All of it may be lost. */
export interface JobMemory {
  expectations: Expectations;
  /** Uids of pods whose finalizer was taken away, until the informer shows it. */
  released: Set<string>;
  /** Failures since the last success, by the Job's uid. */
  backoffs: Map<string, Backoff>;
  /** The version last written, by the Job's uid: older copies are not acted upon. */
  writtenVersions: Map<string, string>;
}

/** One Job while it is reconciled. */
interface Step {
  context: ControllerContext;
  memory: JobMemory;
  job: Job;
  pods: Pod[];
  /** As it will be written. */
  status: JobStatus;
  /** Uids of pods whose finalizer this step took away. */
  letGo: Set<string>;
}

/**
 * Takes one step: counts what has ended, decides, creates or deletes pods, writes the status.
 * @returns after how long to look again
 */
export async function syncJob(
  context: ControllerContext,
  memory: JobMemory,
  job: Job,
): Promise<number | undefined> {
  const { clock, informers, client } = context;
  if (isOutdated(memory, job)) return undefined;
  const pods = await claim({
    client,
    owner: job,
    ownerResource: JOBS,
    selector: job.spec?.selector,
    informer: informers.informer(PODS),
    mayAdopt: isActive,
    finalizer: TRACKING_FINALIZER,
  });
  const step: Step = { context, memory, job, pods, status: job.status ?? {}, letGo: new Set() };
  const nowMs = clock.nowMs();
  const counted = tally(job, pods, memory.released, nowMs);
  const known = memory.backoffs.get(job.metadata.uid ?? '');
  const backoff = nextBackoff(known, counted.news);
  begin(step, nowMs);
  const outcome = decidedOutcome(job) ?? judgeJob(step.job, step.status, pods, counted, nowMs);
  await recordEnds(step, counted, outcome);
  if (backoff) memory.backoffs.set(job.metadata.uid ?? '', backoff);
  const waitMs = untilRetryMs(backoff, nowMs);
  let failure: unknown;
  try {
    await managePods(step, counted, outcome, waitMs);
  } catch (error) {
    failure = error;
  }
  await releasePods(step, counted.ended);
  await finish(step, outcome);
  if (failure !== undefined) throw failure as Error;
  if (outcome) return undefined;
  const waits = [untilDeadlineMs(job, step.status, nowMs), waitMs || undefined];
  const soonest = Math.min(...waits.filter((wait) => wait !== undefined));
  return Number.isFinite(soonest) ? soonest : undefined;
}

/** The copy at hand is older than what was written: the next is on its way. */
function isOutdated({ writtenVersions }: JobMemory, { metadata }: Job): boolean {
  const written = writtenVersions.get(metadata.uid ?? '');
  if (written === undefined) return false;
  if (Number(metadata.resourceVersion) < Number(written)) return true;
  writtenVersions.delete(metadata.uid ?? '');
  return false;
}

/** Notes the start, and whether the Job is suspended; resuming starts the clock anew. */
function begin(step: Step, nowMs: number): void {
  const { job, context } = step;
  const { conditions: before = [], startTime } = step.status;
  const isSuspended = job.spec?.suspend ?? false;
  const conditions = withSuspension(before, isSuspended, nowMs);
  const isChanged = conditions !== before;
  if (isChanged) {
    const [reason, message] = isSuspended
      ? ['Suspended', 'Job suspended']
      : ['Resumed', 'Job resumed'];
    context.events.event(job, 'Normal', reason, message);
  }
  const starts = !isSuspended && (isChanged || startTime === undefined);
  step.status = {
    ...step.status,
    conditions,
    ...(starts ? { startTime: rfc3339(nowMs) } : {}),
  };
}

/** Stores who has ended, before anything lets go of them, and what was decided from it. */
async function recordEnds(step: Step, counted: Tally, outcome: Outcome | undefined): Promise<void> {
  const { job, context } = step;
  const nowMs = context.clock.nowMs();
  const noted = statusOfTally({ ...job, status: step.status }, counted);
  const conditions = outcome
    ? withOutcome(noted.conditions ?? [], outcome, false, nowMs)
    : noted.conditions;
  step.status = { ...noted, ...(conditions ? { conditions } : {}) };
  if (counted.ended.length > 0 || outcome) await writeStatus(step);
}

async function managePods(
  step: Step,
  counted: Tally,
  outcome: Outcome | undefined,
  waitMs: number,
): Promise<void> {
  const { context, memory, job, pods } = step;
  const { expectations } = memory;
  const active = pods.filter(isActive);
  step.status = { ...step.status, active: active.length };
  if (!expectations.isSatisfied(objectKey(job)) || counted.isPartial) return;
  if (outcome) {
    // They keep their finalizer: their ends are counted.
    await deletePods(context, expectations, job, active);
    step.status = { ...step.status, active: 0 };
    return;
  }
  const plan = planPods(job, pods, counted, context.clock.nowMs());
  if (plan.surplus.length > 0) {
    // Taken away by the controller, they are no failures.
    await releasePods(step, plan.surplus.filter(isTracked));
    await deletePods(context, expectations, job, plan.surplus);
    step.status = { ...step.status, active: active.length - plan.surplus.length };
  }
  if (plan.missing.length === 0 || waitMs > 0) return;
  const fresh = plan.missing.map((index) => podOf(job, index));
  await createPods(context, expectations, job, fresh);
  step.status = { ...step.status, active: (step.status.active ?? 0) + fresh.length };
}

async function releasePods(step: Step, some: Pod[]): Promise<void> {
  const { context, memory } = step;
  const { released } = memory;
  const informer = context.informers.informer(PODS);
  const results = await Promise.allSettled(
    some.map(async (pod) => {
      const { namespace, name = '', uid = '' } = pod.metadata;
      // Before the request: the informer may show its effect sooner than the answer comes.
      released.add(uid);
      try {
        await removeFinalizer(context, pod);
        step.letGo.add(uid);
        if (!informer.get(namespace, name)) released.delete(uid);
      } catch (error) {
        released.delete(uid);
        throw error;
      }
    }),
  );
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason as Error;
}

/** Uids of pods that are still held by the finalizer. */
function heldUids({ memory, pods, letGo }: Step): Set<string> {
  const uids = pods.filter(isTracked).map(({ metadata }) => metadata.uid ?? '');
  return new Set(uids.filter((uid) => !memory.released.has(uid) && !letGo.has(uid)));
}

export async function removeFinalizer(
  { client }: Pick<ControllerContext, 'client'>,
  { metadata }: Pod,
): Promise<void> {
  const { namespace, name = '', uid, resourceVersion } = metadata;
  const finalizers = (metadata.finalizers ?? []).filter((one) => one !== TRACKING_FINALIZER);
  const patch = { metadata: { uid, resourceVersion, finalizers } };
  try {
    await client.patch(PODS, { namespace, name }, 'merge', patch);
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
}

/** Turns the ends into numbers and, once every pod has ended, the outcome into the final word. */
async function finish(step: Step, outcome: Outcome | undefined): Promise<void> {
  const { context, memory, job, pods } = step;
  const { clock, events } = context;
  const held = heldUids(step);
  const status = settleTally(step.status, held);
  const active = pods.filter(isActive);
  const terminating = pods.filter(isTerminating);
  status.ready = active.filter(isReady).length;
  status.terminating = terminating.length;
  step.status = status;
  const isFinal =
    outcome !== undefined &&
    held.size === 0 &&
    active.length === 0 &&
    terminating.length === 0 &&
    memory.expectations.isSatisfied(objectKey(job));
  if (isFinal) {
    const nowMs = clock.nowMs();
    status.conditions = withOutcome(status.conditions ?? [], outcome, true, nowMs);
    if (outcome.isSuccess) {
      status.completionTime = conditionOf(status, 'Complete')?.lastTransitionTime ?? rfc3339(nowMs);
    }
  }
  await writeStatus(step);
  if (!isFinal) return;
  const { isSuccess, reason, message } = outcome;
  if (isSuccess) events.event(job, 'Normal', 'Completed', 'Job completed');
  else events.event(job, 'Warning', reason, message);
}

async function writeStatus(step: Step): Promise<void> {
  const { context, memory, job } = step;
  const status = withoutZeros(step.status);
  if (isSameStatus(job.status, status)) return;
  const written = await context.client.updateStatus(JOBS, { ...job, status });
  step.job = { ...written, spec: job.spec };
  const { uid = '', resourceVersion = '' } = written.metadata;
  memory.writtenVersions.set(uid, resourceVersion);
}

/** The API leaves these fields out when there is nothing to tell. */
const OMITTED_WHEN_EMPTY = ['active', 'succeeded', 'failed', 'conditions', 'completedIndexes'];

function withoutZeros(status: JobStatus): JobStatus {
  const isEmpty = (value: unknown) => value === 0 || value === '' || isEmptyList(value);
  const entries = Object.entries(status).filter(
    ([field, value]) => !OMITTED_WHEN_EMPTY.includes(field) || !isEmpty(value),
  );
  return Object.fromEntries(entries);
}

const isEmptyList = (value: unknown): boolean => Array.isArray(value) && value.length === 0;
