import { isStatus } from '../../api/status.ts';
import type { ExecRequest, ProcessSpec } from '../../api/hyperd.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import { UsageError } from '../errors.ts';
import { plain } from './format.ts';
import { parseEnvironment } from './run-options.ts';
import { joinTerminal } from './terminal.ts';
import type { StreamsEnd, StreamsOptions } from './terminal.ts';
import { findContainer, findPod } from './names.ts';

export interface Target {
  podId: string;
  containerId: string;
}

export interface AttachHow extends StreamsOptions {
  /** Whether signals of this process go to that one. */
  forwardsSignals: boolean;
}

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGQUIT'] as const;

/**
 * Joins this process' streams to those of a container.
 * @param begin called once they are joined
 */
export async function attachTo(
  client: HyperdClient,
  { podId, containerId }: Target,
  how: AttachHow,
  begin: () => Promise<unknown> = async () => {},
): Promise<StreamsEnd> {
  const over = new AbortController();
  const request = { stdin: how.stdin, stdout: true, stderr: true, endStdin: true };
  const socket = await client.attach(podId, containerId, request, over.signal);
  const forward = (signal: NodeJS.Signals) => {
    void client.signalContainer(podId, containerId, signal).catch(() => {});
  };
  if (how.forwardsSignals) for (const name of FORWARDED) process.on(name, forward);
  try {
    await begin();
    return await joinTerminal(socket, how);
  } finally {
    for (const name of FORWARDED) process.off(name, forward);
    over.abort();
  }
}

export async function attach(
  client: HyperdClient,
  podText: string,
  { container, stdin = true }: { container?: string; stdin?: boolean },
): Promise<number> {
  const pod = await findPod(client, podText);
  const containerId = findContainer(pod, container);
  const spec = await client.containerSpec(pod.id, containerId);
  const { tty } = spec.process;
  const how = { stdin: stdin && spec.stdin, tty, canDetach: true, forwardsSignals: !tty };
  const end = await attachTo(client, { podId: pod.id, containerId }, how);
  if (end.how === 'exit') return end.exit.exitCode;
  if (end.how === 'detached') return 0;
  throw new UsageError(`Lost hyperd. "hyperctl attach ${podText}" takes the pod up again.`);
}

export interface ExecOptions {
  interactive?: boolean;
  tty?: boolean;
  container?: string;
  env?: string[];
  workdir?: string;
  user?: string;
  privileged?: boolean;
}

/** Runs a further process in a container; returns its exit code. */
export async function exec(
  client: HyperdClient,
  podText: string,
  command: string[],
  options: ExecOptions,
): Promise<number> {
  const { interactive = false, tty = false } = options;
  if (tty && interactive && !process.stdin.isTTY) {
    throw new UsageError('Cannot use -it: the standard input is no terminal. Leave -t out.');
  }
  const pod = await findPod(client, podText);
  const containerId = findContainer(pod, options.container);
  const { process: own } = await client.containerSpec(pod.id, containerId);
  const request: ExecRequest = {
    process: execProcess(own, command, options),
    ...{ stdin: interactive, stdout: true, stderr: true, timeoutMs: 0 },
  };
  const over = new AbortController();
  const socket = await client.exec(pod.id, containerId, request, over.signal).catch(toCommandError);
  if (typeof socket === 'number') return socket;
  const end = await joinTerminal(socket, { stdin: interactive, tty, canDetach: false });
  if (end.how === 'exit') return end.exit.exitCode;
  throw new UsageError('Lost hyperd, and with it the command.');
}

/** Like the container's own process, but for what is said otherwise. */
function execProcess(own: ProcessSpec, argv: string[], options: ExecOptions): ProcessSpec {
  const { env = [], workdir = own.workingDir, user = own.user, tty = false } = options;
  const given = parseEnvironment(env).map(({ name, value }) => `${name}=${value}`);
  const term = tty && !own.tty ? ['TERM=xterm'] : [];
  return { ...own, argv, env: [...own.env, ...term, ...given], workingDir: workdir, user, tty };
}

const COMMAND_EXIT_CODES: [pattern: RegExp, exitCode: number][] = [
  [/not found|no such file/i, 127],
  [/permission denied|not executable/i, 126],
];

/** What a shell would exit with. */
function toCommandError(error: unknown): number {
  const isRefused = isStatus(error, 'Invalid');
  const { message } = error as Error;
  const [, exitCode] = COMMAND_EXIT_CODES.find(([pattern]) => pattern.test(message)) ?? [];
  if (!isRefused || exitCode === undefined) throw error;
  process.stderr.write(`hyperctl: ${plain(message)}\n`);
  return exitCode;
}
