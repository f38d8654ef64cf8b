import type { Job, Pod } from '../../api/types.generated.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import { JOBS, PODS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { WorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { createExpectations } from '../common/expectations.ts';
import { controllerOf, owned } from '../common/ownership.ts';
import { followOwners, followPods } from '../common/pod-events.ts';
import { isTracked } from './pods.ts';
import { finalCondition } from './status.ts';
import { removeFinalizer, syncJob } from './sync.ts';
import type { JobMemory } from './sync.ts';
import { expireJob } from './ttl.ts';

const CONCURRENCY = 5;
/** The value of `spec.managedBy` that means this controller, as its absence does. */
const OWN_NAME = 'kubernetes.io/job-controller';

/** Runs the pods of Jobs to completion, counts how they end, and removes what has expired. */
export async function runJobController(context: ControllerContext): Promise<void> {
  const { informers, clock, log, signal } = context;
  const jobs = informers.informer(JOBS);
  const pods = informers.informer(PODS);
  const queue = createWorkQueue(clock);
  const strays = createWorkQueue(clock);
  const memory: JobMemory = {
    expectations: createExpectations(clock),
    released: new Set(),
    backoffs: new Map(),
    writtenVersions: new Map(),
  };
  followOwners(jobs, queue, memory.expectations);
  followPods({ pods, owners: jobs, queue, expectations: memory.expectations });
  const base = { informers: [jobs, pods], concurrency: CONCURRENCY, clock, log, signal };
  forgetReleased(context, memory);
  followStrays(context, memory, strays);
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const job = jobs.get(namespace, name);
    if (!job || (job.spec?.managedBy ?? OWN_NAME) !== OWN_NAME) return;
    const isOver = finalCondition(job) !== undefined || job.metadata.deletionTimestamp;
    if (isOver) for (const pod of owned(pods, job.metadata.uid)) strays.add(objectKey(pod));
    const requeueMs = isOver ? await expireJob(context, job) : await syncJob(context, memory, job);
    if (requeueMs !== undefined) queue.addAfter(key, requeueMs);
  };
  await Promise.all([
    runController({ ...base, name: 'job', queue, reconcile }),
    runController({
      ...base,
      name: 'job-strays',
      queue: strays,
      reconcile: (key) => releaseStray(context, key),
    }),
  ]);
}

function forgetReleased({ informers }: ControllerContext, { released }: JobMemory): void {
  informers.informer(PODS).addHandler({
    update(pod) {
      if (!isTracked(pod)) released.delete(pod.metadata.uid ?? '');
    },
    delete: ({ metadata }) => void released.delete(metadata.uid ?? ''),
  });
}

/** Pods that are still held though nobody will count them are looked at on their own. */
function followStrays(context: ControllerContext, memory: JobMemory, strays: WorkQueue): void {
  const jobs = context.informers.informer(JOBS);
  const pods = context.informers.informer(PODS);
  const check = (pod: Pod): void => {
    if (isStray(context, pod)) strays.add(objectKey(pod));
  };
  pods.addHandler({ add: check, update: check });
  jobs.addHandler({
    delete({ metadata }: Job) {
      const uid = metadata.uid ?? '';
      memory.backoffs.delete(uid);
      memory.writtenVersions.delete(uid);
      for (const pod of owned(pods, uid)) check(pod);
    },
  });
}

/** Held by the finalizer, and its Job is gone, going or done. */
function isStray({ informers }: ControllerContext, pod: Pod): boolean {
  if (!isTracked(pod)) return false;
  const reference = controllerOf(pod);
  if (reference?.kind !== JOBS.kind) return true;
  const job = informers.informer(JOBS).get(pod.metadata.namespace, reference.name);
  if (job?.metadata.uid !== reference.uid) return true;
  return finalCondition(job) !== undefined || job.metadata.deletionTimestamp !== undefined;
}

async function releaseStray(context: ControllerContext, key: string): Promise<void> {
  const { namespace, name } = splitKey(key);
  const pod = context.informers.informer(PODS).get(namespace, name);
  if (pod && isStray(context, pod)) await removeFinalizer(context, pod);
}
