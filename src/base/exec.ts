import { spawn } from 'node:child_process';
import type { ChildProcess, SpawnOptions } from 'node:child_process';

/**
 * The one door to other programs. Arguments are always a list: nothing passes through a shell.
 */
export interface ExecResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

export interface ExecOptions {
  input?: string | Uint8Array;
  signal?: AbortSignal;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Ends the program with SIGKILL. @default 60_000 */
  timeoutMs?: number;
}

export type Exec = (command: string, args: string[], options?: ExecOptions) => Promise<ExecResult>;

/** What is kept of each output stream; more is cut, so that a chatty program costs no memory. */
const OUTPUT_LIMIT_BYTES = 4 << 20;

/** A program that ran and failed. `message` carries what it printed to stderr. */
export class ExecError extends Error {
  override name = 'ExecError';
  readonly exitCode: number;
  readonly stderr: string;
  constructor(command: string, result: ExecResult) {
    const detail = result.stderr.trim().slice(0, 2000) || result.stdout.trim().slice(0, 2000);
    super(`Cannot run ${command}: exit code ${result.exitCode}${detail ? `: ${detail}` : ''}`);
    this.exitCode = result.exitCode;
    this.stderr = result.stderr;
  }
}

/** Runs a program to its end and returns what it printed; does not judge its exit code. */
export const execute: Exec = (command, args, options = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      env: options.env ?? process.env,
      cwd: options.cwd,
      signal: options.signal,
      timeout: options.timeoutMs ?? 60_000,
      killSignal: 'SIGKILL',
    });
    const output = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
    for (const name of ['stdout', 'stderr'] as const) {
      let size = 0;
      child[name]?.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size <= OUTPUT_LIMIT_BYTES) output[name].push(chunk);
      });
    }
    child.on('error', reject);
    child.on('close', (code) => {
      resolve({
        exitCode: code ?? 137,
        stdout: Buffer.concat(output.stdout).toString('utf8'),
        stderr: Buffer.concat(output.stderr).toString('utf8'),
      });
    });
    if (options.input !== undefined) {
      // A program that ends without reading its input is judged by its exit code alone.
      child.stdin?.on('error', () => {});
      child.stdin?.end(options.input);
    }
  });

/** Runs a program and throws `ExecError` unless it exits with 0. Returns its standard output. */
export async function run(command: string, args: string[], options?: ExecOptions): Promise<string> {
  const result = await execute(command, args, options);
  if (result.exitCode !== 0) throw new ExecError(`${command} ${args.join(' ')}`, result);
  return result.stdout;
}

/** Starts a long-running program. The caller owns it and has to end and await it. */
export function start(command: string, args: string[], options: SpawnOptions = {}): ChildProcess {
  return spawn(command, args, options);
}
