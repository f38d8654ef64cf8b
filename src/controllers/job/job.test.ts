import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Job, Pod } from '../../api/types.generated.ts';
import { StatusError } from '../../api/status.ts';
import { rfc3339 } from '../../base/clock.ts';
import { JOBS, PODS } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import type { TestCluster } from '../common/testing.fake.ts';
import { runJobController } from './index.ts';
import { TRACKING_FINALIZER } from './pods.ts';

const labels = { 'batch.kubernetes.io/controller-uid': 'u' };

function makeJob(more: object = {}, podSpec: object = {}): Job {
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'sum', namespace: 'ns' },
    spec: {
      parallelism: 1,
      completions: 1,
      backoffLimit: 6,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: { restartPolicy: 'Never', containers: [{ name: 'c' }], ...podSpec },
      },
      ...more,
    },
  };
}

const readJob = ({ api }: TestCluster): Job => {
  const job = api.get(JOBS, 'ns', 'sum');
  assert.ok(job);
  return job;
};

const isRunning = ({ status, metadata }: Pod): boolean =>
  !['Succeeded', 'Failed'].includes(status?.phase ?? '') && !metadata.deletionTimestamp;

const running = ({ api }: TestCluster): Pod[] => api.all(PODS).filter(isRunning);

/** As a kubelet: the pod's container has ended. */
function end({ api, clock }: TestCluster, pod: Pod | undefined, exitCode: number): void {
  assert.ok(pod);
  const finishedAt = rfc3339(clock.nowMs());
  const state = { terminated: { exitCode, finishedAt } };
  api.put(PODS, {
    ...pod,
    status: {
      phase: exitCode === 0 ? 'Succeeded' : 'Failed',
      containerStatuses: [
        { name: 'c', image: '', imageID: '', ready: false, restartCount: 0, state },
      ],
    },
  });
}

const trueConditions = (job: Job): string[] =>
  (job.status?.conditions ?? [])
    .filter(({ status }) => status === 'True')
    .map(({ type, reason }) => `${type} ${reason}`);

/** Nobody is held any more, and nothing is left to count. */
function assertSettled(cluster: TestCluster): void {
  const held = cluster.api.all(PODS).filter(({ metadata }) => metadata.finalizers?.length);
  assert.deepEqual(held, []);
  assert.deepEqual(readJob(cluster).status?.uncountedTerminatedPods, {});
}

test('a Job runs its pods in parallel until enough have succeeded', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass, eventsAbout } = cluster;
  api.put(JOBS, makeJob({ parallelism: 2, completions: 3 }));
  await pass(1000);
  assert.equal(running(cluster).length, 2);
  assert.ok(
    running(cluster).every(({ metadata }) => metadata.finalizers?.includes(TRACKING_FINALIZER)),
  );
  assert.equal(readJob(cluster).status?.active, 2);
  assert.ok(readJob(cluster).status?.startTime);
  end(cluster, running(cluster)[0], 0);
  await pass(1000);
  assert.equal(running(cluster).length, 2);
  assert.equal(readJob(cluster).status?.succeeded, 1);
  end(cluster, running(cluster)[0], 0);
  await pass(1000);
  assert.equal(running(cluster).length, 1, 'no more than are still needed');
  end(cluster, running(cluster)[0], 0);
  await pass(1000);
  const job = readJob(cluster);
  assert.deepEqual(trueConditions(job), [
    'SuccessCriteriaMet CompletionsReached',
    'Complete CompletionsReached',
  ]);
  assert.equal(job.status?.succeeded, 3);
  assert.equal(job.status?.active, undefined);
  assert.ok(job.status?.completionTime);
  assert.equal(api.all(PODS).length, 3);
  assertSettled(cluster);
  assert.ok(eventsAbout('sum').includes('Completed: Job completed'));
  const writeCount = api.writes.length;
  await pass(60_000);
  assert.equal(api.writes.length, writeCount, 'then it rests');
});

test('failures are tried again ever more slowly, until there were too many', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ backoffLimit: 2 }));
  await pass(500);
  end(cluster, running(cluster)[0], 1);
  await pass(8000);
  assert.equal(running(cluster).length, 0);
  await pass(3000);
  assert.equal(running(cluster).length, 1);
  end(cluster, running(cluster)[0], 1);
  await pass(18_000);
  assert.equal(running(cluster).length, 0);
  await pass(3000);
  end(cluster, running(cluster)[0], 1);
  await pass(1000);
  const job = readJob(cluster);
  assert.deepEqual(trueConditions(job), [
    'FailureTarget BackoffLimitExceeded',
    'Failed BackoffLimitExceeded',
  ]);
  assert.equal(job.status?.failed, 3);
  assert.equal(job.status?.completionTime, undefined);
  assertSettled(cluster);
  await pass(120_000);
  assert.equal(api.all(PODS).length, 3);
});

