import { basename } from 'node:path';
import type { HyperdInfo, PullImage } from '../../api/hyperd.ts';
import { isStatus } from '../../api/status.ts';
import { systemRandom } from '../../base/random.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import { UsageError } from '../errors.ts';
import { attachTo } from './attach.ts';
import { plain } from './format.ts';
import { ensureImage } from './images.ts';
import { readPodFile } from './pod-file.ts';
import { podRequest } from './pod-spec.ts';
import { RUN_CONTAINER, planRun } from './run-options.ts';
import type { RunOptions } from './run-options.ts';
import { hasStarted, untilPod } from './watch.ts';

const POLICIES: Record<NonNullable<RunOptions['pull']>, PullImage['policy']> = {
  always: 'always',
  missing: 'if-not-present',
  never: 'never',
};

/** What docker exits with when a container could not be made at all. */
const NOT_RUN_EXIT_CODE = 125;
/** What a shell exits with for a command that cannot be found. */
const NOT_STARTED_EXIT_CODE = 127;

/**
 * Runs an image in a new pod. In the foreground it is its exit code that is returned; a pod that
 * is let go of goes on.
 */
export async function run(
  client: HyperdClient,
  image: string,
  command: string[],
  options: RunOptions,
): Promise<number> {
  if (options.tty && !options.detach && options.interactive && !process.stdin.isTTY) {
    throw new UsageError('Cannot use -it: the standard input is no terminal. Leave -t out.');
  }
  const name = options.name ?? (await inventName(client, image));
  const { pod, volumes, ports } = await planRun(name, image, command, options);
  const found = await ensureImage(client, image, POLICIES[options.pull ?? 'missing']);
  const request = await podRequest({
    ...{ pod, volumes, ports, start: options.detach ?? false },
    images: new Map([[RUN_CONTAINER, found]]),
    info: await client.info(),
    whenDone: options.rm ? 'remove' : 'stop',
  });
  if (options.kernel !== undefined) request.spec.kernel = options.kernel;
  const [container] = request.containers;
  if (container && options.user !== undefined) container.process.user = options.user;
  await client.createNewPod(request).catch((error: unknown) => {
    throw isStatus(error, 'AlreadyExists')
      ? new UsageError(`Cannot run a pod "${name}": there is one. Remove it, or choose a --name.`)
      : error;
  });
  if (options.detach) return reportStart(client, name);
  return runAttached(client, name, options);
}

async function runAttached(
  client: HyperdClient,
  name: string,
  { interactive = false, tty = false }: RunOptions,
): Promise<number> {
  const target = { podId: name, containerId: RUN_CONTAINER };
  const how = { stdin: interactive, tty, canDetach: true, forwardsSignals: !tty };
  // Before it starts: nothing that it says is missed.
  const end = await attachTo(client, target, how, () => client.startPod(name));
  if (end.how === 'exit') {
    const { exitCode, reason, message } = end.exit;
    if (reason !== 'StartError') return reportEnd(client, name, exitCode, message);
    process.stderr.write(`hyperctl: cannot start the container: ${plain(message)}\n`);
    return NOT_STARTED_EXIT_CODE;
  }
  if (end.how === 'detached') {
    process.stderr.write(`\nlet go of "${name}"; "hyperctl attach ${name}" takes it up again\n`);
    return 0;
  }
  throw new UsageError(
    `Lost hyperd while "${name}" ran. "hyperctl attach ${name}" takes it up again.`,
  );
}

/** Why a pod came to nothing is its state's to tell, and not that of the container. */
async function reportEnd(
  client: HyperdClient,
  name: string,
  exitCode: number,
  message: string,
): Promise<number> {
  const state = await client.pod(name).catch(() => undefined);
  if (state?.reason !== 'StartFailed') return exitCode;
  process.stderr.write(`hyperctl: cannot start the pod: ${plain(message || state.message)}\n`);
  await client.deletePod(name).catch(() => {});
  return NOT_RUN_EXIT_CODE;
}

/** Waits until the containers have been started, and prints the name. */
async function reportStart(client: HyperdClient, name: string): Promise<number> {
  const state = await untilPod(client, name, hasStarted);
  if (state?.reason === 'StartFailed') {
    process.stderr.write(`hyperctl: cannot start the pod: ${plain(state.message)}\n`);
    await client.deletePod(name).catch(() => {});
    return NOT_RUN_EXIT_CODE;
  }
  const failed = state?.containers.find(({ exit }) => exit?.reason === 'StartError');
  process.stdout.write(`${name}\n`);
  if (!failed) return 0;
  const why = plain(failed.exit?.message ?? '');
  process.stderr.write(`hyperctl: cannot start container "${failed.name}": ${why}\n`);
  return NOT_STARTED_EXIT_CODE;
}

const NAME_CHARS_MAX = 40;
const NAME_ATTEMPTS_MAX = 16;

/** `busybox-3f2a`: of the image, and not taken. */
async function inventName(client: HyperdClient, image: string): Promise<string> {
  const taken = new Set((await client.pods()).map(({ id }) => id));
  const plain = basename(image.replace(/@.*$/, ''))
    .replace(/:.*$/, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  const stem = (plain || 'pod').slice(0, NAME_CHARS_MAX);
  for (let attempt = 0; attempt < NAME_ATTEMPTS_MAX; attempt++) {
    const name = `${stem}-${Buffer.from(systemRandom.bytes(2)).toString('hex')}`;
    if (!taken.has(name)) return name;
  }
  throw new UsageError('Cannot find a name that is not taken: choose one with --name.');
}

export interface CreateOptions {
  start?: boolean;
  pull?: RunOptions['pull'];
}

/** `pod create FILE`: makes the pod, and starts it if that is asked for. */
export async function createFromFile(
  client: HyperdClient,
  path: string,
  options: CreateOptions,
): Promise<number> {
  const { pod, volumes, ports } = await readPodFile(path);
  const images = new Map<string, Awaited<ReturnType<typeof ensureImage>>>();
  for (const { name, image = '', imagePullPolicy } of pod.spec?.containers ?? []) {
    const policy = options.pull ? POLICIES[options.pull] : policyOf(imagePullPolicy);
    images.set(name, await ensureImage(client, image, policy));
  }
  const info: HyperdInfo = await client.info();
  const start = options.start ?? false;
  const request = await podRequest({ pod, volumes, ports, images, info, start, whenDone: 'stop' });
  await client.createNewPod(request);
  const name = request.spec.id;
  if (options.start) return reportStart(client, name);
  process.stdout.write(`${name}\n`);
  return 0;
}

function policyOf(imagePullPolicy: string | undefined): PullImage['policy'] {
  if (imagePullPolicy === 'Always') return 'always';
  return imagePullPolicy === 'Never' ? 'never' : 'if-not-present';
}
