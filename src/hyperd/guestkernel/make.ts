import { start } from '../../base/exec.ts';

export interface MakeOptions {
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
  /** Called for each line of standard output. */
  onLine: () => void;
}

/** What is kept of error output, from its end. */
const ERROR_BYTES_MAX = 16 << 10;
const ERROR_LINES_SHOWN = 12;
/** The machine has pods to run beside. */
const NICENESS = 10;

/**
 * Runs `make` to its end; all of its processes end when the signal aborts.
 * @throws Error with the first errors that it printed
 */
export async function runMake(args: string[], options: MakeOptions): Promise<void> {
  const { env, signal, onLine } = options;
  signal.throwIfAborted();
  // A group of its own: to end make alone would leave compilers behind.
  const child = start('nice', ['-n', String(NICENESS), 'make', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
    detached: true,
  });
  const end = () => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  };
  signal.addEventListener('abort', end, { once: true });
  let errors = '';
  try {
    child.stdout?.on('data', (chunk: Buffer) => {
      for (const byte of chunk) if (byte === 0x0a) onLine();
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      errors = `${errors}${chunk.toString('utf8')}`.slice(-ERROR_BYTES_MAX);
    });
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    signal.throwIfAborted();
    if (code !== 0) throw new Error(`Cannot compile the kernel:\n${summary(errors)}`);
  } finally {
    signal.removeEventListener('abort', end);
  }
}

/** The lines that tell of an error, or the last ones. */
function summary(errors: string): string {
  const lines = errors.trim().split('\n');
  const telling = lines.filter((line) => /error|No space left|Killed/i.test(line));
  const shown = telling.length > 0 ? telling.slice(0, ERROR_LINES_SHOWN) : lines.slice(-3);
  return shown.join('\n');
}
