import { isStatus } from '../../api/status.ts';
import type { CronJob, CronJobStatus, Job, ObjectReference } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import { apiVersionOf, CRON_JOBS, JOBS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import {
  controllerOf,
  controllerReference,
  indexByController,
  owned,
} from '../common/ownership.ts';
import { isSameStatus } from '../common/status.ts';
import { dueTimes } from './schedule.ts';

const SCHEDULED_ANNOTATION = 'batch.kubernetes.io/cronjob-scheduled-timestamp';
/** Times are whole seconds: looked at a moment later, the time has surely come. */
const SLACK_MS = 100;

/** Makes a Job whenever a CronJob's schedule says so, and removes the oldest of those that ended. */
export function runCronJobController(context: ControllerContext): Promise<void> {
  const { informers, clock, log, signal } = context;
  const cronJobs = informers.informer(CRON_JOBS);
  const jobs = informers.informer(JOBS);
  const queue = createWorkQueue(clock);
  const enqueue = (cronJob: CronJob) => queue.add(objectKey(cronJob));
  cronJobs.addHandler({ add: enqueue, update: enqueue });
  indexByController(jobs);
  const enqueueOwner = (job: Job): void => {
    const owner = controllerOf(job);
    if (owner?.kind === CRON_JOBS.kind) queue.add(`${job.metadata.namespace}/${owner.name}`);
  };
  jobs.addHandler({ add: enqueueOwner, update: enqueueOwner, delete: enqueueOwner });
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const cronJob = cronJobs.get(namespace, name);
    if (!cronJob || cronJob.metadata.deletionTimestamp) return;
    const nextMs = await syncCronJob(context, cronJob);
    if (nextMs !== undefined) queue.addAfter(key, nextMs - clock.nowMs() + SLACK_MS);
  };
  return runController({
    name: 'cronjob',
    queue,
    reconcile,
    informers: [cronJobs, jobs],
    clock,
    log,
    signal,
  });
}

/** @returns when to look again */
async function syncCronJob(
  context: ControllerContext,
  cronJob: CronJob,
): Promise<number | undefined> {
  const { client, informers, clock } = context;
  const jobs = owned(informers.informer(JOBS), cronJob.metadata.uid);
  tellOfEnded(context, cronJob, jobs);
  await removeOldest(context, cronJob, jobs);
  const status: CronJobStatus = { ...cronJob.status, ...lastSuccess(cronJob, jobs) };
  const running = jobs.filter((job) => !endOf(job));
  const { nextMs, made } = await start(context, cronJob, running, clock.nowMs());
  if (made.scheduledMs !== undefined) status.lastScheduleTime = rfc3339(made.scheduledMs);
  const active = [...made.kept, ...(made.job ? [made.job] : [])].map(referenceTo);
  if (active.length > 0) status.active = active;
  else delete status.active;
  if (!isSameStatus(cronJob.status ?? {}, status)) {
    await client.updateStatus(CRON_JOBS, { ...cronJob, status });
  }
  return nextMs;
}

interface Made {
  scheduledMs?: number;
  job?: Job;
  /** Jobs that go on running. */
  kept: Job[];
}

async function start(
  context: ControllerContext,
  cronJob: CronJob,
  running: Job[],
  nowMs: number,
): Promise<{ nextMs: number | undefined; made: Made }> {
  const { client, events } = context;
  const { suspend, concurrencyPolicy, schedule } = cronJob.spec ?? {};
  if (suspend) return { nextMs: undefined, made: { kept: running } };
  let times;
  try {
    times = dueTimes(cronJob, nowMs);
  } catch (error) {
    const message = `unparseable schedule: ${String(schedule)} : ${describeError(error)}`;
    events.event(cronJob, 'Warning', 'UnparseableSchedule', message);
    return { nextMs: undefined, made: { kept: running } };
  }
  const { dueMs, nextMs } = times;
  const isMade = running.some(({ metadata }) => metadata.name === jobName(cronJob, dueMs ?? 0));
  if (dueMs === undefined || isMade) return { nextMs, made: { kept: running } };
  if (concurrencyPolicy === 'Forbid' && running.length > 0) {
    const message =
      'Not starting job because prior execution is running and concurrency policy is Forbid';
    events.event(cronJob, 'Normal', 'JobAlreadyActive', message);
    return { nextMs, made: { kept: running } };
  }
  const kept = concurrencyPolicy === 'Replace' ? [] : running;
  for (const job of running) if (!kept.includes(job)) await removeJob(context, cronJob, job);
  const draft = jobFor(cronJob, dueMs);
  try {
    const job = await client.create(JOBS, draft);
    const message = `Created job ${String(job.metadata.name)}`;
    events.event(cronJob, 'Normal', 'SuccessfulCreate', message);
    return { nextMs, made: { kept, job, scheduledMs: dueMs } };
  } catch (error) {
    // It was made in an earlier pass, whose status did not come through.
    if (isStatus(error, 'AlreadyExists')) return { nextMs, made: { kept, scheduledMs: dueMs } };
    const message = `Error creating job: ${describeError(error)}`;
    events.event(cronJob, 'Warning', 'FailedCreate', message);
    throw error;
  }
}

