import { readFile } from 'node:fs/promises';
import type { DataPaths } from '../src/cli/config.ts';
import { systemClock } from '../src/base/clock.ts';
import { withHyperd } from '../src/cli/local-pods.ts';
import { UsageError } from '../src/cli/errors.ts';
import { execInPod } from '../src/cli/demo/exec.ts';
import { pushDemoImage } from '../src/cli/demo/demo-image.ts';
import { NODES, PODS } from '../src/client/resources.ts';
import { withCluster } from './context.ts';
import type { BenchContext } from './context.ts';
import { idlePodSpec, isRunning, removePods, whenPods } from './idle-pods.ts';
import { pssMib } from './memory.ts';
import { describeMachine, loadNote, series } from './report.ts';
import type { BenchReport } from './report.ts';

const POD_COUNT = 200;
/** At a time: what a slow machine can start before anybody's patience is over. */
const BATCH_SIZE = 10;
const BATCH_TIME_MAX_MS = 180_000;
const REMOVAL_TIME_MAX_MS = 300_000;
const SETTLE_MS = 10_000;
const WATCH_MS = 10_000;

/** As many idle pods as were asked for on one node: what they cost, and whether each answers exec. */
export function benchDensity(paths: DataPaths, podCount = POD_COUNT): Promise<BenchReport> {
  return withCluster(paths, async (context) => {
    await checkRoom(context, podCount);
    const load = loadNote();
    const startFreeMib = await availableMib();
    const startMs = systemClock.monotonicMs();
    try {
      const image = await pushDemoImage(context.config.registryPort);
      await startPods(context, image, podCount);
      const tookS = Math.round((systemClock.monotonicMs() - startMs) / 1000);
      await systemClock.sleep(SETTLE_MS);
      const perPodMib = (startFreeMib - (await availableMib())) / podCount;
      const vms = await watchVms(context);
      const exec = await execInAll(context, podCount);
      const late = exec.filter((tookMs) => tookMs > 1000).length;
      return {
        name: 'density',
        machine: describeMachine(context.accelerator, context.kernel),
        series: [
          series(`exec of true in each of ${podCount} pods, one after the other`, exec),
          series('memory of the host for each pod, all that it costs', [perPodMib], 'MiB'),
          series(
            'memory of a VMM alone (PSS)',
            vms.map(({ pss }) => pss),
            'MiB',
          ),
          series(
            'CPU of an idle pod',
            vms.map(({ cpuPercent }) => cpuPercent),
            '% of a core',
          ),
        ],
        notes: [
          `${podCount} pods were Running ${tookS} s after the first was created.`,
          late === 0 ? 'Every one answered within 1 s.' : `${late} answered later than after 1 s.`,
          load,
        ],
      };
    } finally {
      await removePods(context, AbortSignal.timeout(REMOVAL_TIME_MAX_MS));
    }
  });
}

/** @throws UsageError saying what to start the cluster with */
async function checkRoom({ client, config }: BenchContext, podCount: number): Promise<void> {
  const node = await client.get(NODES, { name: config.nodeName });
  const { items } = await client.list(PODS, {});
  const room = Number(node.status?.allocatable?.pods ?? 0) - items.length;
  if (podCount <= room) return;
  throw new UsageError(
    `Cannot start ${podCount} pods: the node has room for ${room}. Start it with ` +
      `"up --max-pods ${podCount + items.length}", or say fewer with --pods.`,
  );
}

async function startPods(context: BenchContext, image: string, podCount: number): Promise<void> {
  const { client, namespace } = context;
  for (let first = 0; first < podCount; first += BATCH_SIZE) {
    const end = Math.min(podCount, first + BATCH_SIZE);
    const signal = AbortSignal.timeout(BATCH_TIME_MAX_MS);
    for (let index = first; index < end; index += 1) {
      await client.create(PODS, {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: nameOf(index), namespace },
        spec: idlePodSpec(image),
      });
    }
    await whenPods(context, end, isRunning, signal).catch((error: unknown) => {
      if (!signal.aborted) throw error;
      throw new Error(`${end} pods do not run ${BATCH_TIME_MAX_MS / 1000} s after the last batch`);
    });
  }
}

const nameOf = (index: number) => `idle-${index}`;

async function execInAll({ access, namespace }: BenchContext, podCount: number): Promise<number[]> {
  const times: number[] = [];
  for (let index = 0; index < podCount; index += 1) {
    const startMs = systemClock.monotonicMs();
    const { exitCode } = await execInPod(access, { namespace, name: nameOf(index) }, ['/bin/true']);
    if (exitCode !== 0) throw new Error(`true in ${nameOf(index)} ended with ${exitCode}`);
    times.push(systemClock.monotonicMs() - startMs);
  }
  return times;
}

/** Memory that the host could still give away. */
async function availableMib(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  return Number(/^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) / 1024;
}

/** What each VM of a pod takes while it does nothing. */
async function watchVms({ paths }: BenchContext) {
  const list = async () => {
    const all = await withHyperd(paths.hyperdSocket, (hyperd) => hyperd.vms());
    return all.filter(({ pod }) => pod !== '');
  };
  const before = new Map((await list()).map(({ id, cpuNanos }) => [id, cpuNanos]));
  const startMs = systemClock.monotonicMs();
  await systemClock.sleep(WATCH_MS);
  const after = await list();
  const tookMs = systemClock.monotonicMs() - startMs;
  return Promise.all(
    after.map(async ({ id, pid, cpuNanos }) => ({
      pss: await pssMib(pid),
      cpuPercent: (100 * (cpuNanos - (before.get(id) ?? cpuNanos))) / 1e6 / tookMs,
    })),
  );
}