test('restarts in place count as failures', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ backoffLimit: 2 }, { restartPolicy: 'OnFailure' }));
  await pass(500);
  const [pod] = running(cluster);
  assert.ok(pod);
  const status = { name: 'c', image: '', imageID: '', ready: true, restartCount: 2 };
  api.put(PODS, { ...pod, status: { phase: 'Running', containerStatuses: [status] } });
  await pass(1000);
  assert.ok(trueConditions(readJob(cluster)).includes('Failed BackoffLimitExceeded'));
  assert.equal(api.all(PODS).length, 0);
});

test('a deadline ends the pods and the Job', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ parallelism: 2, completions: 2, activeDeadlineSeconds: 30 }));
  await pass(28_000);
  assert.equal(running(cluster).length, 2);
  await pass(4000);
  const job = readJob(cluster);
  assert.deepEqual(trueConditions(job), [
    'FailureTarget DeadlineExceeded',
    'Failed DeadlineExceeded',
  ]);
  assert.equal(job.status?.failed, 2);
  assert.equal(api.all(PODS).length, 0);
});

test('a suspended Job has no pods, no failures from it, and a new start later', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass, eventsAbout } = cluster;
  const spec = { parallelism: 2, completions: 2, activeDeadlineSeconds: 60 };
  api.put(JOBS, makeJob(spec));
  await pass(40_000);
  const { startTime } = readJob(cluster).status ?? {};
  const { status } = readJob(cluster);
  api.put(JOBS, { ...makeJob({ ...spec, suspend: true }), status });
  await pass(60_000);
  assert.equal(api.all(PODS).length, 0);
  assert.deepEqual(trueConditions(readJob(cluster)), ['Suspended JobSuspended']);
  assert.equal(readJob(cluster).status?.failed, undefined);
  api.put(JOBS, { ...makeJob(spec), status: readJob(cluster).status });
  await pass(40_000);
  assert.equal(running(cluster).length, 2);
  assert.deepEqual(trueConditions(readJob(cluster)), []);
  assert.notEqual(readJob(cluster).status?.startTime, startTime);
  assert.ok(eventsAbout('sum').includes('Suspended: Job suspended'));
  assert.ok(eventsAbout('sum').includes('Resumed: Job resumed'));
});

test('less parallelism takes pods away, and that is no failure', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ parallelism: 4, completions: 8 }));
  await pass(1000);
  const { status } = readJob(cluster);
  api.put(JOBS, { ...makeJob({ parallelism: 1, completions: 8 }), status });
  await pass(1000);
  assert.equal(api.all(PODS).length, 1);
  assert.equal(readJob(cluster).status?.failed, undefined);
  assert.equal(readJob(cluster).status?.active, 1);
});

test('without completions the first success ends the making of pods', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ parallelism: 3, completions: undefined }));
  await pass(1000);
  assert.equal(running(cluster).length, 3);
  end(cluster, running(cluster)[0], 0);
  await pass(1000);
  assert.equal(running(cluster).length, 2);
  assert.deepEqual(trueConditions(readJob(cluster)), []);
  for (const pod of running(cluster)) end(cluster, pod, 0);
  await pass(1000);
  assert.ok(trueConditions(readJob(cluster)).includes('Complete CompletionsReached'));
  assert.equal(readJob(cluster).status?.succeeded, 3);
});

test('an indexed Job makes one pod of each index and keeps count of them', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ completionMode: 'Indexed', parallelism: 3, completions: 5 }));
  await pass(1000);
  const indexOf = ({ metadata }: Pod) =>
    metadata.annotations?.['batch.kubernetes.io/job-completion-index'];
  const byIndex = (index: string) => running(cluster).find((pod) => indexOf(pod) === index);
  assert.deepEqual(running(cluster).map(indexOf).sort(), ['0', '1', '2']);
  const pod = byIndex('1');
  assert.match(pod?.metadata.name ?? '', /^sum-1-/);
  assert.equal(pod?.spec?.hostname, 'sum-1');
  assert.equal(pod?.spec?.containers[0]?.env?.[0]?.name, 'JOB_COMPLETION_INDEX');
  end(cluster, byIndex('0'), 0);
  end(cluster, byIndex('2'), 0);
  end(cluster, byIndex('1'), 1);
  await pass(1000);
  assert.equal(readJob(cluster).status?.completedIndexes, '0,2');
  await pass(11_000);
  assert.deepEqual(running(cluster).map(indexOf).sort(), ['1', '3', '4']);
  for (const one of running(cluster)) end(cluster, one, 0);
  await pass(1000);
  const { status } = readJob(cluster);
  assert.equal(status?.completedIndexes, '0-4');
  assert.equal(status?.succeeded, 5);
  assert.equal(status?.failed, 1);
  assert.ok(trueConditions(readJob(cluster)).includes('Complete CompletionsReached'));
  assertSettled(cluster);
});

