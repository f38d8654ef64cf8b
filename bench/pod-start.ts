import { readFile } from 'node:fs/promises';
import type { Pod } from '../src/api/types.generated.ts';
import { systemClock } from '../src/base/clock.ts';
import { execute, start } from '../src/base/exec.ts';
import { pushDemoImage } from '../src/cli/demo/demo-image.ts';
import { STAGES, originOf, timelineOf } from '../src/cli/demo/timeline.ts';
import type { Timeline } from '../src/cli/demo/timeline.ts';
import type { DataPaths } from '../src/cli/config.ts';
import { PODS } from '../src/client/resources.ts';
import { withCluster } from './context.ts';
import type { BenchContext } from './context.ts';
import { describeMachine, series } from './report.ts';
import type { BenchReport } from './report.ts';
import { waitForObject } from './wait.ts';

const COUNT = 50;
/** Between two starts, so that they are measured and not what is made ready for the next one. */
const PAUSE_MS = 1_500;

/**
 * From the admission of a pod to the first byte that its container writes, the image being
 * present; stage by stage, by how the pods came to their VMs; and `podman run` with runc of the
 * same image, in turn with it.
 */
export function benchPodStart(paths: DataPaths, count = COUNT): Promise<BenchReport> {
  return withCluster(paths, async (context) => {
    const image = await pushDemoImage(context.config.registryPort);
    const podman = await preparePodman(image);
    // The first pod pulls the image and warms the host's page cache.
    await startOnce(context, image, 'warm-up');
    const starts: Start[] = [];
    const peer: number[] = [];
    for (let index = 0; index < count; index += 1) {
      await systemClock.sleep(PAUSE_MS);
      starts.push(await startOnce(context, image, `start-${index}`));
      if (podman) peer.push(await podmanOnce(podman, image));
    }
    const origins = [...new Set(starts.map(({ origin }) => origin))].sort();
    return {
      name: 'pod-start',
      machine: describeMachine(context.accelerator, context.kernel),
      series: [
        ...origins.flatMap((origin) => {
          const timelines = starts
            .filter((one) => one.origin === origin)
            .map((one) => one.timeline);
          const firstBytes = timelines.map((timeline) => timeline['first-byte'] ?? Number.NaN);
          return [series(`${origin}: create to first byte`, firstBytes), ...waterfall(timelines)];
        }),
        ...(podman ? [series('podman run (runc) to first byte', peer)] : []),
      ],
      notes: podman ? [] : ['podman is not installed: there is no peer in this run.'],
    };
  });
}

/** Each stage by itself: its stamp less the one before. Stages that overlap count from the later. */
function waterfall(timelines: Timeline[]): BenchReport['series'] {
  return STAGES.slice(1).map((stage, index) => {
    const spans = timelines.map((timeline) => {
      const earlier = STAGES.slice(0, index + 1).map((name) => timeline[name] ?? 0);
      return Math.max(0, (timeline[stage] ?? Number.NaN) - Math.max(...earlier));
    });
    return series(`  ${stage}`, spans);
  });
}

interface Start {
  /** How the pod came to its VM. */
  origin: string;
  timeline: Timeline;
}

async function startOnce(context: BenchContext, image: string, name: string): Promise<Start> {
  const { client, namespace } = context;
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace },
    spec: {
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'main', image, command: ['/bin/echo', 'hello'] }],
    },
  };
  await client.create(PODS, pod);
  const done = await waitForObject(client, PODS, { namespace, name }, (candidate) => {
    return (
      timelineOf(candidate)['first-byte'] !== undefined && candidate.status?.phase === 'Succeeded'
    );
  });
  await client.delete(PODS, { namespace, name }, { gracePeriodSeconds: 0 });
  return { origin: originOf(done), timeline: timelineOf(done) };
}

/** Arguments under which podman runs here; undefined where there is no podman. */
async function preparePodman(image: string): Promise<string[] | undefined> {
  const found = await execute('podman', ['--version']).catch(() => undefined);
  if (found?.exitCode !== 0) return undefined;
  const pulled = await execute('podman', ['pull', '--quiet', '--tls-verify=false', image]);
  if (pulled.exitCode !== 0) throw new Error(`podman cannot pull ${image}: ${pulled.stderr}`);
  const limits = await ownLimits();
  return ['--cgroup-manager=cgroupfs', '--runtime=runc', 'run', '--rm', ...limits];
}

/** podman's names of limits that it would otherwise raise, by theirs in /proc. */
const RAISED_LIMITS = { 'Max open files': 'nofile', 'Max processes': 'nproc' };
/** podman itself runs its helpers with no more than this. */
const PODMAN_LIMIT_MAX = 32_768;

/** The limits of this process: without CAP_SYS_RESOURCE no higher ones can be set. */
async function ownLimits(): Promise<string[]> {
  const text = await readFile('/proc/self/limits', 'utf8');
  return Object.entries(RAISED_LIMITS).map(([title, name]) => {
    const [, hard] = new RegExp(`^${title} +\\w+ +(\\w+)`, 'm').exec(text) ?? [];
    // Not a number where it is unlimited.
    const limit = Math.min(Number(hard) || PODMAN_LIMIT_MAX, PODMAN_LIMIT_MAX);
    return `--ulimit=${name}=${limit}:${limit}`;
  });
}

function podmanOnce(args: string[], image: string): Promise<number> {
  const startMs = systemClock.monotonicMs();
  const child = start('podman', [...args, image, '/bin/echo', 'hello'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let firstMs = Number.NaN;
  let errors = '';
  child.stdout?.once('data', () => (firstMs = systemClock.monotonicMs() - startMs));
  child.stderr?.on('data', (chunk: Buffer) => (errors += chunk.toString().slice(0, 1000)));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(firstMs);
      else reject(new Error(`podman run ended with ${code}: ${errors.trim()}`));
    });
  });
}
