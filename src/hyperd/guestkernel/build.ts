import { createHash } from 'node:crypto';
import { access, mkdir, readFile, readdir, rm, statfs } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { ExecError, run } from '../../base/exec.ts';
import { describeError } from '../../base/log.ts';
import { parseKernelConfig } from './config.ts';
import type { KernelConfig } from './config.ts';
import { runMake } from './make.ts';

/**
 * Builds the hyper kernel: Debian's `linux-source` package with our own configuration. Nothing is
 * installed and nothing of the host's boot is touched; the source goes when the kernel is built.
 */
export interface KernelBuildOptions {
  /** `guest/kernel/hyper.config`. */
  fragmentPath: string;
  /** Made, and removed in the end, whatever the end is. */
  workDirectory: string;
  /** How many files are compiled at the same time. */
  jobs: number;
  onProgress: (progress: BuildProgress) => void;
  signal: AbortSignal;
  /** Where programs are found; of the process by default. */
  env?: NodeJS.ProcessEnv;
  /** Where they are looked for beside the `PATH` of that. @default those of every system */
  systemDirectories?: string[];
  /** @default /usr/include */
  headerDirectory?: string;
}

export interface BuildProgress {
  step: number;
  stepCount: number;
  title: string;
  /** Of the compilation: how much is done, 0 to 1. The end may come before 1. */
  fraction?: number;
}

/** What a kernel would be built from. */
export interface BuildPlan {
  /** Such as `linux-source-6.1`. */
  sourcePackage: string;
  sourceVersion: string;
  /** The same key, the same kernel: source package, configuration, compiler. */
  key: string;
}

export interface BuiltKernel {
  vmlinux: Buffer;
  config: string;
}

/** Package, sources and objects: 1.6 GiB were seen, and newer sources are larger. */
const DISK_MIB_MIN = 3072;
const META_PACKAGE = 'linux-source';
const DOWNLOAD_TIMEOUT_MS = 1_800_000;
const UNPACK_TIMEOUT_MS = 1_200_000;
const CONFIGURE_TIMEOUT_MS = 600_000;
const STEP_COUNT = 5;
/** Lines that `make` prints for our configuration, for telling how far it is. */
const MAKE_LINES = 2100;
const SYSTEM_DIRECTORIES = ['/usr/bin', '/bin'];

/** Program → Debian's package. */
const PROGRAMS: Record<string, string> = {
  make: 'make',
  gcc: 'gcc',
  ld: 'binutils',
  strip: 'binutils',
  flex: 'flex',
  bison: 'bison',
  bc: 'bc',
  tar: 'tar',
  xz: 'xz-utils',
  'dpkg-deb': 'dpkg',
};
const HEADERS: Record<string, string> = { 'libelf.h': 'libelf-dev' };

/** The same source gives the same bytes, whoever builds it and when. */
const REPRODUCIBLE = {
  KBUILD_BUILD_USER: 'hypernetes',
  KBUILD_BUILD_HOST: 'hyper',
  KBUILD_BUILD_VERSION: '1',
  KBUILD_BUILD_TIMESTAMP: 'Thu Jan  1 00:00:00 UTC 1970',
};

/**
 * Finds out what would be built. Asks nobody outside of the machine.
 * @throws Error naming the packages that are missing, or that apt knows no source
 */
export async function planBuild(
  options: Omit<KernelBuildOptions, 'workDirectory' | 'jobs' | 'onProgress'>,
): Promise<BuildPlan> {
  const path = (options.env ?? process.env)['PATH'] ?? '';
  const beside = options.systemDirectories ?? SYSTEM_DIRECTORIES;
  const headers = options.headerDirectory ?? '/usr/include';
  await requireTools([...path.split(delimiter), ...beside], headers);
  const { env, signal } = options;
  const depends = await run('apt-cache', ['depends', META_PACKAGE], { env, signal }).catch(empty);
  const sourcePackage = /Depends: (linux-source-\S+)/.exec(depends)?.[1];
  if (sourcePackage === undefined) {
    throw new Error(
      `Cannot build a kernel: apt does not know the package ${META_PACKAGE}. ` +
        'Run "apt-get update" and look at the sources in /etc/apt.',
    );
  }
  const shown = await run('apt-cache', ['show', '--no-all-versions', sourcePackage], {
    env,
    signal,
  });
  const sourceVersion = /^Version: (\S+)$/m.exec(shown)?.[1] ?? 'unknown';
  const compiler = (await run('gcc', ['--version'], { env, signal })).split('\n')[0] ?? '';
  const wanted = parseKernelConfig(await readFile(options.fragmentPath, 'utf8'));
  const lines = [...wanted].map(([name, value]) => `${name}=${value}`).sort();
  const parts = [sourcePackage, sourceVersion, compiler, ...lines];
  const key = createHash('sha256').update(parts.join('\n')).digest('hex');
  return { sourcePackage, sourceVersion, key };
}

/**
 * Fetches, unpacks, configures and compiles: some minutes of all processors.
 * @throws Error naming the step that failed and what helps
 */
