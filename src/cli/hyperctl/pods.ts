import type { ContainerState, ImageStatus, PodState } from '../../api/hyperd.ts';
import { systemClock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import { CancelledError, UsageError } from '../errors.ts';
import { age, print } from '../output.ts';
import { table } from '../table.ts';
import { bytes, plain, printList } from './format.ts';
import type { ListOptions } from './format.ts';
import { findPod, imageName, isOfKubernetes, podName, refuseForeign } from './names.ts';
import { updatePod } from './update.ts';
import type { UpdateOptions } from './update.ts';
import { hasStarted, untilPod } from './watch.ts';

interface Force {
  force?: boolean;
}

/** What docker gives a container before it kills it. */
const GRACE_DEFAULT_S = 10;

/** One pod after the other, each by its name; goes on after a failure. */
async function each(
  client: HyperdClient,
  names: string[],
  work: (pod: PodState, name: string) => Promise<string | void>,
): Promise<number> {
  let exitCode = 0;
  for (const name of names) {
    try {
      process.stdout.write(`${(await work(await findPod(client, name), name)) ?? name}\n`);
    } catch (error) {
      process.stderr.write(`hyperctl: ${plain(describeError(error))}\n`);
      exitCode = 1;
    }
  }
  return exitCode;
}

/** Until their containers run, so that the next command finds them. */
export function start(client: HyperdClient, names: string[], { force }: Force): Promise<number> {
  return each(client, names, async (pod) => {
    refuseForeign(pod, 'start', force);
    await client.startPod(pod.id);
    const state = await untilPod(client, pod.id, hasStarted);
    if (state?.reason === 'StartFailed') {
      throw new UsageError(`Cannot start pod "${podName(pod)}": ${state.message}`);
    }
  });
}

export function stop(
  client: HyperdClient,
  names: string[],
  { force, time = String(GRACE_DEFAULT_S) }: Force & { time?: string },
): Promise<number> {
  if (!/^\d{1,5}$/.test(time)) {
    throw new UsageError(`Cannot read --time "${time}": write it as whole seconds.`);
  }
  return each(client, names, async (pod) => {
    refuseForeign(pod, 'stop', force);
    await client.stopPod(pod.id, undefined, Number(time) * 1000);
  });
}

export function kill(
  client: HyperdClient,
  names: string[],
  { force, signal = 'KILL', container }: Force & { signal?: string; container?: string },
): Promise<number> {
  return each(client, names, async (pod) => {
    refuseForeign(pod, 'kill', force);
    const running = pod.containers.filter(({ phase }) => phase === 'running');
    const meant = container ? running.filter(({ name }) => name === container) : running;
    if (meant.length === 0) {
      throw new UsageError(`Cannot kill pod "${podName(pod)}": none of its containers runs.`);
    }
    for (const { id } of meant) await client.signalContainer(pod.id, id, signal);
  });
}

export function pause(client: HyperdClient, names: string[], { force }: Force): Promise<number> {
  return each(client, names, async (pod) => {
    refuseForeign(pod, 'pause', force);
    await client.pausePod(pod.id);
  });
}

export function unpause(client: HyperdClient, names: string[], { force }: Force): Promise<number> {
  return each(client, names, async (pod) => {
    refuseForeign(pod, 'unpause', force);
    await client.unpausePod(pod.id);
  });
}

export function update(
  client: HyperdClient,
  names: string[],
  options: UpdateOptions,
): Promise<number> {
  return each(client, names, (pod) => updatePod(client, pod, options));
}

export async function remove(
  client: HyperdClient,
  names: string[],
  { force, all }: Force & { all?: boolean },
): Promise<number> {
  const meant = all
    ? (await client.pods()).filter((pod) => !isOfKubernetes(pod)).map(({ id }) => id)
    : names;
  if (meant.length === 0 && !all) throw new UsageError('Cannot remove a pod: name one, or --all.');
  return each(client, meant, async (pod) => {
    refuseForeign(pod, 'remove', force);
    const isRunning = pod.phase === 'running' || pod.phase === 'creating';
    if (isRunning && !force) {
      throw new UsageError(
        `Cannot remove pod "${podName(pod)}": it runs. Stop it, or use --force.`,
      );
    }
    await client.deletePod(pod.id);
  });
}

/** Prints the exit code of each pod: that of its containers that is not 0, if there is one. */
export function wait(client: HyperdClient, names: string[]): Promise<number> {
  return each(client, names, async (pod) => {
    const isOver = (state: PodState) => state.phase === 'stopped' || hasEnded(state.containers);
    const state = await untilPod(client, pod.id, isOver);
    if (!state) throw new UsageError(`Pod "${podName(pod)}" was removed.`);
    return String(exitCodeOf(state.containers));
  });
}

function hasEnded(containers: ContainerState[]): boolean {
  return containers.length > 0 && containers.every(({ phase }) => phase === 'exited');
}

function exitCodeOf(containers: ContainerState[]): number {
  const codes = newest(containers).map(({ exit }) => exit?.exitCode ?? 0);
  return codes.find((code) => code !== 0) ?? 0;
}

/** The newest attempt of each. */
function newest(containers: ContainerState[]): ContainerState[] {
  return [...new Map(containers.map((container) => [container.name, container])).values()];
}

export interface PsOptions extends ListOptions {
  all?: boolean;
  quiet?: boolean;
}

/** Pods that run, or all of them. */
export async function list(client: HyperdClient, options: PsOptions): Promise<void> {
  const pods = await client.pods();
  const shown = pods
    .filter(({ phase }) => options.all || phase === 'running' || phase === 'creating')
    .toSorted((a, b) => (b.timings.requested ?? 0) - (a.timings.requested ?? 0));
  if (options.quiet) {
    for (const { id } of shown) process.stdout.write(`${id}\n`);
    return;
  }
  const images = await client.images();
  const header = ['NAME', 'IMAGE', 'STATUS', 'ADDRESS', 'PORTS', 'AGE'];
  printList(options, shown, header, (pod) => [
    podName(pod),
    imagesOf(pod, images),
    statusOf(pod),
    pod.address || '-',
    portsOf(pod) || '-',
    age(pod.timings.requested ? new Date(pod.timings.requested).toISOString() : undefined),
  ]);
}

function imagesOf({ containers }: PodState, images: ImageStatus[]): string {
  return [...new Set(newest(containers).map(({ imageId }) => imageName(images, imageId)))].join(
    ', ',
  );
}

/** `Running`, `Exited (1)`, `Failed: GuestPanic`. */
function statusOf({ phase, paused, reason, containers }: PodState): string {
  if (paused) return 'Paused';
  if (phase !== 'stopped') return phase.charAt(0).toUpperCase() + phase.slice(1);
  if (reason !== '' && reason !== 'PoweredOff') return `Failed (${reason})`;
  return `Exited (${exitCodeOf(containers)})`;
}

function portsOf({ ports }: PodState): string {
  return ports
    .map(({ hostAddress, hostPort, guestPort, problem }) => {
      const arrow = problem === '' ? '->' : '-x-';
      return `${hostAddress}:${hostPort}${arrow}${guestPort}`;
    })
    .join(', ');
}

/** Port mappings, a line each. */
export async function ports(
  client: HyperdClient,
  name: string,
  options: ListOptions,
): Promise<void> {
  const pod = await findPod(client, name);
  printList(options, pod.ports, ['CONTAINER PORT', 'LISTENS ON', 'PROBLEM'], (port) => [
    `${port.guestPort}/tcp`,
    `${port.hostAddress}:${port.hostPort}`,
    port.problem || '-',
  ]);
}

/** Everything that hyperd knows of pods, with their containers as they were started. */
export async function inspect(client: HyperdClient, names: string[]): Promise<void> {
  const found = await Promise.all(
    names.map(async (name) => {
      const pod = await findPod(client, name);
      const specs = pod.containers.map(({ id }) => client.containerSpec(pod.id, id));
      const containers = await Promise.all(specs);
      return { ...pod, containerSpecs: containers };
    }),
  );
  print(true, found, () => '');
}

const STATS_INTERVAL_MS = 1_000;

export interface StatsOptions extends ListOptions {
  stream?: boolean;
}

interface Usage {
  pod: string;
  /** Hundredths of one processor since the sample before. */
  cpuPercent: number;
  memoryBytes: number;
  hostMemoryBytes: number;
}

/** What pods use: once over an interval, or again and again. */
export async function stats(
  client: HyperdClient,
  names: string[],
  { format, stream = true }: StatsOptions,
): Promise<void> {
  const over = new AbortController();
  const end = () => over.abort(new CancelledError());
  process.once('SIGINT', end);
  const isLive = stream && format !== 'json' && process.stdout.isTTY;
  let before = await sample(client, names);
  do {
    await systemClock.sleep(STATS_INTERVAL_MS, over.signal);
    const now = await sample(client, names);
    const usages = [...now].map(([pod, use]) => usageOf(pod, before.get(pod), use));
    before = now;
    const text = () =>
      table(
        ['NAME', 'CPU', 'MEMORY', 'ON THIS MACHINE'],
        usages.map(({ pod, cpuPercent, memoryBytes, hostMemoryBytes }) => [
          ...[pod, `${cpuPercent.toFixed(1)} %`],
          ...[bytes(memoryBytes), bytes(hostMemoryBytes)],
        ]),
      );
    if (isLive) process.stdout.write('\x1b[H\x1b[2J');
    print(format === 'json', usages, text);
  } while (isLive);
  process.off('SIGINT', end);
}

interface Sample {
  cpuNanos: number;
  atMs: number;
  memoryBytes: number;
  hostMemoryBytes: number;
}

async function sample(client: HyperdClient, names: string[]): Promise<Map<string, Sample>> {
  const pods =
    names.length > 0
      ? await Promise.all(names.map((name) => findPod(client, name)))
      : (await client.pods()).filter(({ phase, paused }) => phase === 'running' && !paused);
  const samples = await Promise.all(
    pods.map(async (pod) => {
      const { cpuNanos, memoryBytes, hostMemoryBytes } = await client.stats(pod.id);
      const atMs = systemClock.monotonicMs();
      return [podName(pod), { cpuNanos, atMs, memoryBytes, hostMemoryBytes }] as const;
    }),
  );
  return new Map(samples);
}

function usageOf(pod: string, before: Sample | undefined, now: Sample): Usage {
  const passedNanos = before ? (now.atMs - before.atMs) * 1e6 : 0;
  const cpuPercent =
    before && passedNanos > 0 ? ((now.cpuNanos - before.cpuNanos) / passedNanos) * 100 : 0;
  const { memoryBytes, hostMemoryBytes } = now;
  return { pod, cpuPercent: Math.max(0, cpuPercent), memoryBytes, hostMemoryBytes };
}
