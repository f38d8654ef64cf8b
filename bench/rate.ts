import type { DataPaths } from '../src/cli/config.ts';
import { systemClock } from '../src/base/clock.ts';
import { pushDemoImage } from '../src/cli/demo/demo-image.ts';
import { originOf } from '../src/cli/demo/timeline.ts';
import { DEPLOYMENTS, PODS } from '../src/client/resources.ts';
import { withCluster } from './context.ts';
import type { BenchContext } from './context.ts';
import { idlePodSpec, isRunning, removePods, whenPods } from './idle-pods.ts';
import { describeMachine, loadNote, series } from './report.ts';
import type { BenchReport } from './report.ts';
import { waitForObject } from './wait.ts';

const COUNT = 50;
/** Deployments of so many pods, one after the other. */
const ROUND_COUNT = 3;
const TIME_MAX_MS = 240_000;
/** Between rounds: what the last one left to do must not count for the next. */
const PAUSE_MS = 5_000;
const LABELS = { app: 'rate' };

/**
 * A Deployment of `count` pods from its creation until all are Running, the template and the image
 * being present; and how many became Running in a second meanwhile.
 */
export function benchRate(paths: DataPaths, count = COUNT): Promise<BenchReport> {
  return withCluster(paths, async (context) => {
    const image = await pushDemoImage(context.config.registryPort);
    await makeTemplate(context, image);
    const load = loadNote();
    const rounds: Round[] = [];
    for (let index = 0; index < ROUND_COUNT; index += 1) {
      await systemClock.sleep(PAUSE_MS);
      rounds.push(await startAll(context, image, `rate-${index}`, count));
    }
    const origins = rounds.flatMap((round) => round.origins);
    const counts = [...new Set(origins)].sort().map((origin) => {
      return `${origins.filter((each) => each === origin).length} ${origin}`;
    });
    return {
      name: 'rate',
      machine: describeMachine(context.accelerator, context.kernel),
      series: [
        series(
          'create of the Deployment to each pod Running',
          rounds.flatMap(({ timesMs }) => timesMs),
        ),
        series(
          `Deployment of ${count}: all Running`,
          rounds.map(({ timesMs }) => Math.max(...timesMs)),
        ),
        series('sustained', rounds.map(sustained), 'pods/s'),
        series(
          'all pods gone again',
          rounds.map(({ removalMs }) => removalMs),
        ),
      ],
      notes: [`How the pods came to their VMs: ${counts.join(', ')}.`, load],
    };
  });
}

interface Round {
  /** Of each pod, since the Deployment was created. */
  timesMs: number[];
  origins: string[];
  removalMs: number;
}

/** Pods a second between the first and the last that became Running. */
function sustained({ timesMs }: Round): number {
  const spanMs = Math.max(...timesMs) - Math.min(...timesMs);
  return (1000 * (timesMs.length - 1)) / spanMs;
}

/** Pods of the kind until one has come from a template. */
async function makeTemplate(context: BenchContext, image: string): Promise<void> {
  const { client, namespace } = context;
  const deadlineMs = systemClock.monotonicMs() + TIME_MAX_MS;
  for (let index = 0; systemClock.monotonicMs() < deadlineMs; index += 1) {
    const name = `first-${index}`;
    const pod = { metadata: { name, namespace }, spec: idlePodSpec(image) };
    await client.create(PODS, { apiVersion: 'v1', kind: 'Pod', ...pod });
    const running = await waitForObject(client, PODS, { namespace, name }, isRunning);
    await removePods(context, AbortSignal.timeout(TIME_MAX_MS));
    if (originOf(running) !== 'cold') return;
    await systemClock.sleep(PAUSE_MS);
  }
  throw new Error(`No pod came from a template within ${TIME_MAX_MS / 1000} s`);
}

async function startAll(
  context: BenchContext,
  image: string,
  name: string,
  count: number,
): Promise<Round> {
  const { client, namespace } = context;
  const signal = AbortSignal.timeout(TIME_MAX_MS);
  const startMs = systemClock.monotonicMs();
  await client.create(DEPLOYMENTS, {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace },
    spec: {
      replicas: count,
      selector: { matchLabels: LABELS },
      template: { metadata: { labels: LABELS }, spec: idlePodSpec(image) },
    },
  });
  try {
    const times = await whenPods(context, count, isRunning, signal);
    const { items } = await client.list(PODS, { namespace, signal });
    const timesMs = times.map((atMs) => atMs - startMs);
    const endMs = systemClock.monotonicMs();
    await client.delete(DEPLOYMENTS, { namespace, name }, { propagationPolicy: 'Foreground' });
    await removePods(context, signal);
    const removalMs = systemClock.monotonicMs() - endMs;
    return { timesMs, origins: items.map(originOf), removalMs };
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new Error(`${count} pods were not Running and gone after ${TIME_MAX_MS / 1000} s`, {
      cause: error,
    });
  }
}
