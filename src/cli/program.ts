import { CommanderError } from 'commander';
import type { Command } from 'commander';
import { describeError } from '../base/log.ts';
import { CancelledError, UsageError } from './errors.ts';

/** 128 and the number of SIGINT, as a shell has it. */
const INTERRUPTED_EXIT_CODE = 130;

/**
 * Runs the command that the process was called with. What goes wrong is said under the program's
 * name, and becomes the exit code.
 *
 * @param check throws what keeps the command from being run
 * @param show how a failure's text is fit for the terminal
 */
export async function runProgram(
  program: Command,
  { check = () => {}, show = (text) => text }: RunOptions = {},
): Promise<void> {
  try {
    check();
    await program.parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode;
    } else if (error instanceof CancelledError) {
      process.exitCode = INTERRUPTED_EXIT_CODE;
    } else {
      process.stderr.write(`${program.name()}: ${show(describeFailure(error))}\n`);
      process.exitCode = 1;
    }
  }
}

interface RunOptions {
  check?: () => void;
  show?: (text: string) => string;
}

function describeFailure(error: unknown): string {
  if (error instanceof UsageError) return error.message;
  const stack = process.env.HYPERNETES_DEBUG && error instanceof Error ? `\n${error.stack}` : '';
  return `${describeError(error)}${stack}`;
}