export async function buildKernel(
  plan: BuildPlan,
  options: KernelBuildOptions,
): Promise<BuiltKernel> {
  const { workDirectory } = options;
  const step = (number: number, title: string, fraction?: number) =>
    options.onProgress({
      step: number,
      stepCount: STEP_COUNT,
      title,
      ...(fraction === undefined ? {} : { fraction }),
    });
  const { sourcePackage, sourceVersion } = plan;
  await mkdir(workDirectory, { recursive: true, mode: 0o700 });
  try {
    await requireDisk(workDirectory);
    step(1, `fetching ${sourcePackage} ${sourceVersion} (it is not installed)`);
    await download(sourcePackage, options);
    step(2, 'unpacking the source');
    const source = await unpack(sourcePackage, options);
    step(3, 'configuring');
    const out = join(workDirectory, 'out');
    const config = await configure(source, out, options);
    step(4, 'compiling', 0);
    let lines = 0;
    await compile(source, out, options, () => {
      lines += 1;
      step(4, 'compiling', Math.min(1, lines / MAKE_LINES));
    });
    step(5, 'taking symbols away');
    const stripped = join(workDirectory, 'vmlinux');
    await run('strip', ['--strip-all', '-o', stripped, join(out, 'vmlinux')], options);
    return { vmlinux: await readFile(stripped), config };
  } catch (error) {
    options.signal.throwIfAborted();
    throw await whyNot(error, workDirectory);
  } finally {
    await rm(workDirectory, { recursive: true, force: true });
  }
}

async function requireTools(directories: string[], headerDirectory: string): Promise<void> {
  const exists = (path: string) =>
    access(path).then(
      () => true,
      () => false,
    );
  const missing = new Set<string>();
  for (const [program, debian] of Object.entries(PROGRAMS)) {
    const found = await Promise.all(directories.map((each) => exists(join(each, program))));
    if (!found.includes(true)) missing.add(debian);
  }
  for (const [header, debian] of Object.entries(HEADERS)) {
    if (!(await exists(join(headerDirectory, header)))) missing.add(debian);
  }
  if (missing.size === 0) return;
  const list = [...missing].sort().join(' ');
  throw new Error(
    `Cannot build a kernel: tools are missing. Install them with "apt-get install ${list}".`,
  );
}

async function requireDisk(directory: string): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const freeMib = Math.floor((bavail * bsize) / 2 ** 20);
  if (freeMib >= DISK_MIB_MIN) return;
  throw new Error(
    `Cannot build a kernel in "${directory}": ${freeMib} MiB of disk are free, ` +
      `${DISK_MIB_MIN} are needed while it is built. Make room or use --data-dir.`,
  );
}

async function download(
  sourcePackage: string,
  { workDirectory, env, signal }: KernelBuildOptions,
): Promise<void> {
  // apt's own user could not write there.
  const args = ['-q', '-o', 'APT::Sandbox::User=root', 'download', sourcePackage];
  const options = { cwd: workDirectory, timeoutMs: DOWNLOAD_TIMEOUT_MS, env, signal };
  await run('apt-get', args, options).catch((error: unknown) => {
    signal.throwIfAborted();
    throw new Error(
      `Cannot fetch ${sourcePackage}: ${describeError(error)}. Is the network up, do the sources ` +
        'in /etc/apt answer, and are the lists new ("apt-get update")?',
    );
  });
}

async function unpack(
  sourcePackage: string,
  { workDirectory, env, signal }: KernelBuildOptions,
): Promise<string> {
  const options = { cwd: workDirectory, timeoutMs: UNPACK_TIMEOUT_MS, env, signal };
  const deb = (await readdir(workDirectory)).find((name) => name.endsWith('.deb'));
  if (deb === undefined) throw new Error('Cannot find the source: apt-get download left no file');
  await run('dpkg-deb', ['-x', deb, 'package'], options);
  await rm(join(workDirectory, deb));
  const archive = join('package/usr/src', `${sourcePackage}.tar.xz`);
  await run('tar', ['-xf', archive], options);
  await rm(join(workDirectory, 'package'), { recursive: true });
  return join(workDirectory, sourcePackage);
}

/** @returns the configuration, once every line of ours has taken effect */
async function configure(
  source: string,
  out: string,
  { fragmentPath, env, signal }: KernelBuildOptions,
): Promise<string> {
  const args = ['-s', '-C', source, `O=${out}`, `KCONFIG_ALLCONFIG=${fragmentPath}`];
  await mkdir(out);
  const options = { env: { ...(env ?? process.env), ...REPRODUCIBLE }, signal };
  await run('make', [...args, 'allnoconfig'], { ...options, timeoutMs: CONFIGURE_TIMEOUT_MS });
  const config = await readFile(join(out, '.config'), 'utf8');
  const wanted = parseKernelConfig(await readFile(fragmentPath, 'utf8'));
  const ignored = differences(wanted, parseKernelConfig(config));
  if (ignored.length === 0) return config;
  throw new Error(
    `Cannot configure the kernel: this source does not take ${ignored.join(', ')} of ${fragmentPath}`,
  );
}

function differences(wanted: KernelConfig, actual: KernelConfig): string[] {
  return [...wanted]
    .filter(([name, value]) => (actual.get(name) ?? 'n') !== value)
    .map(([name, value]) => `CONFIG_${name}=${value}`);
}

async function compile(
  source: string,
  out: string,
  { jobs, env, signal }: KernelBuildOptions,
  onLine: () => void,
): Promise<void> {
  const args = ['-C', source, `O=${out}`, `-j${jobs}`, 'vmlinux'];
  await runMake(args, { env: { ...(env ?? process.env), ...REPRODUCIBLE }, signal, onLine });
}

async function whyNot(error: unknown, directory: string): Promise<unknown> {
  const text = error instanceof ExecError ? error.stderr : describeError(error);
  if (!/No space left on device/.test(text)) return error;
  const { bavail, bsize } = await statfs(directory);
  const freeMib = Math.floor((bavail * bsize) / 2 ** 20);
  return new Error(
    `Cannot build a kernel in "${directory}": the disk is full (${freeMib} MiB are free). ` +
      `${DISK_MIB_MIN} MiB are needed while it is built. Make room or use --data-dir.`,
  );
}

const empty = () => '';