test('a success policy ends an indexed Job early', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  const successPolicy = { rules: [{ succeededIndexes: '1', succeededCount: 1 }] };
  const spec = { completionMode: 'Indexed', parallelism: 3, completions: 3, successPolicy };
  api.put(JOBS, makeJob(spec));
  await pass(1000);
  const pod = running(cluster).find(({ metadata }) => metadata.name?.startsWith('sum-1-'));
  end(cluster, pod, 0);
  await pass(1000);
  assert.deepEqual(trueConditions(readJob(cluster)), [
    'SuccessCriteriaMet SuccessPolicy',
    'Complete SuccessPolicy',
  ]);
  assert.equal(running(cluster).length, 0);
});

test('a failure policy fails the Job, or lets a failure pass', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  const rules = [
    { action: 'Ignore', onExitCodes: { operator: 'In', values: [3] } },
    { action: 'FailJob', onExitCodes: { containerName: 'c', operator: 'NotIn', values: [1] } },
  ];
  api.put(JOBS, makeJob({ podFailurePolicy: { rules } }));
  await pass(1000);
  end(cluster, running(cluster)[0], 3);
  await pass(1000);
  assert.equal(readJob(cluster).status?.failed, undefined);
  end(cluster, running(cluster)[0], 1);
  await pass(11_000);
  assert.equal(readJob(cluster).status?.failed, 1);
  const last = running(cluster)[0];
  end(cluster, last, 42);
  await pass(1000);
  const job = readJob(cluster);
  assert.ok(trueConditions(job).includes('Failed PodFailurePolicy'));
  assert.equal(
    job.status?.conditions?.find(({ type }) => type === 'Failed')?.message,
    `Container c for pod ns/${last?.metadata.name} failed with exit code 42 ` +
      'matching FailJob rule at index 1',
  );
});

test('a pod that somebody deletes is counted as failed and replaced', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass, context } = cluster;
  api.put(JOBS, makeJob());
  await pass(1000);
  const name = running(cluster)[0]?.metadata.name ?? '';
  await context.client.delete(PODS, { namespace: 'ns', name });
  await pass(12_000);
  assert.equal(readJob(cluster).status?.failed, 1);
  assert.equal(running(cluster).length, 1);
  assert.equal(api.all(PODS).length, 1);
});

test('every end is counted once, whatever fails between', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ parallelism: 3, completions: 6 }));
  await pass(1000);
  const broken = new StatusError('InternalError', 'broken');
  for (let round = 0; round < 2; round++) {
    api.failNext(/PUT .*\/jobs\/sum\/status/, broken, 2);
    api.failNext(/PATCH .*\/pods\//, broken, 2);
    for (const pod of running(cluster)) end(cluster, pod, 0);
    api.dropWatches();
    await pass(5000);
    assert.equal(readJob(cluster).status?.succeeded, 3 * (round + 1));
  }
  assert.ok(trueConditions(readJob(cluster)).includes('Complete CompletionsReached'));
  assert.equal(api.all(PODS).length, 6);
  assertSettled(cluster);
});

test('a step that was cut off is taken up again by the next process', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  const made = api.put(JOBS, makeJob({ parallelism: 2, completions: 4, suspend: true }));
  const pod = (name: string, finalizers: string[]): Pod => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...{ name, namespace: 'ns', labels, uid: `uid-${name}`, finalizers },
      ownerReferences: [
        {
          ...{ apiVersion: 'batch/v1', kind: 'Job', name: 'sum', uid: made.metadata.uid ?? '' },
          controller: true,
        },
      ],
    },
    status: { phase: 'Succeeded' },
  });
  api.put(PODS, pod('noted', [TRACKING_FINALIZER]));
  api.put(PODS, pod('released', []));
  const uncountedTerminatedPods = { succeeded: ['uid-noted', 'uid-released', 'uid-gone'] };
  api.put(JOBS, { ...readJob(cluster), status: { succeeded: 1, uncountedTerminatedPods } });
  await pass(1000);
  assert.equal(readJob(cluster).status?.succeeded, 4);
  assertSettled(cluster);
});

test('the pods of a Job that is gone are held no longer', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ parallelism: 2, completions: 2 }));
  await pass(1000);
  api.remove(JOBS, 'ns', 'sum');
  await pass(1000);
  assert.deepEqual(
    api.all(PODS).flatMap(({ metadata }) => metadata.finalizers ?? []),
    [],
  );
});

test('a finished Job is deleted when its time to live is over', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ ttlSecondsAfterFinished: 100 }));
  await pass(1000);
  end(cluster, running(cluster)[0], 0);
  await pass(95_000);
  assert.ok(!readJob(cluster).metadata.deletionTimestamp);
  await pass(10_000);
  const job = api.get(JOBS, 'ns', 'sum');
  assert.ok(job?.metadata.deletionTimestamp);
  assert.deepEqual(job.metadata.finalizers, ['foregroundDeletion']);
});

test('a Job that another controller manages is left alone', async (t) => {
  const cluster = startTestCluster(t, [runJobController]);
  const { api, pass } = cluster;
  api.put(JOBS, makeJob({ managedBy: 'example.com/other' }));
  await pass(1000);
  assert.deepEqual(api.writes, []);
});
