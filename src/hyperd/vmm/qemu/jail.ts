import { open, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { ChildProcess } from 'node:child_process';
import { start } from '../../../base/exec.ts';
import { readFileIfExists } from '../../../base/files.ts';
import type { Clock } from '../../../base/clock.ts';
import { HypervisorError } from '../hypervisor.ts';
import { parseExitRecord } from './verdict.ts';
import type { ExitRecord } from './verdict.ts';

/** A process, named for ever: PIDs are used again, a start time with its PID is not. */
export interface ProcessIdentity {
  pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks since the host's boot. */
  startTicks: number;
}

/** The two processes of a jailed VM, as `jail.json` in its directory names them. */
export interface JailProcesses {
  keeper: ProcessIdentity;
  vmm: ProcessIdentity;
}

/** How long the keeper may take from the emulator's end to its own; then it is taken for stuck. */
const KEEPER_END_TIMEOUT_MS = 15_000;
const POLL_MS = 5;
const JAIL_OUTPUT_BYTES_MAX = 8192;

/**
 * Runs hyperjail until the cell is about to become the emulator. The jail stays behind as the
 * VM's keeper, in a session of its own, so that nothing that happens to this process reaches it.
 */
export async function startJail(
  jailPath: string,
  args: string[],
  directory: string,
  signal?: AbortSignal,
): Promise<JailProcesses> {
  signal?.throwIfAborted();
  const child = start(jailPath, args, {
    cwd: '/',
    detached: true,
    env: {},
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // Never killed half-way: what it had forked by then would run on, with nothing to find it by.
  // It says within milliseconds that it has started, and can then be ended in order.
  const { text, error } = await jailOutput(child);
  child.unref();
  if (error !== undefined) {
    throw new HypervisorError('Failed', `Cannot run "${jailPath}": ${error.message}`, error);
  }
  if (text.trim() !== 'started') {
    throw new HypervisorError('Failed', `Cannot jail the VM: ${text.trim() || 'no reason given'}`);
  }
  const processes = await readJailProcesses(directory);
  if (processes === undefined) throw new HypervisorError('Failed', 'Cannot read jail.json');
  return processes;
}

/** Both ends are closed by the jail as soon as the cell runs, or by its death. */
function jailOutput(child: ChildProcess): Promise<{ text: string; error?: Error }> {
  return new Promise((resolve) => {
    let text = '';
    let open = 2;
    const collect = (chunk: Buffer) => {
      if (text.length < JAIL_OUTPUT_BYTES_MAX) text += chunk.toString('utf8');
    };
    const ended = () => {
      open -= 1;
      if (open === 0) resolve({ text });
    };
    child.on('error', (error) => resolve({ text, error }));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', collect);
      stream?.on('end', ended);
    }
  });
}

export async function readJailProcesses(directory: string): Promise<JailProcesses | undefined> {
  const text = await readFileIfExists(join(directory, 'jail.json'));
  return text === undefined ? undefined : (JSON.parse(text) as JailProcesses);
}

export async function readExitRecord(directory: string): Promise<ExitRecord | undefined> {
  const text = await readFileIfExists(join(directory, 'exit.json'));
  return text === undefined ? undefined : parseExitRecord(text);
}

/** Whether that very process is still there. A zombie is not. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  const fields = await processStat(identity.pid);
  if (fields === undefined || fields[0] === 'Z' || fields[0] === 'X') return false;
  return Number(fields[19]) === identity.startTicks;
}

/** Fields of /proc/PID/stat from the third on: state is the first. */
export async function processStat(pid: number): Promise<string[] | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return text?.slice(text.lastIndexOf(')') + 2).split(' ');
}

/** Tells the keeper to end the VM. A keeper that is gone took the VM with it. */
export async function killJail(processes: JailProcesses): Promise<void> {
  if (await isAlive(processes.keeper)) signalProcess(processes.keeper.pid, 'SIGTERM');
  else if (await isAlive(processes.vmm)) signalProcess(processes.vmm.pid, 'SIGKILL');
}

function signalProcess(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/**
 * Waits until keeper and emulator are gone. Called when the monitor's connection has closed, so
 * the end is near and polling short.
 */
export async function awaitJailEnd(processes: JailProcesses, clock: Clock): Promise<void> {
  const deadline = clock.monotonicMs() + KEEPER_END_TIMEOUT_MS;
  while ((await isAlive(processes.keeper)) || (await isAlive(processes.vmm))) {
    if (clock.monotonicMs() > deadline) {
      signalProcess(processes.vmm.pid, 'SIGKILL');
      signalProcess(processes.keeper.pid, 'SIGKILL');
    }
    await clock.sleep(POLL_MS);
  }
}

/**
 * Connects to a socket in a VM's directory. The path goes through an open directory: the kernel
 * takes no more than 107 bytes, and data directories may be deep.
 */
export async function connectSocket(
  directory: string,
  name: string,
  signal?: AbortSignal,
): Promise<Socket> {
  signal?.throwIfAborted();
  const handle = await open(directory, 'r');
  try {
    return await new Promise<Socket>((resolve, reject) => {
      const socket = connect(`/proc/self/fd/${handle.fd}/${name}`);
      const abort = () => socket.destroy(signal?.reason as Error);
      const settle = () => signal?.removeEventListener('abort', abort);
      signal?.addEventListener('abort', abort, { once: true });
      socket.once('connect', () => {
        settle();
        socket.removeListener('error', reject);
        resolve(socket);
      });
      socket.once('error', (error) => {
        settle();
        reject(error);
      });
    });
  } finally {
    await handle.close();
  }
}
