import { readFile, readdir } from 'node:fs/promises';
import type { DataPaths } from '../src/cli/config.ts';
import { queryStatus } from '../src/cli/control.ts';
import { PODS } from '../src/client/resources.ts';
import { systemClock } from '../src/base/clock.ts';
import { pushDemoImage } from '../src/cli/demo/demo-image.ts';
import { timelineOf } from '../src/cli/demo/timeline.ts';
import { withCluster } from './context.ts';
import type { BenchContext } from './context.ts';
import { pssMib } from './memory.ts';
import { describeMachine, series } from './report.ts';
import type { BenchReport } from './report.ts';
import { waitForObject } from './wait.ts';

async function cpuMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const CLOCK_TICK_MS = 10;
  return (Number(fields[11]) + Number(fields[12])) * CLOCK_TICK_MS;
}

/** Processes of VMs (emulator and its keeper) by what their command line names. */
async function vmProcesses(podId: string): Promise<number[]> {
  const pids: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (command.includes(podId) || command.includes(podId.slice(0, 13))) pids.push(Number(name));
  }
  return pids;
}

const POD_COUNT = 5;
/** Translation and boot work settle before an idle VM is looked at. */
const SETTLE_MS = 5_000;
const WATCH_MS = 10_000;

export function benchFootprint(paths: DataPaths, count?: number): Promise<BenchReport> {
  return withCluster(paths, async (context) => {
    const podCount = count ?? POD_COUNT;
    const status = await queryStatus(paths.supervisorSocket);
    const components = [
      { name: 'supervisor', pid: status?.pid },
      ...(status?.components ?? []),
    ].flatMap(({ name, pid }) => (pid === undefined ? [] : [{ name, pid }]));
    const idle = await Promise.all(components.map(({ pid }) => pssMib(pid)));
    const ids = await startIdlePods(context, podCount);
    await systemClock.sleep(SETTLE_MS);
    const pids = (await Promise.all(ids.map(vmProcesses))).filter((found) => found.length > 0);
    const before = await Promise.all(pids.flat().map(cpuMs));
    await systemClock.sleep(WATCH_MS);
    const after = await Promise.all(pids.flat().map(cpuMs));
    const perPod = await Promise.all(
      pids.map(async (found) => sum(await Promise.all(found.map(pssMib)))),
    );
    const loaded = await Promise.all(components.map(({ pid }) => pssMib(pid)));
    const usedMs = sum(after) - sum(before);
    return {
      name: 'footprint',
      machine: describeMachine(context.accelerator, context.kernel),
      series: [
        ...components.map(({ name }, index) =>
          series(`${name} idle`, [idle[index] ?? 0], 'MiB PSS'),
        ),
        series('control plane idle, together', [sum(idle)], 'MiB PSS'),
        series('idle pod (VMM and keeper)', perPod, 'MiB PSS'),
        series(`control plane with ${podCount} pods`, [sum(loaded)], 'MiB PSS'),
        series(
          'CPU of an idle pod',
          [(100 * usedMs) / WATCH_MS / Math.max(1, pids.length)],
          '% of a core',
        ),
      ],
      notes: [`Memory of ${pids.length} pods that sleep, ${SETTLE_MS / 1000} s after their start.`],
    };
  });
}

async function startIdlePods(context: BenchContext, count: number): Promise<string[]> {
  const { client, namespace, config } = context;
  const image = await pushDemoImage(config.registryPort);
  const ids: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const name = `idle-${index}`;
    const command = ['/bin/sh', '-c', 'echo here; sleep 100000'];
    await client.create(PODS, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace },
      spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'main', image, command }] },
    });
    const done = (candidate: Parameters<typeof timelineOf>[0]) =>
      timelineOf(candidate)['first-byte'] !== undefined;
    const pod = await waitForObject(client, PODS, { namespace, name }, done);
    ids.push(pod.metadata.uid ?? '');
  }
  return ids;
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