/** The same for each time, so that one time never has two Jobs. */
function jobName({ metadata }: CronJob, scheduledMs: number): string {
  return `${metadata.name}-${Math.floor(scheduledMs / 60_000)}`;
}

function jobFor(cronJob: CronJob, scheduledMs: number): Job {
  const { metadata, spec } = cronJob.spec?.jobTemplate ?? {};
  const { labels, annotations } = metadata ?? {};
  return {
    apiVersion: apiVersionOf(JOBS),
    kind: JOBS.kind,
    metadata: {
      name: jobName(cronJob, scheduledMs),
      ...(cronJob.metadata.namespace ? { namespace: cronJob.metadata.namespace } : {}),
      ...(labels ? { labels } : {}),
      annotations: { ...annotations, [SCHEDULED_ANNOTATION]: rfc3339(scheduledMs) },
      ownerReferences: [controllerReference(CRON_JOBS, cronJob)],
    },
    ...(spec ? { spec } : {}),
  };
}

/** `Complete` or `Failed`; undefined while the Job is not over. */
function endOf({ status }: Job): string | undefined {
  return status?.conditions?.find(
    ({ type, status: value }) => (type === 'Complete' || type === 'Failed') && value === 'True',
  )?.type;
}

function referenceTo({ apiVersion, kind, metadata }: Job): ObjectReference {
  const { name, namespace, uid, resourceVersion } = metadata;
  return {
    ...{ apiVersion, kind },
    ...(name ? { name } : {}),
    ...(namespace ? { namespace } : {}),
    ...(uid ? { uid } : {}),
    ...(resourceVersion ? { resourceVersion } : {}),
  };
}

/** Of the Jobs that ran when the status was written last. */
function tellOfEnded({ events }: ControllerContext, cronJob: CronJob, jobs: Job[]): void {
  for (const { uid, name } of cronJob.status?.active ?? []) {
    const job = jobs.find(({ metadata }) => metadata.uid === uid);
    const end = job && endOf(job);
    if (end) {
      const message = `Saw completed job: ${String(name)}, condition: ${end}`;
      events.event(cronJob, 'Normal', 'SawCompletedJob', message);
    }
  }
}

function lastSuccess(
  { status }: CronJob,
  jobs: Job[],
): Pick<CronJobStatus, 'lastSuccessfulTime'> | undefined {
  const times = jobs
    .filter((job) => endOf(job) === 'Complete')
    .map((job) => job.status?.completionTime ?? '');
  const latest = [...times, status?.lastSuccessfulTime ?? ''].sort().at(-1);
  return latest ? { lastSuccessfulTime: latest } : undefined;
}

async function removeOldest(
  context: ControllerContext,
  cronJob: CronJob,
  jobs: Job[],
): Promise<void> {
  const { successfulJobsHistoryLimit, failedJobsHistoryLimit } = cronJob.spec ?? {};
  const limits = { Complete: successfulJobsHistoryLimit, Failed: failedJobsHistoryLimit };
  for (const [end, limit] of Object.entries(limits)) {
    if (limit === undefined) continue;
    const ended = jobs.filter((job) => endOf(job) === end && !job.metadata.deletionTimestamp);
    const startOf = ({ status }: Job) => status?.startTime ?? '';
    ended.sort((a, b) => (startOf(a) < startOf(b) ? -1 : 1));
    for (const job of ended.slice(0, Math.max(0, ended.length - limit))) {
      await removeJob(context, cronJob, job);
    }
  }
}

async function removeJob(
  { client, events }: ControllerContext,
  cronJob: CronJob,
  job: Job,
): Promise<void> {
  const { namespace, name = '', uid } = job.metadata;
  const how = { propagationPolicy: 'Background' as const, ...(uid ? { uid } : {}) };
  try {
    await client.delete(JOBS, { namespace, name }, how);
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
  events.event(cronJob, 'Normal', 'SuccessfulDelete', `Deleted job ${name}`);
}
