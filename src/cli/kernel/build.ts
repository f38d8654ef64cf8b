import { availableParallelism } from 'node:os';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { buildKernel, planBuild } from '../../hyperd/guestkernel/build.ts';
import type { BuildPlan, BuildProgress } from '../../hyperd/guestkernel/build.ts';
import { readKernelImage } from '../../hyperd/guestkernel/image.ts';
import type { Kernel, KernelStore } from '../../hyperd/guestkernel/store.ts';
import { describeError } from '../../base/log.ts';
import type { DataPaths } from '../config.ts';
import { UsageError } from '../errors.ts';
import { print } from '../output.ts';
import { interruptible } from './import.ts';
import { summary } from './manage.ts';
import type { KernelFlags } from './manage.ts';
import { withKernels } from './store.ts';
import { tryKernel } from './try.ts';

export interface BuildFlags extends KernelFlags {
  jobs?: string;
}

const HYPER_NAME = 'hyper';
const FRAGMENT_PATH = new URL('../../../guest/kernel/hyper.config', import.meta.url).pathname;
const JOBS_MAX = 256;
/** Of a build that prints to a file: how often it says how far it is. */
const REPORT_STEP_PERCENT = 10;

/** Builds the hyper kernel, unless the same has been built before, and runs a pod with it. */
export async function buildHyperKernel(
  dataDir: string | undefined,
  flags: BuildFlags,
): Promise<void> {
  const jobs = parseJobs(flags.jobs);
  const startMs = systemClock.monotonicMs();
  await withKernels(dataDir, async (store, paths) => {
    const { signal } = interruptible();
    const plan = await planBuild({ fragmentPath: FRAGMENT_PATH, signal }).catch(explain);
    const known = (await store.list()).find(({ buildKey }) => buildKey === plan.key);
    const kernel = known
      ? await named(store, known)
      : await build(store, paths, plan, jobs, signal);
    const seconds = Math.round((systemClock.monotonicMs() - startMs) / 1000);
    print(flags.json, { ...summary(kernel), isNew: !known }, () => {
      const how = known ? 'was built before from the same' : `is built, in ${seconds} s`;
      return (
        `Kernel "${HYPER_NAME}" ${how}: Linux ${kernel.release}, ${plan.sourcePackage} ${plan.sourceVersion}.\n` +
        `Make it the default of this node with "hypernetes kernel use ${HYPER_NAME}".\n`
      );
    });
  });
}

function parseJobs(text: string | undefined): number {
  if (text === undefined) return availableParallelism();
  const jobs = Number(text);
  if (Number.isInteger(jobs) && jobs >= 1 && jobs <= JOBS_MAX) return jobs;
  throw new UsageError(`Cannot use --jobs "${text}": wanted a whole number from 1 to ${JOBS_MAX}.`);
}

async function build(
  store: KernelStore,
  paths: DataPaths,
  plan: BuildPlan,
  jobs: number,
  signal: AbortSignal,
): Promise<Kernel> {
  const built = await buildKernel(plan, {
    fragmentPath: FRAGMENT_PATH,
    // Named so that the store removes it where this process does not live to do so.
    workDirectory: join(paths.kernels, `.new-${process.pid}-build`),
    jobs,
    signal,
    onProgress: progressPrinter(process.stderr),
  }).catch(explain);
  process.stderr.write('running a pod with it\n');
  const { release } = await readKernelImage(built.vmlinux);
  const content = { vmlinux: built.vmlinux, modules: Buffer.alloc(0) };
  await tryKernel(paths, content, signal);
  const { sourcePackage, sourceVersion, key } = plan;
  const origin = `built from ${sourcePackage} ${sourceVersion}`;
  return store.import(
    HYPER_NAME,
    { ...content, release, origin, config: built.config, buildKey: key },
    { replace: true },
  );
}

/** The same content again: it may have lost its name to another. */
async function named(store: KernelStore, kernel: Kernel): Promise<Kernel> {
  if (kernel.names.includes(HYPER_NAME)) return kernel;
  const vmlinux = await readFile(kernel.kernelPath);
  const { release, origin } = kernel;
  const content = { vmlinux, modules: Buffer.alloc(0), release, origin };
  return store.import(HYPER_NAME, content, { replace: true });
}

/** One line a step; on a terminal the compilation counts on in its line. */
export function progressPrinter(
  output: Pick<NodeJS.WriteStream, 'isTTY' | 'write'>,
): (progress: BuildProgress) => void {
  let step = 0;
  let told = -1;
  return ({ step: number, stepCount, title, fraction }) => {
    const percent = fraction === undefined ? 0 : Math.floor(fraction * 100);
    const isNew = number !== step;
    const wait = output.isTTY ? 1 : REPORT_STEP_PERCENT;
    if (!isNew && percent < told + wait) return;
    if (isNew && step > 0 && output.isTTY) output.write('\n');
    [step, told] = [number, percent];
    const line = `[${number}/${stepCount}] ${title}${fraction === undefined ? '' : `: ${percent} %`}`;
    output.write(output.isTTY ? `\r${line}` : `${line}\n`);
  };
}

function explain(error: unknown): never {
  if (error instanceof Error && error.message.startsWith('Cannot ')) {
    throw new UsageError(describeError(error));
  }
  throw error;
}
