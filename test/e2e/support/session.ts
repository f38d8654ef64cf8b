import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run, start } from '../../../src/base/exec.ts';

/** A program that runs on while a test talks to it. It ends with the test's block. */
export interface Session {
  /** Everything that it has printed so far, to either stream. */
  readonly output: string;
  send(text: string): void;
  endInput(): void;
  /** Resolves once the output matches. Rejects when the program ends before, or in time. */
  until(pattern: RegExp): Promise<RegExpExecArray>;
  /** Its exit code; 137 when it was killed. */
  readonly exited: Promise<number>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A session whose program has a terminal. */
export interface TerminalSession extends Session {
  resize(rows: number, columns: number): Promise<void>;
}

const PATIENCE_MS = 90_000;

export function startSession(
  command: string,
  args: string[],
  env: NodeJS.ProcessEnv = {},
): Session {
  const child = start(command, args, {
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let output = '';
  const looks = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      for (const look of looks) look();
    });
  }
  // What it does not read is judged by what it does.
  child.stdin?.on('error', () => {});
  const exited = new Promise<number>((resolve) => {
    child.on('error', () => resolve(127));
    child.on('close', (code) => resolve(code ?? 137));
  });
  return {
    get output() {
      return output;
    },
    send: (text) => void child.stdin?.write(text),
    endInput: () => void child.stdin?.end(),
    exited,
    until(pattern) {
      const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>();
      const fail = (why: string) =>
        reject(new Error(`${command} ${args.join(' ')} ${why} without ${pattern}:\n${output}`));
      const look = () => {
        const match = pattern.exec(output);
        if (match) resolve(match);
      };
      const timer = setTimeout(() => fail(`ran for ${PATIENCE_MS} ms`), PATIENCE_MS);
      looks.add(look);
      look();
      void exited.then(() => fail('ended'));
      return promise.finally(() => {
        clearTimeout(timer);
        looks.delete(look);
      });
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Runs a program on a terminal of its own, made by `script`. */
export async function startTerminal(
  command: string,
  args: string[],
  size: { rows: number; columns: number },
): Promise<TerminalSession> {
  const directory = await mkdtemp(join(tmpdir(), 'terminal-'));
  const device = join(directory, 'device');
  const quoted = [command, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const shell = `tty >${device}; stty rows ${size.rows} cols ${size.columns}; exec ${quoted}`;
  const session = startSession('script', ['-qefc', shell, '/dev/null'], { SHELL: '/bin/sh' });
  return {
    get output() {
      return session.output;
    },
    send: session.send,
    endInput: session.endInput,
    until: session.until,
    exited: session.exited,
    async resize(rows, columns) {
      const path = (await readFile(device, 'utf8')).trim();
      await run('stty', ['-F', path, 'rows', String(rows), 'cols', String(columns)]);
    },
    async [Symbol.asyncDispose]() {
      await session[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
