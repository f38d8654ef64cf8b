import type { DataPaths } from '../src/cli/config.ts';
import { systemClock } from '../src/base/clock.ts';
import { pushDemoImage } from '../src/cli/demo/demo-image.ts';
import { PODS } from '../src/client/resources.ts';
import { withCluster } from './context.ts';
import type { BenchContext } from './context.ts';
import { createPattern } from './pattern.ts';
import type { Pattern } from './pattern.ts';
import { openCommand } from './remote-command.ts';
import type { RemoteCommand } from './remote-command.ts';
import { describeMachine, loadNote, series } from './report.ts';
import type { BenchReport } from './report.ts';
import { waitForObject } from './wait.ts';

/** Rounds of this size, 64 of them: 1 GiB. The block is a file in the pod's memory. */
const BLOCK_BYTES = 16 << 20;
const ROUND_COUNT = 64;
/** Of input, as kubectl sends it: one message each. */
const MESSAGE_BYTES = 32 << 10;
/** For each of the measurements: what is not over by then is broken off, and said. */
const TIME_MAX_MS = 300_000;
const NAME = 'streams';
const FILE = '/dev/shm/block';

/**
 * Bytes through exec of the Kubernetes API: out of a pod, into it, and both ways at once, each
 * checked byte by byte where it comes back to this side.
 */
export function benchStreams(paths: DataPaths, count = ROUND_COUNT): Promise<BenchReport> {
  return withCluster(paths, async (context) => {
    await startPod(context);
    const pattern = createPattern(BLOCK_BYTES);
    await upload(context, pattern);
    const load = loadNote();
    const out = await measureOut(context, pattern, count);
    const into = await measureInto(context, pattern, count);
    const both = await measureBoth(context, pattern, count);
    const checked = [out, both].map(({ byteCount }) => (byteCount / 1e9).toFixed(2));
    return {
      name: 'streams',
      machine: describeMachine(context.accelerator, context.kernel),
      series: [
        series(`out of a pod, ${MIB(BLOCK_BYTES)} each`, out.rates, 'MB/s'),
        series(`into a pod, ${MIB(BLOCK_BYTES)} each`, into.rates, 'MB/s'),
        series('through a pod and back (cat)', both.rates, 'MB/s'),
        series('all of it: out, into, through', [out, into, both].map(overall), 'MB/s'),
      ],
      notes: [
        `Checked byte by byte: ${checked[0]} GB out, ${checked[1]} GB in and out again; nothing lost, repeated or reordered.`,
        ...[out, into, both].flatMap(({ problem }) => (problem ? [problem] : [])),
        load,
      ],
    };
  });
}

const MIB = (bytes: number) => `${bytes >> 20} MiB`;

interface Measured {
  /** MB/s of each round. */
  rates: number[];
  byteCount: number;
  tookMs: number;
  /** Why it was broken off. */
  problem?: string;
}

function overall({ byteCount, tookMs }: Measured): number {
  return byteCount / 1e3 / tookMs;
}

async function startPod({ client, namespace, config }: BenchContext): Promise<void> {
  const image = await pushDemoImage(config.registryPort);
  const command = ['/bin/sleep', '100000'];
  await client.create(PODS, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: NAME, namespace },
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'main', image, command }] },
  });
  await waitForObject(
    client,
    PODS,
    { namespace, name: NAME },
    (pod) => pod.status?.phase === 'Running',
  );
}

async function upload(context: BenchContext, { block }: Pattern): Promise<void> {
  const signal = AbortSignal.timeout(TIME_MAX_MS);
  const command = await openCommand(context, NAME, ['/bin/sh', '-c', `cat > ${FILE}`], signal);
  await send(command.write, block);
  command.end();
  await command.done;
}

async function send(write: (bytes: Buffer) => Promise<void>, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; at += MESSAGE_BYTES) {
    await write(bytes.subarray(at, at + MESSAGE_BYTES));
  }
}

/** Notes when rounds were over, and what each of them took. */
function stopwatch() {
  const startMs = systemClock.monotonicMs();
  let lastMs = startMs;
  const rates: number[] = [];
  return {
    rates,
    lap(byteCount: number) {
      const nowMs = systemClock.monotonicMs();
      rates.push(byteCount / 1e3 / (nowMs - lastMs));
      lastMs = nowMs;
    },
    tookMs: () => systemClock.monotonicMs() - startMs,
  };
}

/** What was measured until the time was over; all other failures are the benchmark's. */
async function bounded(signal: AbortSignal, what: string, run: () => Promise<void>) {
  try {
    await run();
    return {};
  } catch (error) {
    if (!signal.aborted) throw error;
    return { problem: `${what} was broken off after ${TIME_MAX_MS / 1000} s.` };
  }
}

/** Runs a program whose output is compared with the pattern, round by round, and feeds it. */
async function measureChecked(
  context: BenchContext,
  pattern: Pattern,
  count: number,
  { what, argv }: { what: string; argv: string[] },
  feed: (command: RemoteCommand) => Promise<void>,
): Promise<Measured> {
  const signal = AbortSignal.timeout(TIME_MAX_MS);
  const watch = stopwatch();
  const checker = pattern.checker(() => watch.lap(BLOCK_BYTES));
  const outcome = await bounded(signal, what, async () => {
    const command = await openCommand(context, NAME, argv, signal, checker.take);
    await feed(command);
    command.end();
    await command.done;
    checkAll(watch.rates.length, count);
  });
  return { rates: watch.rates, byteCount: checker.byteCount, tookMs: watch.tookMs(), ...outcome };
}

function measureOut(context: BenchContext, pattern: Pattern, count: number): Promise<Measured> {
  const script = `i=0; while [ $i -lt ${count} ]; do printf '%015d\\n' $i; cat ${FILE}; i=$((i+1)); done`;
  const program = { what: 'What comes out of a pod', argv: ['/bin/sh', '-c', script] };
  return measureChecked(context, pattern, count, program, async () => {});
}

function checkAll(found: number, wanted: number): void {
  if (found !== wanted) throw new Error(`The stream ended after ${found} of ${wanted} rounds`);
}

async function measureInto(
  context: BenchContext,
  pattern: Pattern,
  count: number,
): Promise<Measured> {
  const signal = AbortSignal.timeout(TIME_MAX_MS);
  const watch = stopwatch();
  const outcome = await bounded(signal, 'What goes into a pod', async () => {
    const argv = ['/bin/sh', '-c', 'cat > /dev/null'];
    const command = await openCommand(context, NAME, argv, signal);
    for (let index = 0; index < count; index += 1) {
      await send(command.write, pattern.block);
      watch.lap(BLOCK_BYTES);
    }
    command.end();
    await command.done;
  });
  const byteCount = watch.rates.length * BLOCK_BYTES;
  return { rates: watch.rates, byteCount, tookMs: watch.tookMs(), ...outcome };
}

function measureBoth(context: BenchContext, pattern: Pattern, count: number): Promise<Measured> {
  const program = { what: 'What goes through a pod', argv: ['/bin/cat'] };
  return measureChecked(context, pattern, count, program, async (command) => {
    for (let index = 0; index < count; index += 1) {
      await Promise.race([send(command.write, pattern.round(index)), command.done]);
    }
  });
}
