import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CronJob, Job } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { CRON_JOBS, JOBS } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import type { TestCluster } from '../common/testing.fake.ts';
import { runCronJobController } from './index.ts';

const MINUTE_MS = 60_000;

function start(t: Parameters<typeof startTestCluster>[0], spec: object = {}): TestCluster {
  const cluster = startTestCluster(t, [runCronJobController]);
  cluster.api.put(CRON_JOBS, {
    apiVersion: 'batch/v1',
    kind: 'CronJob',
    metadata: {
      name: 'tick',
      namespace: 'ns',
      creationTimestamp: rfc3339(cluster.clock.nowMs()),
    },
    spec: {
      schedule: '* * * * *',
      successfulJobsHistoryLimit: 3,
      failedJobsHistoryLimit: 1,
      jobTemplate: { metadata: { labels: { a: 'b' } }, spec: { template: { spec: {} } } },
      ...spec,
    },
  } as unknown as CronJob);
  return cluster;
}

const read = ({ api }: TestCluster) => api.get(CRON_JOBS, 'ns', 'tick') as CronJob;
const running = ({ api }: TestCluster) => api.all(JOBS).filter(({ status }) => !status?.conditions);

function end({ api, clock }: TestCluster, job: Job, type = 'Complete'): void {
  const now = rfc3339(clock.nowMs());
  const conditions = [{ type, status: 'True' }];
  api.put(JOBS, { ...job, status: { conditions, startTime: now, completionTime: now } });
}

test('each time makes one Job, which the status names until it is over', async (t) => {
  const cluster = start(t);
  await cluster.pass(30_000);
  assert.equal(cluster.api.all(JOBS).length, 0);
  await cluster.pass(MINUTE_MS);
  const [job] = cluster.api.all(JOBS);
  assert.ok(job);
  const { lastScheduleTime = '', active } = read(cluster).status ?? {};
  assert.equal(job.metadata.name, `tick-${Date.parse(lastScheduleTime) / MINUTE_MS}`);
  assert.deepEqual(job.metadata.labels, { a: 'b' });
  assert.equal(
    job.metadata.annotations?.['batch.kubernetes.io/cronjob-scheduled-timestamp'],
    lastScheduleTime,
  );
  assert.deepEqual(
    active?.map(({ name }) => name),
    [job.metadata.name],
  );
  end(cluster, job);
  await cluster.pass(1000);
  const { status } = read(cluster);
  assert.equal(status?.active, undefined);
  assert.ok(status?.lastSuccessfulTime);
  assert.deepEqual(cluster.eventsAbout('tick'), [
    `SuccessfulCreate: Created job ${job.metadata.name}`,
    `SawCompletedJob: Saw completed job: ${job.metadata.name}, condition: Complete`,
  ]);
  assert.deepEqual(cluster.complaints, []);
});

test('of Jobs that are over, the newest are kept', async (t) => {
  const cluster = start(t, { successfulJobsHistoryLimit: 2 });
  for (let round = 0; round < 5; round++) {
    await cluster.pass(MINUTE_MS);
    for (const job of running(cluster)) end(cluster, job);
  }
  await cluster.pass(1000);
  const ended = cluster.api.all(JOBS).filter(({ status }) => status?.conditions);
  assert.equal(ended.length, 2);
});

for (const [policy, runningCount] of [
  ['Allow', 3],
  ['Forbid', 1],
  ['Replace', 1],
] as const) {
  test(`after three minutes ${runningCount} run under the policy ${policy}`, async (t) => {
    const cluster = start(t, { concurrencyPolicy: policy });
    await cluster.pass(3 * MINUTE_MS + 1000);
    assert.equal(running(cluster).length, runningCount);
    const names = new Set(cluster.eventsAbout('tick').map((line) => line.split(':')[0]));
    assert.equal(names.has('JobAlreadyActive'), policy === 'Forbid');
    assert.equal(names.has('SuccessfulDelete'), policy === 'Replace');
  });
}

test('a suspended CronJob makes nothing; resumed, only the last of the missed times', async (t) => {
  const cluster = start(t, { suspend: true });
  await cluster.pass(10 * MINUTE_MS);
  assert.equal(cluster.api.all(JOBS).length, 0);
  const current = read(cluster);
  cluster.api.put(CRON_JOBS, { ...current, spec: { ...current.spec, suspend: false } } as CronJob);
  await cluster.pass(1000);
  assert.equal(cluster.api.all(JOBS).length, 1);
});

test('a time that was missed for longer than the deadline is not made up for', async (t) => {
  const cluster = start(t, { suspend: true, startingDeadlineSeconds: 10 });
  await cluster.pass(10 * MINUTE_MS + 30_000);
  const current = read(cluster);
  cluster.api.put(CRON_JOBS, { ...current, spec: { ...current.spec, suspend: false } } as CronJob);
  await cluster.pass(1000);
  assert.equal(cluster.api.all(JOBS).length, 0);
  await cluster.pass(MINUTE_MS);
  assert.equal(cluster.api.all(JOBS).length, 1);
});
